"""The limits of rates; `admission.pxd` is the contract."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memset

from realtime_communication._core.base.shared cimport shared_key
from realtime_communication._core.hub.core cimport Core
from realtime_communication._core.hub.session cimport Session
from realtime_communication._core.hub.settings cimport MAX_CUSTOM_LIMITS, STRIKE_WINDOW_MS
from realtime_communication._core.hub.shared_limits cimport (
    TAKEN_NOWHERE,
    shared_take,
    shared_user_give_back,
    shared_user_take,
)
from realtime_communication._core.hub.token_bucket cimport (
    BucketRate,
    TokenBucket,
    bucket_give_back,
    bucket_init,
    bucket_take,
)
from realtime_communication._core.hub.users cimport User, user_id

cdef enum:
    STRIKES_LEAST = 20           # refused requests in a window that never make a connection abusive


cdef void strike(Core core, Session* session, const BucketRate* rate, Refusal* refusal, bint own) noexcept nogil:
    """Count a refused request; past twice the burst in a window the connection is abusive.

    The server's own limit (`own` False) is nobody's fault and does not count.
    """
    cdef uint64_t bound = <uint64_t> (2 * (rate.capacity // 1000000000))
    if bound < STRIKES_LEAST:
        bound = STRIKES_LEAST
    core.counters.rate_limited += 1
    refusal.abusive = False
    if not own:
        return
    if <uint32_t> (core.now_ms - session.strikes_ms) > <uint32_t> STRIKE_WINDOW_MS:
        session.strikes_ms = <uint32_t> core.now_ms
        session.strikes = 0
    session.strikes += 1
    refusal.abusive = session.strikes > bound


cdef bint refuse(Core core, Session* session, const BucketRate* rate, int64_t wait, const char* scope,
                 Refusal* refusal) noexcept nogil:
    refusal.retry_after_ms = wait
    refusal.scope = scope
    strike(core, session, rate, refusal, True)
    return False


cdef uint32_t take_custom(Core core, Session* session, uint32_t bit, int64_t* wait) noexcept nogil:
    """Take from each custom bucket of that type; the index of the one that is empty, with its wait."""
    cdef uint32_t i, j
    cdef const BucketRate* rates = core.settings.custom_rates
    wait[0] = -1
    if session.custom == NULL:
        session.custom = <TokenBucket*> malloc(MAX_CUSTOM_LIMITS * sizeof(TokenBucket))
        if session.custom == NULL:
            return 0
        memset(session.custom, 0, MAX_CUSTOM_LIMITS * sizeof(TokenBucket))
    for i in range(core.settings.custom_count):
        if not core.settings.custom_types[i] & bit:
            continue
        if session.custom[i].refilled_ms == 0:
            bucket_init(&session.custom[i], &rates[i], core.now_ms)
        wait[0] = bucket_take(&session.custom[i], &rates[i], core.now_ms)
        if wait[0] >= 0:
            for j in range(i):
                if core.settings.custom_types[j] & bit:
                    bucket_give_back(&session.custom[j], &rates[j])
            return i
    return 0


cdef int64_t take_shared(Core core, User* user) noexcept nogil:
    """A token of the user: of all workers, or of this one alone when there is no place for so many users."""
    cdef int64_t wait
    if user.shared_key == 0:
        user.shared_key = shared_key(core.shared, user_id(user).data, user_id(user).size)
    wait = shared_user_take(core.shared, &user.shared, user.shared_key, &core.settings.user_rate,
                            <uint64_t> core.settings.idle_bucket_ms + core.settings.user_rate.interval_ms,
                            core.now_ms)
    if wait != TAKEN_NOWHERE:
        return wait
    core.counters.unshared += 1
    return bucket_take(&user.bucket, &core.settings.user_rate, core.now_ms)


cdef bint admit_shared(Core core, User* user, Refusal* refusal) noexcept nogil:
    cdef int64_t wait = take_shared(core, user)
    refusal.abusive = False
    if wait >= 0:
        refusal.retry_after_ms = wait
        refusal.scope = b"user"
        return False
    wait = shared_take(&core.shared.head.global_bucket, &core.settings.global_rate, core.now_ms)
    if wait < 0:
        return True
    if user.shared != NULL:
        shared_user_give_back(user.shared, user.shared_key, &core.settings.user_rate)
    else:
        bucket_give_back(&user.bucket, &core.settings.user_rate)
    refusal.retry_after_ms = wait
    refusal.scope = b"global"
    return False


cdef bint admit_user(Core core, User* user, Refusal* refusal) noexcept nogil:
    cdef int64_t wait
    if not core.settings.rate_limiting:
        return True
    if core.shared != NULL:
        return admit_shared(core, user, refusal)
    wait = bucket_take(&user.bucket, &core.settings.user_rate, core.now_ms)
    if wait >= 0:
        refusal.retry_after_ms = wait
        refusal.scope = b"user"
        refusal.abusive = False
        return False
    wait = bucket_take(&core.global_bucket, &core.settings.global_rate, core.now_ms)
    if wait >= 0:
        bucket_give_back(&user.bucket, &core.settings.user_rate)
        refusal.retry_after_ms = wait
        refusal.scope = b"global"
        refusal.abusive = False
        return False
    return True


cdef bint admit(Core core, Session* session, int type, Refusal* refusal) noexcept nogil:
    cdef uint32_t i
    cdef uint32_t bit = <uint32_t> 1 << type
    cdef int64_t wait
    if not core.settings.rate_limiting:
        return True
    if session.bucket.refilled_ms == 0:
        bucket_init(&session.bucket, &core.settings.connection_rate, core.now_ms)
    wait = bucket_take(&session.bucket, &core.settings.connection_rate, core.now_ms)
    if wait >= 0:
        return refuse(core, session, &core.settings.connection_rate, wait, b"connection", refusal)
    if core.settings.custom_count:
        i = take_custom(core, session, bit, &wait)
        if wait >= 0:
            bucket_give_back(&session.bucket, &core.settings.connection_rate)
            return refuse(core, session, &core.settings.custom_rates[i], wait, &core.settings.custom_names[i][0],
                          refusal)
    if session.user != NULL:
        if admit_user(core, <User*> session.user, refusal):
            return True
        bucket_give_back(&session.bucket, &core.settings.connection_rate)
        strike(core, session, &core.settings.connection_rate, refusal, refusal.scope[0] == b"u")
        return False
    return True
