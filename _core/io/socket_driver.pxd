# What every session on a socket needs, plain or TLS: its place in the epoll instance, what happens when the socket is
# full or all is said, and the way out to the HTTP application.
#
# Rules: the reactor is the one instance; the driver of a TLS connection holds it and leaves these things to it. A
# session is always watched by what its flags say (FLAG_READ_OFF, FLAG_WRITE_ARMED).

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.hub cimport Hub
from realtime_communication._core.hub.session cimport Session


cdef enum:
    RECEIVE_BYTES = 262144       # of the shared buffer: as much as one turn takes from one socket at a time
    STARVED_MOST = 1000          # receives in a row that may fail for want of memory: more is no passing trouble
    WRITES = 64                  # writes in a row to one session that keeps taking


# Of a socket's address as accept(2) gives it: its bytes in network order, in `address`; none for other families.
cdef Slice address_of(const void* address) noexcept nogil


cdef class SocketDriver(Driver):
    cdef Hub hub
    cdef object loop
    cdef object take_over        # callback for connections that are no WebSockets
    cdef object on_tls_failure   # callback(peer, reason) for connections that TLS ended, or None
    cdef readonly uint64_t tls_failures  # how many of them there were
    cdef object sealed           # ssl.MemoryBIO that OpenSSL writes into for all TLS connections; None before the first
    cdef int epoll               # descriptor of the epoll instance, owned by the reactor
    cdef uint32_t starved        # receives in a row that failed for want of memory
    cdef uint8_t* buffer         # RECEIVE_BYTES, shared by all sessions, owned by the reactor

    # Whether a receive that failed with `error` says nothing about its connection, whose bytes wait in the kernel.
    cdef bint passes(self, int error) noexcept
    # Tells epoll what the session waits for.
    cdef void watch(self, Session* session) noexcept
    # The socket is full: what is left waits in the session's own memory until there is room. 0, or -1 without memory.
    cdef int blocked(self, Session* session) noexcept
    # Everything has left; a session that lingers has its sending side shut down. 0.
    cdef int written(self, Session* session) noexcept
    # Takes the socket out of the epoll instance and gives it to `take_over`. `stream` is what goes on with TLS, None
    # on a plain connection.
    cdef void give(self, Session* session, const uint8_t* data, size_t size, object stream) noexcept
    # TLS ended the connection: counts it and tells `on_tls_failure`.
    cdef void report(self, Session* session, str reason) noexcept
