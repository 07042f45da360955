"""Polling on before sleep; `polling.pxd` is the contract."""

from libc.stdint cimport uint64_t

cdef enum:
    POLL_NS = 50000              # a reactor that has proved busy polls on for so long before it sleeps
    POLL_AFTER = 4               # wake-ups in a row within POLL_NS that prove it
    BUSY_MOST = 16               # counted no further, so that it is soon forgotten
    CHECK_NS = 20000000          # between two looks at the switches
    STALE_NS = 60000000          # two that are further apart say nothing of the present
    CROWDED = 3                  # switches in between show that others want the core; threads of the system make fewer
    PAUSE_LEAST_NS = 100000000
    PAUSE_MOST_NS = 12800000000


cdef class Polling:
    """Decides from the times of turns. All times are nanoseconds of one monotonic clock."""

    def __cinit__(self):
        self.pause_ns = PAUSE_LEAST_NS

    cpdef bint begin(self, uint64_t now):
        self.until_ns = 0
        if now - self.asleep_ns < POLL_NS:
            self.busy = min(self.busy + 1, BUSY_MOST)
        else:
            self.busy >>= 1
        return self.busy >= POLL_AFTER and now >= self.again_ns and now - self.checked_ns >= CHECK_NS

    cpdef void switched(self, uint64_t now, long switches) noexcept:
        if self.checked_ns and now - self.checked_ns < STALE_NS:
            if switches - self.switches >= CROWDED:
                self.again_ns = now + self.pause_ns
                self.pause_ns = min(2 * self.pause_ns, <uint64_t> PAUSE_MOST_NS)
            elif self.pause_ns > PAUSE_LEAST_NS:
                self.pause_ns //= 2
        self.checked_ns = now
        self.switches = switches

    cpdef bint go_on(self, uint64_t now, bint worked) noexcept:
        if worked:
            self.until_ns = now + POLL_NS
            return True
        return self.busy >= POLL_AFTER and now >= self.again_ns and now < self.until_ns

    cpdef void end(self, uint64_t now) noexcept:
        self.asleep_ns = now
