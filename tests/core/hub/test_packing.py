"""What belongs to a session goes with it."""

import struct

import pytest

from core.hub.moving import moved
from core.hub.node import Node, make_node, texts
from core.hub.sans_io import READ, SUBSCRIBE, WALL_MS, Peer, identity


class TestTheSession:
    """What belongs to a session goes with it."""

    def test_rights_and_limits(self) -> None:
        node = make_node(2, rate_limiting_enabled=True, connection_rps=1, connection_burst=4)
        who = identity("u", READ | SUBSCRIBE, login="login-1", subscribe_patterns=["news.*"], presence_info=b'{"a":1}')
        peer = node.workers[0].connect(who)
        for _ in range(3):
            peer.request({"type": "Ping", "id": 1})
        assert moved(node) == 1
        answer = peer.request({"type": "Subscribe", "id": 2, "topic": "other"})
        assert answer["type"] == "Error"
        assert answer["code"] == "forbidden"
        answer = peer.request({"type": "Ping", "id": 3})
        assert answer["code"] == "rate_limited"
        assert node.workers[1].hub.disconnect(login="login-1") == 1

    @pytest.mark.parametrize("login", ["0123456789abcdef" * 2, "0123456789ABCDEF" * 2, "g" * 32, "x", "ü" * 64])
    def test_its_login(self, login: str) -> None:
        node = make_node(2)
        node.workers[0].connect(identity("u", login=login))
        assert moved(node) == 1
        assert node.workers[1].hub.disconnect(login=login.swapcase()) == 0
        assert node.workers[1].hub.disconnect(login=login) == 1

    @pytest.mark.parametrize(
        ("protocol", "extensions"),
        [("rtc.v1.msgpack", None), ("rtc.v1.json+zstd", None), (None, "permessage-deflate")],
    )
    def test_its_encoding(self, protocol: str | None, extensions: str | None) -> None:
        node = make_node(2, compression_threshold_bytes=64)
        topic = node.topic_at(1)
        peer = node.workers[0].connect("u", protocol=protocol, extensions=extensions)
        node.subscribe(peer, topic)
        assert moved(node) == 1
        node.publish(node.workers[1].connect("w"), topic, "x" * 500)
        assert texts(peer.messages()) == [(1, "x" * 500)]
        assert node.ask(peer, {"type": "Ping", "id": 1})["type"] == "Pong"

    def test_its_time(self) -> None:
        node = make_node(2)
        peer = node.workers[0].connect("u", expires_at=WALL_MS // 1000 + 80)
        for worker in node.workers.values():
            worker.advance(21_000)
        assert [each["type"] for each in peer.messages()] == ["TokenExpiring"]
        assert moved(node) == 1
        (described,) = node.workers[1].hub.connections()
        assert described["connected_ms"] == 21_000
        node.workers[1].advance(30_000)
        assert peer.messages() == []
        assert peer.request({"type": "Ping", "id": 1})["type"] == "Pong"
        node.workers[1].advance(29_500)
        assert [each["code"] for each in peer.messages()] == ["token_expired"]
        assert peer.close == (4401, "token expired")

    def test_its_subscriptions_end_with_it(self) -> None:
        node = make_node(2)
        topic = node.topic_at(0)
        peer = node.workers[0].connect("u")
        node.subscribe(peer, topic)
        assert moved(node) == 1
        peer.end()
        node.pump()
        assert [worker.hub.connection_count() for worker in node.workers.values()] == [0, 0]
        assert [worker.stats()["subscriptions"] for worker in node.workers.values()] == [0, 0]
        writer = node.workers[0].connect("w")
        answer = node.ask(writer, {"type": "DirectMessage", "id": 1, "to": "u", "payload": 1})
        assert answer["offline"] == ["u"]

    def test_frames_that_are_no_session(self) -> None:
        node = make_node(2)
        peer = node.workers[0].connect("u")
        node.move(0, 1)
        node.pump()
        hub = node.workers[0].hub
        assert hub.give_sessions(1, 10) == 1
        ((_, _, frame, connection),) = node.workers[0].driver.take_passed()
        for size in range(17, len(frame) - 4, 7):
            cut = (size - 4).to_bytes(4, "little") + frame[4:size]
            node.workers[1].driver.arrive(0, cut, connection)
        assert node.workers[1].hub.connection_count() == 0
        assert not peer.connection.open

    @pytest.mark.parametrize(
        ("at", "value"),
        [
            pytest.param(48, struct.pack("<q", 2**32), id="expires_at later than a token's"),
            pytest.param(48, struct.pack("<q", 4189021006114860066), id="expires_at of no milliseconds"),
            pytest.param(48, struct.pack("<q", -2), id="expires_at before time"),
            pytest.param(56, struct.pack("<q", 2**63 - 1), id="refresh_at of no milliseconds"),
            pytest.param(72, b"\x16", id="variant there is not"),
            pytest.param(72, b"\x01", id="variant of another compression"),
            pytest.param(73, b"\x02", id="encoding there is not"),
            pytest.param(74, b"\x04", id="compression there is not"),
            pytest.param(75, b"\x10", id="window too large"),
            pytest.param(75, b"\x08", id="window too small"),
            pytest.param(78, struct.pack("<q", -(2**63)), id="balance below none"),
        ],
    )
    def test_numbers_that_no_session_has(self, at: int, value: bytes) -> None:
        """Times are counted with, and tables found by the form of what is sent: neither may be anything."""
        node = make_node(2, rate_limiting_enabled=True)
        peer = arrived_with(node, at, value)
        assert node.workers[1].hub.connection_count() == 0
        assert not peer.connection.open

    def test_the_latest_time_of_a_token(self) -> None:
        node = make_node(2)
        peer = arrived_with(node, 48, struct.pack("<q", 2**32 - 1))
        hub = node.workers[1].hub
        described = hub.connection(hub.connections()[0]["session_id"])
        assert described["expires_at"] == 2**32 - 1
        assert peer.connection.open


def arrived_with(node: Node, at: int, value: bytes) -> Peer:
    """A client whose session arrives at the second worker with something else in the place of what it had."""
    peer = node.workers[0].connect("u")
    node.move(0, 1)
    node.pump()
    assert node.workers[0].hub.give_sessions(1, 10) == 1
    ((_, _, frame, connection),) = node.workers[0].driver.take_passed()
    at += 4 + 12 + len("u")  # behind its size, the head of a frame, and whose session it is
    node.workers[1].driver.arrive(0, frame[:at] + value + frame[at + len(value) :], connection)
    return peer
