"""Real sockets under an event loop: accepting, reading, writing, peers that go in every way there is."""

import asyncio
import contextlib
import json
import os
import resource
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from core.hub.sans_io import BINARY, CLOSE, KEY, PING, PONG, Envelope, client_frame, identity, settings, split_frames
from realtime_communication._core.hub.hub import Hub
from realtime_communication._core.hub.pending import Pending
from realtime_communication._core.io.bus import Bus
from realtime_communication._core.io.reactor import Reactor
from realtime_communication._core.io.tls_connection import TlsStream

UPGRADE = (
    b"GET /ws?%b HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n"
)


class Running:
    """A reactor in an event loop of a thread of its own; the tests are the peers, with blocking sockets."""

    def __init__(self, sndbuf: int = 0, context: ssl.SSLContext | None = None, **changes: Any) -> None:
        self.loop = uvloop.new_event_loop()
        self.handed_over: list[tuple[int, bytes, str]] = []
        self.streams: list[TlsStream | None] = []
        self.tls_failures: list[tuple[str, str]] = []
        self.errors: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.errors.append(context))
        self.hub = Hub("node")
        self.hub.configure(settings(**changes))
        self.reactor = Reactor(
            self.hub, self.loop, self.authenticate, None, self.take_over, lambda *told: self.tls_failures.append(told)
        )
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        if sndbuf:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)  # inherited by what it accepts
        self.listener.setblocking(False)
        self.address = self.listener.getsockname()
        self.reactor.listen(self.listener, context)
        self.reactor.start()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.peers: list[socket.socket] = []

    def authenticate(self, headers: list[tuple[bytes, bytes]], query: bytes, peer: str, secure: bool) -> Any:
        return identity(query.decode()) if query else None

    def take_over(self, fd: int, data: bytes, peer: str, stream: TlsStream | None) -> None:
        self.streams.append(stream)
        self.handed_over.append((fd, data, peer))

    def call(self, work: Callable[[], Any]) -> Any:
        """Run `work` in the loop's thread."""

        async def run() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(20)

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until `condition`, looked at in the loop's thread, is true."""

        async def poll() -> Any:
            while not (found := condition()):
                await asyncio.sleep(0.005)
            return found

        return asyncio.run_coroutine_threadsafe(poll(), self.loop).result(20)

    def stats(self) -> dict[str, int]:
        found: dict[str, int] = self.call(self.hub.stats)
        return found

    def socket(self, rcvbuf: int = 0) -> socket.socket:
        peer = socket.socket()
        if rcvbuf:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        peer.settimeout(20)
        peer.connect(self.address)
        self.peers.append(peer)
        return peer

    def connect(self, user: str, rcvbuf: int = 0) -> "Client":
        client = Client(self.socket(rcvbuf))
        client.socket.sendall(UPGRADE % user.encode())
        assert client.head().startswith(b"HTTP/1.1 101 ")
        assert client.message()["type"] == "Connected"
        return client

    def stop(self) -> None:
        self.call(self.reactor.stop)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
        for fd, _, _ in self.handed_over:
            os.close(fd)
        for peer in self.peers:
            peer.close()


class Client:
    """A blocking WebSocket client."""

    def __init__(self, peer: socket.socket) -> None:
        self.socket = peer
        self.data = b""
        self.frames: list[tuple[int, bool, bytes]] = []

    def head(self) -> bytes:
        while b"\r\n\r\n" not in self.data:
            self.receive()
        head, _, self.data = self.data.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    def receive(self) -> None:
        data = self.socket.recv(1 << 20)
        assert data, "the stream ended"
        self.data += data

    def frame(self) -> tuple[int, bool, bytes]:
        while not self.frames:
            self.frames, self.data = split_frames(self.data)
            if not self.frames:
                self.receive()
        return self.frames.pop(0)

    def message(self) -> Envelope:
        opcode, rsv1, payload = self.frame()
        assert (opcode, rsv1) == (1, False)
        decoded: Envelope = json.loads(payload)
        return decoded

    def send(self, *envelopes: Envelope) -> None:
        self.socket.sendall(b"".join(client_frame(json.dumps(envelope).encode()) for envelope in envelopes))

    def reset(self) -> None:
        """Close with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def polled_sockets() -> list[str]:
    """What each epoll instance of this process watches, a line each (proc_pid_fdinfo(5))."""
    lines: list[str] = []
    for name in os.listdir("/proc/self/fdinfo"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/self/fdinfo/{name}") as info:
            lines += [line for line in info if line.startswith("tfd:")]
    return lines


def polled_inodes() -> Counter[str]:
    """The sockets that are watched, and by how many epoll instances of this process."""
    return Counter(line.rpartition("ino:")[2].split()[0] for line in polled_sockets())


@pytest.fixture
def serve() -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def start(**changes: Any) -> Running:
        made.append(Running(**changes))
        return made[-1]

    yield start
    for running in made:
        errors = running.errors
        running.stop()
        assert running.hub.stats()["sessions"] == 0
        assert errors == []


def rest_of(peer: socket.socket) -> bytes:
    """Everything until the end of the stream."""
    data = b""
    while piece := peer.recv(1 << 16):
        data += piece
    return data


class TestRequests:
    def test_a_conversation(self, serve: Callable[..., Running]) -> None:
        running = serve()
        alice, bob = running.connect("alice"), running.connect("bob")
        alice.send({"type": "Subscribe", "id": 1, "topic": "room"})
        assert alice.message()["type"] == "Subscribed"
        bob.send({"type": "Broadcast", "id": 1, "topic": "room", "payload": [1]})
        assert bob.message()["type"] == "Ack"
        assert alice.message()["payload"] == [1]

    def test_frames_in_the_same_packet_as_the_request(self, serve: Callable[..., Running]) -> None:
        running = serve()
        client = Client(running.socket())
        client.socket.sendall(UPGRADE % b"alice" + client_frame(b'{"type":"Ping","id":1}'))
        client.head()
        assert [client.message()["type"] for _ in range(2)] == ["Connected", "Pong"]

    def test_a_conversation_in_pieces_of_one_byte(self, serve: Callable[..., Running]) -> None:
        running = serve()
        client = Client(running.socket())
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in UPGRADE % b"alice" + client_frame(b'{"type":"Ping","id":1}'):
            client.socket.sendall(bytes([byte]))
        client.head()
        assert [client.message()["type"] for _ in range(2)] == ["Connected", "Pong"]

    def test_what_is_published_outside_a_turn_is_written_at_once(self, serve: Callable[..., Running]) -> None:
        running = serve()
        alice = running.connect("alice")
        alice.send({"type": "Subscribe", "id": 1, "topic": "room"})
        alice.message()
        running.call(lambda: running.hub.publish_system("room", b"7"))
        assert alice.message()["payload"] == 7

    def test_more_input_than_a_turn_takes_is_handled_in_turns(self, serve: Callable[..., Running]) -> None:
        running = serve(batch_size=3)
        alice = running.connect("alice")
        alice.send(*[{"type": "Ping", "id": number} for number in range(500)])
        pongs = [alice.message() for _ in range(500)]
        assert [pong["id"] for pong in pongs] == list(range(500))

    def test_a_unix_socket_has_no_address(self, serve: Callable[..., Running], tmp_path: Any) -> None:
        running = serve()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.setblocking(False)
        running.call(lambda: running.reactor.listen(listener))
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(20)
        peer.connect(str(tmp_path / "s"))
        running.peers.append(peer)
        peer.sendall(UPGRADE % b"alice")
        client = Client(peer)
        client.head()
        assert client.message()["type"] == "Connected"
        (found,) = running.call(running.hub.connections)
        assert found["address"] == ""

    def test_the_address_of_a_peer(self, serve: Callable[..., Running]) -> None:
        running = serve()
        alice = running.connect("alice")
        (found,) = running.call(running.hub.connections)
        assert found["address"] == f"127.0.0.1:{alice.socket.getsockname()[1]}"


class TestHandOver:
    def test_a_request_for_http_goes_over_with_all_that_was_read(self, serve: Callable[..., Running]) -> None:
        running = serve()
        peer = running.socket()
        sent = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n"
        peer.sendall(sent)
        running.until(lambda: running.handed_over)
        ((fd, data, address),) = running.handed_over
        assert sent.startswith(data)
        assert data.startswith(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert address == "{}:{}".format(*peer.getsockname())
        os.write(fd, b"answer")
        assert peer.recv(10) == b"answer"
        running.until(lambda: running.hub.stats()["sessions"] == 0)

    def test_a_head_that_came_in_pieces_goes_over_whole(self, serve: Callable[..., Running]) -> None:
        running = serve()
        peer = running.socket()
        for piece in (b"GET /hea", b"lth HTTP/1.1\r\nHo", b"st: x\r\n", b"\r\n"):
            peer.sendall(piece)
            seen = running.stats()["bytes_received"]
            running.until(lambda seen=seen: running.hub.stats()["bytes_received"] >= seen)
        running.until(lambda: running.handed_over)
        assert running.handed_over[0][1] == b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"

    def test_with_a_later_upgrade_a_connection_comes_back(self, serve: Callable[..., Running]) -> None:
        running = serve()
        client = Client(running.socket())
        client.socket.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        running.until(lambda: running.handed_over)
        fd, _, _ = running.handed_over.pop()
        ping = client_frame(b'{"type":"Ping","id":1}')
        running.call(lambda: running.reactor.take_back(fd, bytearray(UPGRADE % b"alice" + ping)))
        assert client.head().startswith(b"HTTP/1.1 101 ")
        assert client.message()["type"] == "Connected"
        assert client.message()["id"] == 1
        client.send({"type": "Ping", "id": 2})
        assert client.message()["id"] == 2
        stats = running.stats()
        assert (stats["connections"], stats["accepted"], stats["handed_over"]) == (1, 1, 1)
        client.socket.close()
        running.until(lambda: running.hub.stats()["sessions"] == 0)

    def test_what_came_back_and_is_no_upgrade_goes_over_again(self, serve: Callable[..., Running]) -> None:
        running = serve()
        running.socket().sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        running.until(lambda: running.handed_over)
        fd, request, address = running.handed_over.pop()
        running.call(lambda: running.reactor.take_back(fd, bytearray(request)))
        assert running.handed_over == [(fd, request, address)]

    def test_what_comes_back_to_a_stopped_reactor_is_closed(self, serve: Callable[..., Running]) -> None:
        running = serve()
        peer = running.socket()
        peer.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        running.until(lambda: running.handed_over)
        fd, _, _ = running.handed_over.pop()
        running.call(running.reactor.stop)
        running.call(lambda: running.reactor.take_back(fd, bytearray(UPGRADE % b"alice")))
        assert peer.recv(10) == b""

    def test_an_error_of_the_new_owner_is_told_to_the_loop(self, serve: Callable[..., Running]) -> None:
        running = serve()

        def fail(fd: int, data: bytes, peer: str, stream: object) -> None:
            os.close(fd)
            raise RuntimeError("no")

        hub = Hub("other")
        hub.configure(settings())
        reactor = running.call(lambda: Reactor(hub, running.loop, None, None, fail))
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        address = listener.getsockname()
        running.call(lambda: (reactor.listen(listener), reactor.start()))
        with socket.create_connection(address, 20) as peer:
            peer.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            assert rest_of(peer) == b""
        running.until(lambda: running.errors)  # the descriptor is closed before the error is told
        assert [str(error["exception"]) for error in running.errors] == ["no"]
        running.errors.clear()
        running.call(reactor.stop)


class TestRefusals:
    def test_a_head_over_its_limit(self, serve: Callable[..., Running]) -> None:
        running = serve()
        peer = running.socket()
        peer.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\nX-Filler: " + b"c" * 16384 + b"\r\n\r\n")
        answer = rest_of(peer)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert b'"too_large"' in answer

    def test_a_refused_upgrade_ends_the_stream(self, serve: Callable[..., Running]) -> None:
        running = serve()
        peer = running.socket()
        peer.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = rest_of(peer)
        assert answer.count(b"HTTP/1.1 ") == 1
        peer.close()
        running.until(lambda: running.hub.stats()["sessions"] == 0)
        assert running.handed_over == []

    def send_and_end(self, running: Running, data: bytes) -> socket.socket:
        """A peer that has sent `data` and ended its stream before the reactor looks at either."""

        def work() -> socket.socket:
            peer = running.socket()
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            return peer

        peer: socket.socket = running.call(work)
        return peer

    def test_a_request_whose_sender_ends_its_stream_at_once_is_answered(self, serve: Callable[..., Running]) -> None:
        peer = self.send_and_end(serve(), b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n")
        assert rest_of(peer).startswith(b"HTTP/1.1 400 ")

    def test_requests_before_the_end_of_a_half_closed_stream_are_answered(self, serve: Callable[..., Running]) -> None:
        running = serve()
        ping = client_frame(b'{"type":"Ping","id":1}')
        client = Client(self.send_and_end(running, UPGRADE % b"alice" + ping * 20))
        client.data = rest_of(client.socket)
        client.head()
        assert [client.message()["type"] for _ in range(21)] == ["Connected"] + ["Pong"] * 20
        running.until(lambda: running.hub.stats()["sessions"] == 0)


class TestClosing:
    def test_the_closing_handshake_and_then_the_end_of_the_stream(self, serve: Callable[..., Running]) -> None:
        running = serve()
        alice = running.connect("alice")
        alice.socket.sendall(client_frame(struct.pack(">H", 1000) + b"bye", CLOSE))
        assert alice.frame() == (CLOSE, False, struct.pack(">H", 1000))
        assert alice.socket.recv(10) == b""
        alice.socket.close()
        running.until(lambda: running.hub.stats()["sessions"] == 0)

    def test_a_close_of_the_server(self, serve: Callable[..., Running]) -> None:
        running = serve()
        alice = running.connect("alice")
        assert running.call(lambda: running.hub.disconnect(user_id="alice", reason="go")) == 1
        opcode, _, payload = alice.frame()
        assert (opcode, payload) == (CLOSE, struct.pack(">H", 4403) + b"go")
        alice.socket.sendall(client_frame(payload[:2], CLOSE))
        assert alice.socket.recv(10) == b""

    @pytest.mark.parametrize("stage", ["nothing", "head", "open", "frame", "closing"])
    def test_a_reset_at_any_stage_leaves_nothing(self, serve: Callable[..., Running], stage: str) -> None:
        running = serve()
        if stage in ("nothing", "head"):
            client = Client(running.socket())
            client.socket.sendall((UPGRADE % b"alice")[: 50 if stage == "head" else 0])
        else:
            client = running.connect("alice")
            client.send({"type": "Subscribe", "id": 1, "topic": "room", "presence": True})
            client.message()
            if stage == "frame":
                client.socket.sendall(client_frame(b"x" * 100)[:50])
            elif stage == "closing":
                running.call(lambda: running.hub.disconnect(user_id="alice"))
        running.until(lambda: running.hub.stats()["accepted"] == 1)
        client.reset()
        running.until(lambda: running.hub.stats()["sessions"] == 0)
        stats = running.stats()
        assert (stats["connections"], stats["subscriptions"]) == (0, 0)

    def test_a_subscriber_that_resets_while_it_is_written_to(self, serve: Callable[..., Running]) -> None:
        running = serve()
        gone, stays = running.connect("gone"), running.connect("stays")
        for client in (gone, stays):
            client.send({"type": "Subscribe", "id": 1, "topic": "room"})
            client.message()
        gone.reset()
        for number in range(50):
            running.call(lambda number=number: running.hub.publish_system("room", b"%d" % number))
        assert [stays.message()["payload"] for _ in range(50)] == list(range(50))
        running.until(lambda: running.hub.stats()["connections"] == 1)

    def test_stop_closes_everything(self, serve: Callable[..., Running]) -> None:
        running = serve()
        alice = running.connect("alice")
        half = running.socket()
        half.sendall(b"GET /ws")
        running.until(lambda: running.hub.stats()["accepted"] == 2)
        running.call(running.reactor.stop)
        assert alice.socket.recv(10) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(running.address, 5)
        assert running.stats()["sessions"] == 0

    def test_stop_accepting_ends_the_polling_of_a_socket_that_another_process_holds_too(
        self, serve: Callable[..., Running]
    ) -> None:
        running = serve()
        with running.listener.dup() as held:
            inode = f"ino:{os.fstat(held.fileno()).st_ino:x} "
            assert sum(inode in polled for polled in polled_sockets()) == 1
            running.call(running.reactor.stop_accepting)
            assert not any(inode in polled for polled in polled_sockets())
            with socket.create_connection(running.address, 5):  # waits for somebody else
                held.accept()[0].close()

    def test_stop_accepting_leaves_connections_alone(self, serve: Callable[..., Running]) -> None:
        running = serve()
        alice = running.connect("alice")
        running.call(running.reactor.stop_accepting)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(running.address, 5)
        alice.send({"type": "Ping", "id": 1})
        assert alice.message()["type"] == "Pong"


class TestACrowd:
    def test_who_waits_in_the_backlog_is_taken_before_requests_are_served(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        accepted: list[int] = []

        def authenticate(running: Running, headers: Any, query: bytes, peer: str, secure: bool) -> Any:
            accepted.append(running.hub.stats()["accepted"])
            return identity(query.decode())

        monkeypatch.setattr(Running, "authenticate", authenticate)
        running = Running()

        def arrive() -> None:
            for number in range(400):
                peer = running.socket()
                peer.sendall(UPGRADE % b"user%d" % number)

        running.call(arrive)
        running.until(lambda: len(accepted) == 400)
        running.stop()
        assert accepted == [400] * 400


def behind(running: Running, *, messages: int, size: int) -> Client:
    """A subscriber who has read none of so many messages with texts of `size` characters."""
    slow = running.connect("slow", rcvbuf=4096)
    slow.send({"type": "Subscribe", "id": 1, "topic": "room"})
    slow.message()
    payload = b'"%b"' % (b"x" * size)
    for _ in range(messages):
        running.call(lambda: running.hub.publish_system("room", payload))
    return slow


class TestSlowReaders:
    def test_partial_writes_lose_and_double_nothing(self, serve: Callable[..., Running]) -> None:
        running = serve(sndbuf=4096, overflow_strategy="block", mailbox_capacity=50, max_frame_size=1 << 20)
        slow, publisher = running.connect("slow", rcvbuf=4096), running.connect("publisher")
        slow.send({"type": "Subscribe", "id": 1, "topic": "room"})
        slow.message()
        sizes = [(number * 7919) % 30_000 for number in range(300)]
        sender = threading.Thread(
            target=lambda: publisher.send(*[{"type": "Broadcast", "topic": "room", "payload": "x" * n} for n in sizes])
        )
        sender.start()
        messages = [slow.message() for _ in sizes]
        sender.join()
        assert [message["offset"] for message in messages] == list(range(1, 301))
        assert [len(message["payload"]) for message in messages] == sizes
        assert running.stats()["blocked_writes"] > 0

    def test_replies_come_while_data_waits(self, serve: Callable[..., Running]) -> None:
        running = serve(sndbuf=4096)
        slow = behind(running, messages=100, size=20_000)
        slow.send({"type": "Ping", "id": 2})
        slow.socket.sendall(client_frame(b"still there?", PING))
        running.until(lambda: running.hub.stats()["requests"] == 2)
        kinds = []
        while kinds.count("Message") < 100:
            opcode, _, data = slow.frame()
            kinds.append("pong" if opcode == PONG else "Pong" if b'"Pong"' in data[:20] else "Message")
            assert opcode in (1, PONG)
        assert 0 < kinds.index("Pong") < 99
        assert kinds.index("pong") < 99

    def test_a_reader_that_comes_back_is_caught_up(self, serve: Callable[..., Running]) -> None:
        running = serve(sndbuf=4096, mailbox_capacity=10)
        slow = behind(running, messages=200, size=20_000)
        offsets: list[int] = []
        lagged = 0
        while len(offsets) < 200:
            message = slow.message()
            if message["type"] == "Lagged":
                assert message["recovered"] is True
                lagged += 1
            else:
                offsets.append(message["offset"])
        assert offsets == list(range(1, 201))
        assert lagged > 0

    def test_what_it_does_not_read_waits_here_and_not_in_the_kernel(self, serve: Callable[..., Running]) -> None:
        """Where the overflow strategy sees it, and where each connection has a bound."""
        running = serve(mailbox_capacity=3000)
        slow = behind(running, messages=2000, size=1000)
        assert running.call(running.hub.queued) > 1500
        assert [slow.message()["offset"] for _ in range(2000)] == list(range(1, 2001))

    def test_a_close_with_a_full_socket(self, serve: Callable[..., Running]) -> None:
        running = serve(sndbuf=4096)
        slow = behind(running, messages=100, size=20_000)
        running.call(lambda: running.hub.disconnect(user_id="slow"))
        opcode, payload = 1, b""
        while opcode != CLOSE:
            opcode, _, payload = slow.frame()
        assert payload[:2] == struct.pack(">H", 4403)
        slow.socket.sendall(client_frame(payload[:2], CLOSE))
        assert slow.socket.recv(10) == b""

    def test_echo_of_more_than_the_socket_takes(self, serve: Callable[..., Running]) -> None:
        running = serve(sndbuf=4096)
        client = Client(running.socket(rcvbuf=4096))
        client.socket.sendall((UPGRADE % b"").replace(b"/ws?", b"/debug/echo"))
        client.head()
        sent = [bytes([number % 256]) * (number * 37 % 60_000) for number in range(100)]
        sender = threading.Thread(target=lambda: [client.socket.sendall(client_frame(m, BINARY)) for m in sent])
        sender.start()
        assert [client.frame()[2] for _ in sent] == sent
        sender.join()


class TestTime:
    def test_a_head_that_is_never_complete_is_ended(self, serve: Callable[..., Running]) -> None:
        running = serve()
        silent, started = running.socket(), running.socket()
        started.sendall(b"GET /ws HTTP/1.1\r\n")
        assert rest_of(started).startswith(b"HTTP/1.1 408 ")
        assert rest_of(silent) == b""

    def test_heartbeats(self, serve: Callable[..., Running]) -> None:
        running = serve(heartbeat_interval_secs=0.2, client_timeout_secs=0.6)
        alice = running.connect("alice")
        assert alice.frame()[0] == PING
        opcode, _, payload = alice.frame()
        assert (opcode, payload[:2]) == (CLOSE, struct.pack(">H", 4408))


EXHAUSTED = """
import resource, socket, sys
sys.path.insert(0, {tests!r})
from core.io.test_reactor import Running, Client
running = Running()
first = running.connect("first")
resource.setrlimit(resource.RLIMIT_NOFILE, (len(__import__("os").listdir("/proc/self/fd")) + 5, 4096))
import os
peers = []
waiting = socket.socket()
waiting.settimeout(20)
taken = []
while True:
    try:
        taken.append(os.dup(0))
    except OSError:
        break
waiting.connect(running.address)
running.until(lambda: running.hub.stats()["accept_failures"] > 0)
first.send({{"type": "Ping", "id": 1}})
assert first.message()["type"] == "Pong"
failures = running.stats()["accept_failures"]
for fd in taken:
    os.close(fd)
client = Client(waiting)
from core.io.test_reactor import UPGRADE
client.socket.sendall(UPGRADE % b"second")
client.head()
assert client.message()["type"] == "Connected"
assert running.stats()["accept_failures"] < failures + 300
waiting.close()
running.stop()
print("served")
"""


def test_without_descriptors_others_are_served_and_those_who_wait_come_in_later() -> None:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft > 64
    tests = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    done = subprocess.run(
        [sys.executable, "-c", EXHAUSTED.format(tests=tests)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("served\n", 0), done.stderr


class TestPending:
    """Credentials that are answered for after the turn in which they came."""

    @pytest.fixture
    def running(self, serve: Callable[..., Running]) -> Running:
        return serve()

    @pytest.fixture
    def answers(self, running: Running) -> list[Pending]:
        made: list[Pending] = []

        def later(*_: Any) -> Pending:
            made.append(Pending())
            return made[-1]

        running.call(lambda: running.hub.set_callbacks(later, later))
        return made

    def test_it_goes_on_in_a_turn_of_its_own(self, running: Running, answers: list[Pending]) -> None:
        client = Client(running.socket())
        client.socket.sendall(UPGRADE % b"alice" + client_frame(b'{"type":"Ping","id":1}'))
        running.until(lambda: answers)
        assert running.stats()["pending"] == 1
        running.call(lambda: answers[0].settle(identity("alice")))
        assert client.head().startswith(b"HTTP/1.1 101 ")
        assert [client.message()["type"] for _ in range(2)] == ["Connected", "Pong"]
        client.send({"type": "Refresh", "id": 2, "token": "x"})
        client.send({"type": "Ping", "id": 3})
        running.until(lambda: len(answers) == 2)
        running.call(lambda: answers[1].settle(("unauthorized", "token: not valid")))
        assert [client.message()["type"] for _ in range(2)] == ["Error", "Pong"]

    def test_a_refusal(self, running: Running, answers: list[Pending]) -> None:
        client = Client(running.socket())
        client.socket.sendall(UPGRADE % b"alice")
        running.until(lambda: answers)
        running.call(lambda: answers[0].settle((401, "unauthorized", "no")))
        assert client.head().startswith(b"HTTP/1.1 401 ")
        client.socket.close()
        running.until(lambda: running.hub.stats()["sessions"] == 0)

    def test_a_peer_that_resets_meanwhile(self, running: Running, answers: list[Pending]) -> None:
        client = Client(running.socket())
        client.socket.sendall(UPGRADE % b"alice")
        running.until(lambda: answers)
        client.reset()
        running.until(lambda: running.hub.stats()["sessions"] == 0)
        assert answers[0].cancelled
        assert not running.call(lambda: answers[0].settle(identity("alice")))
        assert running.stats()["pending"] == 0


class TestMoves:
    """Connections that move between two workers, back and forth."""

    @pytest.fixture
    def pair(self, serve: Callable[..., Running], tmp_path: Path) -> list[Running]:
        made = [serve(), serve()]
        buses = [Bus(running.hub, slot, 1, str(tmp_path)) for slot, running in enumerate(made)]
        for slot, running in enumerate(made):
            running.call(lambda slot=slot, running=running: self.join(running, slot, buses[slot]))
        for slot, running in enumerate(made):
            running.until(lambda slot=slot: len(buses[slot].links_up()) == 1)
            running.call(lambda slot=slot, running=running: running.hub.set_members(slot, [0, 1], 1))
        return made

    @staticmethod
    def join(running: Running, slot: int, bus: Bus) -> None:
        running.reactor.attach_bus(bus)
        bus.set_members({0: 1, 1: 1})

    @staticmethod
    def move(pair: list[Running], giver: int, count: int) -> None:
        """Until so many have gone."""
        hub = pair[giver].hub
        before = pair[giver].stats()["migrated"]
        pair[giver].until(
            lambda: hub.give_sessions(1 - giver, count) >= 0 and hub.stats()["migrated"] == before + count
        )

    def test_the_socket_goes_with_the_session(self, pair: list[Running]) -> None:
        others = polled_inodes()
        clients = [pair[0].connect(f"u{number}") for number in range(5)]
        watched = polled_inodes().keys() - others.keys()
        assert len(watched) == 5
        for client in clients:
            client.send({"type": "Subscribe", "id": 1, "topic": "room"})
            assert client.message()["type"] == "Subscribed"
        for giver in (0, 1, 0):
            self.move(pair, giver, 5)
            pair[1 - giver].until(lambda taker=1 - giver: pair[taker].hub.connection_count() == 5)
            assert pair[giver].stats()["sessions"] == 0
            clients[0].send({"type": "Broadcast", "id": 2, "topic": "room", "payload": giver})
            for client in clients:
                seen = [client.message() for _ in range(2 if client is clients[0] else 1)]
                assert {each["type"] for each in seen} <= {"Message", "Ack"}
                assert [each["payload"] for each in seen if each["type"] == "Message"] == [giver]
        polled = polled_inodes()
        assert [polled[inode] for inode in watched] == [1] * 5
        assert pair[1].call(pair[1].hub.connections)[0]["address"].startswith("127.0.0.1:")
        clients[4].reset()
        pair[1].until(lambda: pair[1].hub.connection_count() == 4)

    def test_requests_on_their_way(self, pair: list[Running]) -> None:
        client, reader = pair[0].connect("writer"), pair[1].connect("reader")
        reader.send({"type": "Subscribe", "id": 1, "topic": "room"})
        assert reader.message()["type"] == "Subscribed"
        stop = threading.Event()
        moves = 0

        def wander() -> None:
            nonlocal moves
            while not stop.is_set():
                for giver in (0, 1):
                    moves += pair[giver].call(lambda giver=giver: pair[giver].hub.give_sessions(1 - giver, 2))

        thread = threading.Thread(target=wander)
        thread.start()
        try:
            offsets = []
            for number in range(300):
                client.send({"type": "Broadcast", "id": number, "topic": "room", "payload": number})
                if number % 4 == 3:
                    answers = [client.message() for _ in range(4)]
                    assert [each["id"] for each in answers] == list(range(number - 3, number + 1))
                    offsets += [each["offset"] for each in answers]
            assert offsets == list(range(1, 301))
            seen = [reader.message() for _ in range(300)]
            assert [(each["offset"], each["payload"]) for each in seen] == [(n + 1, n) for n in range(300)]
        finally:
            stop.set()
            thread.join()
        assert moves > 10

    def test_a_link_that_is_down_moves_nobody(self, pair: list[Running]) -> None:
        client = pair[0].connect("u")
        pair[1].call(pair[1].reactor.stop)
        assert pair[0].call(lambda: [pair[0].hub.give_sessions(1, 5) for _ in range(3)]) == [0, 0, 0]
        client.send({"type": "Ping", "id": 1})
        assert client.message()["type"] == "Pong"


def test_samples_have_the_time_of_the_wall_clock(serve: Callable[..., Running]) -> None:
    running = serve()
    running.call(lambda: running.hub.observe(1))
    client = running.connect("alice")
    before = time.time_ns()
    client.send({"type": "Broadcast", "id": 1, "topic": "t", "payload": 1})
    client.message()
    after = time.time_ns()
    ((kind, topic, start, duration),) = running.call(running.hub.take_samples)
    assert (kind, topic) == ("Broadcast", "t")
    # A turn that polls on may have begun before the request came, but not before its last look at the clock.
    assert before - 1_000_000_000 < start <= after
    assert start % 1_000_000 or duration % 1_000_000
    assert 0 <= duration < 20_000_000_000


def test_many_connect_and_go() -> None:
    running = Running()
    try:
        for _ in range(5):
            clients = [running.connect(f"user-{number}") for number in range(60)]
            for client in clients:
                client.send({"type": "Subscribe", "id": 1, "topic": "room"})
            for client in clients:
                client.message()
            for number, client in enumerate(clients):
                client.reset() if number % 2 else client.socket.close()
            running.until(lambda: running.hub.stats()["sessions"] == 0)
        stats = running.stats()
        assert (stats["connections"], stats["subscriptions"], stats["accepted"]) == (0, 0, 300)
    finally:
        running.stop()


class Queue:
    """An event loop that runs nothing by itself: what it is asked to call soon."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        pass

    def remove_reader(self, fd: int) -> None:
        pass

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)


def test_one_turn_is_asked_for_at_a_time() -> None:
    """With each more, what else the loop has to do would wait for a turn longer; under load they would pile up."""
    loop, hub = Queue(), Hub("node")
    hub.configure(settings())
    reactor = Reactor(hub, loop, None, None, lambda *_: None)  # type: ignore[arg-type]
    reactor.start()
    try:
        for _ in range(3):
            for _ in range(3):
                hub.publish_system("t", b"1")
                reactor.turn()  # a socket was ready, too
                assert len(loop.soon) == 1
            loop.soon.pop()()
            assert loop.soon == []
    finally:
        reactor.stop()
