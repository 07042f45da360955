# From bytes to requests: input is cut into frames and messages, each request is let in by the limits, handled, and what
# it comes to decides whether the connection is read on.
#
# Rules: a turn handles no more of a connection than `batch_size` requests or `batch_ms`, and one request of each once
# it has lasted to `over_ms` or has TURN_DELIVERIES to make: however many publish, and to however many, the event loop
# is not kept from its own. The rest waits with the session (`stash`), and no byte is lost. A request that cannot be
# handled yet is parked, and nothing behind it is read.
# A peer that reads no replies is read no further.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

from realtime_communication._core.hub.admission cimport Refusal
from realtime_communication._core.hub.migration cimport Migration
from realtime_communication._core.hub.session cimport Session


cdef enum:
    TURN_DELIVERIES = 100000     # some 10 ms of writing


cdef class Dispatch(Migration):
    cdef uint64_t over_ms        # monotonic; the driver's to set at the start of a turn, 0: it may last

    # Input arrived. The bytes are changed in place.
    cdef void receive(self, Session* session, uint8_t* data, size_t size) noexcept
    # Goes on with input left over; whether there is still more.
    cdef bint resume_some(self) noexcept
    cdef size_t process(self, Session* session, uint8_t* data, size_t size) noexcept
    cdef void request(self, Session* session) noexcept
    cdef void invalid(self, Session* session) noexcept
    # A request that a limit refused is answered; a peer that goes on breaking its limits is closed.
    cdef void over_limit(self, Session* session, const Refusal* refusal) noexcept
    # Handles the request that waited for a full consumer, or lets it wait on.
    cdef void unpark(self, Session* session) noexcept
    cdef void limit_replies(self, Session* session) noexcept
    cdef void overrun(self, Session* session) noexcept
