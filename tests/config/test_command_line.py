"""Options as configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from realtime_communication.config.catalogue import find_option
from realtime_communication.config.command_line import Argument, parse_arguments


def _given(*words: str) -> list[tuple[str, str]]:
    parsed = parse_arguments(words, find_option)
    assert parsed.problems == ()
    return [(argument.name, argument.text) for argument in parsed.arguments]


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["--port=1"], [("port", "1")]),
        (["--port", "1"], [("port", "1")]),
        (["--server.port=1"], [("server.port", "1")]),
        (["--max-connections=5"], [("max_connections", "5")]),
        (["--max_connections=5"], [("max_connections", "5")]),
        (["--websocket.max-connections=5"], [("websocket.max_connections", "5")]),
        (["--redis.key-prefix=a=b"], [("redis.key_prefix", "a=b")]),
        (["--host="], [("host", "")]),
        (["--port=1", "--port=2"], [("port", "2")]),
        (["--testing.bypass_auth"], [("testing.bypass_auth", "true")]),
        (["--testing.bypass_auth", "--port=1"], [("testing.bypass_auth", "true"), ("port", "1")]),
        (["--testing.bypass_auth", "false"], [("testing.bypass_auth", "false")]),
        (["--unknown=1"], [("unknown", "1")]),
        (["--websocket.client_timeout_secs", "-1"], [("websocket.client_timeout_secs", "-1")]),
    ],
)
def test_forms(words: list[str], given: list[tuple[str, str]]) -> None:
    assert _given(*words) == given


def test_profile_and_file() -> None:
    parsed = parse_arguments(["--profile=dev", "--config", "/etc/rtc/config.toml", "--port=1"], find_option)
    assert (parsed.profile, parsed.config_file) == ("dev", Path("/etc/rtc/config.toml"))
    assert parsed.arguments == (Argument("--port", "port", "1"),)


@pytest.mark.parametrize("words", [["--port"], ["--port", "--host=x"], ["word"], ["-p", "1"], ["--"], ["--unknown"]])
def test_words_that_mean_nothing(words: list[str]) -> None:
    problems = parse_arguments(words, find_option).problems
    assert problems and problems[0].origin == "command line"


def test_a_problem_does_not_repeat_a_value() -> None:
    problem = parse_arguments(["-jwt-secret=hush"], find_option).problems[0]
    assert "hush" not in str(problem)
