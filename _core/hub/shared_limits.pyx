"""Buckets of all workers; `shared_limits.pxd` is the contract. `SharedBucket` lets tests reach them from Python."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from realtime_communication._core.base.shared cimport (
    Pair,
    Shared,
    SharedMap,
    SharedUser,
    pair_load,
    pair_swap,
    shared_key,
    word_load,
    word_swap,
)
from realtime_communication._core.hub.token_bucket cimport (
    BucketRate,
    TokenBucket,
    bucket_full_in_ms,
    bucket_give_back,
    bucket_idle_ms,
    bucket_init,
    bucket_rate_init,
    bucket_remaining,
    bucket_take,
)

cdef enum:
    PLACES = 16                  # looked at for a user; the table has at least so many
    TRIES = 64                   # until a worker that others are always ahead of limits by itself
    IDLE_MS = 1000               # a bucket used within this long keeps its place
    FREE = 0                     # marks: bits 48 to 63 of a Pair's high half; else the bucket's offset + 1
    CLAIMED = 0xFFFF
    GONE = -3                    # the place is another user's by now


cdef inline uint16_t mark(Pair pair) noexcept nogil:
    return <uint16_t> (pair.high >> 48)


cdef inline Pair pair_of(const TokenBucket* bucket) noexcept nogil:
    cdef Pair out
    out.low = <uint64_t> bucket.balance
    out.high = <uint64_t> (bucket.offset + 1) << 48 | <uint64_t> bucket.refilled_high << 32 | bucket.refilled_ms
    return out


cdef inline TokenBucket bucket_of(Pair pair) noexcept nogil:
    cdef TokenBucket out
    out.balance = <int64_t> pair.low
    out.refilled_ms = <uint32_t> pair.high
    out.refilled_high = <uint16_t> (pair.high >> 32)
    out.offset = <uint16_t> (mark(pair) - 1)
    return out


cdef inline Pair claim_of(uint64_t key, uint64_t now_ms) noexcept nogil:
    cdef Pair out
    out.low = key
    out.high = <uint64_t> CLAIMED << 48 | now_ms & ((<uint64_t> 1 << 48) - 1)
    return out


cdef inline uint64_t idle_for(Pair pair, uint64_t now_ms) noexcept nogil:
    cdef TokenBucket bucket = bucket_of(pair)
    return bucket_idle_ms(&bucket, now_ms)


# --- one bucket

cdef int64_t shared_take(Pair* shared, const BucketRate* rate, uint64_t now_ms) noexcept nogil:
    cdef Pair seen
    cdef TokenBucket bucket
    cdef int64_t wait
    while True:
        seen = pair_load(shared)
        if mark(seen) == FREE:
            bucket_init(&bucket, rate, now_ms)
        else:
            bucket = bucket_of(seen)
        wait = bucket_take(&bucket, rate, now_ms)
        if pair_swap(shared, seen, pair_of(&bucket)):
            return wait


cdef void shared_give_back(Pair* shared, const BucketRate* rate) noexcept nogil:
    cdef Pair seen
    cdef TokenBucket bucket
    while True:
        seen = pair_load(shared)
        if mark(seen) == FREE:
            return
        bucket = bucket_of(seen)
        bucket_give_back(&bucket, rate)
        if pair_swap(shared, seen, pair_of(&bucket)):
            return


cdef TokenBucket shared_read(Pair* shared, const BucketRate* rate, uint64_t now_ms) noexcept nogil:
    cdef Pair seen = pair_load(shared)
    cdef TokenBucket bucket
    while not pair_swap(shared, seen, seen):
        seen = pair_load(shared)
    if mark(seen) == FREE:
        bucket_init(&bucket, rate, now_ms)
    else:
        bucket = bucket_of(seen)
    return bucket


# --- places of users

cdef inline SharedUser* place_at(const SharedMap* map, uint64_t key, uint32_t i) noexcept nogil:
    """The user's place number i, below PLACES. All are different ones, far apart, so that there are no full regions."""
    return &map.users[(key + i * ((key >> 32) | 1)) & map.user_mask]


cdef inline bint is_of(const SharedUser* place, Pair seen, uint64_t key) noexcept nogil:
    """Whether the place is that user's; `seen` was read before."""
    if mark(seen) == CLAIMED:
        return seen.low == key
    return mark(seen) != FREE and word_load(&place.key) == key


cdef SharedUser* find(const SharedMap* map, uint64_t key) noexcept nogil:
    """The user's place, else the first free one, else NULL. No place gets free again, so none is behind a free one."""
    cdef SharedUser* place
    cdef Pair seen
    cdef uint32_t i
    for i in range(PLACES):
        place = place_at(map, key, i)
        seen = pair_load(&place.bucket)
        if mark(seen) == FREE or is_of(place, seen, key):
            return place
    return NULL


cdef bint outlived(Pair seen, const BucketRate* rate, uint64_t idle_ms, uint64_t now_ms) noexcept nogil:
    """Whether another user may have the place."""
    cdef uint64_t idle = idle_for(seen, now_ms)
    cdef TokenBucket bucket
    if idle < IDLE_MS:
        return False
    if mark(seen) == CLAIMED or idle >= idle_ms:
        return True
    bucket = bucket_of(seen)
    return bucket_full_in_ms(&bucket, rate, now_ms) == 0


cdef SharedUser* longest_idle(
    const SharedMap* map, uint64_t key, const BucketRate* rate, uint64_t idle_ms, uint64_t now_ms, Pair* found
) noexcept nogil:
    """The place that another user may have and that was used least lately, with what was there; NULL for none.

    When another worker has claimed a place for the user meanwhile, it is that one, and the caller's swap fails.
    """
    cdef SharedUser* place
    cdef SharedUser* best = NULL
    cdef Pair seen
    cdef uint64_t idle, longest = 0
    cdef uint32_t i
    for i in range(PLACES):
        place = place_at(map, key, i)
        seen = pair_load(&place.bucket)
        if is_of(place, seen, key):
            found[0] = claim_of(0, 0)
            return place
        idle = idle_for(seen, now_ms)
        if idle > longest and outlived(seen, rate, idle_ms, now_ms):
            longest = idle
            best = place
            found[0] = seen
    return best


cdef SharedUser* claim(
    const SharedMap* map, uint64_t key, const BucketRate* rate, uint64_t idle_ms, uint64_t now_ms
) noexcept nogil:
    """The user's place, with a new bucket when it had none or a long idle one; NULL when there is no place."""
    cdef SharedUser* place
    cdef Pair seen
    cdef int _attempt
    for _attempt in range(TRIES):
        place = find(map, key)
        if place == NULL:
            place = longest_idle(map, key, rate, idle_ms, now_ms, &seen)
            if place == NULL:
                return NULL
        else:
            seen = pair_load(&place.bucket)
            if mark(seen) != FREE:
                if not is_of(place, seen, key):
                    continue
                if mark(seen) == CLAIMED or idle_for(seen, now_ms) < max(idle_ms, <uint64_t> IDLE_MS):
                    return place
        if pair_swap(&place.bucket, seen, claim_of(key, now_ms)):
            return place
    return NULL


cdef int64_t take_at(SharedUser* place, uint64_t key, const BucketRate* rate, uint64_t now_ms) noexcept nogil:
    """As bucket_take, or GONE."""
    cdef Pair seen
    cdef TokenBucket bucket
    cdef uint64_t before
    cdef int64_t wait
    while True:
        seen = pair_load(&place.bucket)
        if not is_of(place, seen, key):
            return GONE
        if mark(seen) == CLAIMED:
            before = word_load(&place.key)
            if before != key and not word_swap(&place.key, before, key):
                continue
            bucket_init(&bucket, rate, now_ms)
        else:
            bucket = bucket_of(seen)
        wait = bucket_take(&bucket, rate, now_ms)
        if pair_swap(&place.bucket, seen, pair_of(&bucket)):
            return wait


cdef int64_t shared_user_take(const SharedMap* map, SharedUser** place, uint64_t key, const BucketRate* rate,
                              uint64_t idle_ms, uint64_t now_ms) noexcept nogil:
    cdef int _attempt
    cdef int64_t wait
    for _attempt in range(TRIES):
        if place[0] == NULL:
            place[0] = claim(map, key, rate, idle_ms, now_ms)
            if place[0] == NULL:
                break
        wait = take_at(place[0], key, rate, now_ms)
        if wait != GONE:
            return wait
        place[0] = NULL
    return TAKEN_NOWHERE


cdef void shared_user_give_back(SharedUser* place, uint64_t key, const BucketRate* rate) noexcept nogil:
    cdef Pair seen
    cdef TokenBucket bucket
    while True:
        seen = pair_load(&place.bucket)
        if mark(seen) == CLAIMED or not is_of(place, seen, key):
            return
        bucket = bucket_of(seen)
        bucket_give_back(&bucket, rate)
        if pair_swap(&place.bucket, seen, pair_of(&bucket)):
            return


cdef bint shared_user_read(const SharedMap* map, uint64_t key, TokenBucket* out) noexcept nogil:
    cdef SharedUser* place = find(map, key)
    cdef Pair seen
    while place != NULL:
        seen = pair_load(&place.bucket)
        if mark(seen) == CLAIMED or not is_of(place, seen, key):
            return False
        if pair_swap(&place.bucket, seen, seen):
            out[0] = bucket_of(seen)
            return True
    return False


cdef class SharedBucket:
    """A bucket in `shared` and its `BucketRate` held by Python: the server's, or that of a user.

    The methods are those of `token_bucket.Bucket`; a bucket that nobody has used is full. `take` of a user answers -2
    when the table has no place.
    """

    cdef Shared shared
    cdef BucketRate rate
    cdef uint64_t key
    cdef uint64_t idle_ms
    cdef SharedUser* place

    def __cinit__(
        self, Shared shared not None, bytes user, double tokens_per_second, uint32_t burst,
        uint32_t refill_interval_ms, double precision, uint64_t idle_ms=600_000
    ):
        self.shared = shared
        self.place = NULL
        self.idle_ms = idle_ms
        self.key = shared_key(&shared.map, <const uint8_t*> user, len(user)) if user is not None else 0
        bucket_rate_init(&self.rate, tokens_per_second, burst, refill_interval_ms, precision)

    def change_rate(self, double tokens_per_second, uint32_t burst, uint32_t refill_interval_ms, double precision):
        """Go on under another limit."""
        bucket_rate_init(&self.rate, tokens_per_second, burst, refill_interval_ms, precision)

    def take(self, uint64_t now_ms):
        """Take a token: -1, or milliseconds until there is one."""
        if self.key:
            return shared_user_take(&self.shared.map, &self.place, self.key, &self.rate, self.idle_ms, now_ms)
        return shared_take(&self.shared.map.head.global_bucket, &self.rate, now_ms)

    def give_back(self):
        """Put a token back."""
        if not self.key:
            shared_give_back(&self.shared.map.head.global_bucket, &self.rate)
        elif self.place != NULL:
            shared_user_give_back(self.place, self.key, &self.rate)

    cdef TokenBucket now(self, uint64_t now_ms) noexcept:
        cdef TokenBucket bucket
        if not self.key:
            return shared_read(&self.shared.map.head.global_bucket, &self.rate, now_ms)
        if not shared_user_read(&self.shared.map, self.key, &bucket):
            bucket_init(&bucket, &self.rate, now_ms)
        return bucket

    def remaining(self, uint64_t now_ms):
        """Tokens that can be taken now."""
        cdef TokenBucket bucket = self.now(now_ms)
        return bucket_remaining(&bucket, &self.rate, now_ms)

    def full_in_ms(self, uint64_t now_ms):
        """Milliseconds until the bucket is full."""
        cdef TokenBucket bucket = self.now(now_ms)
        return bucket_full_in_ms(&bucket, &self.rate, now_ms)
