"""The opening handshake: what is refused how, subprotocols, origins and the answers."""

from __future__ import annotations

import json

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication._core.wire.handshake import (
    accept_for,
    check_handshake,
    is_origin_allowed,
    refusal_answer,
    subprotocol_of,
    upgrade_answer,
)

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
JSON, MSGPACK = 0, 1
NONE, ZSTD, LZ4, GZIP = 0, 1, 2, 3

FIELDS = {
    b"Host": b"localhost",
    b"Upgrade": b"websocket",
    b"Connection": b"Upgrade",
    b"Sec-WebSocket-Version": b"13",
    b"Sec-WebSocket-Key": KEY,
}


def request(
    changes: dict[bytes, bytes | None] | None = None, *lines: bytes, request_line: bytes = b"GET /ws HTTP/1.1"
) -> bytes:
    fields = {**FIELDS, **(changes or {})}
    written = [name + b": " + value for name, value in fields.items() if value is not None]
    return b"\r\n".join([request_line, *written, *lines, b"", b""])


def status(data: bytes) -> int:
    answer = check_handshake(data)
    if answer is None:
        return 0
    assert answer[1] in ("bad_request", "unsupported")
    assert answer[2]
    return answer[0]


class TestRequest:
    """RFC 6455, 4.2.1."""

    def test_accepted(self) -> None:
        assert status(request()) == 0

    @pytest.mark.parametrize("line", [b"POST /ws HTTP/1.1", b"HEAD /ws HTTP/1.1", b"POST /ws HTTP/1.0"])
    def test_method(self, line: bytes) -> None:
        assert status(request(request_line=line)) == 405

    def test_version_of_http(self) -> None:
        assert status(request(request_line=b"GET /ws HTTP/1.0")) == 400
        with pytest.raises(ValueError, match="malformed method"):
            check_handshake(request(request_line=b"get /ws HTTP/1.1"))

    @pytest.mark.parametrize(
        ("upgrade", "expected"),
        [
            (None, 400), (b"", 400), (b"notupgrade", 400), (b"h2c", 400), (b"websockets", 400), (b"web socket", 400),
            (b'"websocket"', 400), (b"WebSocket", 0), (b"h2c, websocket", 0), (b"websocket,", 0),
        ],
    )  # fmt: skip
    def test_upgrade(self, upgrade: bytes | None, expected: int) -> None:
        assert status(request({b"Upgrade": upgrade})) == expected

    @pytest.mark.parametrize(
        ("connection", "expected"),
        [
            (None, 400), (b"", 400), (b"keep-alive", 400), (b"close", 400), (b"upgraded", 400),
            (b"keep-alive, Upgrade", 0), (b"keep-alive,upgrade", 0), (b"UPGRADE", 0), (b"Upgrade , close", 0),
        ],
    )  # fmt: skip
    def test_connection(self, connection: bytes | None, expected: int) -> None:
        assert status(request({b"Connection": connection})) == expected

    def test_lists_over_several_fields(self) -> None:
        assert status(request({b"Connection": b"keep-alive"}, b"Connection: Upgrade")) == 0

    @pytest.mark.parametrize(
        "version", [None, b"8", b"", b"13,8", b"8, 13", b"013", b"13.0", b"+13", b"1 3", b"14", b"0"]
    )
    def test_version(self, version: bytes | None) -> None:
        assert status(request({b"Sec-WebSocket-Version": version})) == 426

    def test_version_twice(self) -> None:
        assert status(request(None, b"Sec-WebSocket-Version: 13")) == 426

    @pytest.mark.parametrize(
        ("key", "expected"),
        [
            (KEY, 0),
            (b"+/+/+/+/+/+/+/+/+/+/+A==", 0),
            (None, 400),
            (b"", 400),
            (b"dGhlIHNhbXBsZSBub25j", 400),
            (b"dGhlIHNhbXBsZSBub25jZQ", 400),
            (b"dGhlIHNhbXBsZSBub25jZQ=", 400),
            (b"dGhlIHNhbXBsZSBub25jZQ===", 400),
            (b"dGhlIHNhbXBsZSBub25jZWE=", 400),
            (b"dGhlIHNhbXBsZSBub25jZWFi", 400),
            (b"dGhlIHNhbXBs ZSBub25jZ==", 400),
            (b"dGhlIHNhbXBs=SBub25jZQ==", 400),
            (b"dGhlIHNhbXBs-SBub25jZQ==", 400),
            (b"dGhlIHNhbXBs_SBub25jZQ==", 400),
        ],
    )
    def test_key(self, key: bytes | None, expected: int) -> None:
        assert status(request({b"Sec-WebSocket-Key": key})) == expected

    @pytest.mark.parametrize(
        "line",
        [
            b"Sec-WebSocket-Key: " + KEY, b"Content-Length: 1", b"Transfer-Encoding: chunked",
            b"Origin: http://a\r\nOrigin: http://b", b"Authorization: Bearer a\r\nAuthorization: Bearer b",
        ],
    )  # fmt: skip
    def test_ambiguous(self, line: bytes) -> None:
        assert status(request(None, line)) == 400

    def test_an_empty_body_is_none(self) -> None:
        assert status(request(None, b"Content-Length: 0")) == 0


class TestSubprotocol:
    """PROTOCOL.md, section 1."""

    @pytest.mark.parametrize(
        ("offers", "expected"),
        [
            ([], (JSON, NONE, None)),
            ([b"rtc.v1.json"], (JSON, NONE, b"rtc.v1.json")),
            ([b"rtc.v1.msgpack"], (MSGPACK, NONE, b"rtc.v1.msgpack")),
            ([b"rtc.v1.msgpack, rtc.v1.json"], (MSGPACK, NONE, b"rtc.v1.msgpack")),
            ([b"rtc.v1.json,rtc.v1.msgpack"], (JSON, NONE, b"rtc.v1.json")),
            ([b"chat, rtc.v2.json, rtc.v1.msgpack+lz4"], (MSGPACK, LZ4, b"rtc.v1.msgpack+lz4")),
            ([b"rtc.v1.json+zstd"], (JSON, ZSTD, b"rtc.v1.json+zstd")),
            ([b"chat", b"rtc.v1.json+gzip , rtc.v1.json"], (JSON, GZIP, b"rtc.v1.json+gzip")),
            ([b"rtc.v1.json+br, rtc.v1.msgpack+gzip"], (MSGPACK, GZIP, b"rtc.v1.msgpack+gzip")),
            ([b"chat"], None),
            ([b"RTC.V1.JSON"], None),
            ([b"rtc.v1"], None),
            ([b"rtc.v1.jsonx"], None),
            ([b"rtc.v1.json+"], None),
            ([b"rtc.v1.json+zstd+lz4"], None),
            ([b""], None),
            ([b","], None),
            ([b"rtc.v1.json,"], None),
            ([b"rtc.v1.json,,chat"], None),
            ([b"rtc.v1.json", b""], None),
            ([b"rtc.v1.json, rtc.v1.json"], None),
            ([b"rtc.v1.json, chat, chat"], None),
            ([b"rtc.v1.json", b"rtc.v1.json"], None),
            ([b"rtc.v1.json, a b"], None),
            ([b'"rtc.v1.json"'], None),
            ([b"rtc.v1.json; q=1"], None),
            ([b"rtc.v1.json, ("], None),
        ],
    )
    def test_choice(self, offers: list[bytes], expected: tuple[int, int, bytes | None] | None) -> None:
        data = request(None, *[b"Sec-WebSocket-Protocol: " + offer for offer in offers])
        assert subprotocol_of(data, True) == expected

    def test_compression_can_be_off(self) -> None:
        offers = b"Sec-WebSocket-Protocol: rtc.v1.msgpack+zstd, rtc.v1.json+lz4, rtc.v1.json"
        assert subprotocol_of(request(None, offers), False) == (JSON, NONE, b"rtc.v1.json")
        assert subprotocol_of(request(None, b"Sec-WebSocket-Protocol: rtc.v1.json+lz4"), False) is None

    @pytest.mark.parametrize(
        "value",
        [
            b",".join(b"%d" % n for n in range(3000)),
            b"a," * 7500,
            b"," * 15_000,
            b" " * 15_000,
            b'"' * 15_000,
            b"a" * 15_000,
        ],
    )
    def test_long_lists(self, value: bytes) -> None:
        assert subprotocol_of(request(None, b"Sec-WebSocket-Protocol: " + value), True) is None

    def test_as_many_as_are_allowed(self) -> None:
        offers = [b"p%d" % number for number in range(63)] + [b"rtc.v1.json"]
        field = b"Sec-WebSocket-Protocol: "
        assert subprotocol_of(request(None, field + b",".join(offers)), True) == (JSON, NONE, b"rtc.v1.json")
        assert subprotocol_of(request(None, field + b",".join([b"p", *offers])), True) is None


class TestOrigin:
    """RFC 6454, 5: the same scheme, host and port."""

    @pytest.mark.parametrize(
        ("origin", "expected"),
        [
            (b"https://site.com", True),
            (b"HTTPS://Site.COM", True),
            (b"https://site.com:443", True),
            (b"http://localhost:3000", True),
            (b"http://[::1]:8081", True),
            (b"app://site", True),
            (b"http://site.com", False),
            (b"https://site.com:8443", False),
            (b"https://site.com:80", False),
            (b"https://evil-site.com", False),
            (b"https://site.com.evil.com", False),
            (b"https://site.co", False),
            (b"https://www.site.com", False),
            (b"https://site.com/", False),
            (b"https://site.com/path", False),
            (b"https://user@site.com", False),
            (b"https://site.com:", False),
            (b"https://site.com:443x", False),
            (b"https://site.com:0443", True),
            (b"https://site.com:65979", False),
            (b"https://site.com https://evil.com", False),
            (b"https:site.com", False),
            (b"https:/site.com", False),
            (b"//site.com", False),
            (b"site.com", False),
            (b"http://localhost", False),
            (b"http://localhost:80", False),
            (b"http://[::1]", False),
            (b"http://[::2]:8081", False),
            (b"app://site:80", False),
            (b"null", False),
            (b"", False),
            (b"*", False),
        ],
    )
    def test_compare(self, origin: bytes, expected: bool) -> None:
        allowed: list[str | bytes] = [
            "https://site.com",
            b"http://localhost:3000",
            "http://[::1]:8081",
            "app://site",
            "null",
        ]
        assert is_origin_allowed(origin, allowed) is expected
        assert is_origin_allowed(origin, []) is False
        assert is_origin_allowed(origin, [*allowed, "*"]) is True

    def test_the_default_port_may_be_in_the_list(self) -> None:
        assert is_origin_allowed(b"http://site.com", ["http://site.com:80"])
        assert not is_origin_allowed(b"http://site.com", ["http://site.com:443", "https://site.com", "not an origin"])


class TestAnswers:
    def test_accept_key_of_the_rfc(self) -> None:
        assert accept_for(KEY) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

    @pytest.mark.parametrize("subprotocol", [None, b"rtc.v1.msgpack+zstd"])
    @pytest.mark.parametrize("extensions", [b"", b"permessage-deflate; server_no_context_takeover"])
    def test_upgrade(self, subprotocol: bytes | None, extensions: bytes) -> None:
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="GET", target="/ws", headers=list(FIELDS.items())))
        client.send(h11.EndOfMessage())
        client.receive_data(upgrade_answer(KEY, subprotocol, extensions))
        answer = client.next_event()
        assert isinstance(answer, h11.InformationalResponse)
        assert answer.status_code == 101
        headers = dict(answer.headers)
        assert headers.pop(b"upgrade") == b"websocket"
        assert headers.pop(b"connection") == b"Upgrade"
        assert headers.pop(b"sec-websocket-accept") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert headers.pop(b"sec-websocket-protocol", None) == subprotocol
        assert headers.pop(b"sec-websocket-extensions", b"") == extensions
        assert not headers

    @staticmethod
    def read(answer: bytes) -> tuple[h11.Response, dict[bytes, bytes], bytes]:
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="GET", target="/ws", headers=[("Host", "a")]))
        client.send(h11.EndOfMessage())
        client.receive_data(answer)
        client.receive_data(b"")
        response = client.next_event()
        assert isinstance(response, h11.Response)
        body = client.next_event()
        assert isinstance(body, h11.Data)
        assert isinstance(client.next_event(), h11.EndOfMessage)
        assert client.their_state is h11.MUST_CLOSE or client.our_state is h11.MUST_CLOSE
        names = [name for name, _ in response.headers]
        assert len(names) == len(set(names))
        return response, dict(response.headers), bytes(body.data)

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 413, 426, 429, 431, 500, 503, 505])
    def test_refusal(self, status: int) -> None:
        response, headers, body = self.read(refusal_answer(status, "bad_request", b"no", [("Retry-After", b"5")]))
        assert response.status_code == status
        assert response.reason not in (b"", b"Error")
        assert json.loads(body) == {"error": {"code": "bad_request", "message": "no"}}
        assert headers[b"content-length"] == b"%d" % len(body)
        assert headers[b"content-type"] == b"application/json"
        assert b"close" in headers[b"connection"]
        assert headers[b"retry-after"] == b"5"

    def test_what_a_status_demands(self) -> None:
        assert self.read(refusal_answer(405, "a", "b"))[1][b"allow"] == b"GET"
        assert self.read(refusal_answer(401, "a", "b"))[1][b"www-authenticate"] == b"Bearer"
        given_by_caller = refusal_answer(401, "a", "b", [("www-authenticate", 'Bearer error="invalid_token"')])
        assert self.read(given_by_caller)[1][b"www-authenticate"] == b'Bearer error="invalid_token"'
        headers = self.read(refusal_answer(426, "a", "b", [("Sec-WebSocket-Version", "13")]))[1]
        assert (headers[b"sec-websocket-version"], headers[b"upgrade"]) == (b"13", b"websocket")
        assert headers[b"connection"] == b"Upgrade, close"

    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(st.text(), st.one_of(st.text(), st.binary()), st.one_of(st.text(), st.binary()))
    def test_no_text_breaks_out(self, code: str, message: str | bytes, value: str | bytes) -> None:
        _, headers, body = self.read(refusal_answer(400, code, message, [("X-A", value), ("X-B", "end")]))
        error = json.loads(body)["error"]
        assert set(error) == {"code", "message"}
        assert error["code"] == code.encode("utf-8", "replace").decode()
        assert headers[b"x-b"] == b"end"
        assert headers.keys() - {b"x-a"} == {
            b"content-type",
            b"content-length",
            b"cache-control",
            b"connection",
            b"x-b",
        }
