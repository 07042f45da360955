# Which sessions go when a worker has more than others.
#
# Rules: only open sessions on plain sockets; the state of TLS cannot be passed over, nor that of an HTTP answer. One
# that came from another worker less than REST_MS ago stays, so that nobody is sent to and fro.
#
# Theory: what a session costs is what its socket costs: how often it was read and written. Each count is halved
# whenever it is looked at, once a second, so that it tells of the last seconds.

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from realtime_communication._core.hub.session cimport Session


cdef enum:
    REST_MS = 30000              # for which a session stays where it came


cdef struct Candidate:
    Session* session
    uint32_t work


# What all sessions have cost of late; what is counted is halved.
cdef uint64_t work_of_all(Session* first) noexcept nogil
cdef bint is_movable(const Session* session) noexcept
cdef size_t count_movable(Session* first) noexcept
# Those that may go now, the busiest first, or last; NULL without memory, or when there are none. The caller frees it.
cdef Candidate* candidates_new(Session* first, uint64_t now_ms, bint busiest_first, size_t* count) noexcept
