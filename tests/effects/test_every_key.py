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
NO_REDIS = "config/test_later.py::test_where_redis_is_never_looked_for_its_settings_are_accepted"
CORS, HEALTH, WORKER = "http/test_security.py", "http/test_health.py", "server/test_worker.py"

EFFECTS = {
    "server.host": f"{SERVER}::test_host",
    "server.port": f"{SERVER}::test_port",
    "server.workers": "cli/test_serve.py::test_more_workers_than_this_version_has",
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
    # A provider of type oauth2 cannot be enabled yet; the two are refused anywhere else.
    "auth.providers[].issuer": "config/test_validation.py::TestProviders::test_bad",
    "auth.providers[].audience": "config/test_validation.py::TestProviders::test_disabled_oauth2_asks_for_nothing",
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
    "rate_limiting.headers.enabled": f"{RATES}::test_headers_can_be_off",
    "rate_limiting.headers.limit_header": f"{RATES}::test_headers_and_their_names",
    "rate_limiting.headers.remaining_header": f"{RATES}::test_headers_and_their_names",
    "rate_limiting.headers.reset_header": f"{RATES}::test_headers_and_their_names",
    "rate_limiting.headers.retry_after_header": f"{RATES}::test_headers_and_their_names",
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
    "performance.actors.use_work_stealing": f"{ACTORS}::test_work_stealing_promises_nothing_to_one_worker",
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
    "security.cors.enabled": f"{RUN}::test_origins_of_upgrades",
    "security.cors.allowed_origins": f"{CORS}::test_other_origins",
    "security.cors.allowed_methods": f"{CORS}::test_a_granted_preflight",
    "security.cors.allowed_headers": f"{CORS}::test_a_granted_preflight",
    "security.cors.allow_credentials": f"{CORS}::test_a_granted_preflight",
    "security.cors.max_age_secs": f"{CORS}::test_a_granted_preflight",
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
    "development.mock_external_services": NO_REDIS,
    "testing.enable_test_mode": "config/test_validation.py::test_testing_keys_need_the_master_switch",
    "testing.bypass_auth": f"{RUN}::test_bypass_auth",
    "testing.use_in_memory_storage": NO_REDIS,
    "testing.deterministic_ids": f"{RUN}::test_deterministic_ids",
    "production.enable_graceful_shutdown": f"{RUN}::test_enable_graceful_shutdown",
    "production.shutdown_timeout_secs": f"{WORKER}::test_clients_have_time_to_answer_the_close",
    "production.drain_timeout_secs": f"{RUN}::test_drain_timeout",
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
