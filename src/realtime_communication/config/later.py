"""Keys of the configuration guide whose feature this version does not have.

No key is decoration, so a value that asks for such a feature is refused with an error that says so. A value that asks
for nothing is accepted, because it is true: a switch that is off, everything below a switch that is off, and a value
that is merely the guide's default, so that the guide's own file starts the server. Defaults written out of such a
section are named in one warning when the server starts. See docs/decisions/keys-of-later-versions.md.

A feature that arrives takes its rows away from here and puts its section into `schema.py`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from realtime_communication.config.keys import Key, kind_of


class LaterKey(msgspec.Struct, frozen=True):
    """A key without effect yet.

    `switch` is the path of the boolean that turns its feature off. `aliases` are other spellings, each with the factor
    that turns its number into the key's unit. `harmless`: any value is accepted with the warning, because nobody is
    worse off without the feature.
    """

    key: Key
    switch: str = ""
    aliases: tuple[tuple[str, float], ...] = ()
    harmless: bool = False


def _row(
    path: str,
    python_type: Any,
    default: object,
    *,
    switch: str = "",
    variable: str = "",
    also: tuple[tuple[str, float] | str, ...] = (),
    secret: bool = False,
    harmless: bool = False,
    above: float | None = None,
    maximum: float | None = None,
) -> LaterKey:
    kind, choices, _ = kind_of(python_type)
    aliases = tuple((alias, 1.0) if isinstance(alias, str) else alias for alias in also)
    key = Key(
        path=path,
        kind=kind,
        choices=choices,
        default=default,
        effect="Not supported by this version yet.",
        secret=secret,
        above=above,
        maximum=maximum,
        variables=(variable,) if variable else (),
        aliases=tuple(alias for alias, _ in aliases),
    )
    return LaterKey(key, switch, aliases, harmless)


class _Anything(msgspec.Struct, frozen=True):
    """Stands for a table of a list that this version does not look into."""


_Strings = tuple[str, ...]
_Tables = tuple[_Anything, ...]
_CLAIMS, _BREAKER = "auth.custom_claims.", "circuit_breaker."
_TLS, _PROMETHEUS, _TRACING = "security.tls.", "monitoring.prometheus.", "tracing."
_CLUSTER, _SENTINEL = "redis.cluster.", "redis.sentinel."
_BREAKER_ON, _TLS_ON, _PROMETHEUS_ON, _TRACING_ON = (
    section + "enabled" for section in (_BREAKER, _TLS, _PROMETHEUS, _TRACING)
)
_CLUSTER_ON, _SENTINEL_ON = _CLUSTER + "enabled", _SENTINEL + "enabled"

LATER: tuple[LaterKey, ...] = (
    # No refresh tokens are issued yet; how long they would live hurts nobody.
    _row(
        "auth.refresh_token_expiry_days",
        float,
        30.0,
        variable="JWT_REFRESH_EXPIRY_DAYS",
        also=("auth.jwt_refresh_expiry_days",),
        harmless=True,
        above=0,
        maximum=3650,
    ),
    _row(_CLAIMS + "include_user_metadata", bool, False),
    _row(_CLAIMS + "include_device_info", bool, False),
    _row(_CLAIMS + "include_location", bool, False),
    _row(_CLAIMS + "custom_fields", dict[str, str], {}),
    _row("redis.url", str, "redis://localhost:6379", variable="REDIS_URL", secret=True),
    _row("redis.pool_size", int, 10, variable="REDIS_POOL_SIZE"),
    _row(
        "redis.timeout_secs",
        float,
        5.0,
        variable="REDIS_TIMEOUT_SECS",
        also=(("redis.connection_timeout_ms", 0.001), ("redis.pool.connection_timeout_ms", 0.001)),
    ),
    _row("redis.response_timeout_ms", float, 1000.0),
    _row("redis.retry_attempts", int, 3, variable="REDIS_RETRY_ATTEMPTS", also=("redis.max_retry_attempts",)),
    _row("redis.retry_delay_ms", float, 100.0),
    _row("redis.key_prefix", str, "rtc:", variable="REDIS_KEY_PREFIX"),
    _row("redis.required", bool, False),
    _row(_CLUSTER_ON, bool, False, also=("redis.enable_cluster",)),
    _row(_CLUSTER + "nodes", _Strings, (), switch=_CLUSTER_ON),
    _row(_CLUSTER + "read_from_replicas", bool, False, switch=_CLUSTER_ON),
    _row(_SENTINEL_ON, bool, False),
    _row(_SENTINEL + "master_name", str, "mymaster", switch=_SENTINEL_ON),
    _row(_SENTINEL + "sentinels", _Strings, (), switch=_SENTINEL_ON),
    _row(_SENTINEL + "password", str, "", switch=_SENTINEL_ON, secret=True),
    _row("redis.pool.min_idle", int, 5),
    _row("redis.pool.max_size", int, 20),
    _row("redis.pool.idle_timeout_secs", float, 300.0),
    _row("redis.pool.max_lifetime_secs", float, 3600.0),
    _row(_BREAKER_ON, bool, True, variable="CIRCUIT_BREAKER_ENABLED"),
    _row(_BREAKER + "failure_threshold", int, 5, switch=_BREAKER_ON, variable="CIRCUIT_BREAKER_FAILURE_THRESHOLD"),
    _row(_BREAKER + "success_threshold", int, 2, switch=_BREAKER_ON, variable="CIRCUIT_BREAKER_SUCCESS_THRESHOLD"),
    _row(_BREAKER + "timeout_secs", float, 60.0, switch=_BREAKER_ON, variable="CIRCUIT_BREAKER_TIMEOUT_SECS"),
    _row(
        _BREAKER + "half_open_max_requests",
        int,
        3,
        switch=_BREAKER_ON,
        variable="CIRCUIT_BREAKER_HALF_OPEN_REQUESTS",
        also=(_BREAKER + "half_open_requests",),
    ),
    _row(_BREAKER + "services", _Tables, (), switch=_BREAKER_ON),
    _row(_BREAKER + "events.log_state_changes", bool, True, switch=_BREAKER_ON),
    _row(_BREAKER + "events.emit_metrics", bool, True, switch=_BREAKER_ON),
    _row(_BREAKER + "events.webhook_url", str, "", switch=_BREAKER_ON),
    _row("logging.enable_telemetry", bool, True),
    _row("logging.enable_metrics", bool, True),
    _row(_PROMETHEUS_ON, bool, True, also=("metrics.enabled",)),
    _row(_PROMETHEUS + "port", int, 9090, switch=_PROMETHEUS_ON, also=("metrics.port",)),
    _row(_PROMETHEUS + "path", str, "/metrics", switch=_PROMETHEUS_ON, also=("metrics.path",)),
    _row(
        _PROMETHEUS + "update_interval_secs",
        float,
        10.0,
        switch=_PROMETHEUS_ON,
        also=("metrics.update_interval_secs",),
    ),
    _row(_PROMETHEUS + "namespace", str, "realtime_comm", switch=_PROMETHEUS_ON, also=("metrics.namespace",)),
    _row(_PROMETHEUS + "subsystem", str, "websocket", switch=_PROMETHEUS_ON, also=("metrics.subsystem",)),
    _row(
        _PROMETHEUS + "buckets",
        tuple[float, ...],
        (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
        switch=_PROMETHEUS_ON,
        also=("metrics.buckets",),
    ),
    _row("monitoring.custom_metrics", _Tables, (), switch=_PROMETHEUS_ON),
    _row("monitoring.health_check.check_redis", bool, True),
    _row(_TRACING_ON, bool, True),
    _row(_TRACING + "service_name", str, "realtime-communication", switch=_TRACING_ON),
    _row(_TRACING + "sampling_rate", float, 0.1, switch=_TRACING_ON),
    _row(_TRACING + "exporter", Literal["otlp", "jaeger"], "otlp", switch=_TRACING_ON),
    _row(_TRACING + "endpoint", str, "http://localhost:4317", switch=_TRACING_ON),
    _row("message_routing.transforms", _Tables, ()),
    _row(_TLS_ON, bool, False, also=("tls.enabled",)),
    _row(_TLS + "cert_file", str, "", switch=_TLS_ON, also=("tls.cert_file",)),
    _row(_TLS + "key_file", str, "", switch=_TLS_ON, also=("tls.key_file",)),
    _row(_TLS + "ca_file", str, "", switch=_TLS_ON, also=("tls.ca_file",)),
    _row(_TLS + "min_version", Literal["1.2", "1.3"], "1.2", switch=_TLS_ON, also=("tls.min_version",)),
    _row(_TLS + "ciphers", _Strings, (), switch=_TLS_ON, also=("tls.ciphers",)),
    _row(_TLS + "verify_client", bool, False, switch=_TLS_ON, also=("tls.verify_client",)),
    _row(
        _TLS + "client_auth",
        Literal["none", "optional", "required"],
        "none",
        switch=_TLS_ON,
        also=("tls.client_auth",),
    ),
    _row("security.enforce_tls", bool, False),
    # Over plain HTTP the header must not be sent (RFC 6797 section 7.2), so without TLS it asks for nothing.
    _row("security.strict_transport_security", bool, False, harmless=True),
    _row("security.content_security_policy", str, ""),
    _row("development.enable_profiling", bool, False, harmless=True),
)
