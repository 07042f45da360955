"""The client's protocol by feeding messages."""

import json
from typing import Any

import pytest

from realtime_communication.client.encoding import Codec
from realtime_communication.client.errors import (
    ClientClosed,
    ConnectionLost,
    ProtocolViolation,
    QueueFull,
    RequestError,
)
from realtime_communication.client.events import Closing, Join, Message, Recovered
from realtime_communication.client.outputs import (
    ConnectionOutput,
    InboxOutput,
    Output,
    RefreshDue,
    RequestAnswered,
    RequestFailed,
    SubscriptionEnded,
    TopicOutput,
)
from realtime_communication.client.protocol import ClientProtocol, State


class Harness:
    def __init__(self, **options: Any) -> None:
        self.protocol = ClientProtocol(**{"recover_inbox": False, **options})

    def open(self, **fields: Any) -> list[dict[str, Any]]:
        """A connection up to ``Connected``. Returns what is sent at once."""
        self.protocol.connection_made(Codec("json", None, 1_000_000))
        self.say("Connected", session_id="s", user_id="me", node_id="n", **fields)
        return self.sent()

    def say(self, type: str, now: float = 0.0, **fields: Any) -> None:
        fields = {name.rstrip("_"): value for name, value in fields.items()}
        self.protocol.receive_message(json.dumps({"type": type, **fields}).encode(), now)

    def sent(self) -> list[dict[str, Any]]:
        return [json.loads(data) for _, data in self.protocol.data_to_send()]

    def take(self) -> list[Output]:
        return self.protocol.outputs()

    def topic_events(self) -> list[Any]:
        return [output.event for output in self.take() if isinstance(output, TopicOutput)]


def ping(harness: Harness) -> int:
    return harness.protocol.request({"type": "Ping"})


class TestRequests:
    def test_answered(self) -> None:
        harness = Harness()
        harness.open()
        harness.take()
        request_id = ping(harness)
        assert harness.sent() == [{"type": "Ping", "id": request_id}]
        harness.say("Pong", id=request_id, ts=5)
        (answer,) = harness.take()
        assert isinstance(answer, RequestAnswered) and answer.id == request_id

    def test_refused(self) -> None:
        harness = Harness()
        harness.open()
        harness.take()
        request_id = ping(harness)
        harness.say("Error", id=request_id, code="rate_limited", message="m", retry_after_ms=5, scope="user")
        (failure,) = harness.take()
        assert isinstance(failure, RequestFailed) and isinstance(failure.error, RequestError)
        assert (failure.error.code, failure.error.retry_after_ms) == ("rate_limited", 5)

    def test_late_and_foreign_answers_are_ignored(self) -> None:
        harness = Harness()
        harness.open()
        harness.take()
        request_id = ping(harness)
        harness.protocol.forget(request_id)
        harness.say("Pong", id=request_id, ts=5)
        harness.say("Pong", id="other", ts=5)
        harness.say("Error", code="internal", message="")
        assert harness.take() == []

    def test_before_a_connection_they_wait(self) -> None:
        harness = Harness()
        request_id = ping(harness)
        assert harness.sent() == []
        assert harness.open() == [{"type": "Ping", "id": request_id}]

    def test_unanswered_are_sent_again_with_their_id(self) -> None:
        harness = Harness()
        harness.open()
        body = {"type": "Broadcast", "topic": "t", "payload": 1, "idempotency_key": "k"}
        request_id = harness.protocol.request(body)
        first = harness.sent()
        harness.protocol.connection_lost(1006, "")
        assert harness.protocol.state is State.IDLE
        assert harness.open() == first == [{**body, "id": request_id}]

    @pytest.mark.parametrize("code", [1002, 1003, 1007, 1009, 4429])
    def test_what_may_have_broken_the_connection_is_not(self, code: int) -> None:
        harness = Harness()
        harness.open()
        harness.take()
        request_id = ping(harness)
        harness.protocol.connection_lost(code, "why")
        (failure,) = harness.take()
        assert isinstance(failure, RequestFailed) and failure.id == request_id
        assert isinstance(failure.error, ConnectionLost) and failure.error.code == code
        assert harness.open() == []

    def test_unencodable_fails_in_the_callers_hands(self) -> None:
        harness = Harness()
        for _ in range(2):
            with pytest.raises(TypeError):
                harness.protocol.request({"type": "Broadcast", "topic": "t", "payload": object()})
            harness.open()
        assert harness.sent() == []

    def test_fail_all(self) -> None:
        harness = Harness()
        request_id = ping(harness)
        error = ClientClosed("over")
        harness.protocol.fail_all(error)
        assert harness.take() == [RequestFailed(request_id, error)]


def publish(harness: Harness, payload: Any = 1) -> int:
    return harness.protocol.request({"type": "Broadcast", "topic": "t", "payload": payload, "idempotency_key": "k"})


class TestClosing:
    def close(self, reconnect: bool = True) -> Harness:
        harness = Harness()
        harness.open()
        harness.say("Closing", code=1001, reason="bye", reconnect=reconnect, after_ms=10)
        return harness

    def test_publications_wait_for_the_next_connection(self) -> None:
        harness = self.close()
        number = publish(harness)
        assert harness.sent() == []
        harness.protocol.connection_lost(1001, "bye")
        (sent,) = harness.open()
        assert (sent["id"], sent["type"], sent["idempotency_key"]) == (number, "Broadcast", "k")

    def test_other_requests_do_not(self) -> None:
        harness = self.close()
        ping(harness)
        assert [each["type"] for each in harness.sent()] == ["Ping"]

    def test_one_that_is_refused_because_the_server_closes_waits_too(self) -> None:
        harness = Harness()
        harness.open()
        number = publish(harness)
        harness.sent()
        harness.say("Closing", code=1012, reason="bye", reconnect=True, after_ms=10)
        harness.take()
        harness.say("Error", id=number, code="unavailable", message="closing")
        assert harness.take() == []
        harness.protocol.connection_lost(1012, "bye")
        assert [each["id"] for each in harness.open()] == [number]

    def test_nothing_waits_where_no_connection_follows(self) -> None:
        harness = self.close(reconnect=False)
        publish(harness)
        assert [each["type"] for each in harness.sent()] == ["Broadcast"]


class TestBounds:
    def test_of_requests_without_an_answer(self) -> None:
        harness = Harness(max_pending=2)
        first = ping(harness)
        publish(harness)
        with pytest.raises(QueueFull, match="2 requests wait for answers, max_pending is 2"):
            ping(harness)
        harness.protocol.forget(first)
        ping(harness)
        assert len(harness.open()) == 2

    def test_of_their_bytes(self) -> None:
        harness = Harness(max_pending_bytes=1000)
        harness.open()
        for _ in range(3):  # what was answered counts no more
            number = publish(harness, "x" * 800)
            with pytest.raises(QueueFull, match="max_pending_bytes is 1000"):
                publish(harness, "x" * 800)
            harness.say("Ack", id=number, epoch="e", offset=1)
        assert harness.protocol._pending_bytes == 0

    def test_what_was_refused_leaves_nothing(self) -> None:
        harness = Harness(max_pending=1)
        ping(harness)
        with pytest.raises(QueueFull):
            harness.protocol.subscribe("t")
        assert harness.protocol.position("t") is None
        assert [each["type"] for each in harness.open()] == ["Ping"]

    def test_of_messages_that_come_before_an_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("realtime_communication.client.topic.MOST_HELD", 3)
        monkeypatch.setattr("realtime_communication.client.inbox.MOST_HELD", 3)
        harness = Harness(recover_inbox=True)
        harness.protocol.subscribe("t")
        harness.open()
        fields: dict[str, Any] = {"ts": 0, "from_": "bob", "payload": 1}
        for offset in range(3):
            harness.say("Message", topic="t", offset=offset, **fields)
            harness.say("DirectMessage", offset=offset, **fields)
        with pytest.raises(ProtocolViolation, match="3 messages of a topic before its Subscribed"):
            harness.say("Message", topic="t", offset=4, **fields)
        with pytest.raises(ProtocolViolation, match="3 direct messages before the inbox's HistoryPage"):
            harness.say("DirectMessage", offset=4, **fields)


class TestSubscriptions:
    def subscribed(self, **options: Any) -> Harness:
        harness = Harness()
        harness.open()
        request_id = harness.protocol.subscribe("t", **options)
        harness.sent()
        harness.say("Subscribed", id=request_id, topic="t", epoch="e", offset=5, recovered=False, messages=[])
        harness.take()
        return harness

    def test_recovers_on_the_next_connection(self) -> None:
        harness = self.subscribed()
        harness.say("Message", topic="t", offset=6, ts=0, from_="bob", payload=1)
        assert harness.topic_events() == [Message("t", 6, 0, "bob", 1, "e")]
        harness.protocol.connection_lost(1006, "")
        (subscribe,) = harness.open()
        assert subscribe["recover"] == {"epoch": "e", "offset": 6}
        missed = {"offset": 7, "ts": 0, "from": "bob", "payload": 2}
        harness.say("Subscribed", id=subscribe["id"], topic="t", epoch="e", offset=7, recovered=True, messages=[missed])
        assert harness.topic_events() == [Recovered("t", True, 0), Message("t", 7, 0, "bob", 2, "e")]

    def test_publications_go_out_before_subscriptions(self) -> None:
        harness = self.subscribed()
        harness.protocol.request({"type": "Broadcast", "topic": "t", "payload": 1, "exclude_self": True})
        harness.protocol.connection_lost(1006, "")
        assert [message["type"] for message in harness.open()] == ["Broadcast", "Subscribe"]

    def test_refused_for_a_passing_reason_is_tried_again(self) -> None:
        harness = self.subscribed()
        harness.protocol.connection_lost(1006, "")
        (subscribe,) = harness.open()
        harness.say("Error", 10.0, id=subscribe["id"], code="rate_limited", message="", retry_after_ms=2000)
        assert harness.protocol.next_deadline() == 12.0
        harness.protocol.tick(11.9)
        assert harness.sent() == []
        harness.protocol.tick(12.0)
        (again,) = harness.sent()
        assert again["recover"] == {"epoch": "e", "offset": 5}
        assert harness.protocol.next_deadline() is None

    def test_refused_for_good_ends(self) -> None:
        harness = self.subscribed()
        harness.protocol.connection_lost(1006, "")
        (subscribe,) = harness.open()
        harness.take()
        harness.say("Error", id=subscribe["id"], code="forbidden", message="")
        (ended,) = harness.take()
        assert isinstance(ended, SubscriptionEnded) and ended.error.code == "forbidden"
        assert harness.protocol.position("t") is None

    def test_first_refusal_leaves_nothing(self) -> None:
        harness = Harness()
        harness.open()
        request_id = harness.protocol.subscribe("t")
        harness.say("Error", id=request_id, code="forbidden", message="")
        harness.protocol.subscribe("t")
        with pytest.raises(ValueError, match="already"):
            harness.protocol.subscribe("t")

    def test_timed_out_subscription_is_taken_back(self) -> None:
        harness = Harness()
        harness.open()
        request_id = harness.protocol.subscribe("t")
        harness.sent()
        harness.protocol.forget(request_id)
        assert [message["type"] for message in harness.sent()] == ["Unsubscribe"]
        assert harness.protocol.position("t") is None

    def test_unsubscribed_hears_nothing(self) -> None:
        harness = self.subscribed(presence=True)
        harness.say("Join", topic="t", user_id="bob", session_id="s")
        assert harness.topic_events() == [Join("t", "bob", "s")]
        assert harness.protocol.unsubscribe("t") is not None
        assert harness.protocol.unsubscribe("t") is None
        harness.say("Message", topic="t", offset=6, ts=0, from_="bob", payload=1)
        harness.say("Join", topic="t", user_id="bob", session_id="s")
        harness.say("Lagged", topic="t", missed=1, epoch="e", offset=7, recovered=False)
        assert harness.take() == []


def test_inbox_is_asked_for_on_each_connection() -> None:
    harness = Harness(recover_inbox=True)
    (first,) = harness.open()
    assert (first["type"], first["topic"], first["limit"]) == ("History", "@me", 1)
    harness.say("HistoryPage", id=first["id"], topic="@me", epoch="e", offset=2, messages=[])
    harness.protocol.connection_lost(1006, "")
    (again,) = harness.open()
    assert again["after"] == {"epoch": "e", "offset": 2}
    harness.take()
    message = {"offset": 3, "ts": 0, "from": "bob", "payload": 1}
    harness.say("HistoryPage", id=again["id"], topic="@me", epoch="e", offset=3, messages=[message])
    kinds = [type(output.event).__name__ for output in harness.take() if isinstance(output, InboxOutput)]
    assert kinds == ["Recovered", "DirectMessage"]


def test_refresh_is_due() -> None:
    harness = Harness()
    harness.open(expires_at=100, refresh_at=50)
    harness.say("TokenExpiring", expires_at=100)
    due = [output for output in harness.take() if isinstance(output, RefreshDue)]
    assert due == [RefreshDue(100)]


def test_closing_is_remembered_for_this_connection() -> None:
    harness = Harness()
    harness.open()
    harness.take()
    harness.say("Closing", code=1001, reason="bye", reconnect=True, after_ms=10)
    closing = Closing(1001, "bye", True, 10)
    assert harness.take() == [ConnectionOutput(closing)]
    assert harness.protocol.closing == closing
    harness.protocol.connection_lost(1001, "bye")
    harness.open()
    assert harness.protocol.closing is None


def test_announcement_to_everyone() -> None:
    harness = Harness()
    harness.open()
    harness.take()
    harness.say("Message", topic="*", offset=1, ts=0, from_="root", payload="hi")
    assert harness.take() == [ConnectionOutput(Message("*", 1, 0, "root", "hi"))]


def test_nonsense_is_the_servers_fault() -> None:
    harness = Harness()
    harness.open()
    with pytest.raises(ProtocolViolation):
        harness.protocol.receive_message(b"nonsense", 0.0)
