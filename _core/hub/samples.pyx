"""Samples of publications; `samples.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from realtime_communication._core.base.memory cimport Slice, slice_of

cdef extern from * nogil:
    """
    #define RTC_DICE_SIDES 9007199254740992.0
    """
    const double SIDES "RTC_DICE_SIDES"      # 2^53


cdef void samples_init(Samples* samples) noexcept nogil:
    memset(samples, 0, sizeof(Samples))


cdef void samples_free(Samples* samples) noexcept nogil:
    free(samples.ring)
    samples_init(samples)


cdef int samples_set_rate(Samples* samples, double rate, uint64_t seed) noexcept nogil:
    if not rate > 0:
        samples_free(samples)
        return 0
    if samples.ring == NULL:
        samples.ring = <Sample*> malloc(SAMPLES * sizeof(Sample))
        if samples.ring == NULL:
            return -1
        samples.dice = seed | 1
    samples.below = <uint64_t> (min(rate, 1.0) * SIDES)
    if samples.below == 0:
        samples.below = 1
    return 0


cdef size_t samples_add(Samples* samples, bint direct, Slice topic, uint64_t start_ns) noexcept nogil:
    cdef Sample* sample = &samples.ring[samples.next % SAMPLES]
    cdef size_t lost = samples.next - samples.first == SAMPLES
    samples.first += lost
    if samples.unfinished < samples.first:
        samples.unfinished = samples.first
    samples.next += 1
    sample.start_ns = start_ns
    sample.duration_ns = 0
    sample.direct = direct
    sample.topic_size = <uint8_t> min(topic.size, <size_t> SAMPLE_TOPIC)
    memcpy(&sample.topic[0], topic.data, sample.topic_size)
    return lost


cdef void samples_finish(Samples* samples, uint64_t now_ns) noexcept nogil:
    cdef Sample* sample
    while samples.unfinished != samples.next:
        sample = &samples.ring[samples.unfinished % SAMPLES]
        # The wall clock may have been set back meanwhile.
        sample.duration_ns = now_ns - sample.start_ns if now_ns > sample.start_ns else 0
        samples.unfinished += 1


cdef list samples_take(Samples* samples):
    cdef list taken = []
    cdef uint64_t number = samples.first
    cdef uint64_t end = samples.unfinished
    cdef const Sample* sample
    while number != end:
        sample = &samples.ring[number % SAMPLES]
        taken.append((
            "DirectMessage" if sample.direct else "Broadcast",
            (<const char*> &sample.topic[0])[:sample.topic_size].decode("utf-8", "replace"),
            sample.start_ns,
            sample.duration_ns,
        ))
        number += 1
    samples.first = end
    return taken


cdef class SampleProbe:
    """Samples held by Python, so that tests see what is picked, kept and overwritten."""

    cdef Samples samples

    def __cinit__(self):
        samples_init(&self.samples)

    def __dealloc__(self):
        samples_free(&self.samples)

    def set_rate(self, double rate, uint64_t seed=1):
        """Raises MemoryError."""
        if samples_set_rate(&self.samples, rate, seed) < 0:
            raise MemoryError

    def pick(self):
        """Whether the next publication is sampled; False while off."""
        return self.samples.below != 0 and samples_pick(&self.samples)

    def add(self, bint direct, bytes topic not None, uint64_t start_ns):
        """How many were overwritten. Raises ValueError while off."""
        if self.samples.ring == NULL:
            raise ValueError("no rate is set")
        return samples_add(&self.samples, direct, slice_of(<const uint8_t*> topic, len(topic)), start_ns)

    def finish(self, uint64_t now_ns):
        """The turn ends."""
        samples_finish(&self.samples, now_ns)

    def take(self):
        """Those that are finished."""
        return samples_take(&self.samples)
