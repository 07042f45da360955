# The settings of the data plane as plain C values, prepared once from the control plane's object.
#
# Times are milliseconds, sizes bytes. A change of settings replaces the values in place: live connections are under the
# new ones at once.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from realtime_communication._core.hub.token_bucket cimport BucketRate
from realtime_communication._core.wire.frames cimport FrameLimits


cdef enum Overflow:              # what a full mailbox does
    OVERFLOW_BACKPRESSURE = 0
    OVERFLOW_DROP_OLDEST = 1
    OVERFLOW_DROP_NEWEST = 2
    OVERFLOW_BLOCK = 3


cdef enum:
    MAX_CUSTOM_LIMITS = 16       # rules in rate_limiting.custom_limits
    CUSTOM_NAME_BYTES = 64       # of the name of such a rule
    MAX_SUBSCRIPTIONS = 4096     # topics of one connection
    REPLY_BYTES = 8388608        # most payload bytes in one History or recovery reply
    QUEUE_BYTES = 16777216       # most payload bytes the queue of one slow consumer refers to
    CACHE_BYTES = 268435456      # most payload bytes in the message cache
    ANONYMOUS_BYTES = 65536      # before it is authenticated: most in one message, and behind one that is looked at
    INFO_BYTES = 4096            # of an identity's presence_info
    IDEMPOTENCY_KEYS = 100000    # keys remembered
    STRIKE_WINDOW_MS = 10000     # refused requests are counted over this long before a connection is abusive
    CLOSE_TIMEOUT_MS = 5000      # wait for the peer's close frame or its end of the stream
    PRESENCE_GRACE_MS = 2000     # between a lost connection and the Leave it causes


cdef struct Settings:
    uint32_t heartbeat_ms
    uint32_t client_timeout_ms
    uint32_t auth_timeout_ms
    uint32_t max_connections
    uint32_t max_newcomers       # connections whose peers have not authenticated, of one worker
    uint32_t max_newcomers_of_site   # of them, those from one address
    FrameLimits frames           # of authenticated connections
    FrameLimits anonymous        # before authentication
    uint32_t mailbox_capacity    # messages
    uint32_t priority_capacity   # messages
    bint priority_lane           # replies go ahead of data
    int overflow                 # Overflow
    uint32_t batch_size          # requests of one connection in a turn
    uint32_t batch_ms            # or this long
    uint32_t flush_messages      # data messages of one connection that are written without waiting for the turn's end
    uint32_t window_ms           # longest wait of a message for others to leave with
    bint compression             # forms other than plain are offered
    uint32_t compression_threshold
    bint caching
    uint32_t cache_ttl_ms
    uint32_t cache_entries
    uint32_t max_targets
    bint transcoding
    bint drop_invalid
    bint rate_limiting
    BucketRate connection_rate
    BucketRate user_rate
    BucketRate global_rate
    uint32_t idle_bucket_ms      # a user's bucket is dropped when it has been idle for so long
    uint32_t sweep_ms            # at the first multiple of this
    uint32_t custom_count
    BucketRate custom_rates[16]
    uint32_t custom_types[16]    # bit n set: the rule counts requests of type n
    char custom_names[16][65]    # UTF-8, with a NUL behind it; the scope that clients are told
    bint deterministic_ids
    bint debug_echo
    bint origin_check


# Fills `out` from an object with the attributes of the control plane's settings. Raises ValueError naming the attribute
# that is out of range, AttributeError when one is missing; `out` is then unchanged.
cdef int settings_read(Settings* out, object source) except -1
