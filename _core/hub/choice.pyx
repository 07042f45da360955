"""Which sessions move; `choice.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort

from realtime_communication._core.hub.driver cimport Driver
from realtime_communication._core.hub.session cimport SESSION_OPEN, Session


cdef uint64_t work_of_all(Session* first) noexcept nogil:
    cdef uint64_t total = 0
    while first != NULL:
        total += first.work
        first.work -= first.work // 2
        if first.work == 1:
            first.work = 0
        first = first.next
    return total


cdef bint is_movable(const Session* session) noexcept:
    cdef Driver driver = <Driver> session.driver
    return session.state == SESSION_OPEN and not driver.secure and not driver.stays


cdef size_t count_movable(Session* first) noexcept:
    cdef size_t count = 0
    while first != NULL:
        count += is_movable(first)
        first = first.next
    return count


cdef bint has_rested(const Session* session, uint64_t now_ms) noexcept nogil:
    return session.moved_ms == 0 or <uint32_t> (now_ms - session.moved_ms) >= <uint32_t> REST_MS


cdef int by_work(const void* one, const void* other) noexcept nogil:
    cdef uint32_t first = (<const Candidate*> one).work
    cdef uint32_t second = (<const Candidate*> other).work
    return (first > second) - (first < second)


cdef int by_work_falling(const void* one, const void* other) noexcept nogil:
    return by_work(other, one)


cdef Candidate* candidates_new(Session* first, uint64_t now_ms, bint busiest_first, size_t* count) noexcept:
    cdef size_t most = count_movable(first)
    cdef Candidate* found = NULL
    count[0] = 0
    if most:
        found = <Candidate*> malloc(most * sizeof(Candidate))
    if found == NULL:
        return NULL
    while first != NULL:
        if is_movable(first) and has_rested(first, now_ms):
            found[count[0]].session = first
            found[count[0]].work = first.work
            count[0] += 1
        first = first.next
    if count[0] == 0:
        free(found)
        return NULL
    qsort(found, count[0], sizeof(Candidate), by_work_falling if busiest_first else by_work)
    return found
