# Memory of the data plane: borrowed slices, growable buffers, pools of equal items, shared arenas.
#
# Rules: nothing here raises. A function that can run out of memory returns -1 (or NULL) and leaves what it was
# given as it was. Nothing here knows what the bytes mean.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stddef cimport size_t
from libc.string cimport memcpy


cdef struct Slice:               # borrowed bytes; valid as long as the owner says
    const uint8_t* data
    size_t size


cdef struct Buffer:              # 16 bytes; growable bytes, below 4 GiB, owned by the struct that embeds it
    uint8_t* data                # NULL while capacity is 0
    uint32_t size                # bytes written
    uint32_t capacity            # bytes allocated


cdef struct PoolItem:            # what a free item holds
    PoolItem* next


cdef struct Pool:                # items of one size; a bounded region first, the heap beyond it
    size_t item_size             # bytes, a multiple of 16
    size_t live                  # items handed out
    uint8_t* region              # reserved address space; pages cost memory only once touched
    uint8_t* region_end
    uint8_t* unused              # first byte of the region never handed out yet
    PoolItem* free               # items of the region that came back


cdef enum:
    ARENA_SIZE = 32768           # bytes of a standard arena, header included


cdef struct Arena:               # bytes that several mailboxes send from; freed when the last reference goes
    uint32_t references
    uint32_t capacity            # bytes in data
    uint32_t used                # bytes written; only ever grows
    ArenaPool* pool
    Arena* next                  # in the pool's free list
    uint8_t data[1]


cdef struct ArenaPool:
    Arena* free                  # standard arenas kept for reuse
    size_t kept                  # length of that list
    size_t ceiling               # most arenas kept
    size_t live                  # arenas with references


cdef inline Slice slice_of(const void* data, size_t size) noexcept nogil:
    cdef Slice out
    out.data = <const uint8_t*> data
    out.size = size
    return out


# A copy for Python. Raises MemoryError.
cdef inline bytes bytes_of(Slice text):
    return (<const char*> text.data)[:text.size]


cdef inline bint slice_is(Slice value, const char* text, size_t size) noexcept nogil:
    cdef size_t i
    if value.size != size:
        return False
    for i in range(size):
        if value.data[i] != <uint8_t> text[i]:
            return False
    return True


cdef void buffer_init(Buffer* buffer) noexcept nogil
cdef void buffer_free(Buffer* buffer) noexcept nogil
# Makes room for `more` bytes behind `size`. 0; -1 without memory, and for 4 GiB in all (the buffer keeps its bytes).
cdef int buffer_grow(Buffer* buffer, size_t more) noexcept nogil
# Gives back what is allocated beyond `capacity` bytes, which is at least `size` and above 0; all stays when it cannot.
cdef void buffer_shrink(Buffer* buffer, uint32_t capacity) noexcept nogil


cdef inline int buffer_reserve(Buffer* buffer, size_t more) noexcept nogil:
    if buffer.capacity - buffer.size >= more:
        return 0
    return buffer_grow(buffer, more)


cdef inline int buffer_append(Buffer* buffer, const void* data, size_t size) noexcept nogil:
    if buffer_reserve(buffer, size) < 0:
        return -1
    if size:
        memcpy(buffer.data + buffer.size, data, size)
    buffer.size += <uint32_t> size
    return 0


cdef inline int buffer_byte(Buffer* buffer, uint8_t value) noexcept nogil:
    if buffer_reserve(buffer, 1) < 0:
        return -1
    buffer.data[buffer.size] = value
    buffer.size += 1
    return 0


# Decimal digits of a number, as JSON wants them: how many, and written out (returns the first byte behind them).
cdef uint32_t decimal_size(uint64_t value) noexcept nogil
cdef uint8_t* write_decimal(uint8_t* out, uint64_t value) noexcept nogil

# Reserves room for `count` items without touching it. A region that cannot be reserved is not an error.
cdef void pool_init(Pool* pool, size_t item_size, size_t count) noexcept nogil
# An item with unspecified contents, or NULL without memory.
cdef void* pool_take(Pool* pool) noexcept nogil
cdef void pool_give(Pool* pool, void* item) noexcept nogil
# Gives the region back; every item must have come back before.
cdef void pool_free(Pool* pool) noexcept nogil

cdef void arena_pool_init(ArenaPool* pool, size_t ceiling) noexcept nogil
# Frees kept arenas until `keep` are left.
cdef void arena_pool_trim(ArenaPool* pool, size_t keep) noexcept nogil
# An arena with one reference and room for at least `size` bytes, or NULL without memory.
cdef Arena* arena_take(ArenaPool* pool, size_t size) noexcept nogil
cdef void arena_recycle(Arena* arena) noexcept nogil


cdef inline void arena_hold(Arena* arena) noexcept nogil:
    arena.references += 1


cdef inline void arena_drop(Arena* arena) noexcept nogil:
    arena.references -= 1
    if arena.references == 0:
        arena_recycle(arena)
