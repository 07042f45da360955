"""Names of keys."""

from __future__ import annotations

from realtime_communication.config.catalogue import (
    ALIASES,
    KEYS,
    SECTIONS,
    VARIABLES,
    find_option,
    option_names,
    resolve,
)


def test_no_name_means_two_things() -> None:
    assert not set(ALIASES) & set(KEYS)
    assert not SECTIONS & (set(ALIASES) | set(KEYS))
    variables = [variable for key in KEYS.values() for variable in key.variables]
    assert len(variables) == len(set(variables)) == len(VARIABLES)
    aliases = [alias for key in KEYS.values() for alias in key.aliases]
    assert len(aliases) == len(set(aliases)) == len(ALIASES)


def test_resolving() -> None:
    key = resolve("redis.connection_timeout_ms")
    assert key is KEYS["redis.timeout_secs"] and key.aliases["redis.connection_timeout_ms"] == 0.001
    assert resolve("server.port") is KEYS["server.port"]
    assert resolve("server.prot") is None


def test_options() -> None:
    assert find_option("port") is find_option("server.port") is KEYS["server.port"]
    assert find_option("log_level") is find_option("rust_log") is KEYS["logging.level"]
    assert find_option("nothing") is None
    assert {"port", "max-connections", "server.port", "profile", "config"} <= set(option_names())
