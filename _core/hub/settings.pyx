"""Settings of the data plane; `settings.pxd` is the contract."""

from fnmatch import fnmatchcase

from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from realtime_communication._core.hub.token_bucket cimport bucket_rate_init
from realtime_communication._core.wire.envelope cimport REQUEST_AUTHENTICATE, REQUEST_PING, request_name

OVERFLOWS = {
    "backpressure": OVERFLOW_BACKPRESSURE,
    "drop_oldest": OVERFLOW_DROP_OLDEST,
    "drop_newest": OVERFLOW_DROP_NEWEST,
    "block": OVERFLOW_BLOCK,
}

cdef enum:
    FRAGMENTS_SPARE = 1024       # fragments a message may have whatever its size
    FRAGMENT_BYTES = 16          # and one more for so many bytes of the largest message


cdef uint32_t milliseconds(object source, str name) except? 0:
    value = getattr(source, name)
    if not 0 <= value <= 4_000_000:
        raise ValueError(f"{name}: {value} is not between 0 and 4000000 seconds")
    return <uint32_t> (value * 1000)


cdef uint32_t whole(object source, str name, unsigned long lowest, unsigned long highest) except? 0:
    value = getattr(source, name)
    if not lowest <= value <= highest:
        raise ValueError(f"{name}: {value} is not between {lowest} and {highest}")
    return <uint32_t> value


cdef uint32_t burst_of(str name, value) except? 0:
    if not 0 <= value <= 0xFFFFFFFF:
        raise ValueError(f"{name}: {value} is not between 0 and {0xFFFFFFFF}")
    return <uint32_t> value


cdef uint32_t types_of(str pattern):
    """Bits of the request types whose names match the glob `pattern`."""
    cdef uint32_t bits = 0
    for kind in range(REQUEST_AUTHENTICATE, REQUEST_PING + 1):
        if fnmatchcase((<bytes> request_name(kind)).decode(), pattern):
            bits |= <uint32_t> 1 << kind
    return bits


cdef int connections_read(Settings* made, object source) except -1:
    made.heartbeat_ms = milliseconds(source, "heartbeat_interval_secs")
    made.client_timeout_ms = milliseconds(source, "client_timeout_secs")
    made.auth_timeout_ms = milliseconds(source, "auth_timeout_secs")
    made.max_connections = whole(source, "max_connections", 1, 0xFFFFFFFF)
    made.max_newcomers = whole(source, "max_unauthenticated", 1, 0xFFFFFFFF)
    made.max_newcomers_of_site = whole(source, "max_unauthenticated_per_address", 1, 0xFFFFFFFF)
    made.frames.max_frame = whole(source, "max_frame_size", 125, 0x7FFFFFFF)
    made.frames.max_message = whole(source, "max_message_size", 125, 0x7FFFFFFF)
    made.frames.max_fragments = FRAGMENTS_SPARE + <uint32_t> (made.frames.max_message // FRAGMENT_BYTES)
    made.anonymous = made.frames
    made.anonymous.max_frame = min(made.frames.max_frame, <unsigned long> ANONYMOUS_BYTES)
    made.anonymous.max_message = min(made.frames.max_message, <unsigned long> ANONYMOUS_BYTES)
    made.anonymous.max_fragments = FRAGMENTS_SPARE
    return 0


cdef int mailboxes_read(Settings* made, object source) except -1:
    made.mailbox_capacity = whole(source, "mailbox_capacity", 1, 0x7FFFFFFF)
    made.priority_capacity = whole(source, "priority_mailbox_size", 1, 0x7FFFFFFF)
    made.priority_lane = source.enable_priority_mailbox
    if source.overflow_strategy not in OVERFLOWS:
        raise ValueError(f"overflow_strategy: {source.overflow_strategy!r} is none of {', '.join(OVERFLOWS)}")
    made.overflow = OVERFLOWS[source.overflow_strategy]
    made.batch_size = whole(source, "batch_size", 1, 0x7FFFFFFF)
    made.batch_ms = max(1, whole(source, "batch_timeout_ms", 0, 3_600_000))
    made.flush_messages = min(whole(source, "max_batch_size", 1, 0x7FFFFFFF), made.mailbox_capacity)
    made.window_ms = whole(source, "batch_window_ms", 0, 3_600_000)
    made.compression = source.compression_algorithm != "none"
    made.compression_threshold = whole(source, "compression_threshold_bytes", 0, 0x7FFFFFFF)
    return 0


cdef int limits_read(Settings* made, object source) except -1:
    cdef uint32_t interval = whole(source, "refill_interval_ms", 1, 3_600_000)
    cdef double precision = source.token_precision
    cdef bytes encoded
    made.rate_limiting = source.rate_limiting_enabled
    burst = burst_of("connection_burst", source.connection_burst)
    bucket_rate_init(&made.connection_rate, source.connection_rps, burst, interval, precision)
    burst = burst_of("user_burst", source.user_burst)
    bucket_rate_init(&made.user_rate, source.user_rps, burst, interval, precision)
    burst = burst_of("global_burst", source.global_burst)
    bucket_rate_init(&made.global_rate, source.global_rps, burst, interval, precision)
    made.idle_bucket_ms = milliseconds(source, "cleanup_threshold_secs")
    made.sweep_ms = max(1, milliseconds(source, "cleanup_interval_secs"))
    made.custom_count = 0
    if len(source.custom_limits) > MAX_CUSTOM_LIMITS:
        raise ValueError(f"custom_limits: {len(source.custom_limits)} rules, at most {MAX_CUSTOM_LIMITS}")
    for name, pattern, rate, burst in source.custom_limits:
        encoded = (<str> name).encode()
        if len(encoded) > CUSTOM_NAME_BYTES:
            raise ValueError(f"custom_limits: a name has {len(encoded)} bytes, at most {CUSTOM_NAME_BYTES}")
        memcpy(&made.custom_names[made.custom_count][0], <const char*> encoded, len(encoded) + 1)
        made.custom_types[made.custom_count] = types_of(pattern)
        bucket_rate_init(&made.custom_rates[made.custom_count], rate, burst_of("custom_limits", burst), interval,
                         precision)
        made.custom_count += 1
    return 0


cdef int settings_read(Settings* out, object source) except -1:
    cdef Settings made
    connections_read(&made, source)
    mailboxes_read(&made, source)
    made.caching = source.enable_caching
    made.cache_ttl_ms = milliseconds(source, "cache_ttl_secs")
    made.cache_entries = whole(source, "max_cache_entries", 0, 0x7FFFFFFF)
    made.max_targets = whole(source, "max_targets_per_message", 1, 0x7FFFFFFF)
    made.transcoding = source.enable_message_transformation
    made.drop_invalid = source.drop_invalid_messages
    limits_read(&made, source)
    made.deterministic_ids = source.deterministic_ids
    made.debug_echo = source.debug_echo
    made.origin_check = source.require_origin_match
    out[0] = made
    return 0


def describe(source):
    """The settings read from `source`, those that are plain numbers, by name; raises as `settings_read` does."""
    cdef Settings settings
    settings_read(&settings, source)
    return {
        "heartbeat_ms": settings.heartbeat_ms,
        "client_timeout_ms": settings.client_timeout_ms,
        "auth_timeout_ms": settings.auth_timeout_ms,
        "max_connections": settings.max_connections,
        "max_frame": settings.frames.max_frame,
        "max_message": settings.frames.max_message,
        "max_fragments": settings.frames.max_fragments,
        "anonymous_message": settings.anonymous.max_message,
        "mailbox_capacity": settings.mailbox_capacity,
        "priority_capacity": settings.priority_capacity,
        "overflow": settings.overflow,
        "batch_size": settings.batch_size,
        "flush_messages": settings.flush_messages,
        "compression": settings.compression,
        "cache_ttl_ms": settings.cache_ttl_ms,
        "custom_types": [settings.custom_types[i] for i in range(settings.custom_count)],
    }
