"""Deadlines: heads, authentication, heartbeats, closing; and what is left of a session."""

import pytest

from core.hub.sans_io import NOW_MS, WALL_MS, Server, make_hub

GAUGES = ("connections", "subscriptions", "sessions", "topics", "users", "members", "timers")


def idle(server: Server) -> None:
    for gauge in GAUGES:
        assert server.stats()[gauge] == 0, gauge


class TestHeads:
    def test_silence_is_ended_without_a_word(self) -> None:
        server = make_hub()
        connection = server.driver.connect()
        server.advance(9_000)
        assert connection.open
        server.advance(1_000)
        assert not connection.open
        assert connection.drain() == b""
        assert server.stats()["timed_out"] == 1
        idle(server)

    def test_half_a_head_is_answered(self) -> None:
        server = make_hub()
        connection = server.driver.connect()
        for byte in b"GET /ws HTTP":
            connection.feed(bytes([byte]))
            server.advance(700)
        server.advance(2_000)
        assert connection.drain().startswith(b"HTTP/1.1 408 ")
        assert not connection.open
        idle(server)

    def test_a_refused_peer_that_stays_is_cut(self) -> None:
        server = make_hub()
        connection = server.driver.connect()
        connection.feed(b"GET /ws HTTP/1.1\r\n\r\n")
        assert connection.lingering
        server.advance(6_000)
        assert not connection.open
        idle(server)


class TestAuthentication:
    def test_timed_out(self) -> None:
        server = make_hub(auth_timeout_secs=3)
        peer = server.connect(None)
        server.advance(2_900)
        peer.send_frame(b"", 9)
        assert peer.messages() == []
        server.advance(200)
        (error,) = peer.messages()
        assert (error["code"], peer.close) == ("unauthorized", (4408, "authentication timed out"))
        server.advance(6_000)
        idle(server)


class TestHeartbeat:
    def test_ping_then_4408(self) -> None:
        server = make_hub(heartbeat_interval_secs=10, client_timeout_secs=30)
        peer = server.connect()
        server.advance(9_900)
        peer.frames()
        assert peer.pings == []
        server.advance(200)
        peer.frames()
        assert peer.pings == [b""]
        for _ in range(19):
            server.advance(1_000)
        peer.frames()
        assert (len(peer.pings), peer.close) == (1, None)
        server.advance(1_000)
        peer.frames()
        assert peer.close is not None
        assert peer.close[0] == 4408
        assert server.stats()["timed_out"] == 1

    @pytest.mark.parametrize("interval", [0.05, 0.2, 0.5])
    def test_intervals_below_a_second_are_kept(self, interval: float) -> None:
        server = make_hub(heartbeat_interval_secs=interval, client_timeout_secs=3)
        peer = server.connect()
        answered = 0
        for _ in range(200):  # 10 s
            server.advance(50)
            peer.frames()
            if len(peer.pings) > answered:
                answered += 1
                peer.send_frame(b"", 10)
        assert len(peer.pings) >= 10 / (interval + 0.15)  # the clock of the timers ticks every 50 ms
        assert peer.close is None

    @pytest.mark.parametrize("opcode", [1, 9, 10])
    def test_any_frame_is_life(self, opcode: int) -> None:
        server = make_hub(heartbeat_interval_secs=10, client_timeout_secs=30)
        peer = server.connect()
        for _ in range(20):
            server.advance(10_100)
            peer.send_frame(b"{}" if opcode == 1 else b"", opcode)
        peer.frames()
        assert peer.close is None
        assert len(peer.pings) == 20


class TestClosing:
    def test_a_peer_that_does_not_answer_is_cut(self) -> None:
        server = make_hub()
        peer = server.connect()
        peer.subscribe("t")
        server.hub.disconnect(user_id="alice", reason="bye")
        server.flush()
        peer.frames()
        assert peer.close == (4403, "bye")
        assert server.hub.connection_count() == 0
        server.advance(6_000)
        assert not peer.connection.open
        idle(server)

    def test_the_answer_ends_it(self) -> None:
        server = make_hub()
        peer = server.connect()
        server.hub.close_all(1001, "shutting down")
        server.flush()
        peer.send_frame((1001).to_bytes(2, "big"), 8)
        assert peer.connection.lingering
        peer.frames()
        peer.end()
        idle(server)

    def test_nothing_is_done_for_it_any_more(self) -> None:
        server = make_hub()
        peer, other = server.connect("alice"), server.connect("bob")
        peer.subscribe("t")
        server.hub.disconnect(user_id="alice")
        server.flush()
        peer.send({"type": "Broadcast", "topic": "t", "payload": 1})
        assert other.request({"type": "Broadcast", "id": 1, "topic": "t", "payload": 2})["offset"] == 1
        assert peer.messages() == []


def test_churn_leaves_nothing() -> None:
    server = make_hub()
    for number in range(500):
        peer = server.connect(f"u{number % 7}")
        peer.send({"type": "Subscribe", "topic": f"t{number % 3}"}, {"type": "Ping", "id": 1})
        peer.end()
    server.advance(10_000)
    idle(server)
    assert server.stats()["accepted"] == server.stats()["closed"] == 500


def test_clocks() -> None:
    server = make_hub()
    server.driver.set_time(NOW_MS + 5, WALL_MS + 7)
    assert server.connect().request({"type": "Ping", "id": 1})["ts"] == WALL_MS + 7
