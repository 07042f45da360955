"""Figures as lines."""

from __future__ import annotations

import re

import pytest

from cli.top.made_up import sample
from realtime_communication.cli.top.figures import figures
from realtime_communication.cli.top.view import cells_of, clipped, count, duration, millis, size, view

URL = "http://rtc:8081"


def shown(width: int = 100, height: int = 40, **changes: object) -> list[str]:
    found = figures(sample(10, 100), sample(12, 200, **changes))
    lines = view(found, URL, width, height, order="rate", keys=True)
    return [re.sub(r"\x1b\[[0-9]*m", "", line) for line in lines]


def test_everything_is_there() -> None:
    text = "\n".join(shown())
    for words in (
        "rtc top  http://rtc:8081  0.1.0  node-1  up 1h01m",
        "degraded",
        "12 connections  2 users",
        "150 deliveries/s",
        "message_latency  p50 1 ms",
        "redis: degraded  address r:6379",
        "breaker redis: open, 7 calls rejected",
        "worker 2: does not answer",
        "slower (session-)",
        "1m01s",
        "q quit   p pause   s sort topics (by rate)",
    ):
        assert words in text, words
    assert "breaker webhooks" not in text
    assert re.search(r"busy +50 +1 +200", text) and re.search(r"^1 +9 +100 +50 MiB", text, re.M)


@pytest.mark.parametrize(("width", "height"), [(20, 5), (1, 1), (40, 12), (200, 14)])
def test_never_more_than_there_is_room_for(width: int, height: int) -> None:
    lines = shown(width, height)
    assert 0 < len(lines) <= height and all(cells_of(line) <= width for line in lines)


def test_what_a_peer_named_cannot_move_the_cursor() -> None:
    topics = [{"topic": "a\x1b[2J\x9bb\u202e", "epoch": "e", "offset": 1, "subscribers": 1, "cached": 1}]
    text = "".join(shown(topics=topics))
    assert "\\x1b[2J" in text and not set("\x1b\x9b\u202e") & set(text)


@pytest.mark.parametrize(
    ("text", "width", "wanted"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日…"),
        ("a", 0, ""),
    ],
)
def test_clipping_counts_cells(text: str, width: int, wanted: str) -> None:
    assert clipped(text, width) == wanted


def test_combining_marks_take_no_cell() -> None:
    assert cells_of("e\u0301") == 1


def test_numbers() -> None:
    assert [count(value) for value in (None, 0.0, 1.25, 12345.6)] == ["-", "0", "1.2", "12,346"]
    assert [size(value) for value in (None, 10.0, 2048.0, 3 << 20, 5 << 30)] == [
        "-",
        "10 B",
        "2 KiB",
        "3 MiB",
        "5.0 GiB",
    ]
    assert [millis(value) for value in (None, 0.00123)] == ["-", "1.23 ms"]
    assert [duration(value) for value in (5, 65, 3700, 90_000)] == ["5s", "1m05s", "1h01m", "1d01h"]
