"""Live keys are live, and the others say that they are not.

For each key of the schema that is live, the test that changes it on a running server and sees the difference. A key
that is new in the schema, or newly live, fails here until it has its row.
"""

import pytest

from effects.named_tests import assert_exists, each_bucket
from realtime_communication.config.catalogue import KEYS
from realtime_communication.config.changes import value_of
from realtime_communication.config.keys import Kind
from serving.certificates import shared_server
from serving.processes import free_port, merged

TRAFFIC, ACCESS, WATCHING = (f"effects/test_live_{name}.py" for name in ("traffic", "access", "watching"))
SOCKET, BUCKET, CUSTOM = f"{TRAFFIC}::TestWebsocket", f"{TRAFFIC}::TestTokenBucket", f"{TRAFFIC}::TestCustomLimits"
ROUTING, MAILBOX, SPEED = (f"{TRAFFIC}::Test{name}" for name in ("Routing", "Mailboxes", "Performance"))
TOKENS, PROVIDERS, CORS = (f"{ACCESS}::Test{name}" for name in ("Tokens", "Providers", "Cors"))
GUARD, TLS = f"{ACCESS}::TestHeadersAndTls", f"{ACCESS}::TestTls"
BREAKERS, HEALTH, LOG = (f"{WATCHING}::Test{name}" for name in ("Breakers", "Health", "Log"))

LIVE = {
    "auth.jwt_secret": f"{TOKENS}::test_jwt_secret",
    **{
        f"auth.{key}": f"{TOKENS}::test_what_a_token_must_have"
        for key in (
            *("jwt_algorithms", "jwt_issuer", "jwt_audience"),
            *("validate_issuer", "validate_audience", "validate_exp", "validate_nbf"),
        )
    },
    **{
        f"auth.{key}": f"{TOKENS}::test_what_an_issued_token_says"
        for key in (
            *("access_token_expiry_hours", "refresh_token_expiry_days"),
            *("custom_claims.include_user_metadata", "custom_claims.include_device_info"),
            *("custom_claims.include_location", "custom_claims.custom_fields"),
        )
    },
    "auth.providers": f"{PROVIDERS}::test_keys_come_and_go",
    "auth.providers[].type": f"{PROVIDERS}::test_type",
    "auth.providers[].name": f"{PROVIDERS}::test_name",
    "auth.providers[].enabled": f"{PROVIDERS}::test_enabled",
    "auth.providers[].priority": f"{PROVIDERS}::test_priority",
    "auth.providers[].header": f"{PROVIDERS}::test_header_and_query_param",
    "auth.providers[].query_param": f"{PROVIDERS}::test_header_and_query_param",
    "auth.providers[].keys": f"{PROVIDERS}::test_keys_come_and_go",
    "auth.providers[].keys[].key": f"{PROVIDERS}::test_keys_come_and_go",
    "auth.providers[].keys[].user": f"{PROVIDERS}::test_user_permissions_and_roles",
    "auth.providers[].keys[].roles": f"{PROVIDERS}::test_user_permissions_and_roles",
    "auth.providers[].keys[].permissions": f"{PROVIDERS}::test_user_permissions_and_roles",
    "auth.providers[].issuer": f"{PROVIDERS}::test_an_issuer",
    "auth.providers[].audience": f"{PROVIDERS}::test_an_issuer",
    "websocket.max_connections": f"{SOCKET}::test_max_connections",
    "websocket.max_unauthenticated": f"{SOCKET}::test_max_unauthenticated",
    "websocket.max_unauthenticated_per_address": f"{SOCKET}::test_max_unauthenticated_per_address",
    "websocket.heartbeat_interval_secs": f"{SOCKET}::test_heartbeat_interval",
    "websocket.client_timeout_secs": f"{SOCKET}::test_client_timeout",
    "websocket.auth_timeout_secs": f"{SOCKET}::test_auth_timeout",
    "websocket.max_frame_size": f"{SOCKET}::test_max_frame_size",
    "websocket.max_message_size": f"{SOCKET}::test_max_message_size",
    "redis.required": f"{WATCHING}::test_redis_required",
    "rate_limiting.enabled": f"{TRAFFIC}::test_limits_off_and_on",
    **each_bucket(TRAFFIC),
    "rate_limiting.token_bucket.refill_interval_ms": f"{BUCKET}::test_when_a_token_is_back",
    "rate_limiting.token_bucket.token_precision": f"{BUCKET}::test_when_a_token_is_back",
    "rate_limiting.token_bucket.cleanup_interval_secs": f"{BUCKET}::test_when_idle_buckets_go",
    "rate_limiting.token_bucket.cleanup_threshold_secs": f"{BUCKET}::test_when_idle_buckets_go",
    "rate_limiting.custom_limits": f"{CUSTOM}::test_name_and_burst",
    "rate_limiting.custom_limits[].name": f"{CUSTOM}::test_name_and_burst",
    "rate_limiting.custom_limits[].pattern": f"{CUSTOM}::test_pattern",
    "rate_limiting.custom_limits[].requests_per_second": f"{CUSTOM}::test_rate",
    "rate_limiting.custom_limits[].burst_size": f"{CUSTOM}::test_name_and_burst",
    "rate_limiting.headers.enabled": f"{TRAFFIC}::TestRateLimitHeaders::test_off",
    **{
        f"rate_limiting.headers.{name}_header": f"{TRAFFIC}::TestRateLimitHeaders::test_their_names"
        for name in ("limit", "remaining", "reset", "retry_after")
    },
    "message_routing.enable_caching": f"{ROUTING}::test_enable_caching",
    "message_routing.cache_ttl_secs": f"{ROUTING}::test_cache_ttl",
    "message_routing.max_cache_entries": f"{ROUTING}::test_max_cache_entries",
    "message_routing.max_targets_per_message": f"{ROUTING}::test_max_targets_per_message",
    "message_routing.enable_message_transformation": f"{ROUTING}::test_enable_message_transformation",
    "message_routing.drop_invalid_messages": f"{ROUTING}::test_drop_invalid_messages",
    "topics": "effects/test_topics.py::TestLive::test_roles",
    "topics[].pattern": "effects/test_topics.py::TestLive::test_roles",
    **{f"topics[].{act}_roles": "effects/test_topics.py::TestLive::test_roles" for act in ("subscribe", "publish")},
    **{
        f"topics[].{key}": "effects/test_topics.py::TestLive::test_history_and_presence"
        for key in ("history", "history_size", "history_ttl_secs", "presence")
    },
    "webhooks.url": "effects/test_webhooks.py::TestLive::test_url_and_secret",
    "webhooks.secret": "effects/test_webhooks.py::TestLive::test_url_and_secret",
    **{
        f"webhooks.{key}": "effects/test_webhooks.py::TestLive::test_events_and_batches"
        for key in ("events", "max_batch", "batch_wait_ms")
    },
    "actor_system.mailbox_capacity": f"{MAILBOX}::test_mailbox_capacity",
    "actor_system.enable_priority_mailbox": f"{MAILBOX}::test_enable_priority_mailbox",
    "actor_system.overflow_strategy": f"{MAILBOX}::test_overflow_strategy",
    "performance.actors.priority_mailbox_size": f"{MAILBOX}::test_priority_mailbox_size",
    "performance.actors.batch_size": f"{SPEED}::test_batch_size",
    "performance.actors.batch_timeout_ms": f"{SPEED}::test_batch_timeout",
    "performance.messages.max_batch_size": f"{SPEED}::test_max_batch_size",
    "performance.messages.batch_window_ms": f"{SPEED}::test_batch_window",
    "performance.messages.compression_threshold_bytes": f"{SPEED}::test_compression_threshold",
    "performance.messages.compression_algorithm": f"{SPEED}::test_compression_algorithm",
    "circuit_breaker.enabled": f"{BREAKERS}::test_enabled",
    "circuit_breaker.half_open_max_requests": f"{BREAKERS}::test_half_open_requests",
    "circuit_breaker.services": f"{BREAKERS}::test_failure_threshold",
    "circuit_breaker.services[].name": f"{BREAKERS}::test_failure_threshold",
    "circuit_breaker.services[].half_open_requests": f"{BREAKERS}::test_half_open_requests",
    **{
        f"circuit_breaker.{place}{key}": f"{BREAKERS}::{test}"
        for place in ("", "services[].")
        for key, test in (
            ("failure_threshold", "test_failure_threshold"),
            ("success_threshold", "test_success_threshold"),
            ("timeout_secs", "test_timeout"),
        )
    },
    "circuit_breaker.events.log_state_changes": f"{BREAKERS}::test_log_state_changes",
    "circuit_breaker.events.emit_metrics": f"{BREAKERS}::test_emit_metrics",
    "circuit_breaker.events.webhook_url": f"{BREAKERS}::test_webhook_url_and_secret",
    "circuit_breaker.events.webhook_secret": f"{BREAKERS}::test_webhook_url_and_secret",
    "logging.level": f"{LOG}::test_level",
    "logging.format": f"{LOG}::test_format",
    "security.cors.enabled": f"{CORS}::test_enabled",
    "security.cors.allowed_origins": f"{CORS}::test_allowed_origins",
    **{
        f"security.cors.{key}": f"{CORS}::test_what_a_preflight_grants"
        for key in ("allowed_methods", "allowed_headers", "allow_credentials", "max_age_secs")
    },
    "security.enforce_tls": f"{GUARD}::test_enforce_tls",
    "security.trusted_proxies": f"{GUARD}::test_trusted_proxies",
    "security.strict_transport_security": f"{GUARD}::test_strict_transport_security",
    "security.content_security_policy": f"{GUARD}::test_content_security_policy",
    "security.tls.cert_file": f"{TLS}::test_files",
    "security.tls.key_file": f"{TLS}::test_files",
    "security.tls.ca_file": f"{TLS}::test_client_certificates",
    "security.tls.min_version": f"{TLS}::test_min_version",
    "security.tls.ciphers": f"{TLS}::test_ciphers",
    "security.tls.verify_client": f"{TLS}::test_client_certificates",
    "security.tls.client_auth": f"{TLS}::test_client_certificates",
    "monitoring.prometheus.update_interval_secs": f"{WATCHING}::test_update_interval",
    "monitoring.health_check.detailed": f"{HEALTH}::test_detailed",
    "monitoring.health_check.check_redis": f"{HEALTH}::test_check_redis",
    "monitoring.health_check.check_dependencies": f"{HEALTH}::test_check_dependencies",
    "monitoring.health_check.timeout_secs": f"{HEALTH}::test_timeout",
    "production.shutdown_timeout_secs": f"{WATCHING}::test_timeouts_of_the_end",
    "production.drain_timeout_secs": f"{WATCHING}::test_timeouts_of_the_end",
}


def live_places(keys, prefix=""):
    """Every live key, those inside lists of tables as `list[].key`."""
    for key in keys:
        if key.live:
            yield prefix + key.path
        yield from live_places(key.element, f"{prefix}{key.path}[].")


def test_every_live_key_has_its_test():
    assert sorted(LIVE) == sorted(live_places(KEYS.values()))


def test_a_list_is_as_live_as_what_is_in_it():
    """A reload replaces a list of tables as a whole."""
    for key in KEYS.values():
        assert {element.live for element in key.element} <= {key.live}, key.path


@pytest.mark.parametrize("test", sorted(set(LIVE.values())))
def test_each_test_exists(test):
    assert_exists(test)


OTHERS = {
    "server.host": "127.0.0.2",
    "server.port": 9,  # the next one may be that of the metrics
    "redis.url": "redis://:hush@127.0.0.1:9/3",
    "redis.cluster.nodes": ["redis://:hush@127.0.0.1:9"],
    "redis.sentinel.sentinels": ["127.0.0.1:9"],
    "message_routing.transforms": [{"topic": "t", "callable": "json:loads"}],
    "authorization.callable": "json:loads",
    "authorization.url": "http://127.0.0.1:9/",
    "authorization.actions": ["publish"],
    "monitoring.prometheus.path": "/other",
    "monitoring.prometheus.buckets": [1.0, 2.0],
    "monitoring.custom_metrics": [{"name": "message_latency", "type": "histogram"}],
    "monitoring.health_check.path": "/other",
    "tracing.endpoint": "http://127.0.0.1:9",
}
"""Values for keys whose values have a form of their own."""

NEEDED = {
    "redis.cluster.enabled": {"redis": {"cluster": {"nodes": ["redis://127.0.0.1:9"]}}},
    "redis.sentinel.enabled": {"redis": {"sentinel": {"sentinels": ["127.0.0.1:9"]}}},
    "security.tls.enabled": {
        "security": {"tls": {"cert_file": str(shared_server().cert_file), "key_file": str(shared_server().key_file)}}
    },
    "testing.enable_test_mode": {"testing": {"use_in_memory_storage": False}},
}
"""What must be there beside a key."""


def another(key, before):
    """A value that is not the one in force."""
    if key.path in OTHERS:
        return OTHERS[key.path]
    if key.kind is Kind.BOOLEAN:
        return not before
    if key.kind is Kind.CHOICE:
        return next(choice for choice in key.choices if choice != before)
    if key.kind in (Kind.INTEGER, Kind.NUMBER):
        return before / 2 if key.maximum is not None and before + 1 > key.maximum else before + 1
    return "another"


def table(path, value):
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


@pytest.mark.parametrize("path", [path for path, key in KEYS.items() if not key.live])
def test_what_needs_a_restart_says_so(serve, path, caplog):
    # Port 0 needs the mode of tests, which one of the changes ends.
    port, _, metrics_port, _ = (free_port() for _ in range(4))  # the one behind each may be what it is changed to
    base = {"server": {"port": port}, "monitoring": {"prometheus": {"port": metrics_port}}}
    running = serve(base)
    before = value_of(running.worker.parts.live.config, path)
    changed = merged(merged(base, NEEDED.get(path, {})), table(path, another(KEYS[path], before)))
    assert running.reload(changed), caplog.text
    told = [record.event_fields for record in caplog.records if record.message == "this setting needs a restart"]
    assert path in [fields["key"] for fields in told]
    assert "hush" not in repr(told)
    assert value_of(running.worker.parts.live.config, path) == before
    with running.peer() as alice:
        assert alice.ok("Ping")
