# Whether a reactor polls on before it lets the event loop sleep.
#
# Rules: no system calls, no clock; the time and the thread's involuntary context switches are passed in.
#
# Theory: being woken costs more than a wait of some microseconds. So a reactor whose next work has proved to come that
# soon, several times in a row, polls on for a while. That is a gain only on a core that nobody else wants: where other
# threads wait for it, polling takes the time in which they would make the next work. They show by taking the core away
# (`ru_nivcsw`). Then there is no polling for a while, for twice as long each time it happens again.

from libc.stdint cimport uint64_t


cdef class Polling:
    cdef uint64_t asleep_ns      # when the last turn ended
    cdef uint64_t until_ns       # while no work comes, this turn polls until then
    cdef uint64_t checked_ns     # when the switches were last looked at, 0 before
    cdef long switches           # how many there were then
    cdef uint64_t again_ns       # no polling before
    cdef uint64_t pause_ns       # how long the next pause is
    cdef int busy                # how often in a row, of late, work came right after a turn had ended

    # A turn begins. True when `switched` has to be told the thread's involuntary switches so far.
    cpdef bint begin(self, uint64_t now)
    cpdef void switched(self, uint64_t now, long switches) noexcept
    # A round of the turn found work, or none: whether to poll on.
    cpdef bint go_on(self, uint64_t now, bint worked) noexcept
    cpdef void end(self, uint64_t now) noexcept
