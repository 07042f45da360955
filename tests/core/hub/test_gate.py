"""Who is let in: request heads, upgrades, refusals, hand-over."""

import json
from typing import Any

import pytest

from core.hub.sans_io import KEY, Server, client_frame, identity, make_hub, settings
from realtime_communication._core.hub.memory_driver import Connection

UPGRADE = {
    "Host": "x",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY.decode(),
}


def head(line: str = "GET /ws HTTP/1.1", **changes: str | None) -> bytes:
    fields = UPGRADE | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [line] + [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def answer(server: Server, data: bytes) -> tuple[int, dict[str, str], dict[str, Any], Connection]:
    connection = server.driver.connect()
    connection.feed(data)
    top, _, body = connection.drain().partition(b"\r\n\r\n")
    first, *lines = top.decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), fields, json.loads(body) if body else {}, connection


class TestRefusals:
    """Each wrong request gets its status, and nothing behind it is read."""

    @pytest.mark.parametrize(
        "data, status",
        [
            (head("POST /ws HTTP/1.1"), 405),
            (head("GET /ws HTTP/1.0"), 400),
            (head("get /ws HTTP/1.1"), 405),
            (head(Host=None), 400),
            (head(Upgrade="notupgrade"), 400),
            (head(Connection="keep-alive"), 400),
            (head(Sec_WebSocket_Version="8"), 426),
            (head(Sec_WebSocket_Version=None), 426),
            (head(Sec_WebSocket_Key=None), 400),
            (head(Sec_WebSocket_Key="AAAA"), 400),
            (head(Sec_WebSocket_Protocol="mqtt"), 400),
            (head().replace(b"\r\n", b"\n"), 400),
            (head(X="a" * 20000), 431),
        ],
    )
    def test_status(self, data: bytes, status: int) -> None:
        server = make_hub()
        got, fields, body, connection = answer(server, data + client_frame(b'{"type":"Ping","id":1}'))
        assert got in ((status, 400) if status == 405 else (status,))
        assert body["error"]["code"]
        assert "close" in fields["connection"].split(", ")
        assert connection.lingering
        connection.feed(head() + client_frame(b'{"type":"Ping","id":1}'))
        assert connection.drain() == b""
        connection.end()
        stats = server.stats()
        assert (stats["refused"], stats["upgraded"], stats["sessions"], stats["timers"]) == (1, 0, 0, 0)

    def test_version(self) -> None:
        assert answer(make_hub(), head(Sec_WebSocket_Version="8"))[1]["sec-websocket-version"] == "13"

    def test_a_head_in_single_bytes(self) -> None:
        server = make_hub()
        connection = server.driver.connect()
        for byte in head():
            assert connection.drain() == b""
            connection.feed(bytes([byte]))
        assert connection.drain().startswith(b"HTTP/1.1 101 ")

    def test_an_endless_head_in_pieces(self) -> None:
        connection = make_hub().driver.connect()
        connection.feed(b"GET /ws HTTP/1.1\r\nX: ")
        out = b""
        for _ in range(100):
            connection.feed(b"a" * 1000)
            out += connection.drain()
        assert out.startswith(b"HTTP/1.1 431 ")
        assert out.count(b"HTTP/1.1") == 1

    def test_origin(self) -> None:
        server = make_hub(require_origin_match=True, allowed_origins=["https://site.com"])
        for origin, status in [
            ("https://site.com", 101),
            (None, 101),
            ("https://evil-site.com", 403),
            ("http://site.com", 403),
            ("https://site.com:444", 403),
            ("null", 403),
            ("https://site.com.evil", 403),
        ]:
            assert answer(server, head(Origin=origin))[0] == status, origin
        twice = head(Origin="https://site.com").replace(b"Host: x", b"Host: x\r\nOrigin: https://site.com")
        assert answer(server, twice)[0] in (400, 403)

    def test_credentials(self) -> None:
        server = make_hub()
        seen = []

        def admit(headers: list[tuple[bytes, bytes]], query: bytes, peer: str, secure: bool) -> Any:
            seen.append((dict(headers), query, peer, secure))
            return 401, "unauthorized", "token: expired", [("WWW-Authenticate", "Bearer")]

        server.hub.set_callbacks(admit, server.authenticate_message)
        status, fields, body, _ = answer(server, head("GET /ws?token=abc HTTP/1.1", Authorization="Bearer x"))
        assert (status, fields["www-authenticate"]) == (401, "bearer")
        assert body == {"error": {"code": "unauthorized", "message": "token: expired"}}
        assert seen[0][0][b"authorization"] == b"Bearer x"
        assert seen[0][1:] == (b"token=abc", "memory", False)

    @pytest.mark.parametrize("value", ["Bearer a.b.c", "bearer \t a.b.c", "BEARER a.b.c\t"])
    def test_a_bearer_token_is_asked_about_first(self, value: str) -> None:
        server = make_hub()
        asked: list[str] = []

        def accept(token: str) -> Any:
            asked.append(token)
            return identity("alice")

        server.hub.set_callbacks(None, server.authenticate_message)
        server.hub.set_token_callback(accept)
        connection = server.driver.connect()
        connection.feed(head(Authorization=value))
        assert b'"Connected"' in connection.drain()
        assert asked == ["a.b.c"]
        assert server.hub.connections()[0]["user_id"] == "alice"

    @pytest.mark.parametrize(
        ("line", "value", "by_token"),
        [
            ("GET /ws HTTP/1.1", "Bearer no", True),
            ("GET /ws? HTTP/1.1", "Bearer no", True),
            ("GET /ws?room=1 HTTP/1.1", "Bearer no", False),
            ("GET /ws HTTP/1.1", "Basic no", False),
            ("GET /ws HTTP/1.1", "Bearer", False),
            ("GET /ws HTTP/1.1", "Bearers no", False),
            ("GET /ws HTTP/1.1", None, False),
        ],
    )
    def test_what_a_token_does_not_decide(self, line: str, value: str | None, by_token: bool) -> None:
        server = make_hub()
        asked: list[str] = []

        def request(headers: Any, query: bytes, peer: str, secure: bool) -> Any:
            asked.append("request")
            return 401, "unauthorized", "no", []

        server.hub.set_callbacks(request, server.authenticate_message)
        server.hub.set_token_callback(asked.append)
        assert answer(server, head(line, Authorization=value))[0] == 401
        assert asked == (["no", "request"] if by_token else ["request"])

    def test_a_token_is_no_credential_of_the_echo_endpoint(self) -> None:
        server = make_hub(debug_echo=True)
        asked: list[str] = []
        server.hub.set_token_callback(asked.append)
        assert answer(server, head("GET /debug/echo HTTP/1.1", Authorization="Bearer x"))[0] == 101
        assert asked == []

    def test_a_check_that_fails(self) -> None:
        server = make_hub()

        def admit(headers: Any, query: Any, peer: Any, secure: Any) -> Any:
            raise RuntimeError("secret")

        server.hub.set_callbacks(admit, admit)
        status, _, body, _ = answer(server, head())
        assert (status, body["error"]["code"]) == (500, "internal")
        assert "secret" not in str(body)

    def test_too_many(self) -> None:
        server = make_hub(max_connections=2)
        first, _second = server.connect("a"), server.connect("b")
        status, fields, body, _ = answer(server, head())
        assert (status, body["error"]["code"]) == (503, "unavailable")
        assert int(fields["retry-after"]) > 0
        first.end()
        assert answer(server, head())[0] == 101

    def test_draining(self) -> None:
        server = make_hub()
        server.hub.begin_drain(1000)
        status, fields, _, _ = answer(server, head())
        assert status == 503
        assert int(fields["retry-after"]) > 0

    def test_a_user_id_nobody_can_have(self) -> None:
        server = make_hub()
        peer = server.connect(identity("x" * 300), welcome=False)
        peer.frames()
        assert peer.close is not None
        assert peer.close[0] == 1011
        peer.end()
        assert server.stats()["connections"] == 0


class TestUpgrades:
    """What 101 answers say, and what follows in the same packet."""

    @pytest.mark.parametrize(
        "offered, chosen",
        [
            (None, None),
            ("rtc.v1.msgpack", "rtc.v1.msgpack"),
            ("mqtt, rtc.v1.msgpack, rtc.v1.json", "rtc.v1.msgpack"),
            ("rtc.v1.json+zstd", "rtc.v1.json+zstd"),
        ],
    )
    def test_subprotocol(self, offered: str | None, chosen: str | None) -> None:
        status, fields, _, _ = answer(make_hub(), head(Sec_WebSocket_Protocol=offered))
        assert (status, fields.get("sec-websocket-protocol")) == (101, chosen)

    def test_compressed_subprotocols_are_not_served_without_compression(self) -> None:
        server = make_hub(compression_algorithm="none")
        assert answer(server, head(Sec_WebSocket_Protocol="rtc.v1.json+zstd"))[0] == 400
        assert "sec-websocket-extensions" not in answer(server, head(Sec_WebSocket_Extensions="permessage-deflate"))[1]

    def test_frames_in_the_same_packet(self) -> None:
        server = make_hub()
        server.connect("alice")
        connection = server.driver.connect()
        ping = client_frame(b'{"type":"Ping","id":1}')
        connection.feed(head("GET /ws?0 HTTP/1.1") + ping * 120 + ping[:5])
        out = connection.drain()
        assert out.index(b"101 ") < out.index(b'"Connected"') < out.index(b'"Pong"')
        assert out.count(b'"Pong"') == 120
        connection.feed(ping[5:])
        assert connection.drain().count(b'"Pong"') == 1

    def test_keep_alive_and_upgrade(self) -> None:
        assert answer(make_hub(), head(Connection="keep-alive, Upgrade"))[0] == 101

    def test_echo(self) -> None:
        server = make_hub()
        connection = server.driver.connect()
        connection.feed(head("GET /debug/echo HTTP/1.1") + client_frame(b"hello") + client_frame(b"\x00", 2))
        assert connection.drain().endswith(b"\x81\x05hello\x82\x01\x00")
        server = make_hub(debug_echo=False)
        connection = server.driver.connect()
        connection.feed(head("GET /debug/echo HTTP/1.1"))
        assert connection.handed_over == head("GET /debug/echo HTTP/1.1")


class TestHandOver:
    """What is no upgrade of ours."""

    @pytest.mark.parametrize(
        "line", ["GET /health HTTP/1.1", "POST /api/publish HTTP/1.1", "GET /wss HTTP/1.1", "GET / HTTP/1.1"]
    )
    def test_with_all_that_came(self, line: str) -> None:
        server = make_hub()
        connection = server.driver.connect()
        data = head(line) + b"body and more"
        connection.feed(data[:30])
        connection.feed(data[30:])
        assert connection.handed_over == data
        stats = server.stats()
        assert (stats["handed_over"], stats["sessions"], stats["timers"]) == (1, 0, 0)


class TestHeadersOfRefusals:
    """What the control plane wants every refusal to carry."""

    HEADERS = (("X-Content-Type-Options", "nosniff"), ("Content-Security-Policy", "default-src 'none'"))

    @pytest.mark.parametrize(
        "data",
        [
            head(Host=None),
            head(X="a" * 20000),
            head("POST /ws HTTP/1.1"),
            head(Sec_WebSocket_Version="8"),
            head(Origin="https://evil.com"),
            head(Sec_WebSocket_Protocol="mqtt"),
        ],
    )
    def test_each(self, data: bytes) -> None:
        server = make_hub(refusal_headers=list(self.HEADERS), require_origin_match=True)
        status, fields, _, _ = answer(server, data)
        assert status >= 400
        assert {"x-content-type-options": "nosniff", "content-security-policy": "default-src 'none'"}.items() <= (
            fields.items()
        )
        assert fields["cache-control"] == "no-store"

    def test_beside_those_of_the_refusal(self) -> None:
        server = make_hub(refusal_headers=list(self.HEADERS))
        server.hub.set_callbacks(lambda *_: (429, "rate_limited", "too many", [("Retry-After", "7")]), None)
        status, fields, _, _ = answer(server, head())
        assert (status, fields["retry-after"], fields["x-content-type-options"]) == (429, "7", "nosniff")

    def test_others_after_a_change(self) -> None:
        server = make_hub()
        assert "x-content-type-options" not in answer(server, head(Host=None))[1]
        server.hub.configure(settings(refusal_headers=list(self.HEADERS)))
        assert answer(server, head(Host=None))[1]["x-content-type-options"] == "nosniff"


class TestEchoCallback:
    def test_it_may_refuse(self) -> None:
        server = make_hub()
        asked: list[Any] = []

        def admit(headers: list[tuple[bytes, bytes]], query: bytes, peer: str, secure: bool) -> Any:
            asked.append((dict(headers)[b"host"], query, secure))
            return 426, "forbidden", "use TLS", [("Upgrade", "TLS/1.2, HTTP/1.1")]

        server.hub.set_echo_callback(admit)
        status, fields, body, connection = answer(server, head("GET /debug/echo?a=1 HTTP/1.1") + client_frame(b"hello"))
        assert (status, body["error"]["code"], fields["upgrade"]) == (426, "forbidden", "tls/1.2, http/1.1")
        assert asked == [(b"x", b"a=1", False)]
        assert connection.drain() == b""
        assert server.connect().status == 101

    def test_it_may_agree(self) -> None:
        server = make_hub()
        server.hub.set_echo_callback(lambda *_: None)
        connection = server.driver.connect()
        connection.feed(head("GET /debug/echo HTTP/1.1") + client_frame(b"hello"))
        assert connection.drain().endswith(b"\x81\x05hello")
