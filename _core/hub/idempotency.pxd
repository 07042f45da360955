# Idempotency keys: a request that comes again under its key gets the answer it got before, and publishes nothing.
#
# Rules: a key is the sender's, and of one topic. Its answer is kept as long as the cache keeps a message, for the
# newest IDEMPOTENCY_KEYS keys.

from realtime_communication._core.base.memory cimport Slice
from realtime_communication._core.hub.core cimport Core, Position


# A key with its scope, as `answered` of the core has it.
cdef bytes idempotency_key(Slice sender, Slice topic, Slice key)
# True with the earlier answer in `position` when a request with this key was answered before.
cdef bint once(Core core, Slice sender, Slice topic, Slice key, Position* position) except -1
# The same of a key with its scope.
cdef bint once_before(Core core, bytes key, Position* position) except -1
# What a request with this key is answered with from now on. Raises MemoryError.
cdef void remember(Core core, bytes key, const Position* position)
# Lets keys go that nobody is answered by any more, some at a time.
cdef void forget_answers(Core core) noexcept
