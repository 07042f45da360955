# Token buckets that all workers of a server take from: one of the server, and one of each user.
#
# Rules: what a bucket gives is what token_bucket.pxd says, computed by the same functions on a copy; a change counts
# only when it replaces exactly the bucket it was computed from. Nothing waits for another process, so none can be left
# behind by one that is killed: it has taken its token or it has not. Clocks of different processes may differ by what a
# turn of the loop takes; a bucket goes by the latest.
#
# Theory: a bucket is a Pair of 16 bytes. In a user's place of the table it is in one of three states:
#
#   free      all zero: nobody had the place yet
#   claimed   low: the key of the user it is for; high: when that was, and the mark CLAIMED
#   in use    the bucket; the place's `key` says whose
#
# free -> claimed -> in use -> claimed ..., each by one swap. `key` is set while the place is claimed, before the bucket
# comes into use, so it stays the same for as long as the bucket is in use. A place is claimed for another user when its
# bucket has been idle for IDLE_MS and is full (or idle for longer than limits are kept): a new bucket would be the
# same. What is claimed and left for IDLE_MS counts as that, too: whoever did so is gone. A user's key leads to PLACES
# places in a fixed order. The first free one is taken, else the one idle longest, so workers that look for one at the
# same time want the same, and only one of them gets it. A bucket never is as it was before it had another user, because
# its time has gone on; so a swap cannot mistake one user's bucket for another's. What is not excluded: a process that
# stands still for all of IDLE_MS between two instructions; and two workers that meet a user for the first time at one
# moment, with no place free, and with clocks on both sides of the time at which the longest idle bucket is full. Either
# may give one user one bucketful more.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from realtime_communication._core.base.shared cimport Pair, SharedMap, SharedUser
from realtime_communication._core.hub.token_bucket cimport BucketRate, TokenBucket

cdef enum:
    TAKEN_NOWHERE = -2           # the table has no place for the user


# As bucket_take, bucket_give_back; an unused bucket is full.
cdef int64_t shared_take(Pair* shared, const BucketRate* rate, uint64_t now_ms) noexcept nogil
cdef void shared_give_back(Pair* shared, const BucketRate* rate) noexcept nogil

# Takes a token of the user with that key: -1, the wait in milliseconds, or TAKEN_NOWHERE. `place` keeps the user's
# place from call to call, at first NULL; it is NULL after TAKEN_NOWHERE. A bucket idle for `idle_ms` need not be kept.
cdef int64_t shared_user_take(const SharedMap* map, SharedUser** place, uint64_t key, const BucketRate* rate,
                              uint64_t idle_ms, uint64_t now_ms) noexcept nogil
cdef void shared_user_give_back(SharedUser* place, uint64_t key, const BucketRate* rate) noexcept nogil
# The user's bucket as it is, or False when there is none: it is as good as new.
cdef bint shared_user_read(const SharedMap* map, uint64_t key, TokenBucket* out) noexcept nogil
