"""Connections in memory: what goes in, what comes out, and who lives how long."""

import gc
import weakref

from core.hub.sans_io import NOW_MS, PING, TEXT, client_frame, make_hub, split_frames
from realtime_communication._core.hub.hub import Hub
from realtime_communication._core.hub.memory_driver import Connection, MemoryDriver


class TestConnection:
    """One peer's bytes."""

    def test_bytes_in_any_pieces(self) -> None:
        server = make_hub()
        peer = server.connect()
        for byte in client_frame(b'{"type":"Ping","id":1}') + client_frame(b"", PING):
            peer.send_raw(bytes([byte]))
        assert [message["type"] for message in peer.messages()] == ["Pong"]
        assert peer.pongs == [b""]

    def test_the_caller_keeps_its_bytes(self) -> None:
        server = make_hub()
        peer = server.connect()
        sent = client_frame(b'{"type":"Ping","id":1}')
        copy = bytes(bytearray(sent))
        peer.send_raw(sent)
        assert sent == copy

    def test_what_is_no_websocket_request_is_handed_over(self) -> None:
        server = make_hub()
        connection = server.driver.connect()
        assert connection.handed_over is None
        connection.feed(b"POST /api/send HTTP/1.1\r\nHost: x\r\n")
        connection.feed(b"Content-Length: 2\r\n\r\n{}")
        assert connection.handed_over == b"POST /api/send HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
        assert not connection.open
        assert connection.drain() == b""
        stats = server.stats()
        assert (stats["handed_over"], stats["sessions"], stats["timers"]) == (1, 0, 0)

    def test_the_end_of_a_stream(self) -> None:
        server = make_hub()
        peer = server.connect()
        assert peer.connection.open
        peer.end()
        assert not peer.connection.open
        peer.end()
        peer.send({"type": "Ping", "id": 1})
        peer.resume()
        assert peer.messages() == []
        assert server.stats()["sessions"] == 0

    def test_lingers_after_the_closing_handshake(self) -> None:
        server = make_hub()
        peer = server.connect()
        assert not peer.connection.lingering
        peer.send_frame(b"\x03\xe8", 8)
        assert peer.connection.lingering
        peer.end()
        assert not peer.connection.lingering

    def test_the_address_is_the_peers(self) -> None:
        hub = make_hub().hub
        seen = []
        hub.set_callbacks(lambda headers, query, peer, secure: seen.append(peer), None)
        driver = MemoryDriver(hub, "192.0.2.1")
        driver.set_time(NOW_MS, NOW_MS)
        driver.connect().feed(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert seen == ["192.0.2.1"]
        assert [connection["address"] for connection in hub.connections()] == ["192.0.2.1"]


class TestStalled:
    """A peer that reads nothing, or little."""

    def test_nothing_comes_while_stalled_and_everything_after(self) -> None:
        server = make_hub()
        slow, bob = server.connect("slow"), server.connect("bob")
        slow.subscribe("room")
        slow.stall()
        assert slow.connection.stalled
        for i in range(20):
            bob.request({"type": "Broadcast", "id": i, "topic": "room", "payload": i})
        assert slow.messages() == []
        assert server.hub.connections()[1]["blocked"]
        slow.resume()
        assert [message["payload"] for message in slow.messages()] == list(range(20))
        assert not server.hub.connections()[1]["blocked"]

    def test_a_limit_in_bytes(self) -> None:
        server = make_hub()
        slow, bob = server.connect("slow"), server.connect("bob")
        slow.subscribe("room")
        slow.stall()
        for i in range(5):
            bob.request({"type": "Broadcast", "id": i, "topic": "room", "payload": i})
        taken = b""
        while True:
            slow.resume(7)
            piece = slow.connection.drain()
            taken += piece
            if len(piece) < 7:
                break
        frames, rest = split_frames(taken)
        assert rest == b""
        assert [slow.decode(frame)["payload"] for frame in frames] == list(range(5))
        assert {frame[0] for frame in frames} == {TEXT}

    def test_reading_is_asked_for_and_not(self) -> None:
        server = make_hub(priority_mailbox_size=10)
        peer = server.connect()
        assert peer.connection.reading
        peer.stall()
        peer.send(*({"type": "Ping", "id": i} for i in range(40)))
        assert not peer.connection.reading
        peer.resume()
        assert peer.connection.reading
        assert [message["id"] for message in peer.messages()] == list(range(40))


class TestLifetime:
    """Who keeps whom."""

    def test_open_sessions_keep_their_driver(self) -> None:
        """A hub that outlived the driver of its sessions would tell a driver that is no more of their end."""
        hub = make_hub().hub
        watched = Watched(hub)
        gone = weakref.ref(watched)
        connection = watched.connect()
        del watched, connection
        gc.collect()
        assert gone() is not None
        assert hub.stats()["sessions"] == 1

    def test_a_driver_without_sessions_goes(self) -> None:
        hub = make_hub().hub
        watched = Watched(hub)
        gone = weakref.ref(watched)
        connection: Connection | None = watched.connect()
        assert connection is not None
        connection.end()
        del watched, connection
        gc.collect()
        assert gone() is None
        assert hub.stats()["sessions"] == 0

    def test_a_hub_without_connections_goes(self) -> None:
        hub = WatchedHub("node")
        gone = weakref.ref(hub)
        MemoryDriver(hub)
        del hub
        gc.collect()
        assert gone() is None


class Watched(MemoryDriver):
    """Weakly referable, as Python's own subclasses are."""


class WatchedHub(Hub):
    """Likewise."""
