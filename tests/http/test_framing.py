"""The guard: where requests end, and what is refused (RFC 9112)."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication.http.framing import MAX_EARLY_BYTES, MAX_HEAD_BYTES, RequestGuard, State

GET = b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /api/publish HTTP/1.1\r\nHost: h\r\n"
FIXED = POST + b"Content-Length: 5\r\n\r\nhello"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"


def fed(data, max_body=1000, max_waiting=100):
    guard = RequestGuard(max_body, max_waiting)
    return guard, guard.feed(data, 0)


@pytest.mark.parametrize(
    "stream", [GET, FIXED, CHUNKED, GET + FIXED + CHUNKED + GET, POST + b"Content-Length: 0\r\n\r\n"]
)
def test_good_requests_pass_unchanged(stream):
    guard, passed = fed(stream)
    assert passed == stream
    assert guard.violation is None
    assert guard.state is State.HEAD


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(
        st.sampled_from([GET, FIXED, CHUNKED, b"\r\n" + GET, GET[:-1], CHUNKED + b"x", b"\n", b"5;a\r\n"]), max_size=6
    ),
    st.lists(st.integers(0, 600), max_size=12),
)
def test_pieces_make_no_difference(parts, cuts):
    stream = b"".join(parts)
    whole, passed = fed(stream)
    guard = RequestGuard(1000, 100)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = b"".join(guard.feed(stream[a:b], 0) for a, b in itertools.pairwise(edges))
    assert pieces == passed
    assert guard.requests == whole.requests
    assert (guard.violation is None) == (whole.violation is None)


def test_one_byte_at_a_time():
    guard = RequestGuard(1000, 100)
    stream = GET + CHUNKED + FIXED
    assert b"".join(guard.feed(stream[at : at + 1], 0) for at in range(len(stream))) == stream
    assert guard.requests == 3


HEADS = {
    "both lengths": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "both lengths the other way": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "two lengths": b"Content-Length: 5\r\nContent-Length: 5\r\n",
    "two lengths in one": b"Content-Length: 5, 5\r\n",
    "plus": b"Content-Length: +5\r\n",
    "minus": b"Content-Length: -1\r\n",
    "hexadecimal": b"Content-Length: 0x5\r\n",
    "underscore": b"Content-Length: 1_0\r\n",
    "unicode digits": b"Content-Length: \xd9\xa5\r\n",
    "empty length": b"Content-Length:\r\n",
    "long length": b"Content-Length: " + b"1" * 16 + b"\r\n",
    "two codings": b"Transfer-Encoding: chunked, identity\r\n",
    "identity first": b"Transfer-Encoding: identity, chunked\r\n",
    "two coding lines": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "identity": b"Transfer-Encoding: identity\r\n",
    "gzip": b"Transfer-Encoding: gzip\r\n",
    "misspelt": b"Transfer-Encoding: xchunked\r\n",
    "vertical tab": b"Transfer-Encoding: \x0bchunked\r\n",
    "space before colon": b"Content-Length : 5\r\n",
    "space before name": b" Content-Length: 5\r\n",
    "folded": b"X: 1\r\n 2\r\n",
    "bare line feed": b"X: 1\nContent-Length: 5\r\n",
    "bare carriage return": b"X: 1\rContent-Length: 5\r\n",
    "null": b"X: a\x00b\r\n",
    "not ASCII": b"Cookie: \xc3\xa9\r\n",
    "no colon": b"Content-Length 5\r\n",
    "empty name": b": 5\r\n",
    "second host": b"Host: other\r\n",
}


@pytest.mark.parametrize("headers", HEADS.values(), ids=HEADS)
def test_ambiguous_heads_are_refused(headers):
    guard, passed = fed(POST + headers + b"\r\n" + b"hello" + GET)
    assert passed == b""
    assert guard.violation.status == 400
    assert not guard.violation.in_body
    assert guard.feed(GET, 0) == b""


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: h\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET \x00 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"G(T / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"\r\n\r\n",
        b"GET / HTTP/1.1\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_malformed_heads_are_refused(head):
    guard, passed = fed(head)
    assert passed == b""
    assert guard.violation.status == 400


CHUNKS = {
    "extension": b"5;a=b\r\nhello\r\n0\r\n\r\n",
    "empty extension": b"5;\r\nhello\r\n0\r\n\r\n",
    "space": b"5 \r\nhello\r\n0\r\n\r\n",
    "sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "empty": b"\r\nhello\r\n0\r\n\r\n",
    "nine digits": b"000000005\r\nhello\r\n0\r\n\r\n",
    "bare line feed": b"5\nhello\r\n0\r\n\r\n",
    "too long": b"3\r\nhello\r\n0\r\n\r\n",
    "too short": b"8\r\nhello\r\n0\r\n\r\n",
    "trailer": b"5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n",
    "extension of the last": b"5\r\nhello\r\n0;a\r\n\r\n",
    "endless line": b"5" * 5000,
}


@pytest.mark.parametrize("body", CHUNKS.values(), ids=CHUNKS)
def test_tricks_with_chunks_are_refused(body):
    guard, _ = fed(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body + GET)
    assert guard.violation.status == 400
    assert guard.violation.in_body
    assert guard.requests == 1


def test_bodies_are_bounded():
    assert fed(POST + b"Content-Length: 1001\r\n\r\n")[0].violation.status == 413
    assert fed(POST + b"Content-Length: 1000\r\n\r\n")[0].violation is None
    chunk = b"1f4\r\n" + b"x" * 500 + b"\r\n"
    assert fed(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 2 + b"0\r\n\r\n")[0].violation is None
    assert fed(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 2 + b"1\r\n")[0].violation.status == 413


def test_heads_are_bounded():
    guard, passed = fed(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * MAX_HEAD_BYTES)
    assert (passed, guard.violation.status) == (b"", 431)
    many = b"".join(b"X-%d: 1\r\n" % number for number in range(200))
    assert fed(b"GET / HTTP/1.1\r\nHost: h\r\n" + many + b"\r\n")[0].violation.status == 431


def test_waiting_requests_are_bounded():
    guard = RequestGuard(1000, 3)
    assert guard.feed(GET * 10, 0) == GET * 3
    assert guard.violation.status == 429
    guard = RequestGuard(1000, 3)
    for answered in range(10):
        assert guard.feed(GET, answered) == GET


@pytest.mark.parametrize("body", [b"", b"Content-Length: 5\r\n"])
def test_nothing_is_read_behind_a_request_to_upgrade(body):
    head = POST + b"Upgrade: websocket\r\n" + body + b"\r\n"
    guard, passed = fed(head + (b"hello" if body else b"") + b"\x81\x85abcd" + GET)
    assert passed == head + (b"hello" if body else b"")
    assert guard.violation is None
    assert guard.state is State.OVER


def test_what_others_send_is_accepted():
    for head in (
        b"\r\n" + GET,
        b"OPTIONS * HTTP/1.1\r\nhost: [::1]:8081\r\n\r\n",
        b"GET http://example.org/x HTTP/1.1\r\nHost: example.org\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b'GET /?a=%20b HTTP/1.1\r\nHost: h:80\r\nX:\r\nY: \t a \t b\t \r\nAccept: */*;q=0.8, "x"\r\n\r\n',
    ):
        guard, passed = fed(head)
        assert (passed, guard.violation) == (head, None)


UPGRADE = b"GET /ws?x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class TestLeaving:
    @pytest.mark.parametrize("before", [b"", b"\r\n"])
    def test_a_later_request_for_a_websocket_is_kept_with_what_follows(self, before):
        guard, passed = fed(GET + CHUNKED + before + UPGRADE + b"frames" + GET)
        assert (passed, guard.state, guard.violation) == (GET + CHUNKED, State.LEAVING, None)
        assert guard.feed(b" and more", 0) == b""
        assert guard.rest == UPGRADE + b"frames" + GET + b" and more"
        assert guard.requests == 2

    @pytest.mark.parametrize(
        "target",
        [b"/ws", b"/ws?token=a/b", b"http://h/ws", b"https://h:1/ws?x", b"/debug/echo", b"http://h/debug/echo"],
    )
    def test_every_form_of_its_target(self, target):
        assert fed(GET + UPGRADE.replace(b"/ws?x", target))[0].state is State.LEAVING

    @pytest.mark.parametrize(
        "changed",
        [(b"/ws?x", b"/wsx"), (b"/ws?x", b"/x?/ws"), (b"/ws?x", b"/x/ws"), (b"GET", b"POST"), (b"/1.1", b"/1.0")],
    )
    def test_what_is_none_passes(self, changed):
        request = UPGRADE.replace(*changed)
        guard, passed = fed(GET + request + GET)
        assert (passed, guard.state) == (GET + request, State.OVER)

    def test_the_first_request_passes(self):
        assert fed(UPGRADE)[1] == UPGRADE

    def test_what_follows_is_bounded(self):
        guard, _ = fed(GET + UPGRADE)
        guard.feed(bytes(MAX_EARLY_BYTES), 0)
        assert guard.violation is None
        guard.feed(bytes(MAX_HEAD_BYTES), 0)
        assert guard.violation is not None
        assert (guard.violation.status, guard.violation.in_body, guard.state) == (413, False, State.OVER)
        assert not guard.rest
