# Sockets: an epoll instance of the data plane's own, whose descriptor the event loop polls.
#
# Rules: only the modules of this folder make system calls on sockets, and only this one reads a clock. One callback of
# the event loop handles everything that is ready, in C: accept, receive into one shared buffer, hand to the hub, write
# each session once. Only then does the event loop run again. A session whose driver is not the reactor itself speaks
# TLS, and its driver (tls_connection.pxd) receives and writes in the reactor's place.
#
# Theory: a turn is: take what is ready; handle it, in rounds, until nothing is left or `batch_window_ms` is over; end
# the turn (one write per session that has something to say). A round receives from all sockets that are ready before it
# handles what came: so the kernel's code for the one and the data plane's for the other stay in the processor's caches,
# which both together do not fit into. Turns follow each other for a bounded time while there
# is work, because sending gives the peers time to answer; then the event loop gets its share. Where the next work has
# proved to come within microseconds, the reactor polls that long before it lets the loop sleep: being woken costs more
# than the wait. All polling is level triggered, so nothing is lost when a bound ends a round.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.io.bus cimport Bus
from realtime_communication._core.io.polling cimport Polling
from realtime_communication._core.io.socket_driver cimport SocketDriver


cdef struct Received:            # from one socket, not handled yet
    Session* session
    uint8_t* data                # in the shared buffer
    ssize_t size                 # bytes; 0 at the end of the stream, -1 for an error
    int error                    # errno


cdef class Reactor(SocketDriver):
    cdef Bus bus                 # to the other workers of the node, or None
    cdef list listeners          # socket objects; an event names them by index + 1
    cdef list contexts           # ssl.SSLContext for new connections of the listener of that index, or None
    cdef int timer               # descriptor of a timerfd in it
    cdef uint64_t armed_ms       # monotonic time the timer goes off, 0 when it is not set
    cdef uint64_t retry_ms       # when accepting is tried again, 0 when it goes on
    cdef uint64_t shaken_ns      # spent on TLS handshakes in this round
    cdef Polling polling         # whether a turn goes on without work
    cdef bint running
    cdef bint woken              # a turn is asked for already
    cdef bint in_turn

    # What the hub has to say leaves, to clients and to other workers.
    cdef void end_turn(self) noexcept
    cdef void round(self, int* ready) noexcept
    cdef void accept_from(self, int listener) noexcept
    cdef void accept_from_all(self) noexcept
    cdef void admit_socket(self, int fd, object context, Slice address) noexcept
    # Has epoll watch the socket for input. 0, or -1 when it cannot.
    cdef int enroll(self, Session* session) noexcept
    cdef void accept_failed(self) noexcept
    cdef void watch_listeners(self, bint on) noexcept
    cdef void receive_from(self, Session* session, Received* received, size_t* used) noexcept
    cdef void handle(self, Received* received, int* count, size_t* used) noexcept
    cdef void take(self, const Received* received) noexcept
    cdef void receive_sealed(self, Session* session) noexcept
    cdef void arm(self) noexcept
