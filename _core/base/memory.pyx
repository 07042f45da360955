"""Memory of the data plane; `memory.pxd` is the contract. The classes here let tests reach it from Python."""

from libc.stdlib cimport free, malloc, realloc
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void* address, size_t size, int protection, int flags, int fd, long offset)
    int munmap(void* address, size_t size)
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE
    void* MAP_FAILED

cdef enum:
    BUFFER_START = 64            # bytes of a buffer's first allocation
    BUFFER_MOST = 4294967295     # bytes a buffer can count


cdef void buffer_init(Buffer* buffer) noexcept nogil:
    buffer.data = NULL
    buffer.size = 0
    buffer.capacity = 0


cdef void buffer_free(Buffer* buffer) noexcept nogil:
    free(buffer.data)
    buffer_init(buffer)


cdef int buffer_grow(Buffer* buffer, size_t more) noexcept nogil:
    cdef size_t needed = buffer.size + more
    cdef size_t capacity = <size_t> buffer.capacity + (buffer.capacity >> 1)
    if needed < more or needed > <size_t> BUFFER_MOST:
        return -1
    if capacity < BUFFER_START:
        capacity = BUFFER_START
    if capacity < needed or capacity > <size_t> BUFFER_MOST:
        capacity = needed
    cdef uint8_t* data = <uint8_t*> realloc(buffer.data, capacity)
    if data == NULL:
        return -1
    buffer.data = data
    buffer.capacity = <uint32_t> capacity
    return 0


cdef void buffer_shrink(Buffer* buffer, uint32_t capacity) noexcept nogil:
    cdef uint8_t* data = <uint8_t*> realloc(buffer.data, capacity)
    if data != NULL:
        buffer.data = data
        buffer.capacity = capacity


cdef const char* PAIRS = (           # the decimal digits of 0 to 99
    b"0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
    b"5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899"
)


cdef uint32_t decimal_size(uint64_t value) noexcept nogil:
    cdef uint32_t digits = 1
    while value >= 10000:
        value //= 10000
        digits += 4
    if value >= 1000:
        return digits + 3
    if value >= 100:
        return digits + 2
    if value >= 10:
        return digits + 1
    return digits


cdef uint8_t* write_decimal(uint8_t* out, uint64_t value) noexcept nogil:
    cdef uint8_t* end = out + decimal_size(value)
    cdef uint8_t* at = end
    while value >= 100:
        at -= 2
        memcpy(at, PAIRS + 2 * (value % 100), 2)
        value //= 100
    if value >= 10:
        memcpy(at - 2, PAIRS + 2 * value, 2)
    else:
        (at - 1)[0] = <uint8_t> (48 + value)
    return end


cdef void pool_init(Pool* pool, size_t item_size, size_t count) noexcept nogil:
    cdef void* region
    pool.item_size = (item_size + 15) & ~(<size_t> 15)
    pool.live = 0
    pool.region = NULL
    pool.region_end = NULL
    pool.unused = NULL
    pool.free = NULL
    if count == 0 or count > (<size_t> 1 << 46) // pool.item_size:
        return
    region = mmap(NULL, pool.item_size * count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                  -1, 0)
    if region == MAP_FAILED:
        return
    pool.region = <uint8_t*> region
    pool.region_end = pool.region + pool.item_size * count
    pool.unused = pool.region


cdef void* pool_take(Pool* pool) noexcept nogil:
    cdef void* item
    if pool.free != NULL:
        item = pool.free
        pool.free = pool.free.next
    elif pool.unused < pool.region_end:
        item = pool.unused
        pool.unused += pool.item_size
    else:
        item = malloc(pool.item_size)
        if item == NULL:
            return NULL
    pool.live += 1
    return item


cdef void pool_give(Pool* pool, void* item) noexcept nogil:
    pool.live -= 1
    if <uint8_t*> item >= pool.region and <uint8_t*> item < pool.region_end:
        (<PoolItem*> item).next = pool.free
        pool.free = <PoolItem*> item
    else:
        free(item)


cdef void pool_free(Pool* pool) noexcept nogil:
    if pool.region != NULL:
        munmap(pool.region, pool.region_end - pool.region)
    pool.region = NULL
    pool.region_end = NULL
    pool.unused = NULL
    pool.free = NULL


cdef void arena_pool_init(ArenaPool* pool, size_t ceiling) noexcept nogil:
    pool.free = NULL
    pool.kept = 0
    pool.ceiling = ceiling
    pool.live = 0


cdef void arena_pool_trim(ArenaPool* pool, size_t keep) noexcept nogil:
    cdef Arena* arena
    while pool.kept > keep:
        arena = pool.free
        pool.free = arena.next
        pool.kept -= 1
        free(arena)


cdef Arena* arena_take(ArenaPool* pool, size_t size) noexcept nogil:
    cdef size_t header = sizeof(Arena)
    cdef size_t capacity = ARENA_SIZE - header
    cdef Arena* arena
    if size > (<size_t> 1 << 31):
        return NULL
    if size <= capacity and pool.free != NULL:
        arena = pool.free
        pool.free = arena.next
        pool.kept -= 1
    else:
        if size > capacity:
            capacity = size
        arena = <Arena*> malloc(header + capacity)
        if arena == NULL:
            return NULL
        arena.capacity = <uint32_t> capacity
        arena.pool = pool
    arena.references = 1
    arena.used = 0
    arena.next = NULL
    pool.live += 1
    return arena


cdef void arena_recycle(Arena* arena) noexcept nogil:
    cdef ArenaPool* pool = arena.pool
    pool.live -= 1
    if sizeof(Arena) + arena.capacity == ARENA_SIZE and pool.kept < pool.ceiling:
        arena.next = pool.free
        pool.free = arena
        pool.kept += 1
    else:
        free(arena)


cdef class GrowingBytes:
    """A `Buffer` held by Python, so that tests can append to it and look at its bounds."""

    cdef Buffer buffer

    def __cinit__(self):
        buffer_init(&self.buffer)

    def __dealloc__(self):
        buffer_free(&self.buffer)

    def append(self, bytes data not None):
        """Append `data`; raises MemoryError when there is no memory for it."""
        if buffer_append(&self.buffer, <const uint8_t*> data, len(data)) < 0:
            raise MemoryError

    def append_decimal(self, uint64_t value):
        """Append `value` as decimal digits; raises MemoryError."""
        if buffer_reserve(&self.buffer, 20) < 0:
            raise MemoryError
        cdef uint8_t* end = write_decimal(self.buffer.data + self.buffer.size, value)
        self.buffer.size = <uint32_t> (end - self.buffer.data)

    def shrink(self, uint32_t capacity):
        """Give back what is allocated beyond `capacity` bytes, which is above 0 and no less than there are."""
        if capacity == 0 or capacity < self.buffer.size or capacity > self.buffer.capacity:
            raise ValueError(f"capacity: {capacity} is not between the size and {self.buffer.capacity}")
        buffer_shrink(&self.buffer, capacity)

    @property
    def capacity(self):
        """Bytes allocated."""
        return self.buffer.capacity

    def __bytes__(self):
        return (<const char*> self.buffer.data)[:self.buffer.size]


cdef class ItemPool:
    """A `Pool` held by Python: takes and gives back items by number."""

    cdef Pool pool
    cdef list items

    def __cinit__(self, size_t item_size, size_t count):
        pool_init(&self.pool, item_size, count)
        self.items = []

    def __dealloc__(self):
        while self.items:
            self.give()
        pool_free(&self.pool)

    def take(self):
        """Take one item, return its address; raises MemoryError."""
        cdef void* item = pool_take(&self.pool)
        if item == NULL:
            raise MemoryError
        self.items.append(<size_t> item)
        return <size_t> item

    def give(self):
        """Give the newest item back."""
        pool_give(&self.pool, <void*> <size_t> self.items.pop())

    @property
    def live(self):
        """Items handed out."""
        return self.pool.live


cdef class ArenaShelf:
    """An `ArenaPool` held by Python: takes arenas and drops them by position."""

    cdef ArenaPool pool
    cdef list arenas

    def __cinit__(self, size_t ceiling):
        arena_pool_init(&self.pool, ceiling)
        self.arenas = []

    def __dealloc__(self):
        while self.arenas:
            self.drop()
        arena_pool_trim(&self.pool, 0)

    def take(self, size_t size):
        """Take an arena with room for `size` bytes, return that room; raises MemoryError."""
        cdef Arena* arena = arena_take(&self.pool, size)
        if arena == NULL:
            raise MemoryError
        self.arenas.append(<size_t> arena)
        return arena.capacity

    def hold(self):
        """Add a reference to the newest arena."""
        arena_hold(<Arena*> <size_t> self.arenas[len(self.arenas) - 1])
        self.arenas.append(self.arenas[len(self.arenas) - 1])

    def drop(self):
        """Drop the newest reference."""
        arena_drop(<Arena*> <size_t> self.arenas.pop())

    def trim(self, size_t keep):
        """Free kept arenas until `keep` are left."""
        arena_pool_trim(&self.pool, keep)

    @property
    def kept(self):
        """Arenas kept for reuse."""
        return self.pool.kept

    @property
    def live(self):
        """Arenas with references."""
        return self.pool.live
