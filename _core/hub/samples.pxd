# Samples of publications for metrics and traces: when one came in, and when the turn that it came in had written it.
#
# Rules: a container; it reads no clock and makes no Python object but for the list that is taken. Off, it costs one
# branch a publication and no memory. It holds the newest SAMPLES; what it has to overwrite is told, to be counted.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

from realtime_communication._core.base.memory cimport Slice


cdef enum:
    SAMPLES = 4096               # kept until somebody takes them
    SAMPLE_TOPIC = 255           # bytes of a topic's name that are kept: the longest there is


cdef struct Sample:
    uint64_t start_ns            # since the epoch
    uint64_t duration_ns
    bint direct                  # a DirectMessage
    uint8_t topic_size           # bytes
    uint8_t topic[255]


cdef struct Samples:
    uint64_t below               # a publication is sampled when the dice show less, of 2^53; 0: off
    uint64_t dice                # state of the generator, never 0
    Sample* ring                 # SAMPLES of them, NULL while off
    uint64_t first               # number of the oldest one kept; number n has its place at n % SAMPLES
    uint64_t unfinished          # of the first one whose turn has not ended
    uint64_t next                # of the one to come


cdef void samples_init(Samples* samples) noexcept nogil
cdef void samples_free(Samples* samples) noexcept nogil
# Takes the share `rate` (0 to 1) of all publications from now on; 0 turns it off and forgets what was taken. 0, or -1
# without memory, with nothing changed.
cdef int samples_set_rate(Samples* samples, double rate, uint64_t seed) noexcept nogil


# Throws the dice (xorshift64, Marsaglia 2003). Only while on.
cdef inline bint samples_pick(Samples* samples) noexcept nogil:
    samples.dice ^= samples.dice << 13
    samples.dice ^= samples.dice >> 7
    samples.dice ^= samples.dice << 17
    return samples.dice >> 11 < samples.below


# Adds one; how many it has overwritten (0 or 1).
cdef size_t samples_add(Samples* samples, bint direct, Slice topic, uint64_t start_ns) noexcept nogil
# The turn has written all: those that are unfinished end at `now_ns`.
cdef void samples_finish(Samples* samples, uint64_t now_ns) noexcept nogil
# Those that are finished, oldest first, as (kind, topic, start, duration); they are forgotten. Raises MemoryError, with
# nothing forgotten.
cdef list samples_take(Samples* samples)
