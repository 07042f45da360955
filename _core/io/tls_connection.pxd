# TLS between a session and its socket: one driver for each connection, sealed by Python's `ssl` in memory.
#
# Rules: the TLS object exists from the first byte of the handshake on, so that a peer which sends nothing costs none.
# All that a receive decrypts goes to the hub at once: nothing the peer sent waits where epoll does not see it. Whatever
# leaves waits in the mailbox for as long as sealed bytes wait for the socket, so that the bounds of slow consumers
# are those of a plain connection plus one record.
#
# OpenSSL writes for all connections of a reactor into one BIO, which stays in the processor's caches and costs an idle
# connection nothing. So it is empty but while a call into OpenSSL is under way: whoever makes one that may write takes
# what is there right behind it, whether it failed or not. That holds for who gets a TlsStream too.
#
# States only ever move forward, but for a peer that speaks plain HTTP: it is told so in plain text.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t

from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.io.socket_driver cimport SocketDriver


cdef enum TlsState:
    TLS_FRESH = 0                # not a byte has come
    TLS_HANDSHAKE = 1
    TLS_OPEN = 2
    TLS_PLAIN = 3                # the peer speaks no TLS: answered as it speaks, read no further
    TLS_OVER = 4                 # failed, or handed over: nothing is sealed any more


cdef class TlsStream:
    # What a connection needs to go on outside the reactor.
    cdef readonly object ssl_object  # ssl.SSLObject over the two BIOs
    cdef readonly object incoming    # ssl.MemoryBIO for what the socket gives
    cdef readonly object outgoing    # ssl.MemoryBIO, shared: what a call into OpenSSL left there is taken at once
    cdef readonly bytes unsent       # sealed bytes that go before all that comes out of `outgoing`


cdef class TlsConnection(Driver):
    cdef SocketDriver sockets    # the reactor
    cdef object context          # ssl.SSLContext, None from the first byte on
    cdef object ssl_object       # ssl.SSLObject, None in TLS_FRESH, TLS_PLAIN and TLS_OVER
    cdef object raw              # the object of C inside it, whose methods cost least
    cdef object incoming
    cdef object outgoing         # the reactor's `sealed`
    cdef bytes unsent            # one record, and what TLS says by itself, that the socket did not take yet; None
    cdef Py_ssize_t unsent_at    # bytes of it that have left
    cdef uint32_t shaken         # bytes received for the handshake
    cdef uint32_t replied        # bytes that TLS said by itself after it
    cdef uint8_t state           # TlsState
    cdef bint notified           # our close_notify is sealed

    # Input may be there.
    cdef void receive(self, Session* session) noexcept

    cdef int take(self, Session* session, size_t size) except -1
    cdef int begin(self) except -1
    cdef Py_ssize_t collect(self) except -1
    cdef int shake(self) except -1
    cdef int limit_replies(self, uint32_t size) except -1
    cdef bint decrypt(self, size_t* filled, size_t most) except -1
    cdef void end(self, Session* session) noexcept
    cdef void fail(self, Session* session, object error) noexcept
    cdef int seal(self, Session* session) noexcept
    cdef int send_sealed(self, Session* session) noexcept
    cdef void notify(self) noexcept


# The driver for a connection of a listener with that context. Raises MemoryError.
cdef TlsConnection tls_connection(SocketDriver sockets, object context)
# The driver for a connection that was handed over and comes back with its `stream`. Raises MemoryError.
cdef TlsConnection tls_connection_again(SocketDriver sockets, TlsStream stream)
