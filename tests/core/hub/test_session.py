"""Sessions: bytes in, requests out; control frames, forms of messages, limits, the closing handshake."""

import gzip
import json
import struct
import zlib
from collections.abc import Callable

import lz4.frame
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from core.hub.sans_io import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Peer,
    Server,
    client_frame,
    deflate,
    identity,
    make_hub,
)

thorough = settings(max_examples=200, deadline=None, derandomize=True)
PING_REQUEST = {"type": "Ping", "id": 1}
DEFLATE = "permessage-deflate"
packers: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstandard.ZstdCompressor().compress,
    "lz4": lz4.frame.compress,
    "gzip": gzip.compress,
}


def close_code(peer: Peer) -> int | None:
    """The code of the close frame that has come by now."""
    peer.frames()
    return peer.close[0] if peer.close is not None else None


class TestControlFrames:
    """RFC 6455, section 5.5."""

    @pytest.mark.parametrize("payload", [b"", b"hello", bytes(125)])
    def test_a_ping_is_answered_with_its_payload(self, payload: bytes) -> None:
        peer = make_hub().connect()
        peer.send_frame(payload, PING)
        assert peer.frames() == [(PONG, False, payload)]

    def test_a_pong_is_not_answered(self) -> None:
        peer = make_hub().connect()
        peer.send_frame(b"unasked", PONG)
        assert peer.frames() == []

    def test_between_the_fragments_of_a_message(self) -> None:
        peer = make_hub().connect()
        request = json.dumps(PING_REQUEST).encode()
        peer.send_frame(request[:5], TEXT, fin=False)
        peer.send_frame(b"now", PING)
        assert peer.frames() == [(PONG, False, b"now")]
        peer.send_frame(request[5:], 0)
        assert [message["type"] for message in peer.messages()] == ["Pong"]

    @pytest.mark.parametrize("pings", [1, 15, 16, 17, 100])
    def test_behind_a_full_socket_the_newest_is_answered(self, pings: int) -> None:
        """RFC 6455, section 5.5.3: the newest ping may stand for the others."""
        peer = make_hub(priority_mailbox_size=1000).connect()
        peer.stall()
        peer.send(PING_REQUEST)
        for i in range(pings):
            peer.send_frame(b"%d" % i, PING)
        peer.resume()
        peer.frames()
        assert len(peer.pongs) <= 16
        assert peer.pongs[-1] == b"%d" % (pings - 1)
        assert sorted(peer.pongs, key=int) == peer.pongs

    @thorough
    @given(st.lists(st.sampled_from(["ping", "request", "take", "take all"]), max_size=80), st.integers(1, 60))
    def test_pongs_at_any_pace(self, program: list[str], limit: int) -> None:
        """Replies are never lost for pongs, frames stay whole, and the last word is about the newest ping."""
        peer = make_hub(priority_mailbox_size=1000).connect()
        peer.stall()
        pings, replies = 0, []
        for number, step in enumerate(program):
            if step == "ping":
                pings += 1
                peer.send_frame(b"%d" % pings, PING)
            elif step == "request":
                peer.send({"type": "Ping", "id": number})
            else:
                peer.resume(limit if step == "take" else -1)
                peer.stall()
                replies += peer.messages()
        peer.resume()
        replies += peer.messages()
        assert [reply["id"] for reply in replies] == [i for i, step in enumerate(program) if step == "request"]
        assert sorted(peer.pongs, key=int) == peer.pongs
        assert peer.pongs[-1:] == ([b"%d" % pings] if pings else [])


class TestClosing:
    """RFC 6455, sections 5.5.1 and 7: nothing follows a close frame."""

    @pytest.mark.parametrize(
        ("payload", "answer"), [(b"", b""), (struct.pack(">H", 1000) + b"done", struct.pack(">H", 1000))]
    )
    def test_the_peers_close_is_answered(self, payload: bytes, answer: bytes) -> None:
        server = make_hub()
        peer = server.connect()
        peer.send_frame(payload, CLOSE)
        assert peer.frames() == [(CLOSE, False, answer)]
        assert peer.connection.lingering
        assert server.stats()["protocol_errors"] == 0

    def test_answers_come_before_the_close(self) -> None:
        peer = make_hub().connect()
        peer.send_raw(
            client_frame(json.dumps(PING_REQUEST).encode()) + client_frame(b"", PING) + client_frame(b"", CLOSE)
        )
        assert [frame[0] for frame in peer.frames()] == [TEXT, PONG, CLOSE]

    def test_what_comes_behind_a_close_is_not_read(self) -> None:
        server = make_hub()
        peer = server.connect()
        peer.send_raw(client_frame(b"", CLOSE) + client_frame(json.dumps(PING_REQUEST).encode()) + b"\xff\xff")
        peer.send(PING_REQUEST)
        peer.send_frame(b"", PING)
        assert [frame[0] for frame in peer.frames()] == [CLOSE]
        assert server.stats()["requests"] == 0

    def test_nothing_follows_the_servers_close(self) -> None:
        server = make_hub()
        peer, bob = server.connect("alice"), server.connect("bob")
        peer.subscribe("room", presence=True)
        server.hub.disconnect(user_id="alice")
        server.flush()
        bob.request({"type": "Broadcast", "id": 1, "topic": "room", "payload": 1})
        bob.request({"type": "DirectMessage", "id": 2, "to": "alice", "payload": 1})
        bob.subscribe("room")
        peer.send(PING_REQUEST, {"type": "Nothing", "id": 2})
        peer.send_frame(b"", PING)
        server.hub.begin_drain(0)
        server.hub.close_all(1001, "bye")
        server.advance(4000)
        assert [frame[0] for frame in peer.frames()] == [CLOSE]
        assert peer.close == (4403, "")

    def test_the_peers_answer_ends_it(self) -> None:
        server = make_hub()
        peer = server.connect()
        server.hub.disconnect(user_id="alice")
        server.flush()
        assert not peer.connection.lingering
        peer.send_frame(struct.pack(">H", 4403), CLOSE)
        assert peer.connection.lingering
        assert [frame[0] for frame in peer.frames()] == [CLOSE]

    def test_a_peer_that_never_answers_is_let_go(self) -> None:
        server = make_hub()
        peer = server.connect()
        server.hub.disconnect(user_id="alice")
        server.flush()
        server.advance(4900)
        assert peer.connection.open
        server.advance(200)
        assert not peer.connection.open
        assert server.stats()["sessions"] == 0

    def test_in_the_middle_of_a_message(self) -> None:
        server = make_hub()
        peer = server.connect()
        peer.send_frame(b'{"type":', TEXT, fin=False)
        server.hub.disconnect(user_id="alice")
        server.flush()
        peer.send_frame(b'"Ping"}', 0)
        peer.send_frame(struct.pack(">H", 4403), CLOSE)
        assert close_code(peer) == 4403
        assert server.stats()["requests"] == 0

    def test_a_long_reason_is_cut(self) -> None:
        server = make_hub()
        peer = server.connect()
        server.hub.disconnect(user_id="alice", reason="ü" * 200)
        server.flush()
        assert close_code(peer) == 4403
        assert peer.close is not None
        assert set(peer.close[1]) == {"ü"}

    def test_protocol_errors_are_closed_and_counted(self) -> None:
        server = make_hub()
        for data in (
            b"\x81\x05hello",
            client_frame(b"x", 3),
            client_frame(b"x", TEXT, rsv1=True),
            client_frame(b"x", 0),
        ):
            peer = server.connect()
            peer.send_raw(data)
            assert close_code(peer) == 1002
        assert server.stats()["protocol_errors"] == 4


class TestFrameTypes:
    """JSON in text frames, MessagePack in binary frames."""

    @pytest.mark.parametrize("protocol", ["rtc.v1.json", "rtc.v1.msgpack", "rtc.v1.json+zstd", "rtc.v1.msgpack+gzip"])
    def test_the_other_kind_is_unsupported(self, protocol: str) -> None:
        peer = make_hub().connect(protocol=protocol)
        peer.send_frame(b'{"type":"Ping","id":1}', TEXT if peer.msgpack else BINARY)
        assert close_code(peer) == 1003

    @pytest.mark.parametrize("form", packers)
    def test_another_compression_than_agreed_is_unsupported(self, form: str) -> None:
        for protocol in {"", *packers} - {form}:
            peer = make_hub().connect(protocol=f"rtc.v1.json+{protocol}".removesuffix("+"))
            peer.send_frame(packers[form](json.dumps(PING_REQUEST).encode()), BINARY)
            assert close_code(peer) == 1003

    def test_invalid_utf8_in_a_text_frame(self) -> None:
        peer = make_hub().connect()
        peer.send_frame(b'{"type":"\xff"}')
        assert close_code(peer) == 1007


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
class TestCompressedByClients:
    """Messages that a client sends in each form."""

    @pytest.mark.parametrize("form", packers)
    def test_message_compression(self, encoding: str, form: str) -> None:
        peer = make_hub().connect(protocol=f"rtc.v1.{encoding}+{form}")
        request = {"type": "Ping", "id": 7, "more": "x" * 5000}
        peer.send_frame(packers[form](peer.encode(request)), BINARY)
        peer.send(request)
        assert [(message["type"], message["id"]) for message in peer.messages()] == [("Pong", 7), ("Pong", 7)]

    @pytest.mark.parametrize("window_bits", range(9, 16))
    def test_deflate(self, encoding: str, window_bits: int) -> None:
        peer = make_hub().connect(protocol=f"rtc.v1.{encoding}", extensions=f"{DEFLATE}; client_max_window_bits")
        request = peer.encode({"type": "Ping", "id": 7, "more": "x" * 5000})
        peer.send_frame(deflate(request, window_bits), BINARY if peer.msgpack else TEXT, rsv1=True)
        assert [message["type"] for message in peer.messages()] == ["Pong"]

    def test_deflate_in_fragments(self, encoding: str) -> None:
        peer = make_hub().connect(protocol=f"rtc.v1.{encoding}", extensions=DEFLATE)
        packed = deflate(peer.encode(PING_REQUEST))
        peer.send_frame(packed[:3], BINARY if peer.msgpack else TEXT, fin=False, rsv1=True)
        peer.send_frame(packed[3:], 0)
        assert [message["type"] for message in peer.messages()] == ["Pong"]

    @pytest.mark.parametrize("form", packers)
    def test_bombs(self, encoding: str, form: str) -> None:
        peer = make_hub(max_message_size=100_000).connect(protocol=f"rtc.v1.{encoding}+{form}")
        bomb = packers[form](bytes(20_000_000))
        assert len(bomb) < 90_000
        for at in range(0, len(bomb), 60_000):
            last = at + 60_000 >= len(bomb)
            peer.send_frame(bomb[at : at + 60_000], 0 if at else BINARY, fin=last)
        assert close_code(peer) == 1009

    def test_deflate_bombs(self, encoding: str) -> None:
        peer = make_hub(max_message_size=100_000).connect(protocol=f"rtc.v1.{encoding}", extensions=DEFLATE)
        peer.send_frame(deflate(bytes(20_000_000)), BINARY if peer.msgpack else TEXT, rsv1=True)
        assert close_code(peer) == 1009

    @pytest.mark.parametrize("form", packers)
    def test_cut_short(self, encoding: str, form: str) -> None:
        peer = make_hub().connect(protocol=f"rtc.v1.{encoding}+{form}")
        peer.send_frame(packers[form](peer.encode({"type": "Ping", "more": "x" * 100}))[:-5], BINARY)
        assert close_code(peer) == 1007

    def test_deflate_garbage(self, encoding: str) -> None:
        peer = make_hub().connect(protocol=f"rtc.v1.{encoding}", extensions=DEFLATE)
        peer.send_frame(b"\xff\xff\xff\xff", BINARY if peer.msgpack else TEXT, rsv1=True)
        assert close_code(peer) == 1007

    def test_exactly_the_limit(self, encoding: str) -> None:
        peer = make_hub(max_message_size=1000).connect(protocol=f"rtc.v1.{encoding}+zstd")
        for size, answer in ((1000, None), (1001, 1009)):
            request = peer.encode({"type": "Ping", "more": "x" * 900})
            request = peer.encode({"type": "Ping", "more": "x" * (900 + size - len(request))})
            assert len(request) == size
            peer.send_frame(packers["zstd"](request), BINARY)
            assert close_code(peer) == answer


class TestUtf8AfterUnpacking:
    """RFC 6455, section 8.1, and RFC 7692: what is unpacked must be UTF-8 too."""

    def test_deflate(self) -> None:
        peer = make_hub().connect(extensions=DEFLATE)
        peer.send_frame(deflate(b'{"type":"\xc3("}'), TEXT, rsv1=True)
        assert close_code(peer) == 1007

    @pytest.mark.parametrize("form", packers)
    def test_message_compression(self, form: str) -> None:
        peer = make_hub().connect(protocol=f"rtc.v1.json+{form}")
        peer.send_frame(packers[form](b'{"type":"\xed\xa0\x80"}'), BINARY)
        assert close_code(peer) == 1007

    def test_packed_bytes_themselves_need_not_be(self) -> None:
        peer = make_hub().connect(extensions=DEFLATE)
        packed = deflate(json.dumps({"type": "Ping", "id": 1, "more": "xyz" * 20}).encode())
        with pytest.raises(UnicodeDecodeError):
            packed.decode()
        peer.send_frame(packed, TEXT, rsv1=True)
        assert [message["type"] for message in peer.messages()] == ["Pong"]


class TestBeforeAuthentication:
    """Less is taken from whom nobody knows."""

    def test_smaller_messages(self) -> None:
        server = make_hub(max_frame_size=1 << 20)
        for size, code in ((60_000, None), (70_000, 1009)):
            peer = server.connect(None)
            server.identities["token"] = identity("alice")
            peer.send({"type": "Authenticate", "token": "token", "more": "x" * size})
            assert close_code(peer) == code
        known = server.connect("bob")
        known.send({"type": "Ping", "id": 1, "more": "x" * 70_000})
        assert [message["type"] for message in known.messages()] == ["Pong"]

    def test_in_fragments(self) -> None:
        peer = make_hub().connect(None)
        for i in range(4):
            peer.send_frame(b" " * 20_000, 0 if i else TEXT, fin=False)
        assert close_code(peer) == 1009

    @pytest.mark.parametrize("form", packers)
    def test_unpacked(self, form: str) -> None:
        peer = make_hub().connect(None, protocol=f"rtc.v1.json+{form}")
        peer.send_frame(packers[form](b" " * 70_000), BINARY)
        assert close_code(peer) == 1009

    def test_inflated(self) -> None:
        peer = make_hub().connect(None, extensions=DEFLATE)
        peer.send_frame(deflate(b" " * 70_000), TEXT, rsv1=True)
        assert close_code(peer) == 1009

    def test_larger_ones_in_the_same_piece_once_known(self) -> None:
        server = make_hub(max_frame_size=1 << 20)
        server.identities["token"] = identity("alice")
        peer = server.connect(None)
        peer.send({"type": "Authenticate", "token": "token"}, {"type": "Ping", "id": 1, "more": "x" * 70_000})
        assert [message["type"] for message in peer.messages()] == ["Connected", "Pong"]

    def test_the_first_message_must_authenticate(self) -> None:
        peer = make_hub().connect(None)
        peer.send({"type": "Subscribe", "id": 3, "topic": "room"}, PING_REQUEST)
        (error,) = peer.messages()
        assert (error["type"], error["id"], error["code"]) == ("Error", 3, "unauthorized")
        assert peer.close is not None
        assert peer.close[0] == 4401

    def test_within_the_time(self) -> None:
        server = make_hub(auth_timeout_secs=2)
        peer = server.connect(None)
        server.advance(1900)
        peer.send_frame(b"", PING)
        server.advance(200)
        peer.frames()
        assert peer.close is not None
        assert peer.close[0] == 4408


class TestPieces:
    """However the bytes come, the requests are the same."""

    @thorough
    @given(st.lists(st.integers(1, 90), max_size=40), st.integers(1, 5))
    def test_cut_anywhere(self, cuts: list[int], batch_size: int) -> None:
        peer = make_hub(batch_size=batch_size).connect(extensions=DEFLATE)
        data = b"".join(
            client_frame(json.dumps({"type": "Ping", "id": i}).encode())
            + client_frame(b"%d" % i, PING)
            + client_frame(deflate(json.dumps({"type": "Ping", "id": 100 + i}).encode()), TEXT, rsv1=True)
            for i in range(8)
        )
        for cut in cuts:
            peer.send_raw(data[:cut])
            data = data[cut:]
        peer.send_raw(data)
        assert [message["id"] for message in peer.messages()] == [n for i in range(8) for n in (i, 100 + i)]
        assert peer.pongs == [b"%d" % i for i in range(8)]

    @thorough
    @given(st.binary(max_size=200))
    def test_any_bytes_end_in_an_orderly_way(self, data: bytes) -> None:
        server = make_hub()
        peer = server.connect()
        peer.send_raw(data)
        peer.messages()
        assert peer.close is None or peer.close[0] in {1000, 1002, 1003, 1005, 1007, 1009} or data[:1] == b"\x88"
        peer.end()
        assert server.stats()["sessions"] == 0


class TestPatterns:
    """Topics a token is narrowed to."""

    @pytest.mark.parametrize(
        ("patterns", "topic", "allowed"),
        [
            (None, "anything", True),
            ((), "anything", False),
            (("room:*",), "room:42", True),
            (("room:*",), "room:", True),
            (("room:*",), "room", False),
            (("room:42",), "room:42", True),
            (("room:42",), "room:421", False),
            (("a", "b", "ü*"), "über", True),
            (("*",), "anything", True),
            (("",), "anything", False),
        ],
    )
    def test_subscribe_and_publish(self, patterns: tuple[str, ...] | None, topic: str, allowed: bool) -> None:
        server = make_hub()
        peer = server.connect("alice", subscribe_patterns=patterns)
        answer = peer.request({"type": "Subscribe", "id": 1, "topic": topic})
        assert answer.get("code") == (None if allowed else "forbidden")
        peer = server.connect("bob", publish_patterns=patterns)
        answer = peer.request({"type": "Broadcast", "id": 1, "topic": topic, "payload": 1})
        assert answer.get("code") == (None if allowed else "forbidden")


class TestEcho:
    """`/debug/echo`: messages come back as they are, whatever they say."""

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    @pytest.mark.parametrize("extensions", [None, DEFLATE])
    def test_comes_back(self, opcode: int, extensions: str | None) -> None:
        peer = make_hub().connect(None, path="/debug/echo", extensions=extensions)
        for size in (0, 5, 5000):
            message = b"x" * size
            if extensions:
                peer.send_frame(deflate(message), opcode, rsv1=True)
            else:
                peer.send_frame(message, opcode)
            ((answer, rsv1, payload),) = peer.frames()
            assert answer == opcode
            assert (zlib.decompressobj(-15).decompress(payload) if rsv1 else payload) == message

    def test_text_is_checked(self) -> None:
        peer = make_hub().connect(None, path="/debug/echo", extensions=DEFLATE)
        peer.send_frame(deflate(b"\xff"), TEXT, rsv1=True)
        assert close_code(peer) == 1007


def test_session_ids_are_random_unless_asked_for() -> None:
    def ids(server: Server) -> list[str]:
        for _ in range(300):
            server.connect()
        return [connection["session_id"] for connection in server.hub.connections()]

    counted = ids(make_hub())
    assert counted == [f"{serial:032x}" for serial in range(300, 0, -1)]
    random = ids(make_hub(deterministic_ids=False))
    assert len(set(random)) == 300
    assert all(len(name) == 32 and int(name, 16) > 1 << 64 for name in random)
