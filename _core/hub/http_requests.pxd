# What is asked over HTTP about a topic of this worker, and done to the subscriptions of a user: requests of no session.
#
# Rules: who asks has been checked by the control plane, names have not. Answers are Python objects; JSON in them is
# whole values.

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.session cimport Session


# Subscribes the live sessions of a user, or ends that; each is told, by a reply without id. How many there were; one
# that may have no more subscriptions is told so and not counted. Raises RequestError.
cdef int subscribe_user(Core core, str user_id, str topic) except -1
cdef int unsubscribe_user(Core core, str user_id, str topic) except -1
# The topic's home has answered: the session is subscribed, if it is not.
cdef void given_answered(Core core, Session* session, Slice name) noexcept
