# What a session asks for, by its type: each kind of request of `rtc.v1` has a module that handles it.
#
# Rules: a request that was let in by the limits gets exactly one reply when it has an id, and an Error when it fails.
# Bytes of the request are borrowed; nothing here keeps them.

from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.wire.envelope cimport Request


# Acts on a request of an open session, or on the first one of an anonymous session. Returns an Outcome.
cdef int handle_request(Core core, Session* session, const Request* request) noexcept
