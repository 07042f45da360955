"""FAULTS.md: Slowloris and Network over TLS: handshakes that do not end, peers that vanish or flood."""

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from serving.asking import until
from serving.certificates import shared_authority
from serving.notices import noticed, total
from serving.peer import Peer, unique_user
from serving.processes import ServerProcess, StartServer, free_port
from serving.raw import RawSocket, envelope, frame, upgrade
from serving.witness import Witness

WITNESSES = 2  # connections of a witness
MOST_SECS = 14.0  # the bound is 10, and the machine may be busy


def context() -> ssl.SSLContext:
    return shared_authority().client_context()


def client_hello() -> bytes:
    """The first flight of a real client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1").do_handshake()
    return outgoing.read()


@pytest.fixture
def server(start_server: StartServer) -> ServerProcess:
    return start_server({"metrics": {"enabled": True, "port": free_port()}}, target="tls")


@pytest.fixture(scope="module")
def standing() -> Any:
    settings = {"metrics": {"enabled": True, "port": free_port()}}
    process = ServerProcess("tls", free_port(), settings, None)
    process.start()
    try:
        with Witness(process.url) as witness:
            yield process, witness
        assert process.stop() == 0
        assert "Traceback" not in process.log
    finally:
        process.dispose()


class Slow:
    """A peer that goes on as slowly as it can. ``step`` does the next little thing."""

    def __init__(self, port: int, first: bytes, rest: bytes = b"") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(first)
        self.rest = rest

    def step(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.sendall(self.rest[:1])
        self.rest = self.rest[1:]

    def is_over(self) -> bool:
        try:
            while self.socket.recv(65_536, socket.MSG_DONTWAIT):
                pass
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True


class SlowBehind(Slow):
    """The handshake is done; the request goes on one byte at a time."""

    def __init__(self, port: int, first: bytes, rest: bytes = b"") -> None:
        self.socket = context().wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1")
        if first:
            self.socket.sendall(first)
        self.rest = rest

    def is_over(self) -> bool:
        self.socket.setblocking(False)
        try:
            while self.socket.recv(65_536):
                pass
        except (ssl.SSLWantReadError, BlockingIOError):
            return False
        except OSError:
            return True
        finally:
            with contextlib.suppress(OSError):
                self.socket.settimeout(5)
        return True


def test_all_ways_of_being_slow_at_once(server: ServerProcess) -> None:
    hello, head = client_hello(), upgrade()
    ways: list[Callable[[], Slow]] = [
        lambda: Slow(server.port, b""),
        lambda: Slow(server.port, hello[:1]),
        lambda: Slow(server.port, hello[:-1]),
        lambda: Slow(server.port, hello),
        lambda: Slow(server.port, b"", hello),
        lambda: Slow(server.port, hello[:100], hello[100:]),
        lambda: SlowBehind(server.port, b""),
        lambda: SlowBehind(server.port, head[:40]),
        lambda: SlowBehind(server.port, b"", head),
    ]
    with Witness(server.url) as witness:
        base = server.open_files()
        slow = [way() for way in ways for _ in range(20)]
        began = time.monotonic()
        try:
            while left := [each for each in slow if not each.is_over()]:
                assert time.monotonic() - began < MOST_SECS, f"{len(left)} are still open"
                for each in left:
                    each.step()
                witness.check()
                time.sleep(0.2)
        finally:
            for each in slow:
                each.socket.close()
        until(lambda: server.open_files() <= base, server.open_files)
        witness.check()
    until(lambda: server.open_files() <= base - WITNESSES, server.open_files)


GARBAGE: dict[str, bytes] = {
    "zeros": bytes(300),
    "a record that is too long": b"\x16\x03\x01\xff\xff" + b"x" * 70_000,
    "an empty record": b"\x16\x03\x01\x00\x00" * 1000,
    "an alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "data before the handshake": b"\x17\x03\x03\x00\x05hello",
    "a hello of nothing": b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
    "a hello that declares 16 MB": b"\x16\x03\x01\x00\x04\x01\xff\xff\xff" + b"x" * 100_000,
    "SSL 2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + b"x" * 40,
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
def test_what_is_no_handshake(standing: tuple[ServerProcess, Witness], data: bytes) -> None:
    server, witness = standing
    with noticed(server, "TLS ended a connection", "tls_failures_total"), RawSocket(server.port) as raw:
        raw.send(data)
        assert raw.at_end()
    witness.check()


@pytest.mark.parametrize(
    "data", [upgrade(), b"SSH-2.0-OpenSSH\r\n" * 20, b"EHLO example.com\r\n"], ids=["HTTP", "SSH", "SMTP"]
)
def test_what_is_plain_text_is_told_so(standing: tuple[ServerProcess, Witness], data: bytes) -> None:
    server, witness = standing
    with noticed(server, "request refused", "upgrades_refused_total", status=400), RawSocket(server.port) as raw:
        raw.send(data)
        assert raw.answer().status == 400
    witness.check()


@pytest.mark.parametrize("stage", ["hello", "handshake", "head", "upgrade", "frame", "close"])
def test_reset_at_every_stage(standing: tuple[ServerProcess, Witness], stage: str) -> None:
    server, witness = standing
    files = server.open_files()
    for _ in range(30):
        sock = socket.create_connection(("127.0.0.1", server.port))
        if stage == "hello":
            sock.sendall(client_hello()[:200])
        else:
            sock = secure = context().wrap_socket(sock, server_hostname="127.0.0.1")
            if stage == "head":
                secure.sendall(upgrade()[:60])
            elif stage != "handshake":
                secure.sendall(upgrade())
                secure.recv(4096)
            if stage == "frame":
                secure.sendall(frame(1, b"x" * 1000)[:300])
            elif stage == "close":
                secure.sendall(frame(8, b"\x03\xe8"))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    until(lambda: server.open_files() <= files + 1, server.open_files)
    witness.check()


def test_who_reads_nothing_is_bounded(standing: tuple[ServerProcess, Witness]) -> None:
    server, witness = standing
    before = server.resident_kib()
    with RawSocket.upgraded(server.port, tls=context(), receive_buffer=4096) as raw:
        raw.socket.settimeout(0.5)
        data = envelope(type="Ping", id=1) * 500
        with contextlib.suppress(OSError):
            for _ in range(200):
                raw.socket.sendall(data)
        witness.check()
        assert server.resident_kib() - before < 16 * 1024


def test_churn_of_handshakes_leaves_nothing(server: ServerProcess) -> None:
    def churn(count: int) -> None:
        for number in range(count):
            with RawSocket(server.port, tls=context()) as raw:
                raw.send(upgrade(user=f"churn{number}"))
                raw.answer()

    with Witness(server.url) as witness:
        churn(100)
        with Peer(server.url, unique_user()) as peer:
            peer.ok("Ping")
            files, memory = server.open_files(), server.resident_kib()
        churn(500)
        until(lambda: server.open_files() <= files, server.open_files)
        assert server.resident_kib() - memory < 6 * 1024
        assert total(server, "tls_failures_total") == 0
        witness.check()
