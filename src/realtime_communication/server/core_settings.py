"""The part of the configuration that the compiled core reads, in the form in which it reads it."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable

import msgspec

from realtime_communication.config.schema import Config
from realtime_communication.config.topics import TopicRule
from realtime_communication.config.traffic import ConnectionLimit
from realtime_communication.http.answers import protecting_headers
from realtime_communication.http.forwarding import trusted_proxies
from realtime_communication.server.transforms import Transformation, load_transforms


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Attributes that `Hub.configure` reads; names and units are those of the configuration keys.

    Rates are in tokens per second and depths in tokens, with the window already applied. `custom_limits` are
    (name, glob over envelope types, requests per second, burst), `transforms` (topic or prefix and `*`, function).
    `trusted_proxies` says whether the address of a peer, in network order, is one; None: there are none.
    `refusal_headers` are (name, value) of every HTTP answer that the core makes, `secure_refusal_headers` over TLS.
    """

    heartbeat_interval_secs: float
    client_timeout_secs: float
    auth_timeout_secs: float
    max_connections: int
    max_unauthenticated: int
    max_unauthenticated_per_address: int
    max_frame_size: int
    max_message_size: int
    mailbox_capacity: int
    enable_priority_mailbox: bool
    priority_mailbox_size: int
    overflow_strategy: str
    batch_size: int
    batch_timeout_ms: float
    max_batch_size: int
    batch_window_ms: float
    compression_algorithm: str
    compression_threshold_bytes: int
    enable_caching: bool
    cache_ttl_secs: float
    max_cache_entries: int
    max_targets_per_message: int
    enable_message_transformation: bool
    transforms: tuple[tuple[str, Transformation], ...]
    topics: tuple[TopicRule, ...]
    drop_invalid_messages: bool
    rate_limiting_enabled: bool
    connection_rps: float
    connection_burst: int
    user_rps: float
    user_burst: int
    global_rps: float
    global_burst: int
    refill_interval_ms: int
    token_precision: float
    cleanup_interval_secs: float
    cleanup_threshold_secs: float
    custom_limits: list[tuple[str, str, float, int]]
    deterministic_ids: bool
    debug_echo: bool
    require_origin_match: bool
    allowed_origins: list[str]
    trusted_proxies: Callable[[bytes], bool] | None
    refusal_headers: list[tuple[str, str]]
    secure_refusal_headers: list[tuple[str, str]]
    connection_pool_size: int
    message_pool_size: int
    buffer_pool_size: int


def core_settings(config: Config) -> Settings:
    """Settings of the compiled core for a configuration; the same configuration gives equal settings.

    Imports the operator's transforms, and raises ConfigurationError when one cannot be used.
    """
    websocket, actors, messages = config.websocket, config.performance.actors, config.performance.messages
    memory, routing, rates = config.performance.memory, config.message_routing, config.rate_limiting
    return Settings(
        heartbeat_interval_secs=websocket.heartbeat_interval_secs,
        client_timeout_secs=websocket.client_timeout_secs,
        auth_timeout_secs=websocket.auth_timeout_secs,
        max_connections=websocket.max_connections,
        max_unauthenticated=websocket.max_unauthenticated,
        max_unauthenticated_per_address=websocket.max_unauthenticated_per_address,
        max_frame_size=websocket.max_frame_size,
        max_message_size=websocket.max_message_size,
        mailbox_capacity=config.actor_system.mailbox_capacity,
        enable_priority_mailbox=config.actor_system.enable_priority_mailbox,
        priority_mailbox_size=actors.priority_mailbox_size,
        overflow_strategy=config.actor_system.overflow_strategy,
        batch_size=actors.batch_size,
        batch_timeout_ms=actors.batch_timeout_ms,
        max_batch_size=messages.max_batch_size,
        batch_window_ms=messages.batch_window_ms,
        compression_algorithm=messages.compression_algorithm,
        compression_threshold_bytes=messages.compression_threshold_bytes,
        enable_caching=routing.enable_caching,
        cache_ttl_secs=routing.cache_ttl_secs,
        max_cache_entries=routing.max_cache_entries,
        max_targets_per_message=routing.max_targets_per_message,
        enable_message_transformation=routing.enable_message_transformation,
        transforms=load_transforms(routing, websocket.max_message_size),
        topics=config.topics,
        drop_invalid_messages=routing.drop_invalid_messages,
        rate_limiting_enabled=rates.enabled,
        connection_rps=rates.connection.requests_per_second,
        connection_burst=bucket_depth(rates.connection),
        user_rps=rates.user.requests_per_second,
        user_burst=bucket_depth(rates.user),
        global_rps=rates.global_.requests_per_second,
        global_burst=bucket_depth(rates.global_),
        refill_interval_ms=rates.token_bucket.refill_interval_ms,
        token_precision=rates.token_bucket.token_precision,
        cleanup_interval_secs=rates.token_bucket.cleanup_interval_secs,
        cleanup_threshold_secs=rates.token_bucket.cleanup_threshold_secs,
        custom_limits=[
            (limit.name, limit.pattern, limit.requests_per_second, limit.burst_size) for limit in rates.custom_limits
        ],
        deterministic_ids=config.testing.deterministic_ids,
        debug_echo=config.development.enable_debug_endpoints,
        require_origin_match=config.security.cors.enabled,
        allowed_origins=list(config.security.cors.allowed_origins),
        trusted_proxies=_proxies_of(config.security.trusted_proxies),
        refusal_headers=list(protecting_headers(config.security, secure=False).items()),
        secure_refusal_headers=list(protecting_headers(config.security, secure=True).items()),
        connection_pool_size=memory.connection_pool_size,
        message_pool_size=memory.message_pool_size,
        buffer_pool_size=memory.buffer_pool_size,
    )


@functools.lru_cache(maxsize=4)
def _proxies_of(texts: tuple[str, ...]) -> Callable[[bytes], bool] | None:
    """Whether the peer at an address, given in network order, is one of `security.trusted_proxies`; None: nobody is."""
    proxies = trusted_proxies(texts)
    if proxies.nobody:
        return None

    def is_proxy(address: bytes) -> bool:
        found = ipaddress.ip_address(address)
        return proxies.trusts(getattr(found, "ipv4_mapped", None) or found)

    return is_proxy


_MAX_DEPTH = 2_000_000_000


def bucket_depth(limit: ConnectionLimit) -> int:
    """Tokens of a full bucket: the burst, or the allowance of a whole window longer than a second if that is more.

    The refill stays at requests_per_second, so over any long time the rate is what the operator wrote; a longer window
    lets a client use it unevenly.
    """
    if limit.window_size_secs <= 1:
        return limit.burst_size
    return min(max(limit.burst_size, int(limit.requests_per_second * limit.window_size_secs)), _MAX_DEPTH)
