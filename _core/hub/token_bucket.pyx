"""Token buckets; `token_bucket.pxd` is the contract. `Bucket` lets tests reach them from Python."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from * nogil:
    """
    #define RTC_TOKEN INT64_C(1000000000)
    #define RTC_FASTEST (INT64_C(1) << 62)
    """
    const int64_t TOKEN "RTC_TOKEN"          # billionths of a token in one token
    const int64_t FASTEST "RTC_FASTEST"      # refill per millisecond that fills any bucket at once


cdef void bucket_rate_init(
    BucketRate* rate, double tokens_per_second, uint32_t burst, uint32_t refill_interval_ms, double precision
) noexcept nogil:
    cdef double refill = tokens_per_second * 1e6 + 0.5
    cdef int64_t step
    if not refill < <double> FASTEST:
        rate.refill = FASTEST
    elif refill < 1:
        rate.refill = 1
    else:
        rate.refill = <int64_t> refill
    rate.capacity = <int64_t> (burst if burst else 1) * TOKEN
    rate.interval_ms = refill_interval_ms if refill_interval_ms else 1
    if not precision < 1:
        step = TOKEN
    elif precision < 1e-9:
        step = 1
    else:
        step = <int64_t> (precision * 1e9 + 0.5)
    # The least multiple of the precision that holds a whole token; a full bucket always holds one.
    rate.threshold = (TOKEN + step - 1) // step * step
    if rate.threshold > rate.capacity:
        rate.threshold = rate.capacity


cdef void bucket_init(TokenBucket* bucket, const BucketRate* rate, uint64_t now_ms) noexcept nogil:
    bucket.balance = rate.capacity
    bucket.refilled_ms = now_ms


cdef inline TokenBucket refilled(const TokenBucket* bucket, const BucketRate* rate, uint64_t now_ms) noexcept nogil:
    """The bucket with all refills up to now."""
    cdef TokenBucket out = bucket[0]
    cdef uint64_t elapsed = 0
    if now_ms > out.refilled_ms:
        elapsed = now_ms - out.refilled_ms
        elapsed -= elapsed % rate.interval_ms
        out.refilled_ms += elapsed
    if out.balance >= rate.capacity or elapsed > <uint64_t> ((rate.capacity - out.balance) // rate.refill):
        out.balance = rate.capacity
    else:
        out.balance += <int64_t> elapsed * rate.refill
    return out


cdef inline uint64_t wait_ms(
    const TokenBucket* bucket, const BucketRate* rate, int64_t balance, uint64_t now_ms
) noexcept nogil:
    """Milliseconds until a bucket refilled up to now has that balance, which it has not yet."""
    cdef uint64_t needed = <uint64_t> ((balance - bucket.balance - 1) // rate.refill) + 1
    needed = (needed + rate.interval_ms - 1) // rate.interval_ms * rate.interval_ms
    return bucket.refilled_ms + needed - now_ms


cdef int64_t bucket_take(TokenBucket* bucket, const BucketRate* rate, uint64_t now_ms) noexcept nogil:
    bucket[0] = refilled(bucket, rate, now_ms)
    if bucket.balance >= rate.threshold:
        bucket.balance -= TOKEN
        return -1
    return <int64_t> wait_ms(bucket, rate, rate.threshold, now_ms)


cdef void bucket_give_back(TokenBucket* bucket, const BucketRate* rate) noexcept nogil:
    if bucket.balance > rate.capacity - TOKEN:
        bucket.balance = rate.capacity
    else:
        bucket.balance += TOKEN


cdef uint32_t bucket_remaining(const TokenBucket* bucket, const BucketRate* rate, uint64_t now_ms) noexcept nogil:
    cdef TokenBucket now = refilled(bucket, rate, now_ms)
    if now.balance < rate.threshold:
        return 0
    return <uint32_t> ((now.balance - rate.threshold) // TOKEN + 1)


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
