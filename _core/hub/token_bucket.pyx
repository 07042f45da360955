"""Token buckets; `token_bucket.pxd` is the contract. `Bucket` lets tests reach them from Python."""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

cdef extern from * nogil:
    """
    #define RTC_TOKEN INT64_C(1000000000)
    #define RTC_FASTEST (INT64_C(1) << 62)
    """
    const int64_t TOKEN "RTC_TOKEN"          # billionths of a token in one token
    const int64_t FASTEST "RTC_FASTEST"      # refill per millisecond that fills any bucket at once

cdef enum:
    FINEST = 1000                # thousandths of a token in one token
    THOUSANDTH = 1000000         # billionths in one thousandth


cdef void bucket_rate_init(
    BucketRate* rate, double tokens_per_second, uint32_t burst, uint32_t refill_interval_ms, double precision
) noexcept nogil:
    cdef double refill = tokens_per_second * 1e6 + 0.5
    if not refill < <double> FASTEST:
        rate.refill = FASTEST
    elif refill < 1:
        rate.refill = 1
    else:
        rate.refill = <int64_t> refill
    rate.capacity = <int64_t> (burst if burst else 1) * TOKEN
    rate.interval_ms = refill_interval_ms if refill_interval_ms else 1
    if not precision < 1:
        rate.precision = FINEST
    elif precision < 0.001:
        rate.precision = 1
    else:
        rate.precision = <uint32_t> (precision * FINEST + 0.5)


cdef inline uint64_t last_refill(const TokenBucket* bucket) noexcept nogil:
    return <uint64_t> bucket.refilled_high << 32 | bucket.refilled_ms


cdef inline void set_last_refill(TokenBucket* bucket, uint64_t time_ms) noexcept nogil:
    bucket.refilled_ms = <uint32_t> time_ms
    bucket.refilled_high = <uint16_t> (time_ms >> 32)


cdef inline void fill(TokenBucket* bucket, const BucketRate* rate) noexcept nogil:
    """Make it full: all of that can be spent."""
    bucket.balance = rate.capacity
    bucket.offset = <uint16_t> (rate.capacity // THOUSANDTH % rate.precision)


cdef void bucket_init(TokenBucket* bucket, const BucketRate* rate, uint64_t now_ms) noexcept nogil:
    fill(bucket, rate)
    set_last_refill(bucket, now_ms)


cdef inline TokenBucket refilled(const TokenBucket* bucket, const BucketRate* rate, uint64_t now_ms) noexcept nogil:
    """The bucket with all refills up to now."""
    cdef TokenBucket out = bucket[0]
    cdef uint64_t since = last_refill(bucket)
    cdef uint64_t elapsed = 0
    if now_ms > since:
        elapsed = now_ms - since
        elapsed -= elapsed % rate.interval_ms
        set_last_refill(&out, since + elapsed)
    out.offset = <uint16_t> (out.offset % rate.precision)        # the rate may have another precision than before
    if out.balance >= rate.capacity or elapsed > <uint64_t> ((rate.capacity - out.balance) // rate.refill):
        fill(&out, rate)
    else:
        out.balance += <int64_t> elapsed * rate.refill
        if out.balance == rate.capacity:
            fill(&out, rate)
    return out


cdef inline int64_t spendable(const TokenBucket* bucket, const BucketRate* rate) noexcept nogil:
    """Billionths of a token that can be spent: the highest point that the balance has reached."""
    cdef int64_t step = <int64_t> rate.precision * THOUSANDTH
    cdef int64_t above = bucket.balance - <int64_t> bucket.offset * THOUSANDTH
    return bucket.balance - above % step if above >= 0 else 0


cdef inline int64_t balance_for_one(const TokenBucket* bucket, const BucketRate* rate) noexcept nogil:
    """The balance at which a token can be spent: the first point that has one, or a full bucket."""
    cdef int64_t step = <int64_t> rate.precision * THOUSANDTH
    cdef int64_t offset = <int64_t> bucket.offset * THOUSANDTH
    cdef int64_t point = offset + (TOKEN - offset + step - 1) // step * step
    return point if point < rate.capacity else rate.capacity


cdef inline uint64_t wait_ms(
    const TokenBucket* bucket, const BucketRate* rate, int64_t balance, uint64_t now_ms
) noexcept nogil:
    """Milliseconds until a bucket refilled up to now has that balance, which it has not yet."""
    cdef uint64_t needed = <uint64_t> ((balance - bucket.balance - 1) // rate.refill) + 1
    needed = (needed + rate.interval_ms - 1) // rate.interval_ms * rate.interval_ms
    return last_refill(bucket) + needed - now_ms


cdef int64_t bucket_take(TokenBucket* bucket, const BucketRate* rate, uint64_t now_ms) noexcept nogil:
    bucket[0] = refilled(bucket, rate, now_ms)
    if spendable(bucket, rate) < TOKEN:
        return <int64_t> wait_ms(bucket, rate, balance_for_one(bucket, rate), now_ms)
    bucket.balance -= TOKEN
    bucket.offset = <uint16_t> ((bucket.offset + FINEST * rate.precision - FINEST) % rate.precision)
    return -1


cdef void bucket_give_back(TokenBucket* bucket, const BucketRate* rate) noexcept nogil:
    if bucket.balance >= rate.capacity - TOKEN:
        fill(bucket, rate)
    else:
        bucket.balance += TOKEN
        bucket.offset = <uint16_t> ((bucket.offset + FINEST) % rate.precision)


cdef uint32_t bucket_remaining(const TokenBucket* bucket, const BucketRate* rate, uint64_t now_ms) noexcept nogil:
    cdef TokenBucket now = refilled(bucket, rate, now_ms)
    return <uint32_t> (spendable(&now, rate) // TOKEN)


cdef uint64_t bucket_full_in_ms(const TokenBucket* bucket, const BucketRate* rate, uint64_t now_ms) noexcept nogil:
    cdef TokenBucket now = refilled(bucket, rate, now_ms)
    if now.balance >= rate.capacity:
        return 0
    return wait_ms(&now, rate, rate.capacity, now_ms)


cdef class Bucket:
    """A `TokenBucket` and its `BucketRate` held by Python, so that tests can compare them with a model."""

    cdef BucketRate rate
    cdef TokenBucket bucket

    def __cinit__(
        self, uint64_t now_ms, double tokens_per_second, uint32_t burst, uint32_t refill_interval_ms, double precision
    ):
        bucket_rate_init(&self.rate, tokens_per_second, burst, refill_interval_ms, precision)
        bucket_init(&self.bucket, &self.rate, now_ms)

    def change_rate(self, double tokens_per_second, uint32_t burst, uint32_t refill_interval_ms, double precision):
        """Go on under another limit."""
        bucket_rate_init(&self.rate, tokens_per_second, burst, refill_interval_ms, precision)

    def take(self, uint64_t now_ms):
        """Take a token: -1, or milliseconds until there is one."""
        return bucket_take(&self.bucket, &self.rate, now_ms)

    def give_back(self):
        """Put a token back."""
        bucket_give_back(&self.bucket, &self.rate)

    def remaining(self, uint64_t now_ms):
        """Tokens that can be taken now."""
        return bucket_remaining(&self.bucket, &self.rate, now_ms)

    def full_in_ms(self, uint64_t now_ms):
        """Milliseconds until the bucket is full."""
        return bucket_full_in_ms(&self.bucket, &self.rate, now_ms)
