# What each request of `rtc.v1` does: the checks in their order, the act, the reply.
#
# Rules: a request that was let in by the limits gets exactly one reply when it has an id, and an Error when it fails.
# Bytes of the request are borrowed; nothing here keeps them.

from libc.stdint cimport int64_t, uint64_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.peers cimport Body, Frame
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.topics cimport Topic
from realtime_communication._core.wire.envelope cimport Request


cdef struct Present:             # a session on a topic, wherever it is connected
    uint64_t id_high
    uint64_t id_low
    uint64_t joined_at           # milliseconds since the epoch
    Slice user
    Slice info                   # a JSON object; empty: none


# Acts on a request of an open session, or on the first one of an anonymous session. Returns an Outcome.
cdef int handle_request(Core core, Session* session, const Request* request) noexcept
# Goes on with an Authenticate or Refresh whose credential has been answered for: an identity, or (code, message). Of
# `request` only the id is looked at. Returns an Outcome.
cdef int take_credential(Core core, Session* session, const Request* request, object answer) noexcept
# Sends Connected, in reply to `request` or, when it is NULL, unasked.
cdef void welcome(Core core, Session* session, const Request* request) noexcept

# Subscribes the session, if it is not; False when it was told that this cannot be.
cdef bint enter_topic(Core core, Session* session, const Request* request, Topic* topic) noexcept
# What another authority has answered; `bodies` holds nothing but bodies behind their sizes, the first with the offset
# `first`; NULL: the topic's own cache has what is wanted. The topic stands where the answer says.
cdef void subscribe_answered(Core core, Session* session, const Request* request, Topic* topic, bint recovered,
                             Frame* bodies, uint64_t first) noexcept
cdef void history_answered(Core core, Session* session, const Request* request, uint64_t epoch, uint64_t offset,
                           Frame* bodies, uint64_t first) noexcept
# PresenceState of the sessions in `members`, as FRAME_PRESENT has them.
cdef void presence_answered(Core core, Session* session, const Request* request, Frame* members) noexcept
# One of them, taken from the front; False when there is no more.
cdef bint next_present(Frame* members, Present* out) noexcept nogil
# Whether a mirror answers a Subscribe as its authority would.
cdef bint is_covered(const Topic* topic, bint has_position, uint64_t epoch, uint64_t offset,
                     int64_t history) noexcept nogil
# The first offset of what a Subscribe is answered with; the newest message is the last.
cdef uint64_t subscribed_from(const Topic* topic, bint has_position, uint64_t epoch, uint64_t offset, int64_t history,
                              bint* recovered) noexcept nogil
# The offsets of a HistoryPage; none when first > last.
cdef void page_range(const Topic* topic, bint has_position, uint64_t epoch, uint64_t offset, uint64_t limit,
                     bint reverse, uint64_t* first, uint64_t* last) noexcept nogil
cdef bint next_body(Frame* bodies, Body* out) noexcept nogil
# Subscribe (an Outcome) and Unsubscribe; a session that lacks the permission gets an Error.
cdef int subscribe(Core core, Session* session, const Request* request) noexcept
cdef void unsubscribe(Core core, Session* session, const Request* request) noexcept
