"""The configuration as the compiled core reads it."""

from __future__ import annotations

import msgspec
import pytest

from realtime_communication.config import Config
from realtime_communication.config.protection import Cors, Security
from realtime_communication.config.schema import Development
from realtime_communication.config.traffic import ConnectionLimit, CustomLimit, RateLimiting
from realtime_communication.server.core_settings import Settings, bucket_depth, core_settings

HEADERS = [
    ("Server", "realtime_communication"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
]


def test_defaults() -> None:
    assert msgspec.to_builtins(core_settings(Config())) == {
        "heartbeat_interval_secs": 30.0,
        "client_timeout_secs": 60.0,
        "auth_timeout_secs": 10.0,
        "max_connections": 10_000,
        "max_unauthenticated": 10_000,
        "max_unauthenticated_per_address": 4000,
        "max_frame_size": 65_536,
        "max_message_size": 1_048_576,
        "mailbox_capacity": 1000,
        "enable_priority_mailbox": True,
        "priority_mailbox_size": 100,
        "overflow_strategy": "backpressure",
        "batch_size": 50,
        "batch_timeout_ms": 10.0,
        "max_batch_size": 100,
        "batch_window_ms": 5.0,
        "compression_algorithm": "zstd",
        "compression_threshold_bytes": 1024,
        "enable_caching": True,
        "cache_ttl_secs": 300.0,
        "max_cache_entries": 10_000,
        "max_targets_per_message": 1000,
        "enable_message_transformation": True,
        "transforms": (),
        "topics": (),
        "drop_invalid_messages": False,
        "rate_limiting_enabled": True,
        "connection_rps": 100.0,
        "connection_burst": 200,
        "user_rps": 500.0,
        "user_burst": 1000,
        "global_rps": 10_000.0,
        "global_burst": 20_000,
        "refill_interval_ms": 100,
        "token_precision": 0.1,
        "cleanup_interval_secs": 300.0,
        "cleanup_threshold_secs": 600.0,
        "custom_limits": [],
        "deterministic_ids": False,
        "debug_echo": False,
        "require_origin_match": False,
        "allowed_origins": [],
        "trusted_proxies": None,
        "refusal_headers": HEADERS,
        "secure_refusal_headers": HEADERS,
        "connection_pool_size": 10_000,
        "message_pool_size": 100_000,
        "buffer_pool_size": 50_000,
    }


def test_every_setting_comes_from_the_configuration() -> None:
    limit = CustomLimit(name="subscription", pattern="Subscribe", requests_per_second=10.0, burst_size=20)
    config = msgspec.structs.replace(
        Config(),
        rate_limiting=RateLimiting(enabled=False, custom_limits=(limit,)),
        security=Security(cors=Cors(enabled=True, allowed_origins=("https://a",))),
        development=Development(enable_debug_endpoints=True),
    )
    settings = core_settings(config)
    assert settings.custom_limits == [("subscription", "Subscribe", 10.0, 20)]
    assert (settings.require_origin_match, settings.allowed_origins) == (True, ["https://a"])
    assert settings.debug_echo and not settings.rate_limiting_enabled


def test_headers_of_refusals() -> None:
    security = Security(content_security_policy="default-src 'none'", strict_transport_security=True)
    settings = core_settings(msgspec.structs.replace(Config(), security=security))
    assert settings.refusal_headers == [*HEADERS, ("Content-Security-Policy", "default-src 'none'")]
    secure = ("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
    assert settings.secure_refusal_headers == [*settings.refusal_headers, secure]


def test_settings_are_frozen_and_comparable() -> None:
    settings = core_settings(Config())
    assert settings == core_settings(Config())
    with pytest.raises(AttributeError):
        settings.max_connections = 1  # type: ignore[misc]
    assert isinstance(settings, Settings)


@pytest.mark.parametrize(
    ("rate", "burst", "window", "depth"),
    [
        (100.0, 200, 1.0, 200),
        (100.0, 5, 1.0, 5),
        (1.0, 2, 10.0, 10),
        (1.0, 50, 10.0, 50),
        (0.5, 1, 3.0, 1),
        (1e9, 1, 86_400.0, 2_000_000_000),
    ],
)
def test_the_window_deepens_the_bucket(rate: float, burst: int, window: float, depth: int) -> None:
    limit = ConnectionLimit(requests_per_second=rate, burst_size=burst, window_size_secs=window)
    assert bucket_depth(limit) == depth
