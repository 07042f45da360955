"""FAULTS.md, rows of which other tests allow more than the row says: here exactly what it says."""

import contextlib
import json
import socket
import threading
import time
from typing import Any

import pytest

from serving.asking import ask, until
from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess, StartServer
from serving.raw import BINARY, CONTINUATION, PING, PONG, TEXT, RawSocket, envelope, exchange, frame, upgrade
from serving.tokens import ADMIN_KEY, token

TIMES = 50  # of what has to cost less than a millisecond


class TestHandshake:
    @pytest.mark.parametrize(
        "request_bytes",
        [upgrade(method="POST"), upgrade(version="HTTP/1.0"), b"GET /ws\r\n\r\n", upgrade(method="get")],
        ids=["POST", "HTTP/1.0", "HTTP/0.9", "get"],
    )
    def test_methods_and_versions_are_405_or_400(self, victim: ServerProcess, request_bytes: bytes) -> None:
        assert exchange(victim.port, request_bytes).status in (405, 400)

    @pytest.mark.parametrize(
        "request_bytes",
        [
            upgrade(target="/\xfcws"),
            upgrade(target="/ws?\xfc"),
            upgrade(sec_websocket_protocol="rtc.v1.json, \xfc"),
            upgrade(extra=("Cookie: \xc3\xa9",)),
        ],
        ids=["path", "query", "protocol", "cookie"],
    )
    def test_bytes_that_are_not_ascii_are_400(self, victim: ServerProcess, request_bytes: bytes) -> None:
        assert exchange(victim.port, request_bytes).status == 400

    @pytest.mark.parametrize("size", [15, 17])
    def test_keys_of_another_size_are_400(self, victim: ServerProcess, size: int) -> None:
        key = {15: "MTIzNDU2Nzg5MDEyMzQ1", 17: "MTIzNDU2Nzg5MDEyMzQ1Njc="}[size]
        assert exchange(victim.port, upgrade(sec_websocket_key=key)).status == 400

    def test_the_same_heads_before_http_are_400(self, watched: ServerProcess) -> None:
        """A request that is no upgrade is read as strictly."""
        for line in (
            "X : space before the colon",
            "X: folded\r\n continuation",
            "X: nul\x00inside",
            "X: cr\rinside",
            "X: 1\nY: bare line feed",
            "Content-Length: 1\r\nContent-Length: 1",
        ):
            head = f"POST /api/publish HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n".encode()
            with RawSocket(watched.port) as raw:
                raw.send(head + b"1")
                assert raw.answer().status == 400, line
                assert raw.at_end(), line


class TestDeflate:
    @pytest.mark.parametrize("bits", ["7", "8", "16", "abc", '"abc"', "09", "-9", ""])
    @pytest.mark.parametrize("side", ["server", "client"])
    def test_windows_that_make_no_offer(self, victim: ServerProcess, side: str, bits: str) -> None:
        offer = f"permessage-deflate; {side}_max_window_bits={bits}"
        with RawSocket(victim.port) as raw:
            raw.send(upgrade(extra=(f"Sec-WebSocket-Extensions: {offer}",)))
            answer = raw.answer()
            assert (answer.status, answer.headers.get("sec-websocket-extensions")) == (101, None)

    @pytest.mark.parametrize(
        "name", ["server_max_window_bits=10", "client_max_window_bits", "client_no_context_takeover"]
    )
    def test_a_parameter_that_is_there_twice(self, victim: ServerProcess, name: str) -> None:
        offer = f"permessage-deflate; {name}; {name}"
        with RawSocket(victim.port) as raw:
            raw.send(upgrade(extra=(f"Sec-WebSocket-Extensions: {offer}",)))
            answer = raw.answer()
            assert (answer.status, answer.headers.get("sec-websocket-extensions")) == (101, None)


NUMBERS = {
    "nesting of 100,000": "[" * 100_000 + "]" * 100_000,
    "integer of 100,000 digits": "9" * 100_000,
    "1e400": "1e400",
    "-1e400": "-1e400",
    "NaN": "NaN",
    "Infinity": "Infinity",
}


@pytest.mark.parametrize("payload", NUMBERS.values(), ids=NUMBERS.keys())
def test_json_that_nobody_can_read_is_an_error(victim: ServerProcess, payload: str) -> None:
    text = f'{{"type":"Broadcast","id":1,"topic":"{unique()}","payload":{payload}}}'.encode()
    pieces = [text[at : at + 60_000] for at in range(0, len(text), 60_000)]
    with RawSocket.upgraded(victim.port) as raw:
        before = victim.cpu_secs()
        for _ in range(TIMES):
            for number, piece in enumerate(pieces):
                raw.send(frame(CONTINUATION if number else TEXT, piece, fin=number == len(pieces) - 1))
            error = raw.json()
            assert (error["type"], error["code"]) == ("Error", "bad_request")
        assert victim.cpu_secs() - before < 1.0
        assert raw.ping_works()


@pytest.mark.parametrize("exp", [4_102_444_800.0, 1e10, "9999999999", True, [9_999_999_999]], ids=repr)
def test_expiries_that_are_no_integers(victim: ServerProcess, exp: Any) -> None:
    assert exchange(victim.port, upgrade(authorization=f"Bearer {token(exp=exp)}")).status == 401


class TestAdmin:
    @pytest.mark.parametrize("items", [5001, 1_000_000])
    def test_a_batch_of_a_million_items_is_413_or_400(self, watched: ServerProcess, items: int) -> None:
        body = b"[" + b"0," * (items - 1) + b"0]"
        headers = {"X-API-Key": ADMIN_KEY}
        before = watched.cpu_secs()
        if items == 1_000_000:
            head = (
                f"POST /api/batch HTTP/1.1\r\nHost: x\r\nX-API-Key: {ADMIN_KEY}\r\nContent-Type: application/json\r\n"
            )
            with RawSocket(watched.port) as raw:
                raw.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
                assert raw.answer().status == 413
        else:
            assert ask(watched.port, "POST", "/api/batch", headers, body).status in (413, 400)
        assert watched.cpu_secs() - before < 1.0


def test_a_megabyte_in_segments_of_one_byte_costs_twice_its_size(start_server: StartServer) -> None:
    """One frame, each byte of which is a segment of its own as far as the kernel lets it."""
    size = 1 << 20
    server = start_server({"websocket": {"max_frame_size": size, "max_message_size": size}})
    head = b'{"type":"Broadcast","id":1,"topic":"dribble","payload":"'
    data = frame(TEXT, head + b"x" * (size - len(head) - 2) + b'"}')
    with RawSocket.upgraded(server.port) as raw, Peer(server.url, unique_user()) as other:
        other.ok("Ping")
        before = server.resident_kib()
        highest = before
        for at in range(len(data) - 1):
            raw.socket.send(data[at : at + 1])
            if at % 50_000 == 0:
                highest = max(highest, server.resident_kib())
                other.ok("Ping")
        until(lambda: unread(server.port) == 0)
        highest = max(highest, server.resident_kib())
        assert highest - before <= 2 * size // 1024 + 512, "twice its size, and what a process grows by itself"
        raw.send(data[-1:])
        assert raw.json()["type"] == "Ack"


def unread(port: int) -> int:
    """Bytes that wait in the kernel for the server on that port."""
    with open("/proc/net/tcp") as file:
        lines = [line.split() for line in file.readlines()[1:]]
    return sum(int(fields[4].split(":")[1], 16) for fields in lines if fields[1].endswith(f":{port:04X}"))


class TestMsgPack:
    @pytest.mark.parametrize(
        "payload",
        [b"\xc7\x01\x05x", b"\xd4\x01\x00", b"\xd7\xff" + b"\0" * 8, b"\xc8\x00\x01\x01x", b"\x81\x01\x02", b"\xc1"],
        ids=["ext8", "fixext1", "timestamp", "ext16", "number as key", "never used"],
    )
    def test_what_json_has_not_is_an_error(self, victim: ServerProcess, payload: bytes) -> None:
        with RawSocket.upgraded(victim.port, subprotocol="rtc.v1.msgpack") as raw:
            raw.send(frame(BINARY, b"\x83\xa4type\xa9Broadcast\xa5topic\xa1t\xa7payload" + payload))
            received = raw.frame()
            assert b"bad_request" in received.payload
            raw.send(frame(BINARY, b"\x82\xa4type\xa4Ping\xa2id\x07"))
            assert b"Pong" in raw.frame().payload


def test_who_asks_for_ten_times_the_limit_is_refused_and_then_closed(start_server: StartServer) -> None:
    """A mix of what costs most: publications to many, subscriptions, history, errors."""
    limits = {"connection": {"requests_per_second": 20.0, "burst_size": 20}}
    server = start_server({"rate_limiting": {"enabled": True, **limits}})
    with RawSocket.upgraded(server.port, user="costly") as raw:
        mix = b"".join(
            [
                envelope(type="Broadcast", id=1, topic="t", payload="x" * 10_000),
                envelope(type="Subscribe", id=2, topic=unique(), history=1000),
                envelope(type="History", id=3, topic="t", limit=1000),
                envelope(type="Nothing", id=4),
            ]
        )
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        raw.send(mix * 50)
        kinds = []
        while (received := raw.frame()).opcode == TEXT:
            kinds.append(json.loads(received.payload).get("code"))
        assert "rate_limited" in kinds
        assert received.close_code == 4429


def test_the_latest_of_many_pings_is_answered(victim: ServerProcess) -> None:
    """100,000 of somebody who reads nothing: what waits for him is bounded, and he finds the answer to the last one."""
    count = 100_000
    before = victim.resident_kib()
    with RawSocket.upgraded(victim.port, receive_buffer=4096) as raw:
        pings = memoryview(b"".join(frame(PING, b"%025d" % number) for number in range(count)))
        sent = 0
        raw.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while sent < len(pings):
                sent += raw.socket.send(pings[sent : sent + 65_536])
        assert victim.resident_kib() - before < 8 * 1024
        raw.socket.settimeout(20)
        rest = threading.Thread(target=raw.socket.sendall, args=(pings[sent:],))
        rest.start()
        received = b""
        while received != b"%025d" % (count - 1):
            answer = raw.frame()
            assert answer.opcode == PONG
            assert answer.payload > received, "the answers come in order"
            received = answer.payload
        rest.join()
        assert raw.ping_works()


def test_pongs_that_answer_nothing_are_signs_of_life(start_server: StartServer) -> None:
    server = start_server(
        {"websocket": {"heartbeat_interval_secs": 0.1, "client_timeout_secs": 0.5, "auth_timeout_secs": 0.4}}
    )
    with RawSocket.upgraded(server.port) as raw:
        began = time.monotonic()
        while time.monotonic() < began + 1:
            received = raw.frame()
            assert received.opcode == PING
            raw.send(frame(PONG, b"wrong" + received.payload))
        assert raw.ping_works()
