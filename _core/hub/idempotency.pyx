"""Idempotency keys; `idempotency.pxd` is the contract."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.core cimport Core, Position
from realtime_communication._core.hub.settings cimport IDEMPOTENCY_KEYS
from realtime_communication._core.hub.topics cimport EPOCH_SIZE


cdef enum:
    FORGOTTEN_MOST = 5000        # keys forgotten at a time


cdef bytes idempotency_key(Slice sender, Slice topic, Slice key):
    return b"%b\0%b\0%b" % (
        (<const char*> sender.data)[:sender.size],
        (<const char*> topic.data)[:topic.size],
        (<const char*> key.data)[:key.size],
    )


cdef object answered(Core core, bytes key):
    """The (epoch, offset) that a request with this key got before, or None."""
    found = core.answered.get(key)
    if found is None or found[0] < core.now_ms:
        return None
    core.counters.duplicates += 1
    return found


cdef void remember(Core core, bytes key, const Position* position):
    """Keep the answer as long as the cache keeps the message, for the newest IDEMPOTENCY_KEYS keys."""
    core.answered.pop(key, None)  # the newest go last
    while len(core.answered) >= IDEMPOTENCY_KEYS:
        core.answered.pop(next(iter(core.answered)))
    core.answered[key] = (
        core.now_ms + core.settings.cache_ttl_ms, (<const char*> position.epoch)[:EPOCH_SIZE], position.offset)


cdef void forget_answers(Core core) noexcept:
    """Drop the oldest keys that are no longer good, some at a time."""
    for _ in range(FORGOTTEN_MOST):
        key = next(iter(core.answered), None)
        if key is None or core.answered[key][0] >= core.now_ms:
            return
        del core.answered[key]


cdef bint once(Core core, Slice sender, Slice topic, Slice key, Position* position) except -1:
    """True with the earlier answer in `position` when a request with this key was answered before."""
    return once_before(core, idempotency_key(sender, topic, key), position)


cdef bint once_before(Core core, bytes key, Position* position) except -1:
    cdef bytes epoch
    cdef size_t i
    found = answered(core, key)
    if found is None:
        return False
    epoch = found[1]
    for i in range(EPOCH_SIZE):
        position.epoch[i] = (<const uint8_t*> <const char*> epoch)[i]
    position.offset = found[2]
    return True
