"""Request heads: what is refused, that cuts do not matter, and agreement with h11 on what is accepted."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fuzz.wire import read_by_h11
from realtime_communication._core.wire.http_head import EndFinder, HeadRefused, RequestHead

thorough = settings(max_examples=200, deadline=None, derandomize=True)

HEAD_LIMIT = 16384
GET = b"GET /ws HTTP/1.1\r\n"
HOST = b"Host: localhost:8081\r\n"


def head(*lines: bytes, request_line: bytes = GET, host: bytes = HOST) -> bytes:
    return request_line + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def status(data: bytes) -> int:
    """What head_parse answers: 0 or an HTTP status."""
    try:
        RequestHead(data)
    except HeadRefused as refused:
        assert refused.args[1]
        return int(refused.args[0])
    return 0


def end(data: bytes, piece: int = 1 << 20) -> int:
    """What head_find_end answers when the bytes come in pieces."""
    finder = EndFinder()
    for at in range(0, len(data), piece):
        found = finder.feed(data[at : at + piece])
        if found:
            return found
    return 0


class TestRequestLine:
    def test_parts(self) -> None:
        request = RequestHead(head(b"X-A: 1", request_line=b"GET /ws?token=a?b&c HTTP/1.1\r\n") + b"\x81\x80 frames")
        assert (request.method, request.target) == (b"GET", b"/ws?token=a?b&c")
        assert (request.path, request.query) == (b"/ws", b"token=a?b&c")
        assert request.version_minor == 1
        assert request.size == len(head(b"X-A: 1", request_line=b"GET /ws?token=a?b&c HTTP/1.1\r\n"))
        assert request.fields == [(b"host", b"localhost:8081"), (b"x-a", b"1")]

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            (b"POST /api/publish HTTP/1.1", 0),
            (b"GET /health HTTP/1.0", 0),
            (b"OPTIONS * HTTP/1.1", 0),
            (b"GET * HTTP/1.1", 400),
            (b"get /ws HTTP/1.1", 400),
            (b"Get /ws HTTP/1.1", 400),
            (b"G\xcbT /ws HTTP/1.1", 400),
            (b" GET /ws HTTP/1.1", 400),
            (b"GET  /ws HTTP/1.1", 400),
            (b"GET /ws  HTTP/1.1", 400),
            (b"GET /ws HTTP/1.1 ", 400),
            (b"GET\t/ws HTTP/1.1", 400),
            (b"GET /ws", 400),
            (b"GET /ws ", 400),
            (b"GET HTTP/1.1", 400),
            (b"GET  HTTP/1.1", 400),
            (b"GET /ws HTTP/0.9", 400),
            (b"GET /ws HTTP/1.2", 505),
            (b"GET /ws HTTP/2.0", 505),
            (b"GET /ws HTTP/3.0", 505),
            (b"GET /ws HTTP/1", 400),
            (b"GET /ws HTTP/11", 400),
            (b"GET /ws HTTP/1.10", 400),
            (b"GET /ws http/1.1", 400),
            (b"GET /ws HTTP/1,1", 400),
            (b"GET /ws HTTPS/1.1", 400),
            (b"GET ws HTTP/1.1", 400),
            (b"GET ../ws HTTP/1.1", 400),
            (b"GET ?a HTTP/1.1", 400),
            (b"GET /ws#top HTTP/1.1", 400),
            (b"GET /w\xc3\xb6 HTTP/1.1", 400),
            (b"GET /w\x00s HTTP/1.1", 400),
            (b"GET /w\x7fs HTTP/1.1", 400),
            (b"GET /w s HTTP/1.1", 400),
            (b"GET /w%73 HTTP/1.1", 0),
            (b"GET /w%7 HTTP/1.1", 400),
            (b"GET /w%zz HTTP/1.1", 400),
            (b"GET /ws?a=% HTTP/1.1", 400),
            (b"CONNECT localhost:8081 HTTP/1.1", 400),
            (b"A" * 24 + b" / HTTP/1.1", 0),
            (b"A" * 25 + b" / HTTP/1.1", 400),
            (b"", 400),
        ],
    )
    def test_form(self, line: bytes, expected: int) -> None:
        assert status(head(request_line=line + b"\r\n")) == expected

    @pytest.mark.parametrize(
        ("target", "expected"),
        [
            (b"http://localhost:8081/ws?a", (b"/ws", b"a")),
            (b"HTTP://LOCALHOST:8081/ws", (b"/ws", None)),
            (b"https://localhost:8081", (b"/", None)),
            (b"http://localhost:8081?a", (b"/", b"a")),
            (b"/ws?", (b"/ws", b"")),
            (b"/http://other/", (b"/http://other/", None)),
            (b"http://localhost/ws", None),
            (b"http://evil/ws", None),
            (b"http://user@localhost:8081/ws", None),
            (b"http:///ws", None),
            (b"ftp://localhost:8081/ws", None),
            (b"http:/ws", None),
        ],
    )
    def test_absolute_target_has_to_name_the_host(
        self, target: bytes, expected: tuple[bytes, bytes | None] | None
    ) -> None:
        data = head(request_line=b"GET " + target + b" HTTP/1.1\r\n")
        if expected is None:
            assert status(data) == 400
        else:
            request = RequestHead(data)
            assert (request.path, request.query) == expected


class TestFields:
    @pytest.mark.parametrize(
        "line",
        [
            b"X-A : 1",
            b"X-A\t: 1",
            b" X-A: 1",
            b"\tfolded",
            b"X-A: 1\r\n folded",
            b": 1",
            b"X-A",
            b"X A: 1",
            b"X\xc3\xa4: 1",
            b"X(A): 1",
            b"X-A: a\x00b",
            b"X-A: a\rb",
            b"X-A: a\nb",
            b"X-A: a\x0bb",
            b"X-A: a\x7fb",
            b"X-A: a\x1b[0m",
            b"X-A: a\n",
            b"X-A: a\r",
            b"Cookie: a=\xc3\xa4",
            b"Sec-WebSocket-Protocol: rtc.v1.json\xff",
            b"Sec-WebSocket-Extensions: \x80",
            b"Sec-WebSocket-Key: \xe2\x80\x8b",
            b"Origin: http://b\xc3\xbccher.example",
            b"Authorization: Bearer \xff",
            b"Connection: upgrade\xa0",
            b"Upgrade: websocket\xa0",
        ],
    )
    def test_malformed(self, line: bytes) -> None:
        assert status(head(line)) == 400
        assert status(head(b"X-B: 2", line, b"X-C: 3")) == 400

    def test_values_are_trimmed_and_may_be_empty(self) -> None:
        request = RequestHead(head(b"A:1", b"B: \t 2 3 \t", b"C:", b"D: \t ", b"E: caf\xc3\xa9"))
        assert request.fields[1:] == [(b"a", b"1"), (b"b", b"2 3"), (b"c", b""), (b"d", b""), (b"e", b"caf\xc3\xa9")]
        assert request.get(b"b") == b"2 3"
        assert request.get(b"f") is None

    @pytest.mark.parametrize(
        ("lines", "expected"),
        [
            (b"", 400),
            (HOST + HOST, 400),
            (HOST + b"hOST: localhost:8081\r\n", 400),
            (b"Host:\r\n", 400),
            (b"Host: a b\r\n", 400),
            (b"Host: a,b\r\n", 400),
            (b"Host: a/b\r\n", 400),
            (b"Host: a@b\r\n", 400),
            (b"Host: a?b\r\n", 400),
            (b"Host: a:b\r\n", 400),
            (b"Host: a:65536\r\n", 400),
            (b"Host: a:000080\r\n", 400),
            (b"Host: a:-1\r\n", 400),
            (b"Host: :80\r\n", 400),
            (b"Host: <script>\r\n", 400),
            (b"Host: {tag}\r\n", 400),
            (b"Host: b\xc3\xbccher\r\n", 400),
            (b"Host: [::1\r\n", 400),
            (b"Host: []\r\n", 400),
            (b"Host: [::1]x\r\n", 400),
            (b"Host: [::g]:80\r\n", 400),
            (b"Host: ::1\r\n", 400),
            (b"Host: xn--bcher-kva.example:65535\r\n", 0),
            (b"Host: 127.0.0.1\r\n", 0),
            (b"Host: a_b.c-d~e\r\n", 0),
            (b"Host: [2001:db8::1]:8081\r\n", 0),
            (b"Host: [::ffff:10.0.0.1]\r\n", 0),
        ],
    )
    def test_host(self, lines: bytes, expected: int) -> None:
        assert status(head(host=lines)) == expected

    def test_http_1_0_needs_no_host(self) -> None:
        assert status(head(request_line=b"GET /health HTTP/1.0\r\n", host=b"")) == 0
        assert status(head(request_line=b"GET /health HTTP/1.0\r\n", host=HOST + HOST)) == 400

    def test_number(self) -> None:
        lines = [b"X-%d: %d" % (number, number) for number in range(2000)]
        assert status(head(*lines[:99])) == 0
        assert status(head(*lines[:100])) == 431
        assert end(head(*lines[:99])) == len(head(*lines[:99]))
        assert end(head(*lines[:100])) == -431
        # Seen as soon as there are too many, whether or not the head ends.
        assert end(head(*lines), 1) == -431
        assert end(GET + b"A:\r\n" * 1000) == -431
        assert status(head(*[b"X-Same: 1"] * 1000)) == 431

    def test_counts_and_tokens(self) -> None:
        request = RequestHead(
            head(
                b"Connection: keep-alive, Upgrade", b"CONNECTION: ,x ,, y\t", b"Upgrade: h2c, WebSocket", b"Via: a, b c"
            )
        )
        assert request.count(b"connection") == 2
        assert request.count(b"upgrade") == 1
        assert [request.has_token(b"connection", token) for token in (b"upgrade", b"keep-alive", b"x", b"y")] == [
            True
        ] * 4
        assert not request.has_token(b"connection", b"up")
        assert not request.has_token(b"connection", b"keep-alive, upgrade")
        assert not request.has_token(b"via", b"c")
        assert not request.has_token(b"absent", b"x")
        assert request.wants_upgrade
        assert not RequestHead(head(b"Upgrade: notwebsocket")).wants_upgrade
        assert not RequestHead(head(b"Connection: upgrade")).wants_upgrade


class TestSmuggling:
    @pytest.mark.parametrize(
        "value",
        [
            b"+5",
            b"-1",
            b"0x5",
            b"5 5",
            b"5,5",
            b"5;",
            b"",
            b"5.0",
            b"1e3",
            b"9" * 19,
            b"\xd9\xa5",
            b"\xef\xbc\x95",
            b"_5",
        ],
    )
    def test_content_length(self, value: bytes) -> None:
        assert status(head(b"Content-Length: " + value)) == 400

    def test_content_length_is_read(self) -> None:
        assert RequestHead(head()).content_length is None
        assert RequestHead(head(b"Content-Length: 0")).content_length == 0
        assert RequestHead(head(b"content-length:  00123 ")).content_length == 123
        assert RequestHead(head(b"Content-Length: " + b"9" * 18)).content_length == int("9" * 18)

    @pytest.mark.parametrize(
        "lines",
        [
            [b"Content-Length: 5", b"Content-Length: 5"],
            [b"Content-Length: 5", b"content-length: 6"],
            [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
            [b"Transfer-Encoding: chunked", b"Content-Length: 0"],
            [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
            [b"Transfer-Encoding: identity"],
            [b"Transfer-Encoding: chunked, identity"],
            [b"Transfer-Encoding: identity, chunked"],
            [b"Transfer-Encoding: chunked;a=b"],
            [b'Transfer-Encoding: "chunked"'],
            [b"Transfer-Encoding: chunked,"],
            [b"Transfer-Encoding: xchunked"],
            [b"Transfer-Encoding: chun\x0bked"],
            [b"Transfer-Encoding:"],
            [b"Transfer-Encoding : chunked"],
            [b"Transfer-Encoding: gzip, chunked"],
            [b"Transfer-Encoding:\r\n chunked"],
        ],
    )
    def test_two_readings(self, lines: list[bytes]) -> None:
        assert status(head(*lines, request_line=b"POST /api/publish HTTP/1.1\r\n")) == 400

    def test_chunked(self) -> None:
        assert RequestHead(head(b"Transfer-Encoding: Chunked")).chunked
        assert not RequestHead(head()).chunked
        assert status(head(b"Transfer-Encoding: chunked", request_line=b"POST / HTTP/1.0\r\n")) == 400


class TestEnd:
    def test_every_cut_gives_the_same(self) -> None:
        data = head(b"A: 1", b"Cookie: x=y")
        for cut in range(len(data)):
            finder = EndFinder()
            assert finder.feed(data[:cut]) == 0
            assert finder.feed(data[cut:] + b"behind") == len(data)
        assert end(data, 1) == len(data)

    @pytest.mark.parametrize(
        "data",
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"\x80\x2e\x01\x00\x02",
            b"get / HTTP/1.1",
            b"\r\nGET / HTTP/1.1",
            b"\n",
            b"\x00",
            b"{",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
            b"GET /\r\n",
            b"GET / HTTP/1.1\n",
            b"GET / HTTP/1.1\r\nA: 1\n",
            b"GET / HTTP/1.1\rA",
            b"GET / HTTP/1.1\r\r",
            b"GET / HTTP/1.1\r\nA: \x00",
            b"GET /\x00",
            b"A" * 26,
        ],
    )
    def test_hopeless_at_once(self, data: bytes) -> None:
        assert end(data) == -400
        assert end(data, 1) == -400

    def test_hopeless_version(self) -> None:
        assert end(b"PRI * HTTP/2.0\r\n") == end(b"PRI * HTTP/2.0\r\n", 1) == -505

    @pytest.mark.parametrize("piece", [1, 7, 4096, 1 << 20])
    @pytest.mark.parametrize("start", [b"GET /" + b"a" * 1000, GET + HOST + b"X: "])
    def test_too_large(self, start: bytes, piece: int) -> None:
        finder = EndFinder()
        data = start + b"a" * (1 << 20)
        for at in range(0, len(data), piece):
            found = finder.feed(data[at : at + piece])
            if found:
                assert found == -431
                break
            assert len(finder.data) < HEAD_LIMIT
        assert HEAD_LIMIT <= len(finder.data) <= max(HEAD_LIMIT + piece, piece)
        assert status(data + b"\r\n\r\n") in (400, 431)

    def test_limit_is_exact(self) -> None:
        fits = head(b"X: " + b"a" * (HEAD_LIMIT - len(head(b"X: "))))
        assert len(fits) == HEAD_LIMIT
        assert end(fits) == end(fits, 1) == HEAD_LIMIT
        assert status(fits) == 0
        over = head(b"X: " + b"a" * (HEAD_LIMIT + 1 - len(head(b"X: "))))
        assert end(over) == end(over, 1) == -431
        assert status(over) == 431

    def test_a_head_without_end_is_refused_by_the_parser(self) -> None:
        data = head(b"A: 1")
        for cut in range(len(data)):
            assert status(data[:cut]) == 400

    def test_long_runs_are_read(self) -> None:
        for filler in (b" ", b'"', b",", b"a,", b"=;"):
            line = b"Sec-WebSocket-Protocol: " + filler * (15_000 // len(filler))
            assert status(head(line)) == 0
            assert end(head(line), 1) == len(head(line))
            for name, status_of_it in ((b"Cookie", 400), (b"SEC-WEBSOCKET-EXTENSIONS", 400), (b"Cookies", 431)):
                assert end(head(name + b": " + filler * (30_000 // len(filler)))) == -status_of_it


tokens = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=12).map(str.encode)
values = st.lists(st.one_of(st.integers(33, 126), st.sampled_from([32, 9]), st.integers(128, 255)), max_size=30).map(
    bytes
)
targets = st.text("abc/?&=;:,.-_~!$'()*+@", max_size=30).map(lambda text: b"/" + text.encode())
own = {
    b"host",
    b"content-length",
    b"transfer-encoding",
    b"cookie",
    b"connection",
    b"upgrade",
    b"origin",
    b"authorization",
}
fields = st.lists(st.tuples(tokens.filter(lambda name: name.lower() not in own), values), max_size=20)


def reading(data: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]] | None:
    try:
        request = RequestHead(data)
    except HeadRefused:
        return None
    return request.method, request.target, request.fields


@thorough
@given(st.sampled_from([b"GET", b"POST", b"OPTIONS", b"DELETE"]), targets, fields)
def test_reads_valid_heads_as_h11_does(method: bytes, target: bytes, extra: list[tuple[bytes, bytes]]) -> None:
    data = head(*[name + b":" + value for name, value in extra], request_line=method + b" " + target + b" HTTP/1.1\r\n")
    assert reading(data) is not None
    assert reading(data) == read_by_h11(data)


interesting = st.sampled_from(list(b"\r\n\t \x00:;,\x7f\xff0+-AaHT/%"))


@settings(max_examples=2000, deadline=None, derandomize=True)
@given(
    st.lists(
        st.sampled_from(
            [
                b"Content-Length: 5",
                b"Transfer-Encoding: chunked",
                b"X-A: 1",
                b"Connection: close",
                b"Host: b",
                b"E:",
                b"",
            ]
        ),
        max_size=4,
    ),
    st.lists(st.tuples(st.sampled_from(["put", "insert", "drop"]), st.integers(0, 200), interesting), max_size=3),
)
@example([b"X-A: 1"], [("put", 0, ord(" "))])
def test_accepts_nothing_that_h11_reads_otherwise(lines: list[bytes], edits: list[tuple[str, int, int]]) -> None:
    data = bytearray(head(*lines) + b"\r\n")
    for edit, at, byte in edits:
        at %= len(data)
        if edit == "put":
            data[at] = byte
        elif edit == "insert":
            data.insert(at, byte)
        else:
            del data[at]
    ours = reading(bytes(data))
    if ours is not None:
        assert ours == read_by_h11(bytes(data))
        assert end(bytes(data)) == end(bytes(data), 1) == RequestHead(bytes(data)).size


@thorough
@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_get_an_answer_and_cuts_change_nothing(data: bytes, piece: int) -> None:
    data = GET + data
    assert status(data) in (0, 400, 431, 505)
    assert end(data) == end(data, piece)
