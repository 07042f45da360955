# Hierarchical timer wheel: any number of timers, set and cancelled in constant time. A pure container: the time is an
# argument, and a due timer is handed out, not called.
#
# Rules: nothing here raises or allocates. A timer lives in its owner's struct and must not move or go away while set.
# Never early; late by at most one tick plus the time between two calls of wheel_expired. A clock that steps back
# delays timers until it is where it was; nothing fires twice.
#
# Theory: time is counted in ticks. Eight levels of 64 slots stand for the 48 bits of a tick, six bits each. A timer
# is kept at the level of the highest six bits in which its deadline differs from the wheel's time, in the slot those
# bits name; when the wheel's time reaches that slot its timers go to lower levels, at the lowest they are due. A word
# per level has a bit for each slot in use, so stretches without timers are passed over in a few instructions.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef enum:
    WHEEL_LEVELS = 8
    WHEEL_SLOTS = 64             # per level


cdef struct Timer:               # 24 bytes
    Timer* next                  # in its slot
    Timer** link                 # what points to this timer; NULL when it is not set
    uint32_t deadline            # ticks, low part
    uint16_t deadline_high       # ticks, bits 32 to 47
    uint8_t kind                 # the owner's
    uint8_t flags                # the owner's


cdef struct TimerWheel:          # 4.2 KiB; must not move while timers are set
    uint64_t time                # ticks; slots before it are empty
    uint64_t seen                # ticks; the latest time given
    uint32_t tick_ms
    size_t count                 # timers set
    Timer* due                   # timers whose deadline has come, still to be handed out
    uint64_t used[WHEEL_LEVELS]  # per level: bit i is set when slot i has timers
    Timer* slots[WHEEL_LEVELS * WHEEL_SLOTS]


# `tick_ms`: at least 1.
cdef void wheel_init(TimerWheel* wheel, uint64_t now_ms, uint32_t tick_ms) noexcept nogil
# Sets a timer, or sets it anew. A deadline that has passed is due at the next tick, so that a timer set to the past by
# whoever loops over wheel_expired does not keep that loop busy.
cdef void wheel_set(TimerWheel* wheel, Timer* timer, uint64_t deadline_ms) noexcept nogil
# Nothing happens when the timer is not set; it may also be among those due.
cdef void wheel_cancel(TimerWheel* wheel, Timer* timer) noexcept nogil
# Takes out one timer that is due, earlier ticks first, or NULL. Called until it gives NULL.
cdef Timer* wheel_expired(TimerWheel* wheel, uint64_t now_ms) noexcept nogil
# Milliseconds until wheel_expired has to be called again, 0 when it is time, -1 when nothing is set. Far timers give
# a time before their deadline, when they go down a level.
cdef int64_t wheel_next_ms(const TimerWheel* wheel, uint64_t now_ms) noexcept nogil


cdef inline void timer_init(Timer* timer, uint8_t kind) noexcept nogil:
    timer.next = NULL
    timer.link = NULL
    timer.deadline = 0
    timer.deadline_high = 0
    timer.kind = kind
    timer.flags = 0


cdef inline bint timer_is_set(const Timer* timer) noexcept nogil:
    return timer.link != NULL
