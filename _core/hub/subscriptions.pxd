# Subscribe and Unsubscribe: what was missed, complete or not at all, and then all that comes.
#
# Rules: the answer stands before the first message that comes live, with nothing between. Bytes of the request are
# borrowed; nothing here keeps them.

from libc.stdint cimport int64_t, uint64_t

from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.peers cimport Frame
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.topics cimport Topic
from realtime_communication._core.wire.envelope cimport Request


# Subscribe (an Outcome) and Unsubscribe; a session that lacks the permission gets an Error.
cdef int subscribe(Core core, Session* session, const Request* request) noexcept
cdef void unsubscribe(Core core, Session* session, const Request* request) noexcept
# Subscribes the session, if it is not; False when it was told that this cannot be.
cdef bint enter_topic(Core core, Session* session, const Request* request, Topic* topic) noexcept
# What another authority has answered; `bodies` holds nothing but bodies behind their sizes, the first with the offset
# `first`; NULL: the topic's own cache has what is wanted. The topic stands where the answer says.
cdef void subscribe_answered(Core core, Session* session, const Request* request, Topic* topic, bint recovered,
                             Frame* bodies, uint64_t first) noexcept
# Whether a mirror answers a Subscribe as its authority would.
cdef bint is_covered(const Topic* topic, bint has_position, uint64_t epoch, uint64_t offset,
                     int64_t history) noexcept nogil
# The first offset of what a Subscribe is answered with; the newest message is the last.
cdef uint64_t subscribed_from(const Topic* topic, bint has_position, uint64_t epoch, uint64_t offset, int64_t history,
                              bint* recovered) noexcept nogil
