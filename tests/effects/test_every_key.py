"""No key is decoration: for each key of the schema, the test that shows its effect.

A key that is new in the schema fails here until it has its row.
"""

import ast
from pathlib import Path

import pytest

from realtime_communication.config.catalogue import KEYS

TESTS = Path(__file__).resolve().parents[1]

SERVER, AUTH, SOCKET = "effects/test_operation.py::TestServer", "effects/test_auth.py", "effects/test_websocket.py"
RATES, ROUTING, ACTORS = (f"effects/test_{name}.py" for name in ("rate_limiting", "message_routing", "actor_system"))
SPEED, RUN, TLS = "effects/test_performance.py", "effects/test_operation.py", "effects/test_tls.py::TestEachKey"
BUCKET, CUSTOM, PROVIDERS = f"{RATES}::TestTokenBucket", f"{RATES}::TestCustomLimits", f"{AUTH}::TestProviders"
HEALTH, WORKER = "http/test_health.py", "server/test_worker.py"
REDIS, TOPOLOGY, OIDC = "effects/test_redis.py", "broker/test_redis_topology.py", "effects/test_oidc.py"
BREAKER, TRACES, METRICS, GUARD = (
    f"effects/test_{name}.py" for name in ("circuit_breaker", "tracing", "metrics", "protection")
)

EFFECTS = {
    "server.host": f"{SERVER}::test_host",
    "server.port": f"{SERVER}::test_port",
    "server.workers": "blackbox/test_workers.py::test_connections_land_on_every_worker",
    "auth.jwt_secret": f"{AUTH}::test_what_a_token_must_have",
    "auth.jwt_algorithms": f"{AUTH}::test_what_a_token_must_have",
    "auth.jwt_issuer": f"{AUTH}::test_what_a_token_must_have",
    "auth.jwt_audience": f"{AUTH}::test_what_a_token_must_have",
    "auth.access_token_expiry_hours": f"{AUTH}::test_access_token_expiry_hours",
    "auth.validate_issuer": f"{AUTH}::test_each_switch_turns_off_exactly_its_check",
    "auth.validate_audience": f"{AUTH}::test_each_switch_turns_off_exactly_its_check",
    "auth.validate_exp": f"{AUTH}::test_each_switch_turns_off_exactly_its_check",
    "auth.validate_nbf": f"{AUTH}::test_each_switch_turns_off_exactly_its_check",
    "auth.providers": f"{PROVIDERS}::test_type",
    "auth.providers[].type": f"{PROVIDERS}::test_type",
    "auth.providers[].name": f"{PROVIDERS}::test_name_in_logs",
    "auth.providers[].enabled": f"{PROVIDERS}::test_enabled",
    "auth.providers[].priority": f"{PROVIDERS}::test_priority",
    "auth.providers[].header": f"{PROVIDERS}::test_header_and_query_param",
    "auth.providers[].query_param": f"{PROVIDERS}::test_header_and_query_param",
    "auth.providers[].keys": f"{PROVIDERS}::test_key_user_and_permissions",
    "auth.providers[].keys[].key": f"{PROVIDERS}::test_key_user_and_permissions",
    "auth.providers[].keys[].user": f"{PROVIDERS}::test_key_user_and_permissions",
    "auth.providers[].keys[].roles": f"{PROVIDERS}::test_roles",
    "auth.providers[].keys[].permissions": f"{PROVIDERS}::test_key_user_and_permissions",
    "websocket.max_connections": f"{SOCKET}::test_max_connections",
    "websocket.heartbeat_interval_secs": f"{SOCKET}::test_heartbeat_interval",
    "websocket.client_timeout_secs": f"{SOCKET}::test_client_timeout",
    "websocket.auth_timeout_secs": f"{SOCKET}::test_auth_timeout",
    "websocket.max_frame_size": f"{SOCKET}::test_max_frame_size",
    "websocket.max_message_size": f"{SOCKET}::test_max_message_size",
    "rate_limiting.enabled": f"{RATES}::test_enabled",
    **{
        f"rate_limiting.{scope}.{key}": f"{RATES}::TestEachBucket::{test}"
        for scope in ("connection", "user", "global")
        for key, test in (
            ("requests_per_second", "test_rate"),
            ("burst_size", "test_burst"),
            ("window_size_secs", "test_window"),
        )
    },
    "rate_limiting.token_bucket.refill_interval_ms": f"{BUCKET}::test_refill_interval",
    "rate_limiting.token_bucket.token_precision": f"{BUCKET}::test_precision",
    "rate_limiting.token_bucket.cleanup_interval_secs": f"{BUCKET}::test_sweeps_come_as_often_as_configured",
    "rate_limiting.token_bucket.cleanup_threshold_secs": f"{BUCKET}::test_idle_buckets_go",
    "rate_limiting.custom_limits": f"{CUSTOM}::test_name_and_burst",
    "rate_limiting.custom_limits[].name": f"{CUSTOM}::test_name_and_burst",
    "rate_limiting.custom_limits[].pattern": f"{CUSTOM}::test_pattern",
    "rate_limiting.custom_limits[].requests_per_second": f"{CUSTOM}::test_rate",
    "rate_limiting.custom_limits[].burst_size": f"{CUSTOM}::test_name_and_burst",
    "message_routing.enable_caching": f"{ROUTING}::test_enable_caching",
    "message_routing.cache_ttl_secs": f"{ROUTING}::test_cache_ttl",
    "message_routing.max_cache_entries": f"{ROUTING}::test_max_cache_entries_is_over_all_topics_oldest_first",
    "message_routing.max_targets_per_message": f"{ROUTING}::test_max_targets_per_message",
    "message_routing.enable_message_transformation": f"{ROUTING}::test_enable_message_transformation",
    "message_routing.drop_invalid_messages": f"{ROUTING}::test_drop_invalid_messages",
    "actor_system.mailbox_capacity": f"{ACTORS}::test_mailbox_capacity_with_drop_newest",
    "actor_system.enable_priority_mailbox": f"{ACTORS}::test_enable_priority_mailbox",
    "actor_system.overflow_strategy": f"{ACTORS}::test_backpressure_refuses_direct_messages",
    "actor_system.supervision_strategy": f"{WORKER}::test_crashes_within_the_limit_are_repaired",
    "actor_system.max_restarts": f"{WORKER}::test_crashes_beyond_the_limit_end_the_server_which_says_why",
    "actor_system.restart_window_secs": f"{ACTORS}::test_supervision_follows_the_configuration",
    "performance.actors.priority_mailbox_size": f"{ACTORS}::test_priority_mailbox_size",
    "performance.actors.batch_size": f"{SPEED}::test_batch_size_bounds_a_turn",
    "performance.actors.batch_timeout_ms": f"{SPEED}::test_batch_timeout_bounds_a_turn",
    "performance.actors.use_work_stealing": (
        "blackbox/test_migration.py::test_a_worker_with_far_more_connections_hands_some_over"
    ),
    "performance.actors.pin_actors_to_cores": f"{ACTORS}::test_pin_actors_to_cores",
    "performance.messages.max_batch_size": f"{SPEED}::test_max_batch_size_bounds_what_is_written_together",
    "performance.messages.batch_window_ms": f"{SPEED}::test_batch_window_gathers_what_several_turns_bring",
    "performance.messages.compression_threshold_bytes": f"{SPEED}::test_compression_threshold",
    "performance.messages.compression_algorithm": f"{SPEED}::test_compression_algorithm",
    "performance.memory.connection_pool_size": f"{SPEED}::test_pools_are_set_aside_at_the_start",
    "performance.memory.message_pool_size": f"{SPEED}::test_pools_are_set_aside_at_the_start",
    "performance.memory.buffer_pool_size": f"{SPEED}::test_pools_bound_what_is_kept_not_what_works",
    "performance.memory.gc_interval_secs": f"{SPEED}::test_gc_interval",
    "performance.memory.gc_threshold_mb": f"{SPEED}::test_gc_threshold",
    "logging.level": f"{RUN}::test_level_and_format_of_the_log",
    "logging.format": f"{RUN}::test_level_and_format_of_the_log",
    "security.tls.enabled": f"{TLS}::test_enabled",
    "security.tls.cert_file": f"{TLS}::test_cert_file_and_key_file",
    "security.tls.key_file": f"{TLS}::test_cert_file_and_key_file",
    "security.tls.ca_file": f"{TLS}::test_ca_file",
    "security.tls.min_version": f"{TLS}::test_min_version",
    "security.tls.ciphers": f"{TLS}::test_ciphers",
    "security.tls.verify_client": f"{TLS}::test_verify_client",
    "security.tls.client_auth": f"{TLS}::test_client_auth",
    "monitoring.health_check.enabled": f"{HEALTH}::test_the_configuration_moves_and_removes_it",
    "monitoring.health_check.path": f"{HEALTH}::test_the_configuration_moves_and_removes_it",
    "monitoring.health_check.detailed": f"{HEALTH}::test_the_configuration_moves_and_removes_it",
    "monitoring.health_check.check_dependencies": f"{HEALTH}::test_dependencies_are_only_asked_when_configured",
    "monitoring.health_check.timeout_secs": f"{HEALTH}::test_dependencies_make_the_server_degraded_but_ready",
    "development.enable_debug_endpoints": f"{RUN}::test_enable_debug_endpoints",
    "testing.enable_test_mode": "config/test_validation.py::test_testing_keys_need_the_master_switch",
    "testing.bypass_auth": f"{RUN}::test_bypass_auth",
    "testing.deterministic_ids": f"{RUN}::test_deterministic_ids",
    "production.enable_graceful_shutdown": f"{RUN}::test_enable_graceful_shutdown",
    "production.shutdown_timeout_secs": f"{WORKER}::test_clients_have_time_to_answer_the_close",
    "production.drain_timeout_secs": f"{RUN}::test_drain_timeout",
    "auth.refresh_token_expiry_days": f"{AUTH}::test_refresh_token_expiry_days",
    "auth.custom_claims.include_user_metadata": f"{AUTH}::TestCustomClaims::test_include_user_metadata",
    "auth.custom_claims.include_device_info": f"{AUTH}::TestCustomClaims::test_include_device_info",
    "auth.custom_claims.include_location": f"{AUTH}::TestCustomClaims::test_include_location",
    "auth.custom_claims.custom_fields": f"{AUTH}::TestCustomClaims::test_custom_fields",
    "auth.providers[].issuer": f"{OIDC}::test_issuer",
    "auth.providers[].audience": f"{OIDC}::test_audience",
    "development.mock_external_services": f"{OIDC}::test_mock_external_services",
    "testing.use_in_memory_storage": f"{REDIS}::test_where_redis_is_never_looked_for",
    "redis.url": f"{REDIS}::test_url",
    "redis.pool_size": f"{REDIS}::test_pool_size",
    "redis.timeout_secs": f"{REDIS}::test_timeout",
    "redis.response_timeout_ms": f"{REDIS}::test_response_timeout",
    "redis.retry_attempts": f"{REDIS}::test_retry_attempts",
    "redis.retry_delay_ms": f"{REDIS}::test_retry_delay",
    "redis.key_prefix": f"{REDIS}::test_key_prefix",
    "redis.required": f"{REDIS}::test_required",
    "redis.cluster.enabled": f"{REDIS}::test_cluster",
    "redis.cluster.nodes": f"{TOPOLOGY}::TestCluster::test_one_node_of_those_named_is_enough",
    "redis.cluster.read_from_replicas": f"{TOPOLOGY}::TestCluster::test_read_from_replicas",
    "redis.sentinel.enabled": f"{REDIS}::test_sentinel",
    "redis.sentinel.sentinels": f"{TOPOLOGY}::TestSentinel::test_the_master_they_name_is_used",
    "redis.sentinel.master_name": f"{TOPOLOGY}::TestSentinel::test_a_name_or_a_password_that_is_wrong",
    "redis.sentinel.password": f"{TOPOLOGY}::TestSentinel::test_a_name_or_a_password_that_is_wrong",
    "redis.pool.min_idle": f"{REDIS}::TestPool::test_min_idle",
    "redis.pool.max_size": f"{REDIS}::TestPool::test_max_size",
    "redis.pool.idle_timeout_secs": f"{REDIS}::TestPool::test_idle_timeout",
    "redis.pool.max_lifetime_secs": f"{REDIS}::TestPool::test_max_lifetime",
    "circuit_breaker.enabled": f"{BREAKER}::TestThresholds::test_enabled",
    "circuit_breaker.failure_threshold": f"{BREAKER}::TestThresholds::test_failure_threshold",
    "circuit_breaker.success_threshold": f"{BREAKER}::TestThresholds::test_success_threshold",
    "circuit_breaker.timeout_secs": f"{BREAKER}::TestThresholds::test_timeout",
    "circuit_breaker.half_open_max_requests": f"{BREAKER}::TestThresholds::test_half_open_requests",
    "circuit_breaker.services": f"{BREAKER}::TestServices::test_name",
    "circuit_breaker.services[].name": f"{BREAKER}::TestServices::test_name",
    "circuit_breaker.services[].failure_threshold": f"{BREAKER}::TestServices::test_failure_threshold",
    "circuit_breaker.services[].success_threshold": f"{BREAKER}::TestServices::test_success_threshold",
    "circuit_breaker.services[].timeout_secs": f"{BREAKER}::TestServices::test_timeout",
    "circuit_breaker.services[].half_open_requests": f"{BREAKER}::TestServices::test_half_open_requests",
    "circuit_breaker.events.log_state_changes": f"{BREAKER}::TestEvents::test_log_state_changes",
    "circuit_breaker.events.emit_metrics": f"{BREAKER}::TestEvents::test_emit_metrics",
    "circuit_breaker.events.webhook_url": f"{BREAKER}::TestEvents::test_webhook_url",
    "circuit_breaker.events.webhook_secret": f"{BREAKER}::TestEvents::test_webhook_secret",
    "monitoring.health_check.check_redis": f"{HEALTH}::test_redis_is_only_asked_when_configured",
    "message_routing.transforms": f"{ROUTING}::test_transforms",
    "message_routing.transforms[].topic": f"{ROUTING}::test_transforms",
    "message_routing.transforms[].callable": "server/test_transforms.py::test_a_server_with_a_bad_one_does_not_start",
    "tracing.enabled": f"{TRACES}::TestEnabled::test_requests_and_connections_are_traced",
    "tracing.service_name": f"{TRACES}::test_service_name",
    "tracing.sampling_rate": f"{TRACES}::TestSamplingRate::test_none_begins_here_at_0_and_every_one_at_1",
    "tracing.exporter": f"{TRACES}::test_exporter",
    "tracing.endpoint": f"{TRACES}::TestEndpoint::test_a_path_speaks_http",
    "logging.enable_telemetry": f"{TRACES}::test_enable_telemetry",
    "development.enable_profiling": "http/test_profile.py::test_json",
    "monitoring.prometheus.enabled": f"{METRICS}::TestOnAndOff::test_off",
    "monitoring.prometheus.port": f"{METRICS}::TestPort::test_port",
    "monitoring.prometheus.path": f"{METRICS}::test_path",
    "monitoring.prometheus.update_interval_secs": f"{METRICS}::TestUpdateInterval::test_short",
    "monitoring.prometheus.namespace": f"{METRICS}::test_names",
    "monitoring.prometheus.subsystem": f"{METRICS}::test_names",
    "monitoring.prometheus.buckets": f"{METRICS}::test_buckets",
    "monitoring.custom_metrics": f"{METRICS}::TestCustomMetrics::test_only_what_is_asked_for_is_served",
    "monitoring.custom_metrics[].name": f"{METRICS}::TestCustomMetrics::test_name_and_labels_of_those_in_the_guide",
    "monitoring.custom_metrics[].labels": f"{METRICS}::TestCustomMetrics::test_labels_that_are_not_asked_for",
    "monitoring.custom_metrics[].type": f"{METRICS}::TestCustomMetrics::test_type_and_help",
    "monitoring.custom_metrics[].help": f"{METRICS}::TestCustomMetrics::test_type_and_help",
    "logging.enable_metrics": f"{METRICS}::TestOnAndOff::test_off",
    "security.enforce_tls": f"{GUARD}::TestEnforceTls::test_upgrades",
    "security.trusted_proxies": f"{GUARD}::test_trusted_proxies",
    "security.strict_transport_security": f"{GUARD}::test_strict_transport_security",
    "security.content_security_policy": f"{GUARD}::test_content_security_policy",
    "security.cors.enabled": f"{GUARD}::TestCors::test_enabled",
    "security.cors.allowed_origins": f"{GUARD}::TestCors::test_allowed_origins",
    "security.cors.allowed_methods": f"{GUARD}::TestCors::test_what_a_preflight_grants",
    "security.cors.allowed_headers": f"{GUARD}::TestCors::test_what_a_preflight_grants",
    "security.cors.allow_credentials": f"{GUARD}::TestCors::test_what_a_preflight_grants",
    "security.cors.max_age_secs": f"{GUARD}::TestCors::test_what_a_preflight_grants",
    "rate_limiting.headers.enabled": f"{GUARD}::TestRateLimitHeaders::test_off",
    "rate_limiting.headers.limit_header": f"{GUARD}::TestRateLimitHeaders::test_their_names",
    "rate_limiting.headers.remaining_header": f"{GUARD}::TestRateLimitHeaders::test_their_names",
    "rate_limiting.headers.reset_header": f"{GUARD}::TestRateLimitHeaders::test_their_names",
    "rate_limiting.headers.retry_after_header": f"{GUARD}::TestRateLimitHeaders::test_their_names",
}


def places(keys, prefix=""):
    """Every key, those inside lists of tables as `list[].key`."""
    for key in keys:
        yield prefix + key.path
        yield from places(key.element, f"{prefix}{key.path}[].")


def test_every_key_has_its_test():
    assert sorted(EFFECTS) == sorted(places(KEYS.values()))


@pytest.mark.parametrize("test", sorted(set(EFFECTS.values())))
def test_each_test_exists(test):
    path, *names = test.split("::")
    body = ast.parse((TESTS / path).read_text()).body
    for name in names:
        found = [node for node in body if getattr(node, "name", None) == name]
        assert found, f"{path} has no {name}"
        body = getattr(found[0], "body", [])
