"""What the control plane asks and orders."""

import json

import pytest

from core.hub.sans_io import identity, make_hub
from realtime_communication._core.hub.outcome import RequestError


class TestDisconnect:
    """By session, user or login."""

    def test_each_way(self) -> None:
        server = make_hub()
        peers = [
            server.connect("alice", login="l1"),
            server.connect("alice", login="l2"),
            server.connect("bob", login="l2"),
        ]
        ids = {entry["session_id"] for entry in server.hub.connections()}
        assert len(ids) == 3
        assert server.hub.disconnect(user_id="alice", login="l2", reason="x") == 1
        assert server.hub.disconnect(login="l2", code=4401) == 1
        (left,) = server.hub.connections()
        assert server.hub.disconnect(session_id=left["session_id"]) == 1
        assert server.hub.disconnect(session_id=left["session_id"]) == 0
        server.flush()
        for peer in peers:
            peer.frames()
        assert [peer.close and peer.close[0] for peer in peers] == [4403, 4403, 4401]

    def test_nobody_named(self) -> None:
        with pytest.raises(ValueError, match="disconnect needs"):
            make_hub().hub.disconnect()

    def test_a_long_reason_is_cut_at_a_character(self) -> None:
        server = make_hub()
        peer = server.connect()
        server.hub.disconnect(user_id="alice", reason="é" * 100)
        server.flush()
        peer.frames()
        assert peer.close == (4403, "é" * 61)


class TestDrain:
    """A server that ends."""

    def test_everybody_is_told_and_served_on(self) -> None:
        server = make_hub()
        peers = [server.connect(f"u{number}") for number in range(50)]
        server.hub.begin_drain(5000)
        server.flush()
        after = set()
        for peer in peers:
            (closing,) = peer.messages()
            after.add(closing.pop("after_ms"))
            assert closing == {"type": "Closing", "code": 1001, "reason": "server shutting down", "reconnect": True}
        assert all(0 <= ms <= 5000 for ms in after)
        assert len(after) > 10
        peers[0].subscribe("t")

    def test_nothing_is_accepted_that_might_not_be_delivered(self) -> None:
        server = make_hub()
        alice, bob = server.connect("alice"), server.connect("bob")
        bob.subscribe("t")
        server.hub.begin_drain(1000)
        server.flush()
        alice.messages(), bob.messages()
        for fields in ({"type": "Broadcast", "topic": "t"}, {"type": "DirectMessage", "to": "bob"}):
            answer = alice.request({"id": 1, "payload": 1, **fields})
            assert (answer["type"], answer["id"], answer["code"]) == ("Error", 1, "unavailable")
            assert answer["retry_after_ms"] > 0
        for ask, fields in ((server.hub.publish_request, {"topic": "t"}), (server.hub.send_request, {"to": "bob"})):
            with pytest.raises(RequestError) as caught:
                ask(json.dumps({"payload": 1, **fields}).encode(), identity("carol"))
            assert caught.value.code == "unavailable"
            assert caught.value.retry_after_ms is not None
        server.flush()
        assert bob.messages() == []

    def test_close_all(self) -> None:
        server = make_hub()
        peers = [server.connect(f"u{number}") for number in range(5)] + [server.connect(None)]
        head = server.driver.connect()
        peers[0].stall()
        server.hub.close_all(1012, "restart")
        server.flush()
        assert not head.open
        assert server.hub.closing_count() == 6
        assert server.hub.connection_count() == 0
        for peer in peers:
            peer.resume()
            peer.frames()
            assert peer.close == (1012, "restart")
            peer.end()
        assert server.hub.closing_count() == 0
        assert server.stats()["sessions"] == 0


def test_what_is_shown() -> None:
    server = make_hub(deterministic_ids=False)
    peer = server.connect("alice", protocol="rtc.v1.msgpack")
    peer.subscribe("t")
    server.advance(1500)
    (shown,) = server.hub.connections()
    assert len(shown["session_id"]) == 32
    assert (shown["user_id"], shown["encoding"], shown["subscriptions"], shown["connected_ms"]) == (
        "alice",
        "msgpack",
        1,
        1500,
    )
    assert server.hub.connections(0) == []
    (topic,) = server.hub.topics()
    assert (topic["topic"], topic["offset"], topic["subscribers"], topic["cached"]) == ("t", 0, 1, 0)
    assert server.hub.topics(0) == []


def test_of_one_user() -> None:
    server = make_hub(deterministic_ids=False)
    for user in ("alice", "bob", "alice", "alice"):
        server.connect(user)
    count, rows = server.hub.connections_of("alice", 2)
    assert count == 3
    assert rows == [row for row in server.hub.connections() if row["user_id"] == "alice"][:2], "the newest first"
    assert server.hub.connections_of("nobody") == (0, [])


def test_one_connection() -> None:
    server = make_hub()
    server.connect("bob")
    peer = server.connect("alice", login="l1")
    peer.subscribe("b")
    peer.send({"type": "Subscribe", "id": 1, "topic": "a", "presence": True})
    peer.messages()
    row = next(row for row in server.hub.connections() if row["user_id"] == "alice")
    shown = server.hub.connection(row["session_id"])
    assert shown is not None
    assert shown.items() >= row.items()
    assert (shown["login"], shown["permissions"]) == ("l1", ["read", "write", "subscribe"])
    assert {each["topic"]: (each["watching"], each["lagging"]) for each in shown["topics"]} == {
        "a": (True, False),
        "b": (False, False),
    }
    few = server.hub.connection(row["session_id"], 1)
    assert few is not None
    assert len(few["topics"]) == 1


@pytest.mark.parametrize("session_id", ["0" * 32, "", "no digits", "-1", "f" * 33, "é"])
def test_no_such_connection(session_id: str) -> None:
    server = make_hub()
    server.connect("alice")
    assert server.hub.connection(session_id) is None


def test_one_topic() -> None:
    server = make_hub()
    server.connect("alice").subscribe("ü")
    assert server.hub.topic("ü") in server.hub.topics()
    assert server.hub.topic("u") is None


def test_publish_system() -> None:
    server = make_hub()
    peer = server.connect()
    peer.subscribe("t")
    server.hub.publish_system("t", b'{"a":1}')
    server.flush()
    (message,) = peer.messages()
    assert (message["from"], message["payload"]) == ("", {"a": 1})
