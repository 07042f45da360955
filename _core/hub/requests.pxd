# What each request of `rtc.v1` does: the checks in their order, the act, the reply.
#
# Rules: a request that was let in by the limits gets exactly one reply when it has an id, and an Error when it fails.
# Bytes of the request are borrowed; nothing here keeps them.

from libc.stdint cimport uint64_t

from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.topics cimport Topic
from realtime_communication._core.wire.envelope cimport Request


# Acts on a request of an open session, or on the first one of an anonymous session. Returns an Outcome.
cdef int handle_request(Core core, Session* session, const Request* request) noexcept
# Goes on with an Authenticate or Refresh whose credential has been answered for: an identity, or (code, message). Of
# `request` only the id is looked at. Returns an Outcome.
cdef int take_credential(Core core, Session* session, const Request* request, object answer) noexcept
# Sends Connected, in reply to `request` or, when it is NULL, unasked.
cdef void welcome(Core core, Session* session, const Request* request) noexcept
# Subscribe and Unsubscribe; a session that lacks the permission gets an Error.
cdef void subscribe(Core core, Session* session, const Request* request) noexcept
cdef void unsubscribe(Core core, Session* session, const Request* request) noexcept
# The cached messages `begin`..`end` of a History: those after a position (or, in reverse, before it) up to a limit and
# to what one reply may hold; a position of another epoch counts as none. None are `end` + 1 == `begin`.
cdef void page_range(const Request* request, const Topic* topic, uint64_t* begin, uint64_t* end) noexcept nogil
