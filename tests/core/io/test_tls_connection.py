"""TLS in the reactor: the conversations of a plain connection, and what only TLS has."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.hub.sans_io import CLOSE, PING, PONG, client_frame
from core.io.test_reactor import (
    UPGRADE,
    Client,
    Running,
    TestClosing,
    TestRequests,
    TestSlowReaders,
    rest_of,
)
from realtime_communication._core.io.tls_connection import TlsStream
from serving.certificates import Authority
from serving.tls_socket import TlsSocket

# Run over TLS as they are: pytest finds them here, with this module's `serve`.
__all__ = ["TestClosing", "TestRequests", "TestSlowReaders"]

PLAIN_ANSWER = {"error": {"code": "bad_request", "message": "this port speaks TLS: use https or wss"}}
APPLICATION_DATA = 23


class TlsRunning(Running):
    """A reactor that speaks TLS, in the newest version that `versions` allows."""

    def __init__(self, authority: Authority, version: ssl.TLSVersion, **options: Any) -> None:
        self.client_context = authority.client_context()
        self.client_context.maximum_version = version
        options.setdefault("context", authority.server_context())
        super().__init__(**options)

    def socket(self, rcvbuf: int = 0) -> Any:
        return TlsSocket(self.tcp(rcvbuf), self.client_context)

    def tcp(self, rcvbuf: int = 0) -> socket.socket:
        return super().socket(rcvbuf)

    def idle(self) -> None:
        """Wait until all connections are gone."""
        self.until(lambda: self.hub.stats()["sessions"] == 0)


Serve = Callable[..., TlsRunning]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def serve(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Serve]:
    made: list[TlsRunning] = []

    def start(**options: Any) -> TlsRunning:
        made.append(TlsRunning(authority, request.param, **options))
        return made[-1]

    yield start
    for running in made:
        errors = running.errors
        running.stop()
        assert running.hub.stats()["sessions"] == 0
        assert errors == []


@pytest.fixture
def serve_13(authority: Authority) -> Iterator[Serve]:
    """As `serve`, in one version only."""
    made: list[TlsRunning] = []

    def start(**options: Any) -> TlsRunning:
        made.append(TlsRunning(authority, ssl.TLSVersion.TLSv1_3, **options))
        return made[-1]

    yield start
    for running in made:
        errors = running.errors
        running.stop()
        assert errors == []


def hello(context: ssl.SSLContext) -> bytes:
    """The first bytes of a handshake."""
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1").do_handshake()
    return outgoing.read()


def records(data: bytes) -> list[int]:
    """The types of the TLS records in `data`, which holds them whole."""
    types = []
    while data:
        types.append(data[0])
        data = data[5 + int.from_bytes(data[3:5], "big") :]
    return types


class TestHandshake:
    def test_in_pieces_of_one_byte(self, serve: Serve) -> None:
        running = serve()
        sock = running.tcp()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        class Dribbling:
            recv = sock.recv

            def sendall(self, data: bytes) -> None:
                for byte in data:
                    sock.sendall(bytes([byte]))

        client = Client(TlsSocket(Dribbling(), running.client_context))  # type: ignore[arg-type]
        client.socket.sendall(UPGRADE % b"alice")
        client.head()
        assert client.message()["type"] == "Connected"

    def test_it_stays_with_its_worker(self, serve_13: Serve) -> None:
        """What TLS keeps of a connection cannot go to another process."""
        running = serve_13()
        client = running.connect("alice")

        def join() -> None:
            running.hub.set_members(0, [0], 1)
            running.hub.link(1, True)

        running.call(join)
        assert [running.call(lambda: running.hub.give_sessions(1, 5)) for _ in range(3)] == [0, 0, 0]
        client.send({"type": "Ping", "id": 1})
        assert client.message()["type"] == "Pong"

    def test_the_request_in_the_same_packet_as_its_end(self, serve_13: Serve) -> None:
        running = serve_13()
        sock = running.tcp()

        class HoldingBack:
            """Sends the client's second and last flight together with what follows it."""

            recv = sock.recv
            held = b""
            flights = 0

            def sendall(self, data: bytes) -> None:
                self.flights += 1
                self.held += data
                if self.flights != 2:
                    sock.sendall(self.held)
                    self.held = b""

        client = Client(TlsSocket(HoldingBack(), running.client_context))  # type: ignore[arg-type]
        client.socket.sendall(UPGRADE % b"alice" + client_frame(b'{"type":"Ping","id":1}'))
        client.head()
        assert [client.message()["type"] for _ in range(2)] == ["Connected", "Pong"]

    def test_one_that_is_refused_is_told_by_an_alert_and_counted(self, serve_13: Serve, authority: Authority) -> None:
        context = authority.server_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        running = serve_13(context=context)
        running.client_context.minimum_version = running.client_context.maximum_version = ssl.TLSVersion.TLSv1_2
        sock = running.tcp()
        address = sock.getsockname()
        with pytest.raises(ssl.SSLError, match=r"(?i)alert protocol version"):
            TlsSocket(sock, running.client_context)
        assert sock.recv(10) == b""
        sock.close()
        running.idle()
        assert running.tls_failures == [(f"127.0.0.1:{address[1]}", "unsupported protocol")]
        assert running.reactor.tls_failures == 1

    def test_a_client_that_does_not_trust_the_server(self, serve_13: Serve, tmp_path: Path) -> None:
        running = serve_13()
        running.client_context = Authority(tmp_path, "stranger").client_context()
        sock = running.tcp()
        with pytest.raises(ssl.SSLError, match=r"(?i)verify failed"):
            TlsSocket(sock, running.client_context)
        sock.close()
        running.idle()
        assert [reason for _, reason in running.tls_failures] == ["tlsv1 alert unknown ca"]

    @pytest.mark.parametrize(
        "data",
        [b"\x80\x2e\x01\x00\x02" + bytes(60), b"\x16\x03\x01\xff\xff" + bytes(100), bytes(1000), b"\x16" * 300],
        ids=["SSLv2", "an endless record", "zeros", "repeated"],
    )
    def test_bytes_that_are_no_handshake(self, serve_13: Serve, data: bytes) -> None:
        running = serve_13()
        sock = running.tcp()
        sock.sendall(data)
        assert b"HTTP" not in rest_of(sock)
        sock.close()
        running.idle()
        assert len(running.tls_failures) == 1

    def test_one_that_does_not_end_is_bounded(self, serve_13: Serve) -> None:
        running = serve_13()
        sock = running.tcp()
        message = b"\x01" + (130_000).to_bytes(3, "big") + b"\x03\x03" + bytes(130_000)
        pieces = [message[at : at + 8000] for at in range(0, len(message), 8000)]
        with contextlib.suppress(OSError):  # it is not read to the end
            for piece in pieces:
                sock.sendall(b"\x16\x03\x01" + struct.pack(">H", len(piece)) + piece)
        with contextlib.suppress(OSError):
            rest_of(sock)
        sock.close()
        running.idle()
        assert [reason for _, reason in running.tls_failures] == ["a handshake of more than 65536 bytes"]

    @pytest.mark.parametrize("share", [0.0, 0.5, 1.0], ids=["nothing", "a part", "a hello"])
    def test_a_peer_that_goes_in_the_middle_leaves_nothing(self, serve_13: Serve, share: float) -> None:
        running = serve_13()
        for reset in (False, True):
            sock = running.tcp()
            data = hello(running.client_context)
            sock.sendall(data[: int(len(data) * share)])
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        running.until(lambda: running.hub.stats()["closed"] == 2)
        assert running.tls_failures == []

    def test_many_at_once_are_all_served(self, serve: Serve) -> None:
        running = serve()
        socks = [running.tcp() for _ in range(100)]
        first = hello(running.client_context)
        for sock in socks:
            sock.sendall(first)
        for sock in socks:
            assert sock.recv(1)[0] == 22
        assert running.stats()["sessions"] == 100


class TestPlainHttp:
    @pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /ws HTTP/1.1\r\n", b"get "])
    def test_is_told_to_use_tls(self, serve_13: Serve, request_line: bytes) -> None:
        running = serve_13()
        sock = running.tcp()
        sock.sendall(request_line)
        head, _, body = rest_of(sock).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert json.loads(body) == PLAIN_ANSWER
        sock.close()
        running.idle()
        assert running.tls_failures == []
        assert running.handed_over == []

    def test_a_listener_without_a_context_goes_on_beside(self, serve_13: Serve) -> None:
        running = serve_13()
        plain = socket.create_server(("127.0.0.1", 0))
        plain.setblocking(False)
        running.call(lambda: running.reactor.listen(plain))
        with socket.create_connection(plain.getsockname(), timeout=20) as sock:
            client = Client(sock)
            sock.sendall(UPGRADE % b"bob")
            client.head()
            assert client.message()["user_id"] == "bob"
        assert running.connect("alice")


class TestRecords:
    def test_messages_of_one_turn_leave_in_few(self, serve: Serve) -> None:
        running = serve()
        alice = running.connect("alice")
        alice.send({"type": "Subscribe", "id": 1, "topic": "room"})
        alice.message()

        def publish() -> None:
            for number in range(64):
                running.hub.publish_system("room", b"%d" % number)

        writes = running.stats()["writes"]
        running.call(publish)
        sealed = alice.socket.raw.recv(1 << 16)  # type: ignore[attr-defined]
        assert records(sealed) == [APPLICATION_DATA]
        alice.socket.incoming.write(sealed)  # type: ignore[attr-defined]
        assert [alice.message()["payload"] for _ in range(64)] == list(range(64))
        assert running.stats()["writes"] == writes + 1

    def test_messages_larger_than_many(self, serve: Serve) -> None:
        running = serve(max_frame_size=1 << 20)
        alice = running.connect("alice")
        alice.send({"type": "Subscribe", "id": 1, "topic": "room"})
        alice.message()
        payload = "".join(chr(97 + number % 26) for number in range(700_000))
        threading.Thread(
            target=lambda: alice.send(*[{"type": "Broadcast", "topic": "room", "payload": payload}] * 3)
        ).start()
        assert [alice.message()["payload"] == payload for _ in range(3)] == [True] * 3

    def test_broken_ones_end_the_connection_alone(self, serve: Serve) -> None:
        running = serve()
        alice, bob = running.connect("alice"), running.connect("bob")
        alice.socket.raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))  # type: ignore[attr-defined]
        with pytest.raises((ssl.SSLError, EOFError)):
            while True:
                assert alice.socket.recv(100)
        alice.socket.close()
        running.until(lambda: running.hub.stats()["connections"] == 1)
        assert len(running.tls_failures) == 1
        bob.send({"type": "Ping", "id": 1})
        assert bob.message()["type"] == "Pong"

    def test_pings_of_a_peer_that_reads_nothing_are_answered_in_part(self, serve: Serve) -> None:
        running = serve(sndbuf=4096)
        client = running.connect("alice", rcvbuf=4096)
        flood = b"".join(client_frame(b"%0100d" % number, PING) for number in range(10_000))
        client.socket.sendall(flood)
        answered: list[bytes] = []
        while not answered or answered[-1] != b"%0100d" % 9_999:
            opcode, _, payload = client.frame()
            assert opcode == PONG
            answered.append(payload)
        assert answered == sorted(answered)
        assert len(answered) < 9_000


class AskedForKeys:
    """Stands for an ssl.SSLContext whose peers are through; answers all they send as OpenSSL does an update of keys."""

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, server_side: bool) -> AskedForKeys:
        self._sslobj = self
        self.outgoing = outgoing
        return self

    def do_handshake(self) -> None:
        pass

    def read(self, size: int, buffer: memoryview) -> int:
        self.outgoing.write(bytes(1000))
        raise ssl.SSLWantReadError

    def shutdown(self) -> None:
        raise ssl.SSLWantReadError


def test_a_peer_that_asks_for_new_keys_without_end_is_ended(serve_13: Serve) -> None:
    running = serve_13(context=AskedForKeys())
    sock = running.tcp()
    for number in range(1, 6):  # the first is still of the handshake
        sock.sendall(b"\x16")
        answer = b""
        while len(answer) < 1000:
            answer += sock.recv(1000)
        assert running.stats()["sessions"] == 1, number
    sock.sendall(b"\x16")
    assert len(rest_of(sock)) == 1000
    sock.close()
    running.idle()
    assert [reason for _, reason in running.tls_failures] == ["too many updates of keys"]


class TestEnd:
    def test_close_notify_of_the_peer_is_answered(self, serve: Serve) -> None:
        running = serve()
        alice = running.connect("alice")
        alice.socket.notify()  # type: ignore[attr-defined]
        assert alice.socket.recv(10) == b""  # anything but close_notify raises
        running.idle()

    def test_requests_before_it_are_answered(self, serve: Serve) -> None:
        running = serve()
        alice = running.connect("alice")
        alice.send(*[{"type": "Ping", "id": number} for number in range(20)])
        alice.socket.notify()  # type: ignore[attr-defined]
        assert [alice.message()["id"] for _ in range(20)] == list(range(20))
        assert alice.socket.recv(10) == b""
        running.idle()

    def test_after_the_closing_handshake_the_server_notifies(self, serve: Serve) -> None:
        running = serve()
        alice = running.connect("alice")
        alice.socket.sendall(client_frame(struct.pack(">H", 1000), CLOSE))
        assert alice.frame()[0] == CLOSE
        assert alice.socket.recv(10) == b""
        assert alice.socket.raw.recv(10) == b""  # type: ignore[attr-defined]

    def test_refused_requests_are_read_to_the_end(self, serve: Serve) -> None:
        running = serve()
        sock = running.socket()
        sock.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n")
        assert rest_of(sock).startswith(b"HTTP/1.1 400 ")

    def test_nothing_keeps_what_belonged_to_a_connection(self, serve: Serve) -> None:
        def alive() -> int:
            return sum(type(found) is ssl.SSLObject for found in gc.get_objects())

        running = serve()
        gc.collect()
        gc.disable()  # references alone must do
        try:
            before = alive()
            clients = [running.connect(f"user{number}") for number in range(5)]
            assert alive() == before + 10  # both ends
            for number, client in enumerate(clients):
                client.socket.close() if number % 2 else client.reset()
            running.idle()
            clients.clear()
            del client
            assert running.call(alive) == before
        finally:
            gc.enable()


class TestContext:
    def test_a_new_one_is_for_new_connections(self, serve: Serve, authority: Authority) -> None:
        running = serve()
        alice = running.connect("alice")
        running.call(lambda: running.reactor.set_context(authority.server_context(authority.issue("renewed"))))
        bob = running.connect("bob")
        names = [
            client.socket.tls.getpeercert()["subject"][0][0][1]  # type: ignore[attr-defined]
            for client in (alice, bob)
        ]
        assert names == ["server", "renewed"]
        alice.send({"type": "Ping", "id": 1})
        assert alice.message()["type"] == "Pong"

    def test_it_turns_tls_on_for_nobody(self, authority: Authority) -> None:
        running = Running()
        try:
            running.call(lambda: running.reactor.set_context(authority.server_context()))
            assert running.connect("alice")
            with pytest.raises(TypeError):
                running.reactor.set_context(None)  # type: ignore[arg-type]
        finally:
            running.stop()


class TestOneBioForAll:
    def test_what_is_said_to_one_is_not_said_to_another(self, serve_13: Serve) -> None:
        """Handshakes that fail, ends and messages of several connections, turn by turn."""
        running = serve_13()
        alice, bob = running.connect("alice"), running.connect("bob")
        for number in range(5):
            broken = running.tcp()
            broken.sendall(hello(running.client_context))
            alice.send({"type": "Ping", "id": number})
            broken.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            bob.send({"type": "Ping", "id": number})
            gone = running.connect(f"gone{number}")
            gone.socket.notify()  # type: ignore[attr-defined]
            assert (alice.message()["id"], bob.message()["id"]) == (number, number)
            assert gone.socket.recv(10) == b""
            assert rest_of(broken)  # what it was told, and then the end
        assert len(running.tls_failures) == 5


class TestHandOver:
    def test_a_stream_goes_on_outside(self, serve: Serve) -> None:
        running = serve()
        sock = running.socket()
        request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        sock.sendall(request)
        running.until(lambda: running.handed_over)
        ((fd, data, address),) = running.handed_over
        (stream,) = running.streams
        assert isinstance(stream, TlsStream)
        assert (data, address) == (request, f"127.0.0.1:{sock.getsockname()[1]}")
        assert stream.unsent == b"" and stream.outgoing.pending == 0
        stream.ssl_object.write(b"answer")
        os.write(fd, stream.outgoing.read())
        assert sock.recv(10) == b"answer"
        sock.sendall(b"more")
        os.set_blocking(fd, True)
        stream.incoming.write(os.read(fd, 1000))
        assert stream.ssl_object.read(10) == b"more"
        running.idle()

    def test_a_stream_comes_back(self, serve: Serve) -> None:
        running = serve()
        client = Client(running.socket())
        client.socket.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        running.until(lambda: running.handed_over)
        fd, _, _ = running.handed_over.pop()
        (stream,) = running.streams
        assert stream is not None
        stream.ssl_object.write(b"answer")
        # What the socket has not taken yet goes before everything else.
        stream = TlsStream(stream.ssl_object, stream.incoming, stream.outgoing, stream.outgoing.read())
        running.call(lambda: running.reactor.take_back(fd, bytearray(UPGRADE % b"alice"), stream))
        assert client.head().startswith(b"answerHTTP/1.1 101 ")
        assert client.message()["type"] == "Connected"
        client.send({"type": "Ping", "id": 2})
        assert client.message()["id"] == 2
