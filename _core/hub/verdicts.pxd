# What somebody outside says users may do: asked once for a user, an act and a topic, and remembered for a while.
#
# Rules: nothing here knows a hub or waits. What is remembered is bounded, the oldest is forgotten first; so is what is
# asked at the same time. An answer that is remembered costs one look into a table.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.base.table cimport Table, TableEntry


cdef enum Verdict:
    VERDICT_DENIED = 0
    VERDICT_ALLOWED = 1
    VERDICT_UNKNOWN = 2


cdef enum:
    VERDICT_KEY = 512            # bytes of a key: the act, the user, a NUL, the topic


cdef struct Answer:              # one that is remembered
    TableEntry entry             # keyed as `verdict_key` says; the key follows the struct
    Answer* next                 # by age
    Answer* previous
    uint64_t until_ms            # monotonic
    bint allowed


cdef class Verdicts:
    cdef Table table
    cdef Answer* oldest
    cdef Answer* newest
    cdef readonly uint32_t most  # answers that are remembered
    cdef readonly uint32_t most_asked    # questions without an answer
    cdef uint8_t acts            # bit n set: Act n is asked about, see topic_rules.pxd
    cdef uint64_t ttl_ms         # for which an answer that came at once is remembered
    cdef object ask              # callback(act, user, topic)
    cdef dict asked              # key -> tokens of the requests that wait for the answer

    # A Verdict.
    cdef int look(self, Slice key, uint64_t now_ms) noexcept
    # Without memory nothing is remembered.
    cdef void remember(self, Slice key, bint allowed, uint64_t until_ms) noexcept
    cdef void forget(self, Answer* answer) noexcept
    cdef void forget_all(self) noexcept


# The key, written into `place` (VERDICT_KEY bytes).
cdef Slice verdict_key(int act, Slice user, Slice topic, uint8_t* place) noexcept nogil
