# Sockets: an epoll instance of the data plane's own, whose descriptor the event loop polls.
#
# Rules: this module and nothing else in the core makes system calls on sockets or reads a clock. One callback of the
# event loop handles everything that is ready, in C: accept, receive into one shared buffer, hand to the hub, write each
# session once. Only then does the event loop run again.
#
# Theory: a turn is: take what is ready; handle it, in rounds, until nothing is left or `batch_window_ms` is over; end
# the turn (one write per session that has something to say). Turns follow each other for a bounded time while there
# is work, because sending gives the peers time to answer; then the event loop gets its share. Where the next work has
# proved to come within microseconds, the reactor polls that long before it lets the loop sleep: being woken costs more
# than the wait. All polling is level triggered, so nothing is lost when a bound ends a round.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.hub cimport Hub
from realtime_communication._core.hub.session cimport Session


cdef class Reactor(Driver):
    cdef Hub hub
    cdef object loop
    cdef object take_over        # callback for connections that are no WebSockets
    cdef list listeners          # socket objects; an event names them by index + 1
    cdef int epoll               # descriptor of the epoll instance
    cdef int timer               # descriptor of a timerfd in it
    cdef uint64_t armed_ms       # monotonic time the timer goes off, 0 when it is not set
    cdef uint64_t retry_ms       # when accepting is tried again, 0 when it goes on
    cdef uint8_t* buffer         # RECEIVE_BYTES, shared by all sessions
    cdef uint64_t asleep_ns      # when the last turn ended
    cdef int busy                # how often in a row, of late, work came right after a turn had ended
    cdef bint running
    cdef bint woken              # a turn is asked for already
    cdef bint in_turn

    cdef void round(self, int* ready) noexcept
    cdef void accept_from(self, int listener) noexcept
    cdef void admit_socket(self, int fd) noexcept
    cdef void accept_failed(self) noexcept
    cdef void watch_listeners(self, bint on) noexcept
    cdef void receive_from(self, Session* session) noexcept
    cdef void watch(self, Session* session) noexcept
    cdef void arm(self) noexcept
    cdef int blocked(self, Session* session) noexcept
    cdef int written(self, Session* session) noexcept
