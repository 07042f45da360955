"""Whole connections: what is answered, in what order, and when the connection ends."""

import re
import socket
import struct

import pytest

from realtime_communication.http import connection as connection_module
from realtime_communication.http.connection import MAX_WAITING_REQUESTS

GET = b"GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n"
LAST = b"GET /health/live HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


def statuses(answer):
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def post(token, body, extra=b""):
    return (
        b"POST /api/publish HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
        + b"Authorization: "
        + token["Authorization"].encode()
        + b"\r\n"
        + extra
        + b"\r\n"
        + body
    )


def test_requests_are_answered_in_order_on_one_connection(server, bearer):
    answer = server.raw(GET + post(bearer(), b"{}", b"Content-Length: 2\r\n") + b"\r\n" + GET + LAST)
    assert statuses(answer) == [200, 200, 200, 200]
    assert server.hub.asked == [("publish", b"{}", "alice")]


def test_requests_may_arrive_byte_by_byte(server, bearer):
    request = post(bearer(), b"2\r\n{}\r\n0\r\n\r\n", b"Transfer-Encoding: chunked\r\nConnection: close\r\n")
    answer = server.raw(b"", [request[at : at + 40] for at in range(0, len(request), 40)])
    assert statuses(answer) == [200]
    assert server.hub.asked == [("publish", b"{}", "alice")]


@pytest.mark.parametrize(
    "extra",
    [
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 2\r\nContent-Length: 2\r\n",
        b"Content-Length: +2\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"X: 1\r\n folded\r\n",
    ],
)
def test_a_second_request_that_is_ambiguous_ends_the_connection(server, bearer, extra):
    answer = server.raw(GET + post(bearer(), b"{}", extra) + GET)
    assert statuses(answer) == [200, 400]
    assert b'{"error":{"code":"bad_request"' in answer
    assert server.hub.asked == []


@pytest.mark.parametrize(
    "body", [b"2;x=y\r\n{}\r\n0\r\n\r\n", b"2\r\n{}\r\n0\r\nX: 1\r\n\r\n", b"5\r\n{}\r\n0\r\n\r\n", b"zz\r\n"]
)
def test_tricks_with_chunks_end_the_connection_and_never_reach_the_hub(server, bearer, body):
    answer = server.raw(GET + post(bearer(), body, b"Transfer-Encoding: chunked\r\n") + GET)
    assert statuses(answer) == [200, 400]
    assert server.hub.asked == []


def test_tricks_in_a_body_nobody_reads(server):
    head = b"POST /nowhere HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert set(statuses(server.raw(head + b"2;x\r\n{}\r\n0\r\n\r\n" + GET))) <= {400, 404}


def test_too_large_bodies_are_refused_at_the_head(make_server, bearer):
    server = make_server(changes={"websocket.max_message_size": 1000})
    assert statuses(server.raw(post(bearer(), b"x" * 50_000, b"Content-Length: 104857600\r\n"))) == [413]
    chunk = b"3e8\r\n" + b"x" * 1000 + b"\r\n"
    assert statuses(server.raw(post(bearer(), chunk * 2, b"Transfer-Encoding: chunked\r\n"))) == [413]
    assert server.hub.asked == []


def test_ten_thousand_pipelined_requests_are_capped(server):
    answer = statuses(server.raw(GET * 10_000))
    assert answer[-1] == 429
    assert len(answer) <= MAX_WAITING_REQUESTS * 2 + 1
    assert server.request("GET", "/health/live").status == 200


UPGRADE = (
    b"GET /ws?token=x HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class TestALaterRequestToUpgrade:
    def test_the_connection_goes_back_with_it_and_what_follows(self, server):
        answer, _, given = server.raw(GET + UPGRADE + b"\x81\x80abcd" + GET).partition(b"back: ")
        assert statuses(answer) == [200]
        assert given == UPGRADE + b"\x81\x80abcd" + GET
        assert server.request("GET", "/health/live").status == 200

    def test_in_pieces(self, server):
        whole = GET + UPGRADE
        answer = server.raw(b"", [whole[at : at + 30] for at in range(0, len(whole), 30)])
        assert statuses(answer) == [200] and answer.endswith(b"back: " + UPGRADE)

    def test_every_request_before_is_answered_first(self, server, bearer):
        requests = (GET + post(bearer(), b"{}", b"Content-Length: 2\r\n")) * 5
        answer, _, given = server.raw(requests + UPGRADE).partition(b"back: ")
        assert statuses(answer) == [200] * 10
        assert given == UPGRADE

    def test_answers_that_wait_for_the_peer_leave_first(self, server):
        document = b"GET /openapi.json HTTP/1.1\r\nHost: h\r\n\r\n"
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(15)
            sock.connect(("127.0.0.1", server.port))
            sock.sendall(document * 30 + UPGRADE)
            sock.recv(1)
            answer = b"H"
            while piece := sock.recv(65536):
                answer += piece
        assert statuses(answer) == [200] * 30
        assert answer.endswith(b"}back: " + UPGRADE)

    def test_where_nobody_takes_it_the_connection_ends(self, server):
        server.http.give_back = None
        assert statuses(server.raw(GET + UPGRADE + GET)) == [200]

    def test_not_behind_the_last_request(self, server):
        assert statuses(server.raw(LAST + UPGRADE)) == [200]

    def test_of_another_path_it_is_answered_here_and_the_last(self, server):
        elsewhere = UPGRADE.replace(b"/ws", b"/elsewhere")
        assert statuses(server.raw(elsewhere + b"\x81\x80abcd" + GET)) == [404]
        assert statuses(server.raw(GET + elsewhere + GET)) == [200, 404]

    def test_without_the_header_it_is_answered_here(self, server):
        plain = b"GET /ws HTTP/1.1\r\nHost: h\r\n\r\n"
        answer = server.raw(GET + plain)
        assert statuses(answer) == [200, 426]
        assert b"this is a WebSocket: ask for the upgrade" in answer


def test_silence_and_endless_heads_are_closed(server, monkeypatch):
    monkeypatch.setattr(connection_module, "KEEP_ALIVE_SECS", 10)
    server.http._runner._kwargs["keepalive_timeout"] = 0.3
    server.http._runner.server._kwargs["keepalive_timeout"] = 0.3
    assert statuses(server.raw(GET)) == [200]
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(GET)
        assert b"200" in sock.recv(65536)
        sock.settimeout(0.05)
        for byte in b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 200:
            try:
                sock.sendall(bytes([byte]))
                if sock.recv(100) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        else:
            pytest.fail("the connection was not closed")


def test_a_body_that_does_not_come_is_given_up(server, bearer, monkeypatch):
    monkeypatch.setattr("realtime_communication.http.api.BODY_TIMEOUT_SECS", 0.2)
    answer = server.raw(post(bearer(), b"{", b"Content-Length: 10\r\n"))
    assert statuses(answer) == [408]
    assert b'"timed_out"' in answer


def test_resets_leave_nothing_behind(server, caplog):
    for data in (GET, GET + b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nab", GET * 5):
        sock = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.sendall(data)
        sock.close()
    assert server.request("GET", "/health/live").status == 200
    assert not [record for record in caplog.records if record.exc_info]


def test_connections_are_capped(server, bearer, monkeypatch):
    monkeypatch.setattr(connection_module, "MAX_CONNECTIONS", 1)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as first:
        first.sendall(post(bearer(), b"{}", b"Content-Length: 2\r\n"))
        assert b"200 OK" in first.recv(65536)
        refused = server.request("GET", "/health/live")
        assert (refused.status, refused.json["error"]["code"]) == (503, "unavailable")
        first.sendall(LAST)
        assert b"200 OK" in first.recv(65536)


def test_one_that_has_not_authenticated_makes_room(server, monkeypatch):
    monkeypatch.setattr(connection_module, "MAX_CONNECTIONS", 1)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as first:
        first.sendall(GET)
        assert b"200 OK" in first.recv(65536)
        assert server.request("GET", "/health/live").status == 200
        assert first.recv(1) == b""
    assert server.services.crowded_out == 1
