# What is asked over HTTP about a topic of this worker, and done to the subscriptions of a user: requests of no session.
#
# Rules: who asks has been checked by the control plane, names have not. Answers are Python objects; JSON in them is
# whole values.

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.session cimport Session


# The name of a topic that an administrator may subscribe others to. Raises RequestError.
cdef bytes checked_topic(str topic)
# Subscribes an open session, or ends that; it is told by a reply without id. Whether it is subscribed, or was; one that
# may have no more subscriptions is told so.
cdef bint subscribe_session(Core core, Session* session, bytes topic) noexcept
cdef bint unsubscribe_session(Core core, Session* session, bytes topic) noexcept
# The topic's home has answered: the session is subscribed, if it is not.
cdef void given_answered(Core core, Session* session, Slice name) noexcept
