"""Every key of the schema: default, parsing from each layer, range. The table itself drives the tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from realtime_communication.config import LoadedConfig
from realtime_communication.config.catalogue import KEYS
from realtime_communication.config.keys import Key, Kind
from realtime_communication.config.reference import toml
from realtime_communication.config.schema import Config
from realtime_communication.errors import ConfigurationProblem
from serving.certificates import Authority

Load = Callable[..., LoadedConfig]
Refuse = Callable[..., list[ConfigurationProblem]]

# What the guide and the protocol promise, written out by hand: a change of the schema must not go unnoticed.
DEFAULTS: dict[str, object] = {
    "server.host": "0.0.0.0",
    "server.port": 8081,
    "server.workers": 0,
    "auth.jwt_secret": "",
    "auth.jwt_algorithms": ["HS256", "HS384", "HS512"],
    "auth.jwt_issuer": "ai-system-rust",
    "auth.jwt_audience": "realtime-communication",
    "auth.access_token_expiry_hours": 24,
    "auth.validate_issuer": True,
    "auth.validate_audience": True,
    "auth.validate_exp": True,
    "auth.validate_nbf": True,
    "auth.refresh_token_expiry_days": 30,
    "auth.custom_claims.include_user_metadata": False,
    "auth.custom_claims.include_device_info": False,
    "auth.custom_claims.include_location": False,
    "auth.custom_claims.custom_fields": {},
    "auth.providers": [
        {
            "type": "jwt",
            "name": "jwt",
            "enabled": True,
            "priority": 1,
            "header": "X-API-Key",
            "query_param": "api_key",
            "keys": [],
            "issuer": "",
            "audience": "",
        }
    ],
    "websocket.max_connections": 10000,
    "websocket.max_unauthenticated": 10000,
    "websocket.max_unauthenticated_per_address": 4000,
    "websocket.heartbeat_interval_secs": 30,
    "websocket.client_timeout_secs": 60,
    "websocket.auth_timeout_secs": 10,
    "websocket.max_frame_size": 65536,
    "websocket.max_message_size": 1048576,
    "redis.url": "redis://localhost:6379",
    "redis.pool_size": 10,
    "redis.timeout_secs": 5,
    "redis.response_timeout_ms": 1000,
    "redis.retry_attempts": 3,
    "redis.retry_delay_ms": 100,
    "redis.key_prefix": "rtc:",
    "redis.required": False,
    "redis.cluster.enabled": False,
    "redis.cluster.nodes": [],
    "redis.cluster.read_from_replicas": False,
    "redis.sentinel.enabled": False,
    "redis.sentinel.master_name": "mymaster",
    "redis.sentinel.sentinels": [],
    "redis.sentinel.password": "",
    "redis.pool.min_idle": 5,
    "redis.pool.max_size": 20,
    "redis.pool.idle_timeout_secs": 300,
    "redis.pool.max_lifetime_secs": 3600,
    "circuit_breaker.enabled": True,
    "circuit_breaker.failure_threshold": 5,
    "circuit_breaker.success_threshold": 2,
    "circuit_breaker.timeout_secs": 60,
    "circuit_breaker.half_open_max_requests": 3,
    "circuit_breaker.services": [],
    "circuit_breaker.events.log_state_changes": True,
    "circuit_breaker.events.emit_metrics": True,
    "circuit_breaker.events.webhook_url": "",
    "circuit_breaker.events.webhook_secret": "",
    "rate_limiting.enabled": True,
    "rate_limiting.connection.requests_per_second": 100,
    "rate_limiting.connection.burst_size": 200,
    "rate_limiting.connection.window_size_secs": 1,
    "rate_limiting.user.requests_per_second": 500,
    "rate_limiting.user.burst_size": 1000,
    "rate_limiting.user.window_size_secs": 1,
    "rate_limiting.global.requests_per_second": 10000,
    "rate_limiting.global.burst_size": 20000,
    "rate_limiting.global.window_size_secs": 1,
    "rate_limiting.token_bucket.refill_interval_ms": 100,
    "rate_limiting.token_bucket.token_precision": 0.1,
    "rate_limiting.token_bucket.cleanup_interval_secs": 300,
    "rate_limiting.token_bucket.cleanup_threshold_secs": 600,
    "rate_limiting.headers.enabled": True,
    "rate_limiting.headers.limit_header": "X-RateLimit-Limit",
    "rate_limiting.headers.remaining_header": "X-RateLimit-Remaining",
    "rate_limiting.headers.reset_header": "X-RateLimit-Reset",
    "rate_limiting.headers.retry_after_header": "Retry-After",
    "rate_limiting.custom_limits": [],
    "message_routing.enable_caching": True,
    "message_routing.cache_ttl_secs": 300,
    "message_routing.max_cache_entries": 10000,
    "message_routing.max_targets_per_message": 1000,
    "message_routing.enable_message_transformation": True,
    "message_routing.drop_invalid_messages": False,
    "message_routing.transforms": [],
    "topics": [],
    "authorization.callable": "",
    "authorization.url": "",
    "authorization.secret": "",
    "authorization.actions": ["subscribe", "publish"],
    "authorization.timeout_ms": 1000,
    "authorization.cache_ttl_secs": 60,
    "authorization.cache_size": 100_000,
    "authorization.max_pending": 1000,
    "authorization.on_failure": "deny",
    "webhooks.url": "",
    "webhooks.secret": "",
    "webhooks.events": ["connect", "disconnect", "topic_occupied", "topic_vacated"],
    "webhooks.max_batch": 100,
    "webhooks.batch_wait_ms": 100,
    "actor_system.mailbox_capacity": 1000,
    "actor_system.enable_priority_mailbox": True,
    "actor_system.overflow_strategy": "backpressure",
    "actor_system.supervision_strategy": "one_for_one",
    "actor_system.max_restarts": 3,
    "actor_system.restart_window_secs": 60,
    "performance.actors.priority_mailbox_size": 100,
    "performance.actors.batch_size": 50,
    "performance.actors.batch_timeout_ms": 10,
    "performance.actors.use_work_stealing": True,
    "performance.actors.pin_actors_to_cores": False,
    "performance.messages.max_batch_size": 100,
    "performance.messages.batch_window_ms": 5,
    "performance.messages.compression_threshold_bytes": 1024,
    "performance.messages.compression_algorithm": "zstd",
    "performance.memory.connection_pool_size": 10000,
    "performance.memory.message_pool_size": 100000,
    "performance.memory.buffer_pool_size": 50000,
    "performance.memory.gc_interval_secs": 300,
    "performance.memory.gc_threshold_mb": 1024,
    "logging.level": "info",
    "logging.format": "json",
    "logging.enable_telemetry": True,
    "logging.enable_metrics": True,
    "security.cors.enabled": False,
    "security.cors.allowed_origins": [],
    "security.cors.allowed_methods": ["GET", "POST", "OPTIONS"],
    "security.cors.allowed_headers": ["Authorization", "Content-Type"],
    "security.cors.allow_credentials": False,
    "security.cors.max_age_secs": 86400,
    "security.tls.enabled": False,
    "security.tls.cert_file": "",
    "security.tls.key_file": "",
    "security.tls.ca_file": "",
    "security.tls.min_version": "1.2",
    "security.tls.ciphers": [],
    "security.tls.verify_client": False,
    "security.tls.client_auth": "none",
    "security.enforce_tls": False,
    "security.strict_transport_security": False,
    "security.content_security_policy": "",
    "security.trusted_proxies": [],
    "monitoring.prometheus.enabled": True,
    "monitoring.prometheus.port": 9090,
    "monitoring.prometheus.path": "/metrics",
    "monitoring.prometheus.update_interval_secs": 10,
    "monitoring.prometheus.namespace": "realtime_comm",
    "monitoring.prometheus.subsystem": "websocket",
    "monitoring.prometheus.buckets": [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    "monitoring.custom_metrics": [],
    "monitoring.health_check.enabled": True,
    "monitoring.health_check.path": "/health",
    "monitoring.health_check.detailed": True,
    "monitoring.health_check.check_redis": True,
    "monitoring.health_check.check_dependencies": True,
    "monitoring.health_check.timeout_secs": 5,
    "tracing.enabled": True,
    "tracing.service_name": "realtime-communication",
    "tracing.sampling_rate": 0.1,
    "tracing.exporter": "otlp",
    "tracing.endpoint": "http://localhost:4317",
    "development.enable_debug_endpoints": False,
    "development.enable_profiling": False,
    "development.mock_external_services": False,
    "testing.enable_test_mode": False,
    "testing.bypass_auth": False,
    "testing.use_in_memory_storage": False,
    "testing.deterministic_ids": False,
    "production.enable_graceful_shutdown": True,
    "production.shutdown_timeout_secs": 30,
    "production.drain_timeout_secs": 60,
}

VARIABLES = {
    "HOST": "server.host",
    "PORT": "server.port",
    "WORKERS": "server.workers",
    "RUST_LOG": "logging.level",
    "LOG_LEVEL": "logging.level",
    "JWT_SECRET": "auth.jwt_secret",
    "JWT_ISSUER": "auth.jwt_issuer",
    "JWT_AUDIENCE": "auth.jwt_audience",
    "JWT_EXPIRY_HOURS": "auth.access_token_expiry_hours",
    "JWT_REFRESH_EXPIRY_DAYS": "auth.refresh_token_expiry_days",
    "MAX_CONNECTIONS": "websocket.max_connections",
    "HEARTBEAT_INTERVAL_SECS": "websocket.heartbeat_interval_secs",
    "CLIENT_TIMEOUT_SECS": "websocket.client_timeout_secs",
    "MAX_FRAME_SIZE": "websocket.max_frame_size",
    "MAX_MESSAGE_SIZE": "websocket.max_message_size",
    "REDIS_URL": "redis.url",
    "REDIS_POOL_SIZE": "redis.pool_size",
    "REDIS_TIMEOUT_SECS": "redis.timeout_secs",
    "REDIS_RETRY_ATTEMPTS": "redis.retry_attempts",
    "REDIS_KEY_PREFIX": "redis.key_prefix",
    "CIRCUIT_BREAKER_ENABLED": "circuit_breaker.enabled",
    "CIRCUIT_BREAKER_FAILURE_THRESHOLD": "circuit_breaker.failure_threshold",
    "CIRCUIT_BREAKER_SUCCESS_THRESHOLD": "circuit_breaker.success_threshold",
    "CIRCUIT_BREAKER_TIMEOUT_SECS": "circuit_breaker.timeout_secs",
    "CIRCUIT_BREAKER_HALF_OPEN_REQUESTS": "circuit_breaker.half_open_max_requests",
    "RATE_LIMIT_ENABLED": "rate_limiting.enabled",
    "RATE_LIMIT_CONNECTION_RPS": "rate_limiting.connection.requests_per_second",
    "RATE_LIMIT_CONNECTION_BURST": "rate_limiting.connection.burst_size",
    "RATE_LIMIT_USER_RPS": "rate_limiting.user.requests_per_second",
    "RATE_LIMIT_USER_BURST": "rate_limiting.user.burst_size",
    "RATE_LIMIT_GLOBAL_RPS": "rate_limiting.global.requests_per_second",
    "RATE_LIMIT_GLOBAL_BURST": "rate_limiting.global.burst_size",
}

# A value other than the default that passes every rule, for keys whose kind does not tell one.
GOOD: dict[str, object] = {
    "server.host": "::1",
    "server.port": 9000,
    "auth.jwt_secret": "another secret of more than thirty-two bytes",
    "auth.jwt_algorithms": ["HS512"],
    "auth.providers": [{"type": "jwt", "name": "tokens"}],
    "websocket.heartbeat_interval_secs": 12.5,
    "websocket.client_timeout_secs": 90,
    "websocket.max_frame_size": 1000,
    "websocket.max_message_size": 2000000,
    "rate_limiting.custom_limits": [
        {"name": "a", "pattern": "*", "requests_per_second": 1, "burst_size": 2},
    ],
    "logging.level": "warn,realtime_communication::auth=debug",
    "security.cors.allowed_origins": ["https://app.example.com"],
    "security.cors.allowed_methods": ["GET"],
    "security.cors.allowed_headers": ["X-Other"],
    "monitoring.health_check.path": "/healthz",
    "auth.custom_claims.custom_fields": {"tenant": "acme"},
    "redis.url": "rediss://user:secret@node:6380/3",
    "redis.cluster.nodes": ["redis://node1:6379"],
    "redis.sentinel.sentinels": ["sentinel1:26379"],
    "redis.pool_size": 15,
    "circuit_breaker.services": [{"name": "redis", "timeout_secs": 30}],
    "circuit_breaker.events.webhook_url": "https://alerts.example.com/hook",
    "message_routing.transforms": [{"topic": "room:*", "callable": "package.module:function"}],
    "topics": [{"pattern": "room:*", "publish_roles": ["editor"], "history": False}],
    "authorization.callable": "package.module:function",
    "authorization.url": "https://app.example.com/may",
    "authorization.actions": ["publish"],
    "webhooks.url": "https://hooks.example.com/realtime",
    "webhooks.events": ["connect"],
    "security.tls.ciphers": ["TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"],
    "security.tls.client_auth": "optional",
    "security.trusted_proxies": ["10.0.0.0/8", "unix"],
    "monitoring.prometheus.path": "/prometheus",
    "monitoring.prometheus.namespace": "other",
    "monitoring.prometheus.subsystem": "other",
    "monitoring.prometheus.buckets": [0.5, 1.5],
    "monitoring.custom_metrics": [{"name": "message_latency", "type": "histogram", "labels": ["topic"]}],
    "tracing.endpoint": "https://collector:4318",
}
TESTING_KEYS = [path for path in KEYS if path.startswith("testing.")]
PROFILE = {
    **dict.fromkeys(TESTING_KEYS, "test"),
    "development.enable_debug_endpoints": "test",
    "development.enable_profiling": "test",
    "development.mock_external_services": "test",
}


@pytest.fixture
def also(tmp_path: Path) -> dict[str, str]:
    """What else must be set where a value alone contradicts the defaults."""
    server = Authority(tmp_path).issue()
    return {
        "redis.cluster.enabled": 'redis.cluster.nodes = ["redis://node1:6379"]',
        "redis.sentinel.enabled": 'redis.sentinel.sentinels = ["sentinel1:26379"]',
        "security.tls.enabled": f'tls.cert_file = "{server.cert_file}"\ntls.key_file = "{server.key_file}"',
    }


def _good_value(key: Key) -> object:
    if key.path in GOOD:
        return GOOD[key.path]
    if key.kind is Kind.BOOLEAN:
        return not key.default
    if key.kind is Kind.CHOICE:
        return key.choices[-1] if key.default != key.choices[-1] else key.choices[0]
    if key.kind is Kind.INTEGER:
        return int(key.default) + (1 if key.default != key.maximum else -1)  # type: ignore[call-overload]
    if key.kind is Kind.NUMBER:
        half = float(key.default) / 2  # type: ignore[arg-type]
        return half if half >= (key.minimum or 0) else half * 3
    return "X-Other"


def _value(config: Config, path: str) -> object:
    value: Any = config
    for name in path.split("."):
        value = getattr(value, "global_" if name == "global" else name)
    return value


def _as_file(path: str, value: object) -> str:
    return f"{path} = {toml(value)}\n"


def _expected(key: Key, value: object) -> object:
    if key.kind is Kind.TABLES:
        assert key.shape is not None and isinstance(value, list)
        return tuple(msgspec.convert(table, key.shape) for table in value)
    return tuple(value) if isinstance(value, list) else value


every_key = pytest.mark.parametrize("key", KEYS.values(), ids=list(KEYS))


def test_the_schema_has_the_promised_keys_and_no_other() -> None:
    assert set(KEYS) == set(DEFAULTS)


@every_key
def test_default(key: Key) -> None:
    assert json.loads(json.dumps(msgspec.to_builtins(key.default))) == DEFAULTS[key.path]


@every_key
def test_every_key_says_what_it_does(key: Key) -> None:
    assert key.effect.endswith(".") and len(key.effect) > 10


def test_variables() -> None:
    named = {variable: key.path for key in KEYS.values() for variable in key.variables}
    assert named == VARIABLES


def _words(key: Key) -> list[str]:
    words = [f"--profile={PROFILE.get(key.path, 'prod')}"]
    if key.path in TESTING_KEYS and key.path != "testing.enable_test_mode":
        words.append("--testing.enable_test_mode=true")
    return words


@every_key
def test_value_from_a_file(key: Key, also: dict[str, str], load_config: Load) -> None:
    value = _good_value(key)
    loaded = load_config(
        *_words(key),
        files={"config.toml": "\n" + _as_file(key.path, value) + also.get(key.path, "")},
        secret=False,
        environ=_secret(key),
    )
    assert _value(loaded.config, key.path) == _expected(key, value)
    assert str(loaded.origins[key.path]).endswith("config.toml:2")


@every_key
def test_value_from_the_command_line(key: Key, also: dict[str, str], load_config: Load) -> None:
    value = _good_value(key)
    text = value if isinstance(value, str) else toml(value)
    loaded = load_config(
        *_words(key),
        f"--{key.path}={text}",
        files={"config.toml": also.get(key.path, "")},
        secret=False,
        environ=_secret(key),
    )
    assert _value(loaded.config, key.path) == _expected(key, value)
    assert str(loaded.origins[key.path]) == f"command line --{key.path}"


@pytest.mark.parametrize(("variable", "path"), VARIABLES.items())
def test_value_from_the_environment_and_the_short_option(variable: str, path: str, load_config: Load) -> None:
    key, value = KEYS[path], _good_value(KEYS[path])
    text = value if isinstance(value, str) else toml(value)
    loaded = load_config(environ={variable: text})
    assert _value(loaded.config, path) == value
    assert str(loaded.origins[path]) == f"environment variable {variable}"
    option = "--" + variable.lower().replace("_", "-")
    assert option in key.options
    assert _value(load_config(option, text).config, path) == value


@every_key
def test_wrong_type(key: Key, refused: Refuse) -> None:
    wrong = "[1979-05-27]" if key.kind is not Kind.STRINGS else "[1]"
    problems = refused(files={"config.toml": f"{key.path} = {wrong}\n"})
    (problem,) = [problem for problem in problems if problem.key == key.path]
    assert problem.origin.endswith("config.toml:1")
    assert problem.message.startswith("must be ")


bounded = pytest.mark.parametrize(
    "key",
    [key for key in KEYS.values() if key.kind in (Kind.INTEGER, Kind.NUMBER)],
    ids=lambda key: key.path,
)


@bounded
def test_numbers_have_bounds(key: Key) -> None:
    assert key.maximum is not None
    assert (key.minimum is None) != (key.above is None)


@bounded
def test_values_outside_the_bounds(key: Key, refused: Refuse) -> None:
    assert key.maximum is not None
    low = key.above if key.above is not None else (key.minimum or 0) - 1
    for value in (low, key.maximum + 1, -(2**63), 2**63):
        text = str(int(value)) if key.kind is Kind.INTEGER else repr(float(value))
        problems = refused(files={"config.toml": f"{key.path} = {text}\n"})
        (problem,) = [problem for problem in problems if problem.key == key.path]
        assert problem.message.startswith(("must be an integer", "must be a number")), problem
        assert json.loads(problem.value) == pytest.approx(value)


@bounded
def test_zero_where_zero_means_nothing(key: Key, refused: Refuse) -> None:
    if key.minimum == 0:
        assert key.path in {
            "server.port",
            "server.workers",
            "redis.retry_attempts",
            "redis.retry_delay_ms",
            "redis.pool.min_idle",
            "monitoring.prometheus.port",
            "tracing.sampling_rate",
            "actor_system.max_restarts",
            "performance.messages.batch_window_ms",
            "webhooks.batch_wait_ms",
            "performance.messages.compression_threshold_bytes",
            "performance.memory.connection_pool_size",
            "performance.memory.message_pool_size",
            "performance.memory.buffer_pool_size",
            "security.cors.max_age_secs",
            "production.shutdown_timeout_secs",
            "production.drain_timeout_secs",
        }
    else:
        assert key.path in {problem.key for problem in refused(f"--{key.path}=0")}


def _secret(key: Key) -> dict[str, str]:
    return {} if key.path == "auth.jwt_secret" else {"JWT_SECRET": "s" * 32}
