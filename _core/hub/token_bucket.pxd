# Token buckets: how many requests a connection, a user or the server takes in.
#
# Rules: nothing here raises, allocates or knows what a request is. The time is an argument; one that steps back adds
# nothing and takes nothing away. Times are below 2**48 ms.
#
# Theory: tokens are counted in integer billionths, and rates in integer millionths of a token per second, which is
# the same as billionths per millisecond. Sums of them are exact, so over any time a bucket gives exactly what its
# rate says, whatever interval and precision are. Tokens arrive at multiples of refill_interval_ms after the bucket
# was made, and can be spent in steps of the precision: what is short of a step stays in the balance, unseen, until
# the step is whole. What can be spent is so one of the points offset, offset + precision, offset + 2 precision, ...;
# a full bucket can be spent to the last token, and each token taken moves the points.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t


cdef struct BucketRate:          # one limit, shared by all of its buckets; made by bucket_rate_init
    int64_t refill               # billionths of a token per millisecond; at least 1
    int64_t capacity             # billionths: the burst
    uint32_t interval_ms         # refills are this far apart; at least 1
    uint32_t precision           # thousandths of a token, 1 to 1000


cdef struct TokenBucket:         # 16 bytes
    int64_t balance              # billionths of a token, 0 to the capacity
    uint32_t refilled_ms         # time up to which refills are in the balance, low part
    uint16_t refilled_high       # bits 32 to 47 of it
    uint16_t offset              # thousandths, below the precision: where the points lie that can be spent


# `tokens_per_second` above 0, rounded to millionths; `burst` in tokens; `precision` in tokens, rounded to
# thousandths. What is out of range is brought to the nearest that works: burst and interval to 1, precision into
# 0.001 to 1.
cdef void bucket_rate_init(
    BucketRate* rate, double tokens_per_second, uint32_t burst, uint32_t refill_interval_ms, double precision
) noexcept nogil
# A full bucket.
cdef void bucket_init(TokenBucket* bucket, const BucketRate* rate, uint64_t now_ms) noexcept nogil
# Takes a token: -1. When there is none, nothing is taken: milliseconds (at least 1) after which there will be one.
# The rate may be another one than in the call before: the balance stays, cut to the new burst.
cdef int64_t bucket_take(TokenBucket* bucket, const BucketRate* rate, uint64_t now_ms) noexcept nogil
# Puts back a token that was taken, when another limit refused the request.
cdef void bucket_give_back(TokenBucket* bucket, const BucketRate* rate) noexcept nogil
# Requests that bucket_take would allow now.
cdef uint32_t bucket_remaining(const TokenBucket* bucket, const BucketRate* rate, uint64_t now_ms) noexcept nogil
# Milliseconds until the bucket is full again, 0 when it is: then it is the same as a new one, and may be dropped.
cdef uint64_t bucket_full_in_ms(const TokenBucket* bucket, const BucketRate* rate, uint64_t now_ms) noexcept nogil
# Milliseconds since the last use, up to an interval too many.
cdef inline uint64_t bucket_idle_ms(const TokenBucket* bucket, uint64_t now_ms) noexcept nogil:
    cdef uint64_t used = <uint64_t> bucket.refilled_high << 32 | bucket.refilled_ms
    return now_ms - used if now_ms > used else 0
