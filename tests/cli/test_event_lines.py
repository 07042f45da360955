"""Events as lines and words."""

from __future__ import annotations

import time
from typing import Any

import click
import pytest

from realtime_communication.cli.event_lines import gap_of, history_line, is_passing, line_of, notice_of, position_in
from realtime_communication.client.errors import ClientClosed, RequestError
from realtime_communication.client.events import (
    Closing,
    Connected,
    DirectMessage,
    Disconnected,
    HistoryMessage,
    Join,
    Lagged,
    Leave,
    Message,
    Position,
    Recovered,
    TokenExpiring,
)

LINE = {"type": "Message", "topic": "t", "epoch": "e", "offset": 3, "ts": 9, "from": "bob", "payload": {"a": 1}}


def test_lines() -> None:
    assert line_of(Message("t", 3, 9, "bob", {"a": 1}, "e")) == LINE
    assert history_line("t", "e", HistoryMessage(offset=3, ts=9, sender="bob", payload={"a": 1})) == LINE
    assert line_of(DirectMessage(3, 9, "bob", 1)) == {
        "type": "DirectMessage",
        "offset": 3,
        "ts": 9,
        "from": "bob",
        "payload": 1,
    }
    assert line_of(Join("t", "u", "s", {"x": 1})) == {
        "type": "Join",
        "topic": "t",
        "user_id": "u",
        "session_id": "s",
        "info": {"x": 1},
    }
    assert line_of(Leave("t", "u", "s")) == {"type": "Leave", "topic": "t", "user_id": "u", "session_id": "s"}
    assert line_of(Lagged("t", 1, False)) is None and line_of(Recovered("t", True)) is None


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Lagged("t", 4, False), "4 of t are missing: this connection was too slow"),
        (Lagged("t", 4, False, "queue"), "this command did not keep up"),
        (Lagged("t", 4, False, "offsets"), "they did not come"),
        (Lagged("t", 4, True), None),
        (Recovered("t", True, 0), None),
        (Recovered("t", False, 2), "2 of t are missing: they are no longer in the history"),
        (Recovered("t", False, None), "the history of t was lost"),
        (Message("t", 1, 1, "b", 1), None),
    ],
)
def test_gaps(event: Any, words: str | None) -> None:
    found = gap_of(event)
    assert (found is None) == (words is None)
    assert words is None or (found is not None and found.startswith("gap: ") and words in found)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Disconnected(1006, "", 0.25), "the connection was lost (1006); again in 0.2 s"),
        (Disconnected(1006, "x", None), None),
        (Connected("s", "u", "n", None, True), "connected again"),
        (Connected("s", "u", "n", None, False), None),
        (Closing(1001, "", True, 0), "stops or restarts"),
        (TokenExpiring(None), "the token expires, and"),
        (TokenExpiring(int(time.time()) - 5), "the token expires in 0 s"),
    ],
)
def test_notices(event: Any, words: str | None) -> None:
    found = notice_of(event)
    assert (found is None) == (words is None)
    assert words is None or (found is not None and words in found)


def test_positions() -> None:
    assert position_in(None, "x") is None
    assert position_in("abc:7", "x") == Position("abc", 7)
    for text in ("abc", "abc:", ":7", "abc:x", "abc:-1", "abc:" + "9" * 17):
        with pytest.raises(click.BadParameter, match="EPOCH:OFFSET"):
            position_in(text, "x")


def test_what_passes() -> None:
    assert is_passing(RequestError("rate_limited", "")) and not is_passing(RequestError("forbidden", ""))
    assert not is_passing(ClientClosed("x"))
