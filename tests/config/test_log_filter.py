"""Filters in the form of RUST_LOG."""

from __future__ import annotations

import pytest

from realtime_communication.config.log_filter import LEVELS, LogFilter, parse_filter


@pytest.mark.parametrize("name", LEVELS)
def test_a_level_alone(name: str) -> None:
    assert parse_filter(name) == LogFilter(LEVELS[name], {})
    assert parse_filter(name.upper()) == LogFilter(LEVELS[name], {})


@pytest.mark.parametrize(
    ("text", "level", "targets"),
    [
        ("info,realtime_communication::auth=debug", 20, {"realtime_communication.auth": 10}),
        ("realtime_communication.http=trace", 20, {"realtime_communication.http": 5}),
        ("warn, hyper = off ,tokio::net=error", 30, {"hyper": 100, "tokio.net": 40}),
        ("realtime_communication", 20, {"realtime_communication": 5}),
        ("realtime_communication::auth", 20, {"realtime_communication.auth": 5}),
        ("realtime_communication::auth=debug,off", 100, {"realtime_communication.auth": 10}),
        ("debug,info", 20, {}),
    ],
)
def test_directives(text: str, level: int, targets: dict[str, int]) -> None:
    assert parse_filter(text) == LogFilter(level, targets)


def test_the_default_holds_without_a_general_level() -> None:
    assert parse_filter("a::b=debug", default=40) == LogFilter(40, {"a.b": 10})


@pytest.mark.parametrize(
    "text",
    ["", "inof", "info,", "a::b=loud", "=debug", "a b=debug", "info/regex", "a[span]=debug", "1=info", "a::=info", "3"],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="level"):
        parse_filter(text)
