"""FAULTS.md: Handshake, Smuggling, Slowloris, Pipelining, Origin."""

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from serving.peer import Peer, unique_user
from serving.processes import ServerProcess, StartServer, free_port
from serving.raw import KEY, RawSocket, envelope, exchange, frame, upgrade
from serving.tokens import token
from serving.witness import Witness

BEARER = f"Authorization: Bearer {token('raw')}"


class TestRequestLine:
    @pytest.mark.parametrize(
        "request_bytes",
        [
            upgrade(method="POST"),
            upgrade(method="PUT"),
            upgrade(method="get"),
            upgrade(version="HTTP/1.0"),
            upgrade(version="HTTP/2.0"),
            upgrade(version="HTTP/1.10"),
            upgrade(version="http/1.1"),
            upgrade(version=""),
            upgrade(target="/ws HTTP/1.1 x"),
            upgrade(target="/\xfcws"),
            upgrade(target="/ws\x00"),
            upgrade(target=""),
        ],
        ids=["POST", "PUT", "get", "1.0", "2.0", "1.10", "lower", "none", "spaces", "non-ascii", "nul", "no target"],
    )
    def test_refused(self, victim: ServerProcess, request_bytes: bytes) -> None:
        assert exchange(victim.port, request_bytes).status in (400, 404, 405, 501, 505)

    def test_http_0_9(self, victim: ServerProcess) -> None:
        with RawSocket(victim.port) as raw:
            raw.send(b"GET /ws\r\n\r\n")
            assert raw.answer().status in (0, 400, 505)

    def test_unknown_path(self, victim: ServerProcess) -> None:
        assert exchange(victim.port, upgrade(target="/nowhere")).status == 404

    def test_path_of_a_feature_that_is_off(self, start_server: StartServer) -> None:
        server = start_server({"development": {"enable_debug_endpoints": False}})
        with Witness(server.url) as witness:
            assert exchange(server.port, upgrade(target="/debug/echo")).status == 404
            witness.check()


class TestHeaders:
    @pytest.mark.parametrize(
        "request_bytes",
        [
            upgrade(drop=("host",)),
            upgrade(extra=("Host: other",)),
            upgrade(host="exa mple"),
            upgrade(host="a\x01b"),
            upgrade(host="a/b"),
            upgrade(upgrade="notupgrade"),
            upgrade(upgrade="websocket2"),
            upgrade(connection="keep-alive"),
            upgrade(drop=("sec_websocket_key",)),
            upgrade(extra=(f"Sec-WebSocket-Key: {KEY}",)),
            upgrade(sec_websocket_key="c2l4dGVlbiBieXRlcw=="[:20]),
            upgrade(sec_websocket_key="c2V2ZW50ZWVuIGJ5dGVzIQ=="[:-2] + "AA=="),
            upgrade(sec_websocket_key="!" * 24),
            upgrade(sec_websocket_key=""),
            upgrade(sec_websocket_protocol="\xfcber"),
            upgrade(extra=("Cookie: a=\xff\xfe",)),
            upgrade(extra=("X-A : space before colon",)),
            upgrade(extra=("X-A: folded", " continuation")),
            upgrade(extra=("X-A: nul\x00inside",)),
            upgrade(extra=("X-A: cr\rinside",)),
            upgrade(extra=("no colon at all",)),
            upgrade(extra=(": no name",)),
            upgrade().replace(b"\r\n", b"\n"),
            upgrade().replace(b"Upgrade: websocket\r\n", b"Upgrade: websocket\n"),
        ],
        ids=[
            "no host",
            "two hosts",
            "space in host",
            "control in host",
            "slash in host",
            "other upgrade",
            "almost websocket",
            "connection keep-alive only",
            "no key",
            "two keys",
            "short key",
            "long key",
            "key not base64",
            "empty key",
            "non-ascii protocol",
            "non-ascii cookie",
            "space before colon",
            "obs-fold",
            "nul in value",
            "cr in value",
            "no colon",
            "no name",
            "bare lf everywhere",
            "one bare lf",
        ],
    )
    def test_refused_with_400(self, victim: ServerProcess, request_bytes: bytes) -> None:
        with RawSocket(victim.port) as raw:
            raw.send(request_bytes)
            answer = raw.answer()
        assert answer.status == 400, answer

    @pytest.mark.parametrize("version", ["8", "13,8", "13, 8", "", "012", "x"])
    def test_version_is_426_and_names_the_right_one(self, victim: ServerProcess, version: str) -> None:
        answer = exchange(victim.port, upgrade(sec_websocket_version=version))
        assert (answer.status, answer.headers.get("sec-websocket-version")) == (426, "13")

    def test_missing_version(self, victim: ServerProcess) -> None:
        answer = exchange(victim.port, upgrade(drop=("sec_websocket_version",)))
        assert (answer.status, answer.headers.get("sec-websocket-version")) == (426, "13")

    @pytest.mark.parametrize("connection", ["keep-alive, Upgrade", "upgrade", "Upgrade , keep-alive", ",,Upgrade"])
    def test_connection_is_a_list_of_tokens(self, victim: ServerProcess, connection: str) -> None:
        assert exchange(victim.port, upgrade(connection=connection)).status == 101

    @pytest.mark.parametrize("name", ["WebSocket", "WEBSOCKET", "foo, websocket"])
    def test_upgrade_is_a_list_in_any_case(self, victim: ServerProcess, name: str) -> None:
        assert exchange(victim.port, upgrade(upgrade=name)).status == 101

    @pytest.mark.parametrize(
        "line",
        [
            "Sec-WebSocket-Protocol: " + ", ".join(f"p{number}" for number in range(1000)),
            "Sec-WebSocket-Protocol: x" + " " * 12_000 + "y",
            "Sec-WebSocket-Extensions: " + '"' * 12_000,
            "Sec-WebSocket-Extensions: a" + " " * 12_000 + "b",
            "Cookie: " + " " * 12_000,
            "Cookie: " + '"' * 12_000,
        ],
        ids=["protocols", "protocol spaces", "quotes", "extension spaces", "cookie spaces", "cookie quotes"],
    )
    def test_long_lists_within_the_limit_cost_nothing(self, victim: ServerProcess, line: str) -> None:
        before = victim.cpu_secs()
        for _ in range(50):
            assert exchange(victim.port, upgrade(subprotocol=None, extra=(line,))).status in (101, 400, 431)
        assert victim.cpu_secs() - before < 1.0

    @pytest.mark.parametrize(
        "extra",
        [
            tuple(f"X-{number}: {number}" for number in range(2000)),
            ("X-Same: again",) * 1000,
        ],
        ids=["2000 headers", "1000 repeats"],
    )
    def test_too_much_is_431(self, victim: ServerProcess, extra: tuple[str, ...]) -> None:
        assert exchange(victim.port, upgrade(extra=extra)).status == 431

    @pytest.mark.parametrize("name", ["Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Cookie"])
    @pytest.mark.parametrize(
        "value",
        [", ".join(f"p{number}" for number in range(10_000)), "x" + " " * 30_720 + "y", '"' * 30_720],
        ids=["10,000 protocols", "30 KB of spaces", "30 KB of quotes"],
    )
    def test_lists_that_nobody_has_are_400(self, victim: ServerProcess, name: str, value: str) -> None:
        request_bytes = upgrade(subprotocol=None, extra=(f"{name}: {value}",))
        before = victim.cpu_secs()
        for _ in range(50):
            assert exchange(victim.port, request_bytes).status == 400
        assert victim.cpu_secs() - before < 1.0

    @pytest.mark.parametrize("start", [b"GET /", b"GET /ws HTTP/1.1\r\nHost: x\r\nX-Long: "])
    def test_endless_head_in_single_bytes_is_431_at_the_limit(self, victim: ServerProcess, start: bytes) -> None:
        with RawSocket(victim.port) as raw:
            raw.send(start)
            raw.socket.setblocking(False)
            sent = 0
            answer = b""
            while sent < 70_000:
                try:
                    raw.socket.send(b"x")
                    sent += 1
                    answer += raw.socket.recv(4096)
                except BlockingIOError:
                    continue
                except (BrokenPipeError, ConnectionResetError):
                    break
                if answer:
                    break
            raw.socket.settimeout(5)
            if not answer:
                answer = raw.socket.recv(4096)
            assert b" 431 " in answer.partition(b"\r\n")[0]
            assert sent < 70_000


class TestEarlyAndLate:
    def test_frames_in_the_packet_of_the_request(self, victim: ServerProcess) -> None:
        with RawSocket(victim.port) as raw:
            raw.send(upgrade() + envelope(type="Ping", id=1) + envelope(type="Ping", id=2))
            assert raw.answer().status == 101
            assert [raw.json().get("id") for _ in range(3)] == [None, 1, 2]

    def test_request_in_single_bytes(self, victim: ServerProcess) -> None:
        with RawSocket(victim.port) as raw:
            for byte in upgrade():
                raw.send(bytes([byte]))
            assert raw.answer().status == 101
            assert raw.json()["type"] == "Connected"

    @pytest.mark.parametrize("reset", [False, True])
    def test_client_goes_before_the_answer(self, victim: ServerProcess, reset: bool) -> None:
        with Peer(victim.url, unique_user()) as peer:
            peer.ok("Ping")
            before = victim.open_files()
            for size in (1, 10, 100, None) * 25:
                raw = RawSocket(victim.port)
                raw.send(upgrade()[:size])
                raw.reset() if reset else raw.socket.close()
            deadline = time.monotonic() + 5
            while victim.open_files() > before and time.monotonic() < deadline:
                peer.ok("Ping")
            assert victim.open_files() <= before


SMUGGLED = "GET /ws HTTP/1.1\r\nHost: smuggled\r\n\r\n"


class TestSmuggling:
    @pytest.mark.parametrize(
        "headers",
        [
            ("Content-Length: 4", "Transfer-Encoding: chunked"),
            ("Content-Length: 4", "Content-Length: 5"),
            ("Content-Length: +5",),
            ("Content-Length: -1",),
            ("Content-Length: 0x5",),
            ("Content-Length: 5, 5 ",),
            ("Content-Length: \xb2",),
            ("Content-Length: ",),
            ("Transfer-Encoding: chunked, identity",),
            ("Transfer-Encoding: identity",),
            ("Transfer-Encoding: xchunked",),
            ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        ],
        ids=lambda headers: " + ".join(headers)[:50],
    )
    @pytest.mark.parametrize("path", ["/ws", "/api/publish"])
    def test_refused_and_closed(self, victim: ServerProcess, path: str, headers: tuple[str, ...]) -> None:
        head = "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", BEARER, *headers])
        with RawSocket(victim.port) as raw:
            raw.send((head + "\r\n\r\n").encode("latin-1") + b"0\r\n\r\n" + SMUGGLED.encode())
            answer = raw.answer()
            assert answer.status in (400, 405, 501), answer
            assert raw.at_end(), "the connection must be closed"
            assert b"HTTP/1.1" not in raw.data, "what followed was taken for a request"

    @pytest.mark.parametrize(
        "body",
        [b"5;a=b\r\nhello\r\n0\r\n\r\n", b"0\r\nX-Trailer: 1\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"5\nhello"],
    )
    def test_chunk_tricks(self, victim: ServerProcess, body: bytes) -> None:
        head = f"POST /api/publish HTTP/1.1\r\nHost: localhost\r\n{BEARER}\r\nTransfer-Encoding: chunked\r\n\r\n"
        with RawSocket(victim.port) as raw:
            raw.send(head.encode() + body + SMUGGLED.encode())
            assert raw.answer().status in (400, 411, 415, 422, 501)
            assert raw.at_end()
            assert b"HTTP/1.1" not in raw.data

    def test_frames_behind_a_refused_upgrade_are_not_read(self, victim: ServerProcess) -> None:
        wrong = upgrade(user=None, extra=("Authorization: Bearer wrong",))
        with RawSocket(victim.port) as raw:
            raw.send(wrong + envelope(type="Ping", id=1) + SMUGGLED.encode())
            assert raw.answer().status == 401
            assert raw.at_end()
            assert raw.data == b""

    def test_request_behind_a_refused_upgrade_is_not_read(self, victim: ServerProcess) -> None:
        with RawSocket(victim.port) as raw:
            raw.send(upgrade(sec_websocket_version="8") + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert raw.answer().status == 426
            assert raw.at_end()
            assert raw.data == b""


class TestSlowloris:
    def test_those_who_say_nothing_are_closed_and_others_served(self, start_server: StartServer) -> None:
        server = start_server()
        with Witness(server.url) as witness:
            silent = [RawSocket(server.port) for _ in range(300)]
            drip = [RawSocket(server.port) for _ in range(20)]
            try:
                deadline = time.monotonic() + 14
                for count, byte in enumerate(
                    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nX-Slow: yes\r\nX-Slower: very\r\n"
                ):
                    for raw in drip:
                        raw.send(bytes([byte]))
                    if count % 4 == 0:
                        witness.check()
                    if all(is_over(raw) for raw in (*silent, *drip)):
                        break
                    assert time.monotonic() < deadline, "still open"
                    time.sleep(0.3)
                assert all(raw.at_end(1) for raw in (*silent, *drip))
            finally:
                for raw in (*silent, *drip):
                    raw.socket.close()
            witness.check()


def is_over(raw: RawSocket) -> bool:
    """Whether the server has ended the connection already; what it said before is kept in ``data``."""
    try:
        while data := raw.socket.recv(4096, socket.MSG_DONTWAIT):
            raw.data += data
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


class TestPipelining:
    def test_10_000_requests_at_once(self, victim: ServerProcess) -> None:
        with RawSocket(victim.port) as raw:
            raw.socket.setblocking(False)
            request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
            before = victim.resident_kib()
            # The server takes no more for now, or has had enough: both are caps.
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                raw.socket.sendall(request * 10_000)
            raw.socket.settimeout(5)
            assert raw.answer().status in (200, 400, 429, 503)
            assert victim.resident_kib() - before < 32 * 1024


class TestOrigin:
    @pytest.mark.parametrize(
        "origin",
        [
            "https://evil.example",
            "null",
            "https://app.example.com.evil-site.com",
            "https://evil-app.example.com",
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com@evil.example",
            "",
        ],
    )
    def test_foreign_is_403(self, cors_server: ServerProcess, origin: str) -> None:
        answer = exchange(cors_server.port, upgrade(extra=(f"Origin: {origin}", "Cookie: session=valid")))
        assert answer.status == 403, answer
        assert answer.error_code == "forbidden"

    def test_own_is_welcome(self, cors_server: ServerProcess) -> None:
        assert exchange(cors_server.port, upgrade(extra=("Origin: https://app.example.com",))).status == 101

    def test_without_origin(self, cors_server: ServerProcess) -> None:
        assert exchange(cors_server.port, upgrade()).status == 101

    @pytest.fixture(scope="class")
    def cors_server(self) -> Iterator[ServerProcess]:
        settings = {"security": {"cors": {"enabled": True, "allowed_origins": ["https://app.example.com"]}}}
        process = ServerProcess("product", free_port(), settings, None)
        process.start()
        try:
            with Witness(process.url) as witness:
                yield process
                witness.check()
        finally:
            process.dispose()


def test_unmasked_frame_in_the_packet_of_the_request(victim: ServerProcess) -> None:
    with RawSocket(victim.port) as raw:
        raw.send(upgrade() + frame(1, b"{}", masked=False))
        assert raw.answer().status == 101
        assert raw.closed_with() == 1002
