"""What may change while the server runs."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from realtime_communication.config import LoadedConfig
from realtime_communication.config.catalogue import KEYS
from realtime_communication.config.changes import changed, merge, replaced, value_of
from realtime_communication.config.origins import Layer
from realtime_communication.errors import ConfigurationError, ConfigurationProblem

Load = Callable[..., LoadedConfig]


def problems_of(loaded: LoadedConfig, changes: dict[str, object]) -> list[ConfigurationProblem]:
    with pytest.raises(ConfigurationError) as caught:
        changed(loaded, changes, "alice")
    return list(caught.value.problems)


class TestMerge:
    """The files read again."""

    def test_live_keys_are_taken_over_and_the_others_told(self, load_config: Load) -> None:
        current = load_config(files={"config.toml": "server.port = 1000\nwebsocket.max_connections = 5\n"})
        fresh = load_config(files={"config.toml": "server.port = 2000\nwebsocket.max_connections = 6\n"})
        merged = merge(current, fresh)
        assert (merged.loaded.config.server.port, merged.loaded.config.websocket.max_connections) == (1000, 6)
        assert [(d.path, d.before, d.after) for d in merged.live] == [("websocket.max_connections", "5", "6")]
        assert [(d.path, d.before, d.after) for d in merged.restart] == [("server.port", "1000", "2000")]
        assert str(merged.loaded.origins["websocket.max_connections"]).endswith("config.toml:2")

    def test_nothing_changed_is_nothing(self, load_config: Load) -> None:
        merged = merge(load_config(), load_config())
        assert (merged.live, merged.restart, merged.loaded.config) == ((), (), load_config().config)

    def test_secrets_are_not_shown(self, load_config: Load) -> None:
        merged = merge(load_config(), load_config("--auth.jwt_secret=" + "hush" * 10))
        assert [difference.path for difference in merged.live] == ["auth.jwt_secret"]
        assert "hush" not in repr(merged.live)

    def test_what_an_administrator_changed_ends_with_the_next_reading(self, load_config: Load) -> None:
        current = changed(load_config(), {"logging.level": "debug"}, "alice").loaded
        merged = merge(current, load_config())
        assert merged.loaded.config.logging.level == "info"
        assert merged.loaded.origins["logging.level"].layer is Layer.DEFAULT

    def test_a_live_value_that_contradicts_one_that_stays(self, load_config: Load) -> None:
        current = load_config("--redis.pool_size=10")
        contradiction = msgspec.structs.replace(
            current, config=replaced(current.config, {"auth.jwt_secret": "too short"})
        )
        with pytest.raises(ConfigurationError) as caught:
            merge(current, contradiction)
        assert [problem.key for problem in caught.value.problems] == ["auth.jwt_secret"]


class TestChanged:
    """What an administrator asks for."""

    def test_values_and_their_origin(self, load_config: Load) -> None:
        loaded = load_config()
        made = changed(
            loaded,
            {"rate_limiting.global.requests_per_second": 5, "rate_limiting.global.burst_size": 20_000},
            "alice",
        )
        assert made.loaded.config.rate_limiting.global_.requests_per_second == 5.0
        assert str(made.loaded.origins["rate_limiting.global.burst_size"]) == "changed by alice"
        assert [difference.path for difference in made.live] == ["rate_limiting.global.requests_per_second"]
        assert loaded.config.rate_limiting.global_.requests_per_second == 10_000

    @pytest.mark.parametrize(
        ("changes", "faults"),
        [
            ({"logging.lvl": "debug"}, ["logging.lvl"]),
            ({"server.port": 1}, ["server.port"]),
            ({"rate_limiting.user.burst_size": 0}, ["rate_limiting.user.burst_size"]),
            ({"rate_limiting.user.burst_size": "1"}, ["rate_limiting.user.burst_size"]),
            ({"rate_limiting.user.burst_size": True}, ["rate_limiting.user.burst_size"]),
            ({"logging.level": "loud"}, ["logging.level"]),
            ({"logging.level": "debug", "x": 1, "server.port": 1}, ["x", "server.port"]),
            ({"websocket.max_frame_size": 2_000_000}, ["websocket.max_frame_size"]),
        ],
    )
    def test_what_is_refused(self, changes: dict[str, object], faults: list[str], load_config: Load) -> None:
        problems = problems_of(load_config(), changes)
        assert [problem.key for problem in problems] == faults
        assert all(problem.message for problem in problems)

    def test_a_secret_that_is_refused_is_not_shown(self, load_config: Load) -> None:
        (problem,) = problems_of(load_config(), {"auth.jwt_secret": ["hush"]})
        assert "hush" not in str(problem)


def test_every_key_can_be_read_and_replaced(load_config: Load) -> None:
    config = load_config().config
    assert replaced(config, {path: value_of(config, path) for path in KEYS}) == config
