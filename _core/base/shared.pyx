"""Memory that the workers of one server share; `shared.pxd` is the contract."""

import fcntl
import os

from libc.errno cimport errno
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from realtime_communication._core.base.counters cimport COUNTER_GAUGES, Counters, counters_dict
from realtime_communication._core.base.table cimport keyed_siphash13

cdef extern from "<sys/mman.h>" nogil:
    enum: PROT_READ, PROT_WRITE, MAP_SHARED
    void* MAP_FAILED
    void* mmap(void* address, size_t size, int protection, int flags, int fd, long offset)
    int munmap(void* address, size_t size)

cdef enum:
    VERSION = 1                  # of the layout
    LEAST_USERS = 16
    MOST_USERS = 16777216
    LINE = 128                   # what one worker writes lies in blocks of this many bytes: two cache lines
    PAGE = 4096
    CONNECT_TRIES = 8            # how often a worker asks for a place that others step back from at the same time
    READ_TRIES = 1000            # how often a reader begins again that meets the forgetting of a slot
    COUNTERS = sizeof(Counters) // sizeof(uint64_t)
    SLOT_STRIDE = (sizeof(SharedSlot) + LINE - 1) // LINE * LINE
    SLOTS_AT = (sizeof(SharedHead) + LINE - 1) // LINE * LINE

cdef uint64_t MAGIC = 0x3144455241485352    # "RSHARED1" in the order of the bytes

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


cdef size_t users_at(uint64_t workers) noexcept nogil:
    return (SLOTS_AT + workers * SLOT_STRIDE + PAGE - 1) // PAGE * PAGE


cdef SharedSlot* shared_slot(const SharedMap* map, uint32_t slot) noexcept nogil:
    return <SharedSlot*> (map.slots + <size_t> slot * SLOT_STRIDE)


cdef uint64_t shared_connections(const SharedMap* map) noexcept nogil:
    cdef uint64_t total = 0
    cdef uint32_t i
    for i in range(map.workers):
        total += word_load(&shared_slot(map, i).connections)
    return total


cdef bint shared_connect(const SharedMap* map, SharedSlot* slot, uint64_t most) noexcept nogil:
    cdef int _attempt
    for _attempt in range(CONNECT_TRIES):
        word_store(&slot.connections, slot.connections + 1)
        if shared_connections(map) <= most:
            return True
        word_store(&slot.connections, slot.connections - 1)
    return False


cdef void shared_disconnect(SharedSlot* slot) noexcept nogil:
    word_store(&slot.connections, slot.connections - 1)


cdef void shared_tell(SharedSlot* slot, const Counters* counters) noexcept nogil:
    cdef const uint64_t* source = <const uint64_t*> counters
    cdef uint64_t* target = <uint64_t*> &slot.counters
    cdef size_t i
    for i in range(COUNTERS):
        word_put(target + i, source[i])


cdef uint64_t shared_key(const SharedMap* map, const uint8_t* id, size_t size) noexcept nogil:
    cdef uint64_t key = keyed_siphash13(map.key_low, map.key_high, id, size)
    return key if key else 1


cdef void add_counters(Counters* total, const Counters* counters) noexcept nogil:
    cdef uint64_t* sum = <uint64_t*> total
    cdef const uint64_t* words = <const uint64_t*> counters
    cdef size_t i
    for i in range(COUNTERS):
        sum[i] += word_load(words + i)


cdef class Shared:
    """The memory behind `fd`, which `create` has made, mapped into this process; `fd` may be closed afterwards.

    Raises ValueError when it is not such memory, or of another version, OSError when it cannot be mapped.
    """

    def __cinit__(self, int fd):
        cdef void* address
        cdef size_t size = os.fstat(fd).st_size
        self.map.head = NULL
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        except OSError:
            seals = 0
        if size < PAGE or seals & SEALS != SEALS:
            raise ValueError(f"fd: {fd} is not the memory of a server")
        address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        if address == MAP_FAILED:
            raise OSError(errno, os.strerror(errno))
        self.map.head = <SharedHead*> address
        self.map.size = size
        self.read_head()

    def __dealloc__(self):
        if self.map.head != NULL:
            munmap(self.map.head, self.map.size)

    cdef int read_head(self) except -1:
        cdef SharedHead head = self.map.head[0]
        cdef size_t size
        if head.magic != MAGIC or head.version != VERSION or head.counters != COUNTERS:
            raise ValueError("fd: the memory of another version of the server")
        if not (1 <= head.workers <= SHARED_SLOTS and LEAST_USERS <= head.users <= MOST_USERS
                and head.users & (head.users - 1) == 0):
            raise ValueError(f"fd: memory for {head.workers} workers and {head.users} users")
        size = users_at(head.workers) + head.users * sizeof(SharedUser)
        if head.size != size or self.map.size != size:
            raise ValueError(f"fd: {self.map.size} bytes of memory, {size} expected")
        self.map.workers = <uint32_t> head.workers
        self.map.user_mask = head.users - 1
        self.map.slots = <uint8_t*> self.map.head + SLOTS_AT
        self.map.users = <SharedUser*> (<uint8_t*> self.map.head + users_at(head.workers))
        self.map.key_low = head.key_low
        self.map.key_high = head.key_high
        return 0

    @staticmethod
    def create(workers, users=SHARED_USERS):
        """A descriptor of new memory for so many workers (1 to 64) and so many users at once (rounded up to a power of
        two). It is closed on exec unless it is passed on, and belongs to the caller.

        Raises ValueError for a number out of range, OSError, and NotImplementedError on a processor without what it
        takes.
        """
        cdef SharedHead head
        if not PAIRS:
            raise NotImplementedError("this processor cannot swap 16 bytes at once, which several workers need")
        if not 1 <= workers <= SHARED_SLOTS:
            raise ValueError(f"workers: {workers} is not between 1 and {SHARED_SLOTS}")
        if not 1 <= users <= MOST_USERS:
            raise ValueError(f"users: {users} is not between 1 and {MOST_USERS}")
        memset(&head, 0, sizeof(SharedHead))
        key = os.urandom(16)
        head.magic = MAGIC
        head.version = VERSION
        head.workers = workers
        head.users = max(LEAST_USERS, 1 << (users - 1).bit_length())
        head.counters = COUNTERS
        head.size = users_at(head.workers) + head.users * sizeof(SharedUser)
        head.key_low = int.from_bytes(key[:8], "little")
        head.key_high = int.from_bytes(key[8:], "little")
        fd = os.memfd_create("realtime_communication", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, head.size)
            os.pwrite(fd, (<const char*> &head)[:sizeof(SharedHead)], 0)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
        except BaseException:
            os.close(fd)
            raise
        return fd

    @property
    def workers(self):
        """Slots there are."""
        return self.map.workers

    def connections(self):
        """WebSocket connections of all workers."""
        return shared_connections(&self.map)

    def connections_of(self, slot):
        """WebSocket connections of the worker in that slot. Raises ValueError."""
        return word_load(&self.slot(slot).connections)

    def totals(self):
        """Counters by name, over all workers as of their last turns: events since the server started, gauges of now."""
        cdef Counters total
        cdef uint64_t moves
        cdef uint32_t i
        cdef int _attempt
        for _attempt in range(READ_TRIES):
            moves = word_load(&self.map.head.moves)
            memset(&total, 0, sizeof(Counters))
            add_counters(&total, &self.map.head.gone)
            for i in range(self.map.workers):
                add_counters(&total, &shared_slot(&self.map, i).counters)
            if moves & 1 == 0 and word_load(&self.map.head.moves) == moves:
                break
        return counters_dict(&total)

    def forget_slot(self, slot):
        """Give back what the worker in that slot held: its connections, and what its gauges told. The events it
        counted stay in the totals.

        For the supervisor alone, after the worker has ended and before another one takes the slot. Raises ValueError.
        """
        cdef SharedSlot* page = self.slot(slot)
        cdef uint64_t* gone = <uint64_t*> &self.map.head.gone
        cdef uint64_t* counters = <uint64_t*> &page.counters
        cdef size_t i
        word_store(&page.connections, 0)
        word_store(&self.map.head.moves, self.map.head.moves + 1)
        for i in range(COUNTERS):
            if i >= COUNTER_GAUGES:
                word_store(gone + i, gone[i] + counters[i])
            word_store(counters + i, 0)
        word_store(&self.map.head.moves, self.map.head.moves + 1)

    cdef SharedSlot* slot(self, object slot) except NULL:
        if not 0 <= slot < self.map.workers:
            raise ValueError(f"slot: {slot} is not between 0 and {self.map.workers - 1}")
        return shared_slot(&self.map, slot)
