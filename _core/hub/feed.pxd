# What this worker says to other workers, and what their feeds bring.
#
# Rules: bytes go out in each peer's buffer (bus_user.pxd); what carries them (io/bus.pyx, a test) keeps their order.
#
# Theory: all that one authority sends a worker about a topic travels one way, in order. An answer that says where the
# topic stands is therefore preceded by every message up to there, so a mirror that is `synced` never misses one; and a
# message that is not the next one is either known already or the sign of a history that was lost.

from libc.stdint cimport int64_t, uint64_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.gate cimport Gate
from realtime_communication._core.hub.peers cimport Body
from realtime_communication._core.hub.topics cimport Topic


cdef enum:
    CODE_MOVED = 255             # in place of an ErrorCode: ask the home that is the right one now
    RETRY_MS = 200               # told to clients whose topic is about to have another home

cdef const char* MOVING          # the topic's home is changing
cdef const char* LATE            # the topic's home did not answer in time


cdef class Feed(Gate):
    # A worker mirrors the topic from now on, or no longer.
    cdef void gain_interest(self, int slot, Topic* topic) noexcept
    cdef void lose_interest(self, int slot, Topic* topic) noexcept
    # Answers to a worker's request; it has no answer when it is refused under token 0.
    cdef void answer_ack(self, int slot, uint64_t token, uint64_t epoch, uint64_t offset, bint reached) noexcept
    cdef void answer_refuse(self, int slot, uint64_t token, int code, const char* text, int64_t retry) noexcept
    # The topic's cached messages from `first` to `last`.
    cdef void answer_stored(self, int slot, int type, uint64_t token, Topic* topic, bint recovered, uint64_t first,
                            uint64_t last) noexcept
    cdef void write_stored(self, int slot, int type, Slice name, uint64_t token, Topic* topic, bint recovered,
                           uint64_t first, uint64_t last) noexcept
    # The same of another authority, as they came from there.
    cdef void answer_bodies(self, int slot, int type, uint64_t token, uint64_t epoch, uint64_t offset, bint recovered,
                            uint64_t first, Slice bodies) noexcept
    # What a feed brought. It is checked against where the mirror stands.
    cdef void delivered(self, Slice name, int kind, uint64_t epoch, uint64_t offset, const Body* body) noexcept
    # A message of a topic that is fed from elsewhere, the next one.
    cdef void deliver(self, Topic* topic, uint64_t offset, const Body* body) noexcept
