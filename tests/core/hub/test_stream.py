"""Connections without a socket: to the hub like any other, asked for and taken from by the caller."""

import json
from typing import Any

import pytest

from core.hub.sans_io import CLOSE, PING, TEXT, Server, identity, make_hub
from realtime_communication._core.hub.outcome import RequestError
from realtime_communication._core.hub.stream import Stream


class Reader:
    """A stream, and how often its `on_ready` was called."""

    def __init__(self, server: Server, user: str = "alice", **fields: Any) -> None:
        self.calls = 0
        self.server = server
        self.stream = Stream(server.hub, "192.0.2.1", self._called)
        self.stream.begin(identity(user, **fields))
        server.flush()

    def _called(self) -> None:
        self.calls += 1

    def ask(self, **envelope: Any) -> None:
        self.stream.ask(json.dumps(envelope).encode())
        self.server.flush()

    def take(self) -> list[tuple[int, bytes]]:
        taken = self.stream.take()
        self.server.flush()
        return taken

    def envelopes(self) -> list[dict[str, Any]]:
        return [json.loads(payload) for opcode, payload in self.take() if opcode == TEXT]


def test_a_session_like_any_other() -> None:
    server = make_hub()
    reader = Reader(server)
    assert [envelope["type"] for envelope in reader.envelopes()] == ["Connected"]
    reader.ask(id=0, type="Subscribe", topic="t", presence=True)
    other = server.connect("bob")
    other.subscribe("t")
    other.send({"type": "Broadcast", "topic": "t", "payload": {"a": 1}})
    subscribed, joined, message = reader.envelopes()
    assert (subscribed["type"], subscribed["id"], joined["type"]) == ("Subscribed", 0, "Join")
    assert (message["type"], message["offset"], message["payload"]) == ("Message", 1, {"a": 1})
    (row,) = [row for row in server.hub.connections() if row["user_id"] == "alice"]
    assert (row["transport"], row["address"], row["subscriptions"]) == ("sse", "192.0.2.1", 1)
    stats = server.stats()
    assert (stats["connections"], stats["upgraded"], stats["accepted"]) == (2, 2, 1)


def test_on_ready_is_called_once_until_something_is_taken() -> None:
    server = make_hub()
    reader = Reader(server)
    reader.ask(type="Ping", id=1)
    assert reader.calls == 1
    assert len(reader.take()) == 2
    reader.ask(type="Ping", id=2)
    assert reader.calls == 2


def test_a_large_frame_is_taken_whole() -> None:
    server = make_hub()
    reader = Reader(server)
    reader.ask(type="Subscribe", topic="t")
    server.fill("t", 1, size=300_000)
    got = []
    for _ in range(10):
        got += reader.envelopes()
    assert [len(envelope.get("payload", "")) for envelope in got] == [0, 300_000]


@pytest.mark.parametrize("size", [10, 200, 70_000])
def test_requests_of_every_length(size: int) -> None:
    server = make_hub(max_frame_size=1 << 20)
    reader = Reader(server)
    reader.envelopes()
    reader.ask(type="Broadcast", id=1, topic="t", payload="x" * size)
    assert [envelope["type"] for envelope in reader.envelopes()] == ["Ack"]


def test_who_does_not_take_is_a_slow_consumer() -> None:
    server = make_hub(mailbox_capacity=10)
    reader = Reader(server)
    reader.ask(type="Subscribe", topic="t")
    server.fill("t", 200, size=1000)
    (row,) = server.hub.connections()
    assert row["blocked"]
    assert row["queued"] <= 10
    got = []
    for _ in range(50):
        got += reader.envelopes()
    offsets = [envelope["offset"] for envelope in got if envelope["type"] == "Message"]
    lagged = [envelope["recovered"] for envelope in got if envelope["type"] == "Lagged"]
    assert lagged and all(lagged)
    assert offsets == list(range(1, 201))
    assert not server.hub.connections()[0]["blocked"]


def test_a_ping_that_is_taken_is_answered() -> None:
    server = make_hub(heartbeat_interval_secs=30, client_timeout_secs=60)
    reader = Reader(server)
    reader.take()
    for _ in range(5):
        server.advance(31_000)
        assert [opcode for opcode, _ in reader.take()] == [PING]
    assert reader.stream.open


def test_a_ping_that_is_not_taken_is_not_answered() -> None:
    server = make_hub(heartbeat_interval_secs=30, client_timeout_secs=60)
    reader = Reader(server)
    reader.take()
    server.advance(31_000)
    server.advance(31_000)
    opcodes = [(opcode, payload[:2]) for opcode, payload in reader.take()]
    assert opcodes[-1] == (CLOSE, (4408).to_bytes(2, "big"))


def test_disconnecting_ends_it() -> None:
    server = make_hub()
    reader = Reader(server)
    assert server.hub.disconnect(user_id="alice", reason="enough") == 1
    server.flush()
    opcode, payload = reader.take()[-1]
    assert (opcode, payload) == (CLOSE, (4403).to_bytes(2, "big") + b"enough")
    reader.stream.end()
    server.flush()
    assert not reader.stream.open
    assert server.stats()["sessions"] == 0


def test_the_end_of_the_session_is_told() -> None:
    server = make_hub()
    reader = Reader(server)
    calls = reader.calls
    server.hub.disconnect(user_id="alice")
    server.advance(60_000)  # nobody took the close frame
    assert not reader.stream.open
    assert reader.calls == calls + 1
    assert reader.take()
    reader.ask(type="Ping", id=1)
    reader.stream.end()
    assert reader.take() == []


def test_a_server_that_takes_none() -> None:
    server = make_hub(max_connections=1)
    Reader(server)
    with pytest.raises(RequestError, match="max_connections") as caught:
        Reader(server, "bob")
    assert caught.value.code == "unavailable"
    server.flush()
    assert server.stats()["sessions"] == 1


def test_a_server_that_ends() -> None:
    server = make_hub()
    reader = Reader(server)
    server.hub.begin_drain(1000)
    server.flush()
    assert [envelope["type"] for envelope in reader.envelopes()] == ["Connected", "Closing"]
    with pytest.raises(RequestError, match="shutting down"):
        Reader(server, "bob")


def test_begins_once() -> None:
    server = make_hub()
    reader = Reader(server)
    with pytest.raises(RuntimeError, match="open already"):
        reader.stream.begin(identity("alice"))


def test_its_token_ends() -> None:
    server = make_hub()
    reader = Reader(server, expires_at=1_767_220_000 + 100)
    server.advance(101_000)
    frames = reader.take()
    assert b'"token_expired"' in frames[-2][1]
    assert frames[-1] == (CLOSE, (4401).to_bytes(2, "big") + b"token expired")
