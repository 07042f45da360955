# The gate: request heads, who is let in, the 101 answer. What is no WebSocket request goes to the driver's HTTP side.
#
# Rules: everything is decided before a byte behind the head is read; a refused connection is read no further. What is
# there while the decision is still out (pending.pxd) is kept, up to ANONYMOUS_BYTES of a connection nobody knows yet.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.newcomers cimport Newcomer
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.sessions cimport Sessions
from realtime_communication._core.wire.http_head cimport HttpHead


cdef class Gate(Sessions):
    cdef HttpHead head
    cdef object admission        # callback for the credentials of an upgrade
    cdef object token_admission  # asked first where a bearer token is the only credential, or None
    cdef object echo_admission   # the same for the echo endpoint, which has no credentials
    cdef list origins
    cdef object proxies          # tells of an address (bytes, in network order) whether it is a proxy's; None: none is
    cdef list refusal_headers    # (name, value) of every answer that refuses a request
    cdef list secure_headers     # the same for those that travel over TLS

    # A fresh connection is from the peer at `address` (newcomers.pxd). Over a bound the one that has waited longest to
    # authenticate is closed.
    cdef void came_from(self, Session* session, Slice address) noexcept
    cdef bint is_bounded(self, const Newcomer* newcomer, Slice address) noexcept
    cdef void crowd_out(self, Newcomer* newcomer, const char* reason) noexcept
    cdef void receive_head(self, Session* session, uint8_t* data, size_t size) noexcept
    cdef void upgrade(self, Session* session, bint echo) noexcept
    # Whether the server takes no more connections; the request is then refused.
    # The identity of a bearer token in a request without a query; None: that is for `admission` to find out.
    cdef object admit_token(self)
    cdef bint refuse_when_full(self, Session* session)
    cdef void reject_unavailable(self, Session* session, object message) noexcept
    # The 101 answer; the session gets the forms that it promises.
    cdef bytes agree(self, Session* session, int encoding, int compression, Slice subprotocol)
    # What the callback has said about an upgrade whose 101 answer is `response`. Raises MemoryError, and what is wrong
    # with `answer`.
    cdef int answer_upgrade(self, Session* session, bytes response, object answer) except -1
    cdef void open_upgraded(self, Session* session, object identity) noexcept
    cdef bytes query(self)
    # Keeps input that cannot be handled yet. False when that has ended the session.
    cdef bint keep(self, Session* session, const uint8_t* data, size_t size) noexcept
    # Input of an upgraded session.
    cdef void receive_frames(self, Session* session, uint8_t* data, size_t size) noexcept
