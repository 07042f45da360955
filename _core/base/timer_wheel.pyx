"""Hierarchical timer wheel; `timer_wheel.pxd` is the contract. `Alarms` lets tests reach it from Python."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cdef extern from * nogil:
    """
    #define RTC_LAST_TICK ((UINT64_C(1) << 48) - 1)
    """
    const uint64_t LAST_TICK "RTC_LAST_TICK"
    int __builtin_ctzll(unsigned long long value)
    int __builtin_clzll(unsigned long long value)

cdef enum:
    LEVEL_BITS = 6               # 64 slots


cdef void wheel_init(TimerWheel* wheel, uint64_t now_ms, uint32_t tick_ms) noexcept nogil:
    memset(wheel, 0, sizeof(TimerWheel))
    wheel.tick_ms = tick_ms if tick_ms else 1
    wheel.time = now_ms // wheel.tick_ms
    if wheel.time > LAST_TICK - 1:
        wheel.time = LAST_TICK - 1
    wheel.seen = wheel.time


cdef inline uint64_t deadline_of(const Timer* timer) noexcept nogil:
    return <uint64_t> timer.deadline_high << 32 | timer.deadline


cdef inline void push(Timer** head, Timer* timer) noexcept nogil:
    timer.next = head[0]
    if timer.next != NULL:
        timer.next.link = &timer.next
    timer.link = head
    head[0] = timer


cdef inline void place(TimerWheel* wheel, Timer* timer) noexcept nogil:
    """Put a timer into the slot of its deadline, which is the wheel's time or later."""
    cdef uint64_t deadline = deadline_of(timer)
    # The lowest six bits are always set here: a deadline that differs in none is at the lowest level.
    cdef int level = (63 - __builtin_clzll((wheel.time ^ deadline) | (WHEEL_SLOTS - 1))) // LEVEL_BITS
    cdef int slot = (deadline >> (level * LEVEL_BITS)) & (WHEEL_SLOTS - 1)
    push(&wheel.slots[level * WHEEL_SLOTS + slot], timer)
    wheel.used[level] |= <uint64_t> 1 << slot


cdef inline void unlink(TimerWheel* wheel, Timer* timer) noexcept nogil:
    cdef Timer** link = timer.link
    cdef size_t index
    link[0] = timer.next
    if timer.next != NULL:
        timer.next.link = link
    elif link >= &wheel.slots[0] and link < &wheel.slots[0] + WHEEL_LEVELS * WHEEL_SLOTS:
        index = link - &wheel.slots[0]
        wheel.used[index // WHEEL_SLOTS] &= ~(<uint64_t> 1 << (index % WHEEL_SLOTS))
    timer.next = NULL
    timer.link = NULL


cdef void wheel_set(TimerWheel* wheel, Timer* timer, uint64_t deadline_ms) noexcept nogil:
    cdef uint64_t deadline = deadline_ms // wheel.tick_ms + (deadline_ms % wheel.tick_ms != 0)
    if deadline <= wheel.seen:
        deadline = wheel.seen + 1
    if deadline > LAST_TICK:
        deadline = LAST_TICK
    if timer.link != NULL:
        if deadline_of(timer) == deadline:
            return
        unlink(wheel, timer)
    else:
        wheel.count += 1
    timer.deadline = <uint32_t> deadline
    timer.deadline_high = <uint16_t> (deadline >> 32)
    place(wheel, timer)


cdef void wheel_cancel(TimerWheel* wheel, Timer* timer) noexcept nogil:
    if timer.link == NULL:
        return
    unlink(wheel, timer)
    wheel.count -= 1


cdef inline int next_slot(const TimerWheel* wheel, uint64_t* start) noexcept nogil:
    """The first slot in use (an index into `slots`) and the tick at which it begins, or -1.

    A lower level is always earlier: its timers share all higher bits with the wheel's time, those above do not.
    """
    cdef int level
    cdef int slot
    cdef int shift
    for level in range(WHEEL_LEVELS):
        if wheel.used[level]:
            slot = __builtin_ctzll(wheel.used[level])
            shift = level * LEVEL_BITS
            start[0] = (wheel.time >> shift >> LEVEL_BITS << LEVEL_BITS | <uint64_t> slot) << shift
            return level * WHEEL_SLOTS + slot
    return -1


cdef void open_slot(TimerWheel* wheel, int index) noexcept nogil:
    """Empty a slot that the wheel's time has just reached: to the due ones, or to lower levels."""
    cdef Timer* timer = wheel.slots[index]
    cdef Timer* following
    wheel.slots[index] = NULL
    wheel.used[index // WHEEL_SLOTS] &= ~(<uint64_t> 1 << (index % WHEEL_SLOTS))
    if index < WHEEL_SLOTS:
        wheel.due = timer
        timer.link = &wheel.due
        return
    while timer != NULL:
        following = timer.next
        place(wheel, timer)
        timer = following


cdef Timer* wheel_expired(TimerWheel* wheel, uint64_t now_ms) noexcept nogil:
    cdef uint64_t now = now_ms // wheel.tick_ms
    cdef uint64_t start = 0
    cdef Timer* timer
    cdef int index
    if now > LAST_TICK - 1:
        now = LAST_TICK - 1
    if now > wheel.seen:
        wheel.seen = now
    while wheel.due == NULL:
        index = next_slot(wheel, &start)
        if index < 0 or start > wheel.seen:
            # Only lower bits than those of the first slot in use change here, so every timer stays where it belongs.
            wheel.time = wheel.seen
            return NULL
        wheel.time = start
        open_slot(wheel, index)
    timer = wheel.due
    unlink(wheel, timer)
    wheel.count -= 1
    return timer


cdef int64_t wheel_next_ms(const TimerWheel* wheel, uint64_t now_ms) noexcept nogil:
    cdef uint64_t start = 0
    if wheel.due != NULL:
        return 0
    if next_slot(wheel, &start) < 0:
        return -1
    if start <= now_ms // wheel.tick_ms:
        return 0
    return <int64_t> (start * wheel.tick_ms - now_ms)


cdef struct Alarm:
    Timer timer
    uint64_t number


cdef class Alarms:
    """A `TimerWheel` held by Python with timers 0 to `size` - 1, so that tests can compare it with a sorted list."""

    cdef TimerWheel wheel
    cdef Alarm* alarms
    cdef readonly size_t size

    def __cinit__(self, uint64_t now_ms, uint32_t tick_ms, size_t size):
        cdef size_t number
        wheel_init(&self.wheel, now_ms, tick_ms)
        self.alarms = <Alarm*> calloc(size, sizeof(Alarm))
        if self.alarms == NULL:
            raise MemoryError
        self.size = size
        for number in range(size):
            timer_init(&self.alarms[number].timer, <uint8_t> (number & 0xff))
            self.alarms[number].number = number

    def __dealloc__(self):
        free(self.alarms)

    cdef Timer* timer(self, size_t number) except NULL:
        if number >= self.size:
            raise IndexError(number)
        return &self.alarms[number].timer

    def set(self, size_t number, uint64_t deadline_ms):
        """Set timer `number`; raises IndexError."""
        wheel_set(&self.wheel, self.timer(number), deadline_ms)

    def cancel(self, size_t number):
        """Cancel timer `number`; raises IndexError."""
        wheel_cancel(&self.wheel, self.timer(number))

    def is_set(self, size_t number):
        """Whether timer `number` is set; raises IndexError."""
        return timer_is_set(self.timer(number))

    def expired(self, uint64_t now_ms):
        """The number of one due timer, or None; raises AssertionError when it came back changed."""
        cdef Timer* timer = wheel_expired(&self.wheel, now_ms)
        if timer == NULL:
            return None
        cdef uint64_t number = (<Alarm*> timer).number
        if timer.kind != (number & 0xff) or timer_is_set(timer):
            raise AssertionError("the wheel changed what is the owner's")
        return number

    def next_ms(self, uint64_t now_ms):
        """Milliseconds until something may be due, or -1."""
        return wheel_next_ms(&self.wheel, now_ms)

    @property
    def count(self):
        """Timers set."""
        return self.wheel.count
