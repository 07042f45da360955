# What the workers of one server share: a mapping of memory with connection counts, token buckets and counters.
#
# Rules: nothing in the mapping is ever locked, so a process may be killed at any instruction. A word has either one
# writer or is changed by atomic operations only; a Pair is 16 bytes that change by compare-and-swap only. Sizes and
# bounds are read once, when the mapping is opened and checked, and kept in this process: no pointer follows from a
# value that another process may change. The mapping's file is sealed: nobody can make it shorter.
#
# Theory: one page of counters for each slot (the place of a worker among the workers) is written by that worker alone,
# so a reader sums without asking anybody. A connection is counted in its worker's page before it is let in, and the sum
# is looked at after that: two workers may both see one too many and both step back, but never do both get in. What a
# worker had is known by its slot, so the supervisor can give it back when the worker is gone.
#
# What is in the table of users, and in the buckets, is the business of those who use them (hub/shared_limits).

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from realtime_communication._core.base.counters cimport Counters

cdef extern from * nogil:
    """
    #ifndef RTC_SHARED_ATOMICS
    #define RTC_SHARED_ATOMICS
    typedef struct { uint64_t low, high; } __attribute__((aligned(16))) rtc_pair;

    static inline uint64_t rtc_word_load(const uint64_t* at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
    static inline void rtc_word_store(uint64_t* at, uint64_t value) { __atomic_store_n(at, value, __ATOMIC_SEQ_CST); }
    static inline void rtc_word_put(uint64_t* at, uint64_t value) { __atomic_store_n(at, value, __ATOMIC_RELAXED); }
    static inline int rtc_word_swap(uint64_t* at, uint64_t expected, uint64_t desired) {
        return __atomic_compare_exchange_n(at, &expected, desired, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }

    static inline rtc_pair rtc_pair_load(const rtc_pair* at) {
        rtc_pair out;
        uint64_t again = __atomic_load_n(&at->high, __ATOMIC_SEQ_CST);
        do {
            out.high = again;
            out.low = __atomic_load_n(&at->low, __ATOMIC_SEQ_CST);
            again = __atomic_load_n(&at->high, __ATOMIC_SEQ_CST);
        } while (again != out.high);
        return out;
    }

    #if defined(__x86_64__)
    /* Written out: compilers call a library for it unless they may assume the instruction, which all but the very
       first processors of 64 bits have. */
    #define RTC_PAIRS 1
    static inline int rtc_pair_swap(rtc_pair* at, rtc_pair expected, rtc_pair desired) {
        unsigned char done;
        __asm__ __volatile__("lock cmpxchg16b %1\\n\\tsete %0"
                             : "=q"(done), "+m"(*at), "+a"(expected.low), "+d"(expected.high)
                             : "b"(desired.low), "c"(desired.high)
                             : "cc", "memory");
        return done;
    }
    #elif defined(__aarch64__) || defined(__GCC_HAVE_SYNC_COMPARE_AND_SWAP_16)
    #define RTC_PAIRS 1
    static inline int rtc_pair_swap(rtc_pair* at, rtc_pair expected, rtc_pair desired) {
        unsigned __int128 before, after;
        __builtin_memcpy(&before, &expected, 16);
        __builtin_memcpy(&after, &desired, 16);
        return __sync_bool_compare_and_swap((unsigned __int128*) at, before, after);
    }
    #else
    #define RTC_PAIRS 0
    static inline int rtc_pair_swap(rtc_pair* at, rtc_pair expected, rtc_pair desired) { return 0; }
    #endif
    #endif
    """
    ctypedef struct Pair "rtc_pair":     # 16 bytes, aligned to 16
        uint64_t low
        uint64_t high

    const int PAIRS "RTC_PAIRS"          # 0: this processor cannot swap 16 bytes, so there is no sharing

    uint64_t word_load "rtc_word_load"(const uint64_t* at)
    void word_store "rtc_word_store"(uint64_t* at, uint64_t value)
    # The same without an order among such stores.
    void word_put "rtc_word_put"(uint64_t* at, uint64_t value)
    # Whether the word was `expected` and is `desired` now.
    bint word_swap "rtc_word_swap"(uint64_t* at, uint64_t expected, uint64_t desired)
    # Both halves, whose high half was the same before and after the low one was read.
    Pair pair_load "rtc_pair_load"(const Pair* at)
    bint pair_swap "rtc_pair_swap"(Pair* at, Pair expected, Pair desired)


cdef enum:
    SHARED_SLOTS = 64            # most workers
    SHARED_USERS = 65536         # places for users when nothing else is asked for


cdef struct SharedUser:          # 32 bytes; all zero: never used
    Pair bucket
    uint64_t key                 # shared_key of the user
    uint64_t spare


cdef struct SharedSlot:          # of one worker, its only writer while it lives; on cache lines of its own
    uint64_t connections         # WebSocket connections it holds
    uint64_t[7] spare
    Counters counters            # copy of its counters


cdef struct SharedHead:          # the mapping's first bytes
    uint64_t magic
    uint64_t version             # of this layout
    uint64_t workers
    uint64_t users               # a power of two
    uint64_t counters            # in Counters
    uint64_t size                # bytes of the mapping
    uint64_t key_low             # random, of this mapping: nobody outside can aim at a place in the table
    uint64_t key_high
    uint64_t moves               # odd while a slot is being forgotten
    uint64_t[7] spare
    Pair global_bucket
    uint64_t[6] global_spare
    Counters gone                # events counted by workers that are no more


cdef struct SharedMap:           # this process's view
    SharedHead* head
    SharedUser* users
    uint8_t* slots               # `workers` of them, SLOT_STRIDE bytes apart
    uint32_t workers
    uint64_t user_mask
    uint64_t key_low
    uint64_t key_high
    size_t size


# The page of a worker; `slot` is below map.workers.
cdef SharedSlot* shared_slot(const SharedMap* map, uint32_t slot) noexcept nogil
# Connections of all workers.
cdef uint64_t shared_connections(const SharedMap* map) noexcept nogil
# Counts one more connection of this worker, unless there are `most` of all workers.
cdef bint shared_connect(const SharedMap* map, SharedSlot* slot, uint64_t most) noexcept nogil
# Counts one less.
cdef void shared_disconnect(SharedSlot* slot) noexcept nogil
# Copies a worker's counters to its page.
cdef void shared_tell(SharedSlot* slot, const Counters* counters) noexcept nogil
# The key of a user's id in the table, never 0.
cdef uint64_t shared_key(const SharedMap* map, const uint8_t* id, size_t size) noexcept nogil


cdef class Shared:
    cdef SharedMap map

    # Reads and checks the head of what is mapped. Raises ValueError.
    cdef int read_head(self) except -1
    # The page of that slot. Raises ValueError.
    cdef SharedSlot* slot(self, object slot) except NULL
