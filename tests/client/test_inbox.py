"""Direct messages over connections."""

from typing import Any

from realtime_communication.client import encoding
from realtime_communication.client.events import DirectMessage, HistoryMessage, Lagged, Recovered
from realtime_communication.client.inbox import PAGE, Inbox
from realtime_communication.client.outputs import InboxOutput


class Harness:
    def __init__(self) -> None:
        self.outputs: list[Any] = []
        self.inbox = Inbox(self.outputs.append)

    def connect(self, *, reconnected: bool = False, user: str = "me", readable: bool = True) -> dict[str, Any]:
        self.inbox.connection_lost()
        self.inbox.connection_made(user, reconnected=reconnected, readable=readable)
        if not readable:
            return {}
        self.inbox.asked = 1
        return self.inbox.body()

    def page(self, offset: int, *offsets: int, epoch: str = "e") -> bool:
        messages = [HistoryMessage(n, 0, "bob", n) for n in offsets]
        more = self.inbox.page(encoding.HistoryPageEnvelope(topic="@me", epoch=epoch, offset=offset, messages=messages))
        if more:
            self.inbox.asked = 2
        return more

    def live(self, offset: int) -> None:
        self.inbox.message(encoding.DirectMessageEnvelope(offset=offset, ts=0, sender="bob", payload=offset))

    def take(self) -> list[Any]:
        events = [output.event for output in self.outputs if isinstance(output, InboxOutput)]
        self.outputs.clear()
        return [event.offset if isinstance(event, DirectMessage) else event for event in events]


def test_first_connection_learns_where_it_stands() -> None:
    harness = Harness()
    assert harness.connect() == {"type": "History", "topic": "@me", "limit": 1, "reverse": True}
    harness.live(8)
    assert harness.page(8, 8) is False
    harness.live(9)
    assert harness.take() == [8, 9]


def test_reply_may_overtake_a_waiting_message() -> None:
    harness = Harness()
    harness.connect()
    harness.page(8, 8)
    harness.live(8)
    harness.live(9)
    assert harness.take() == [8, 9]


def test_recovery_over_pages() -> None:
    harness = Harness()
    harness.connect()
    harness.page(3)
    body = harness.connect(reconnected=True)
    assert body == {"type": "History", "topic": "@me", "after": {"epoch": "e", "offset": 3}, "limit": PAGE}
    harness.live(8)
    assert harness.page(7, 4, 5) is True
    assert harness.inbox.body()["after"] == {"epoch": "e", "offset": 5}
    assert harness.page(8, 6, 7, 8) is False
    harness.live(9)
    assert harness.take() == [Recovered("@me", True, 0), 4, 5, 6, 7, 8, 9]


def test_oldest_are_gone() -> None:
    harness = Harness()
    harness.connect()
    harness.page(3)
    harness.connect(reconnected=True)
    assert harness.page(8, 7, 8) is False
    assert harness.take() == [Recovered("@me", False, 3), 7, 8]


def test_all_are_gone() -> None:
    harness = Harness()
    harness.connect()
    harness.page(3)
    harness.connect(reconnected=True)
    harness.page(8)
    assert harness.take() == [Recovered("@me", False, 5)]


def test_another_epoch_reads_the_new_history() -> None:
    harness = Harness()
    harness.connect()
    harness.page(3)
    harness.connect(reconnected=True)
    assert harness.page(2, epoch="f") is True
    assert harness.inbox.body()["after"] == {"epoch": "f", "offset": 0}
    assert harness.page(2, 1, 2, epoch="f") is False
    assert harness.take() == [Recovered("@me", False, None), 1, 2]


def test_history_that_cannot_be_read() -> None:
    harness = Harness()
    harness.connect()
    harness.inbox.unavailable()
    harness.live(5)
    harness.connect(reconnected=True)
    harness.live(2)
    harness.inbox.unavailable()
    assert harness.take() == [5, Recovered("@me", False, None), 2]


def test_not_asked_for() -> None:
    harness = Harness()
    harness.connect(readable=False)
    harness.live(5)
    harness.connect(reconnected=True, readable=False)
    harness.live(1)
    assert harness.take() == [5, Recovered("@me", False, None), 1]


def test_another_user_starts_anew() -> None:
    harness = Harness()
    harness.connect()
    harness.page(9)
    assert "after" not in harness.connect(reconnected=True, user="you")
    harness.page(1)
    harness.live(2)
    assert harness.take() == [2]


def test_lagged() -> None:
    harness = Harness()
    harness.connect()
    harness.page(3)
    harness.inbox.lagged(encoding.LaggedEnvelope(topic="@me", missed=4, epoch="e", offset=7))
    harness.live(8)
    harness.live(10)
    assert harness.take() == [Lagged("@me", 4, False), 8, Lagged("@me", 1, False, "offsets"), 10]
