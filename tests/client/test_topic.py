"""One topic over connections."""

from typing import Any

from realtime_communication.client import encoding
from realtime_communication.client.events import HistoryMessage, Lagged, Message, Position, Recovered
from realtime_communication.client.outputs import TopicOutput
from realtime_communication.client.topic import Topic


class Harness:
    def __init__(self, **options: Any) -> None:
        self.outputs: list[Any] = []
        options = {"history": 0, "presence": False, "recover": None, **options}
        self.topic = Topic("t", emit=self.outputs.append, **options)

    def reply(self, offset: int, *offsets: int, epoch: str = "e", recovered: bool = False) -> None:
        messages = [HistoryMessage(n, 0, "bob", n) for n in offsets]
        self.topic.subscribed(
            encoding.SubscribedEnvelope(topic="t", epoch=epoch, offset=offset, recovered=recovered, messages=messages)
        )

    def live(self, offset: int) -> None:
        self.topic.message(encoding.MessageEnvelope(topic="t", offset=offset, ts=0, sender="bob", payload=offset))

    def take(self) -> list[Any]:
        """Events for the subscriber; messages as their offsets."""
        events = [output.event for output in self.outputs if isinstance(output, TopicOutput)]
        self.outputs.clear()
        return [event.offset if isinstance(event, Message) else event for event in events]


def test_bodies() -> None:
    fresh = Harness(history=5, presence=True).topic
    assert fresh.body() == {"type": "Subscribe", "topic": "t", "history": 5, "presence": True}
    known = Harness(recover=Position("e", 3)).topic
    assert known.body() == {"type": "Subscribe", "topic": "t", "recover": {"epoch": "e", "offset": 3}}


def test_history_then_live() -> None:
    harness = Harness()
    harness.reply(5, 4, 5)
    harness.live(6)
    assert harness.take() == [4, 5, 6]
    assert harness.topic.cursor.position == Position("e", 6)


def test_live_before_the_answer_waits_for_it() -> None:
    harness = Harness()
    harness.live(6)
    assert harness.take() == []
    harness.reply(6, 5, 6)
    assert harness.take() == [5, 6]


def test_recovered() -> None:
    harness = Harness()
    harness.reply(5)
    harness.topic.connection_lost()
    harness.live(8)
    harness.reply(7, 6, 7, recovered=True)
    assert harness.take() == [Recovered("t", True, 0), 6, 7, 8]


def test_not_recovered_in_the_same_epoch() -> None:
    harness = Harness()
    harness.reply(5)
    harness.topic.connection_lost()
    harness.reply(20, 19, 20)
    harness.live(21)
    assert harness.take() == [Recovered("t", False, 13), 19, 20, 21]


def test_another_epoch() -> None:
    harness = Harness()
    harness.reply(5)
    harness.topic.connection_lost()
    harness.reply(2, epoch="f")
    harness.live(3)
    assert harness.take() == [Recovered("t", False, None), 3]
    assert harness.topic.cursor.position == Position("f", 3)


def test_hole_nobody_announced() -> None:
    harness = Harness()
    harness.reply(5)
    harness.live(8)
    assert harness.take() == [Lagged("t", 2, False, "offsets"), 8]


def test_lagged() -> None:
    harness = Harness()
    harness.reply(5)
    for recovered in (False, True):
        envelope = encoding.LaggedEnvelope(topic="t", missed=2, epoch="e", offset=8, recovered=recovered)
        harness.topic.lagged(envelope)
    harness.live(8)
    assert harness.take() == [Lagged("t", 2, False), Lagged("t", 2, True), 8]


def test_duplicates_are_dropped() -> None:
    harness = Harness()
    harness.reply(5)
    for offset in (5, 6, 6, 4):
        harness.live(offset)
    assert harness.take() == [6]
