"""FAULTS.md: Framing, Control, Close, Fragments, UTF-8, Deflate."""

import json
import struct
import time
import zlib

import pytest

from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess
from serving.raw import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    RawSocket,
    close_frame,
    envelope,
    frame,
    upgrade,
)

DEFLATE = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
MAX_FRAME = 65_536
MAX_MESSAGE = 1_048_576


def deflated(data: bytes) -> bytes:
    """As a permessage-deflate message (RFC 7692, 7.2.1)."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def publication(topic: str, payload_bytes: int) -> bytes:
    """A ``Broadcast`` envelope of exactly so many bytes altogether."""
    head = json.dumps({"type": "Broadcast", "id": 1, "topic": topic, "payload": ""})[:-2]
    return (head + "x" * (payload_bytes - len(head) - 2) + '"}').encode()


def head(data: bytes) -> bytes:
    """A frame's first bytes without its mask, which is another one each time: every process names the tests alike."""
    return data[: {126: 4, 127: 10}.get(data[1] & 0x7F, 2)]


class TestFraming:
    @pytest.mark.parametrize(
        ("data", "codes"),
        [
            (frame(TEXT, b"{}", masked=False), (1002,)),
            (frame(TEXT, b"{}", rsv=4), (1002,)),
            (frame(TEXT, b"{}", rsv=2), (1002,)),
            (frame(TEXT, b"{}", rsv=1), (1002,)),
            *[(frame(opcode, b""), (1002,)) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)],
            (frame(TEXT, declared=2**63), (1002, 1009)),
            (frame(TEXT, declared=2**64 - 1), (1002, 1009)),
            (frame(TEXT, declared=2**63 - 1), (1002, 1009)),
            (frame(TEXT, declared=2**32 + 1), (1002, 1009)),
            (frame(BINARY, b"0123456789", declared=2**30), (1009,)),
            (frame(TEXT, declared=MAX_FRAME + 1), (1009,)),
        ],
        ids=lambda value: head(value).hex() if isinstance(value, bytes) else str(value),
    )
    def test_closed_with(self, victim: ServerProcess, data: bytes, codes: tuple[int, ...]) -> None:
        before = victim.resident_kib()
        with RawSocket.upgraded(victim.port) as raw:
            raw.send(data)
            assert raw.closed_with() in codes
        assert victim.resident_kib() - before < 8 * 1024

    @pytest.mark.parametrize("wide", [False, True])
    def test_largest_frame(self, victim: ServerProcess, wide: bool) -> None:
        with RawSocket.upgraded(victim.port) as raw:
            raw.send(frame(TEXT, publication(unique(), MAX_FRAME), wide=wide))
            assert raw.json()["type"] == "Ack"

    def test_cut_at_every_byte(self, victim: ServerProcess) -> None:
        stream = (
            envelope(type="Ping", id=1)
            + frame(PING, b"now")
            + frame(TEXT, b'{"type":"Pi', fin=False)
            + frame(PING, b"inside")
            + frame(CONTINUATION, 'ng","id":"ü"}'.encode()[:9], fin=False)
            + frame(CONTINUATION, 'ng","id":"ü"}'.encode()[9:])
            + frame(TEXT, publication("cut", 200))
        )
        answers = []
        for at in (*range(1, len(stream), 7), len(stream)):
            with RawSocket.upgraded(victim.port) as raw:
                raw.send(stream[:at])
                raw.send(stream[at:])
                frames = [raw.frame() for _ in range(5)]
            controls = [received.payload for received in frames if received.opcode == PONG]
            replies = [json.loads(received.payload) for received in frames if received.opcode == TEXT]
            answers.append((controls, [(reply["type"], reply["id"]) for reply in replies]))
        assert answers == [([b"now", b"inside"], [("Pong", 1), ("Pong", "ü"), ("Ack", 1)])] * len(answers)

    def test_large_message_in_small_pieces_costs_its_size(self, victim: ServerProcess) -> None:
        message = publication(unique(), MAX_MESSAGE)
        pieces = [message[at : at + 1024] for at in range(0, len(message), 1024)]
        before = victim.resident_kib()
        with RawSocket.upgraded(victim.port) as raw:
            for number, piece in enumerate(pieces):
                opcode = TEXT if number == 0 else CONTINUATION
                raw.send(frame(opcode, piece, fin=number == len(pieces) - 1))
            assert raw.json()["type"] == "Ack"
        assert victim.resident_kib() - before < 16 * 1024


class TestControl:
    @pytest.mark.parametrize(
        "data",
        [frame(PING, b"x" * 126), frame(PONG, b"x" * 126), frame(PING, fin=False), frame(CLOSE, fin=False)],
        ids=["ping of 126", "pong of 126", "fragmented ping", "fragmented close"],
    )
    def test_malformed_is_1002(self, victim: ServerProcess, data: bytes) -> None:
        with RawSocket.upgraded(victim.port) as raw:
            raw.send(data)
            assert raw.closed_with() == 1002

    def test_ping_is_answered_with_its_payload(self, victim: ServerProcess) -> None:
        with RawSocket.upgraded(victim.port) as raw:
            for payload in (b"", b"x", b"y" * 125):
                raw.send(frame(PING, payload))
                answer = raw.frame()
                assert (answer.opcode, answer.payload) == (PONG, payload)

    def test_flood_of_pings_that_is_never_read(self, victim: ServerProcess) -> None:
        before = victim.resident_kib()
        with RawSocket.upgraded(victim.port, receive_buffer=4096) as raw:
            raw.socket.settimeout(1)
            pings = b"".join(frame(PING, struct.pack(">I", number) * 30) for number in range(1000))
            try:
                for _ in range(100):
                    raw.socket.sendall(pings)
            except (TimeoutError, OSError):
                pass  # not read any more, or closed: both bound the memory
            assert victim.resident_kib() - before < 8 * 1024

    def test_unasked_pongs_are_ignored(self, victim: ServerProcess) -> None:
        with RawSocket.upgraded(victim.port) as raw:
            raw.send(frame(PONG, b"unasked") * 10_000)
            assert raw.ping_works()


class TestClose:
    @pytest.mark.parametrize(
        "payload",
        [b"\x03", *[struct.pack(">H", code) for code in (0, 999, 1004, 1005, 1006, 1016, 2999, 5000, 65535)]],
        ids=["one byte", "0", "999", "1004", "1005", "1006", "1016", "2999", "5000", "65535"],
    )
    def test_invalid_code_is_1002(self, victim: ServerProcess, payload: bytes) -> None:
        with RawSocket.upgraded(victim.port) as raw:
            raw.send(frame(CLOSE, payload))
            assert raw.closed_with() == 1002

    @pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 3000, 4999])
    def test_valid_code_comes_back(self, victim: ServerProcess, code: int) -> None:
        with RawSocket.upgraded(victim.port) as raw:
            raw.send(close_frame(code, b"bye"))
            assert raw.closed_with() in (code, 1000)

    def test_empty_close(self, victim: ServerProcess) -> None:
        with RawSocket.upgraded(victim.port) as raw:
            raw.send(frame(CLOSE))
            assert raw.closed_with() in (1000, 1005)

    def test_reason_that_is_no_utf8_is_1007(self, victim: ServerProcess) -> None:
        with RawSocket.upgraded(victim.port) as raw:
            raw.send(close_frame(1000, b"\xff\xfe"))
            assert raw.closed_with() == 1007

    def test_nothing_after_close_is_read(self, victim: ServerProcess) -> None:
        topic = unique()
        with Peer(victim.url, unique_user()) as peer, RawSocket.upgraded(victim.port) as raw:
            peer.ok("Subscribe", topic=topic)
            raw.send(close_frame(1000) + envelope(type="Broadcast", topic=topic, payload=1))
            assert raw.closed_with() in (1000, 1005)
            assert peer.settle() == []


class TestFragments:
    @pytest.mark.parametrize(
        "data",
        [
            frame(CONTINUATION, b"{}"),
            frame(CONTINUATION, b"{", fin=False),
            frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"),
            frame(TEXT, b"{", fin=False) + frame(BINARY, b"}"),
        ],
        ids=["continuation first", "unfinished continuation first", "new text inside", "new binary inside"],
    )
    def test_out_of_order_is_1002(self, victim: ServerProcess, data: bytes) -> None:
        with RawSocket.upgraded(victim.port) as raw:
            raw.send(data)
            assert raw.closed_with() == 1002

    @pytest.mark.parametrize("payload", [b"", b"x"], ids=["empty", "one byte"])
    def test_fragments_without_end(self, victim: ServerProcess, payload: bytes) -> None:
        before = victim.resident_kib()
        with RawSocket.upgraded(victim.port) as raw:
            raw.socket.settimeout(5)
            raw.send(frame(TEXT, b"{", fin=False))
            batch = frame(CONTINUATION, payload, fin=False) * 10_000
            try:
                for _ in range(110):
                    raw.socket.sendall(batch)
            except OSError:
                pass
            else:
                if not payload:  # empty fragments may go on for ever, as long as they cost nothing
                    assert victim.resident_kib() - before < 8 * 1024
                    return
            assert raw.closed_with() in (1008, 1009, 1006)
        assert victim.resident_kib() - before < 8 * 1024

    @pytest.mark.parametrize(("size", "kind"), [(MAX_MESSAGE, "Ack"), (MAX_MESSAGE + 1, "closed")])
    def test_largest_message_over_many_fragments(self, victim: ServerProcess, size: int, kind: str) -> None:
        message = publication(unique(), size)
        pieces = [message[at : at + 60_000] for at in range(0, len(message), 60_000)]
        with RawSocket.upgraded(victim.port) as raw:
            for number, piece in enumerate(pieces):
                raw.send(frame(CONTINUATION if number else TEXT, piece, fin=number == len(pieces) - 1))
            if kind == "Ack":
                assert raw.json()["type"] == "Ack"
            else:
                assert raw.closed_with() == 1009

    def test_close_between_fragments(self, victim: ServerProcess) -> None:
        with RawSocket.upgraded(victim.port) as raw:
            raw.send(frame(TEXT, b"{", fin=False) + close_frame(1000))
            assert raw.closed_with() == 1000


BAD_UTF8 = {
    "overlong 2": b"\xc0\xaf",
    "overlong 3": b"\xe0\x80\xaf",
    "overlong 4": b"\xf0\x80\x80\xaf",
    "surrogate": b"\xed\xa0\x80",
    "beyond U+10FFFF": b"\xf4\x90\x80\x80",
    "never used": b"\xff",
    "lone continuation": b"\x80",
    "cut short": b"\xc3",
}


class TestUtf8:
    @pytest.mark.parametrize("bad", BAD_UTF8.values(), ids=BAD_UTF8.keys())
    def test_invalid_is_1007(self, victim: ServerProcess, bad: bytes) -> None:
        with RawSocket.upgraded(victim.port) as raw:
            raw.send(frame(TEXT, b'{"type":"Ping","x":"' + bad + b'"}'))
            assert raw.closed_with() == 1007

    @pytest.mark.parametrize("bad", [bad for name, bad in BAD_UTF8.items() if name != "cut short"])
    def test_invalid_fails_at_once_in_an_unfinished_message(self, victim: ServerProcess, bad: bytes) -> None:
        with RawSocket.upgraded(victim.port) as raw:
            raw.send(frame(TEXT, b'{"type":"' + bad, fin=False))
            assert raw.closed_with() == 1007

    def test_invalid_fails_at_once_in_an_unfinished_frame(self, victim: ServerProcess) -> None:
        with RawSocket.upgraded(victim.port) as raw:
            whole = frame(TEXT, b'{"type":"\xff' + b"x" * 1000)
            raw.send(whole[:100])
            assert raw.closed_with() == 1007

    def test_code_point_split_over_fragments_and_segments(self, victim: ServerProcess) -> None:
        text = json.dumps({"type": "Ping", "id": "ü\U0001f600€"}, ensure_ascii=False).encode()
        with RawSocket.upgraded(victim.port) as raw:
            for at, byte in enumerate(text):
                opcode = CONTINUATION if at else TEXT
                for part in frame(opcode, bytes([byte]), fin=at == len(text) - 1):
                    raw.send(bytes([part]))
            assert raw.json()["id"] == "ü\U0001f600€"


class TestDeflate:
    def connect(self, server: ServerProcess, offer: str = DEFLATE) -> RawSocket:
        return RawSocket.upgraded(server.port, extra=(f"Sec-WebSocket-Extensions: {offer}",))

    def test_message(self, victim: ServerProcess) -> None:
        with self.connect(victim) as raw:
            raw.send(frame(TEXT, deflated(b'{"type":"Ping","id":1}'), rsv=4))
            received = raw.frame()
            payload = received.payload
            if received.rsv & 4:
                payload = zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")
            assert json.loads(payload)["type"] == "Pong"

    @pytest.mark.parametrize("fragments", [1, 10])
    def test_bomb_is_1009(self, victim: ServerProcess, fragments: int) -> None:
        bomb = deflated(b" " * 50_000_000)
        size = len(bomb) // fragments + 1
        pieces = [bomb[at : at + size] for at in range(0, len(bomb), size)]
        before = victim.resident_kib()
        with self.connect(victim) as raw:
            for number, piece in enumerate(pieces):
                first = number == 0
                last = number == len(pieces) - 1
                raw.send(frame(TEXT if first else CONTINUATION, piece, fin=last, rsv=4 if first else 0))
            assert raw.closed_with() == 1009
        assert victim.resident_kib() - before < 16 * 1024

    def test_bomb_before_authentication(self, victim: ServerProcess) -> None:
        before = victim.resident_kib()
        with RawSocket(victim.port) as raw:
            raw.send(upgrade(user=None, extra=(f"Sec-WebSocket-Extensions: {DEFLATE}",)))
            assert raw.answer().status == 101
            raw.send(frame(TEXT, deflated(b" " * 1_000_000), rsv=4))
            assert raw.closed_with() in (1009, 4401)
        assert victim.resident_kib() - before < 8 * 1024

    @pytest.mark.parametrize(
        "parameter",
        [
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=abc",
            "client_max_window_bits=7",
            "client_max_window_bits=16",
            "client_max_window_bits=abc",
            "server_max_window_bits",
            "unknown_parameter",
            "server_no_context_takeover=1",
            "server_no_context_takeover; server_no_context_takeover",
        ],
    )
    def test_offer_that_makes_no_sense_is_declined(self, victim: ServerProcess, parameter: str) -> None:
        with RawSocket(victim.port) as raw:
            raw.send(upgrade(extra=(f"Sec-WebSocket-Extensions: permessage-deflate; {parameter}",)))
            answer = raw.answer()
            assert answer.status == 101
            assert "sec-websocket-extensions" not in answer.headers
            assert raw.json()["type"] == "Connected"

    def test_second_offer_is_taken(self, victim: ServerProcess) -> None:
        offer = "permessage-deflate; server_max_window_bits=99, permessage-deflate"
        with RawSocket(victim.port) as raw:
            raw.send(upgrade(extra=(f"Sec-WebSocket-Extensions: {offer}",)))
            assert "permessage-deflate" in raw.answer().headers["sec-websocket-extensions"]

    @pytest.mark.parametrize(
        "payload",
        [b"\xff\xff\xff\xff", deflated(b'{"type":"Ping"}')[:-3], b"\x06" + b"\x00" * 10],
        ids=["garbage", "truncated", "invalid block"],
    )
    def test_broken_data(self, victim: ServerProcess, payload: bytes) -> None:
        with self.connect(victim) as raw:
            raw.send(frame(TEXT, payload, rsv=4))
            assert raw.closed_with() in (1002, 1007)

    def test_data_after_the_final_block(self, victim: ServerProcess) -> None:
        compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
        finished = compressor.compress(b'{"type":"Ping","id":1}') + compressor.flush(zlib.Z_FINISH)
        with self.connect(victim) as raw:
            raw.send(frame(TEXT, finished + b"more and more", rsv=4))
            assert raw.closed_with() in (1002, 1007)

    @pytest.mark.parametrize(
        "data",
        [
            frame(TEXT, b"{", fin=False, rsv=4) + frame(CONTINUATION, b"}", rsv=4),
            frame(PING, b"x", rsv=4),
            frame(CLOSE, rsv=4),
        ],
        ids=["continuation", "ping", "close"],
    )
    def test_rsv1_in_the_wrong_place_is_1002(self, victim: ServerProcess, data: bytes) -> None:
        with self.connect(victim) as raw:
            raw.send(data)
            assert raw.closed_with() == 1002

    def test_after_a_bomb_the_next_client_is_served(self, victim: ServerProcess) -> None:
        for _ in range(3):
            with self.connect(victim) as bad, self.connect(victim) as good:
                bad.send(frame(TEXT, deflated(b" " * 5_000_000), rsv=4))
                good.send(frame(TEXT, deflated(b'{"type":"Ping","id":1}'), rsv=4))
                assert good.frame().opcode == TEXT
                assert bad.closed_with() == 1009

    def test_one_publication_to_all_settings(self, victim: ServerProcess) -> None:
        topic = unique()
        text = "compress me " * 500
        offers = [
            None,
            DEFLATE,
            "permessage-deflate",
            "permessage-deflate; server_max_window_bits=9",
            "permessage-deflate; client_max_window_bits",
        ]
        sockets = [
            RawSocket.upgraded(victim.port, extra=(f"Sec-WebSocket-Extensions: {offer}",) if offer else ())
            for offer in offers
        ]
        try:
            for raw in sockets:
                raw.send(envelope(type="Subscribe", topic=topic))
                assert raw.ping_works()
            with Peer(victim.url, unique_user()) as peer:
                for number in range(3):
                    peer.ok("Broadcast", topic=topic, payload=f"{number}{text}")
            for raw in sockets:
                for number in range(3):
                    received = raw.frame()
                    data = received.payload
                    if received.rsv & 4:
                        data = zlib.decompressobj(-15).decompress(data + b"\x00\x00\xff\xff")
                    assert json.loads(data)["payload"] == f"{number}{text}"
        finally:
            for raw in sockets:
                raw.socket.close()


def test_control_frames_pass_a_full_queue(victim: ServerProcess) -> None:
    topic = unique()
    with Peer(victim.url, unique_user()) as peer, RawSocket.upgraded(victim.port, receive_buffer=4096) as raw:
        raw.send(envelope(type="Subscribe", topic=topic))
        assert raw.ping_works()
        for number in range(300):
            peer.ok("Broadcast", topic=topic, payload="x" * 10_000 + str(number))
        raw.send(frame(PING, b"hello?"))
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            received = raw.frame()
            if received.opcode in (PONG, CLOSE):
                break
        assert received.opcode == CLOSE or received.payload == b"hello?"
