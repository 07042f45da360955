"""RFC 7692 by clause; messages against zlib and against the `websockets` package's extension."""

import random
import subprocess
import sys
import tracemalloc
import zlib
from importlib.util import find_spec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import NegotiationError
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.headers import parse_extension

from model.frames import client_frame
from realtime_communication._core.wire import deflate
from realtime_communication._core.wire.frames import FrameReader

NO_TAKEOVER = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"
TAIL = b"\x00\x00\xff\xff"
attack = settings(max_examples=250, deadline=None, derandomize=True)


def accepted(header: bytes) -> int | None:
    """The agreed window, after a look at the answer."""
    answer = deflate.negotiate(header)
    if answer is None:
        return None
    value, bits = answer
    assert value in (NO_TAKEOVER, NO_TAKEOVER + b"; server_max_window_bits=%d" % bits)
    return bits


class TestNegotiation71:
    """7.1, the extension parameters."""

    @pytest.mark.parametrize(
        "offer",
        [
            b"permessage-deflate",
            b"permessage-deflate; server_no_context_takeover",
            b"permessage-deflate; client_no_context_takeover",
            b"permessage-deflate; client_max_window_bits",
            b"permessage-deflate;client_max_window_bits;server_no_context_takeover;client_no_context_takeover",
            *(b"permessage-deflate; client_max_window_bits=%d" % bits for bits in range(9, 16)),
            b'permessage-deflate; client_max_window_bits="12"',
            b"  permessage-deflate\t;\tclient_max_window_bits  ",
            b", ,permessage-deflate,,",
        ],
    )
    def test_accepted(self, offer: bytes) -> None:
        assert deflate.negotiate(offer) == (NO_TAKEOVER, 15)

    @pytest.mark.parametrize("bits", range(9, 16))
    def test_server_window(self, bits: int) -> None:
        expected = (NO_TAKEOVER + b"; server_max_window_bits=%d" % bits, bits)
        assert deflate.negotiate(b"permessage-deflate; server_max_window_bits=%d" % bits) == expected
        assert deflate.negotiate(b'permessage-deflate; server_max_window_bits="%d"' % bits) == expected

    DECLINED = (
        *(b"server_max_window_bits=" + value for value in (b"8", b"7", b"16", b"0", b"abc", b"", b"09", b"+9", b"1 0")),
        *(b"client_max_window_bits=" + value for value in (b"7", b"8", b"16", b"abc", b"", b"08", b"-9", b"9" * 12)),
        b"server_max_window_bits",
        b"server_max_window_bits=10; server_max_window_bits=10",
        b"client_max_window_bits; client_max_window_bits",
        b"server_no_context_takeover; server_no_context_takeover",
        b"server_no_context_takeover=1",
        b"client_no_context_takeover=true",
        b"mystery",
        b"mystery=1",
        b"Server_No_Context_Takeover=",
        b'server_max_window_bits="10',
        b'server_max_window_bits=""',
        b'server_max_window_bits="10\\',
        b'server_max_window_bits="10"x',
        b"server_max_window_bits=10x",
        b"",
        b";",
    )

    @pytest.mark.parametrize("parameters", DECLINED)
    def test_declined_and_the_next_one_is_tried(self, parameters: bytes) -> None:
        offer = b"permessage-deflate; " + parameters
        assert deflate.negotiate(offer) is None
        if parameters.count(b'"') % 2 == 0:
            assert accepted(offer + b", permessage-deflate; server_max_window_bits=11") == 11

    @pytest.mark.parametrize(
        "header",
        [b"", b",", b"x-webkit-deflate-frame", b"permessage-deflat", b"permessage-deflate2", b"permessage-bzip2; a=b"],
    )
    def test_other_extensions(self, header: bytes) -> None:
        assert deflate.negotiate(header) is None
        assert accepted(header + b", permessage-deflate") == 15

    def test_a_comma_in_quotes_parts_nothing(self) -> None:
        assert deflate.negotiate(b'other; x="a, permessage-deflate, b"') is None
        assert deflate.negotiate(b'other; x="a\\", permessage-deflate, b"') is None
        assert accepted(b'other; x="a\\\\", permessage-deflate; server_max_window_bits="1\\2"') == 12

    @pytest.mark.parametrize(
        "piece", [b" ", b'"', b",", b";", b"=", b"\\", b'"\\', b"permessage-deflate;", b"\xff", b"a"]
    )
    def test_rubbish(self, piece: bytes) -> None:
        assert deflate.negotiate(piece * (30_000 // len(piece))) is None

    @attack
    @given(st.lists(st.sampled_from([b"permessage-deflate", b"; ", b", ", b"=", b'"', b"\\", b"10", b"8", b"x",
                                     b"server_max_window_bits", b"client_max_window_bits"]), max_size=12))  # fmt: skip
    def test_beside_websockets(self, parts: list[bytes]) -> None:
        header = b"".join(parts)
        try:
            offers = parse_extension(header.decode())
        except Exception:
            deflate.negotiate(header)  # malformed: they refuse the request, we pass over what is malformed
            return
        theirs = None
        factory = ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
        for name, parameters in offers:
            try:
                assert name == "permessage-deflate"
                _, extension = factory.process_request_params(parameters, [])
            except (NegotiationError, AssertionError):
                continue
            if extension.local_max_window_bits >= 9 and extension.remote_max_window_bits >= 9:
                theirs = extension.local_max_window_bits
                break
        assert accepted(header) == theirs


messages = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=100).map(str.encode),
    st.builds(lambda piece, times: piece * times, st.binary(min_size=1, max_size=40), st.integers(1, 3000)),
    st.builds(lambda seed, size: random.Random(seed).randbytes(size), st.integers(), st.integers(0, 70_000)),
)


class TestMessages72:
    """7.2.1 and 7.2.2, compression and decompression."""

    @attack
    @given(messages, st.integers(9, 15))
    def test_each_window_decodes_with_that_window(self, message: bytes, bits: int) -> None:
        compressed = deflate.deflate(message, bits)
        assert zlib.decompressobj(-bits).decompress(compressed + TAIL) == message
        assert deflate.inflate(compressed, len(message)) == message

    @pytest.mark.parametrize("bits", range(9, 16))
    @pytest.mark.parametrize("size", [0, 1, 249, 250, 251, 512, 4096, 32768, 200_000])
    def test_repeats_farther_apart_than_the_window(self, size: int, bits: int) -> None:
        block = random.Random(size).randbytes(size)
        message = block + block
        assert zlib.decompressobj(-bits).decompress(deflate.deflate(message, bits) + TAIL) == message

    @attack
    @given(messages, st.integers(8, 15), st.integers(0, 9), st.sampled_from([0, 2, 3, 4]))
    def test_what_other_encoders_send(self, message: bytes, bits: int, level: int, strategy: int) -> None:
        encoder = zlib.compressobj(level, zlib.DEFLATED, -max(bits, 9), bits - 6, strategy)
        flushed = encoder.compress(message) + encoder.flush(zlib.Z_SYNC_FLUSH)
        assert deflate.inflate(flushed[:-4], len(message)) == message
        if message:
            assert deflate.inflate(flushed[:-4], len(message) - 1) == 1009

    @attack
    @given(messages)
    def test_beside_websockets(self, message: bytes) -> None:
        client = PerMessageDeflate(True, True, 15, 15)
        sent = client.encode(Frame(Opcode.BINARY, message))
        assert deflate.inflate(bytes(sent.data), len(message)) == message
        received = client.decode(Frame(Opcode.BINARY, deflate.deflate(message), rsv1=True))
        assert bytes(received.data) == message

    def test_window_outside_9_to_15(self) -> None:
        for bits in (-15, 0, 8, 16):
            with pytest.raises(ValueError, match="9 to 15"):
                deflate.deflate(b"x", bits)

    def test_empty_message_7236(self) -> None:
        assert deflate.deflate(b"") == b"\x00"
        assert deflate.inflate(b"\x00", 0) == b""
        assert deflate.inflate(b"\x02\x00", 0) == b""
        assert deflate.inflate(b"", 0) == b""

    def test_examples_723(self) -> None:
        assert deflate.inflate(bytes.fromhex("f248cdc9c90700"), 5) == b"Hello"
        assert deflate.inflate(bytes.fromhex("000500faff48656c6c6f00"), 5) == b"Hello"
        assert deflate.inflate(bytes.fromhex("f348cdc9c9070000"), 5) == b"Hello"
        assert deflate.inflate(bytes.fromhex("f24805000000ffffcac9c90700"), 5) == b"Hello"

    def test_final_block_without_the_empty_one(self) -> None:
        assert deflate.inflate(bytes.fromhex("f348cdc9c90700"), 5) == b"Hello"

    def test_no_memory_of_the_message_before(self) -> None:
        encoder = zlib.compressobj(wbits=-15)
        first = encoder.compress(b"hello hello world") + encoder.flush(zlib.Z_SYNC_FLUSH)
        second = encoder.compress(b"hello hello world") + encoder.flush(zlib.Z_SYNC_FLUSH)
        assert deflate.inflate(first[:-4], 100) == b"hello hello world"
        assert deflate.inflate(second[:-4], 100) == 1007

    def test_a_refused_message_leaves_nothing_behind(self) -> None:
        good = deflate.deflate(b"good")
        for bad in (deflate.deflate(bytes(1000)), b"\xff\xff\xff", good[:-2]):
            assert deflate.inflate(bad, 100) in (1007, 1009)
            assert deflate.inflate(good, 100) == b"good"


class TestEncoders:
    """igzip where there is a wheel of it, zlib elsewhere: different bytes with the same meaning."""

    WITHOUT_IGZIP = """
import gzip, random, sys, zlib
sys.modules["isal"] = None
from realtime_communication._core.wire import compression, deflate
assert deflate.encoder() == "zlib"
for size in (0, 1, 250, 3000, 70_000):
    message = random.Random(size).randbytes(size // 2) * 2
    for bits in range(9, 16):
        compressed = deflate.deflate(message, bits)
        assert zlib.decompressobj(-bits).decompress(compressed + b"\\x00\\x00\\xff\\xff") == message
        assert deflate.inflate(compressed, len(message)) == message
    assert gzip.decompress(compression.compress(3, message)) == message
"""

    def test_the_one_in_use(self) -> None:
        assert deflate.encoder() == ("isal.isal_zlib" if find_spec("isal") else "zlib")

    def test_without_igzip(self) -> None:
        subprocess.run([sys.executable, "-c", self.WITHOUT_IGZIP], check=True, timeout=60)

    @attack
    @given(messages)
    def test_hardly_larger_than_the_message(self, message: bytes) -> None:
        assert len(deflate.deflate(message)) <= len(message) * 1.01 + 64


class TestGarbage:
    """What is no whole compressed message: 1007."""

    def message(self) -> bytes:
        return deflate.deflate(b'{"type":"Broadcast","topic":"room:1","payload":{"text":"hello, hello, hello"}}' * 3)

    def test_truncated_anywhere(self) -> None:
        whole = self.message()
        assert {deflate.inflate(whole[:size], 10_000) for size in range(1, len(whole))} == {1007}

    def test_truncated_stored_block(self) -> None:
        stored = b"\x00\x08\x00\xf7\xff12345678\x00"
        assert deflate.inflate(stored, 100) == b"12345678"
        assert {deflate.inflate(stored[:size], 100) for size in range(2, len(stored))} == {1007}

    @pytest.mark.parametrize(
        "more", [b"\x00\x00", b"\x01", b"x", TAIL, b"\x00" + TAIL, b"\xf2\x48\xcd\xc9\xc9\x07\x00"]
    )
    def test_data_behind_a_final_block(self, more: bytes) -> None:
        assert deflate.inflate(bytes.fromhex("f348cdc9c90700") + more, 1000) == 1007

    def test_the_tail_left_on(self) -> None:
        assert deflate.inflate(self.message() + TAIL, 1000) == 1007

    def test_reserved_block_type(self) -> None:
        assert deflate.inflate(b"\x06", 1000) == 1007
        assert deflate.inflate(b"\x07\x00\x00", 1000) == 1007

    @attack
    @given(st.binary(min_size=1, max_size=200))
    def test_noise(self, data: bytes) -> None:
        result = deflate.inflate(data, 1000)
        assert result in (1007, 1009) or isinstance(result, bytes)

    @attack
    @given(st.data())
    def test_damaged(self, data: st.DataObject) -> None:
        damaged = bytearray(self.message())
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
        result = deflate.inflate(bytes(damaged), 1000)
        assert result in (1007, 1009) or isinstance(result, bytes)


class TestBombs:
    """Little in, much out: 1009 at the limit, with memory bounded by it."""

    @staticmethod
    def bomb(size: int) -> bytes:
        encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
        block = bytes(1 << 20)
        return b"".join(encoder.compress(block) for _ in range(size >> 20)) + encoder.flush(zlib.Z_SYNC_FLUSH)[:-4]

    @pytest.mark.parametrize("size", [1 << 21, 1 << 28])
    def test_memory_is_bounded_by_the_limit(self, size: int) -> None:
        bomb = self.bomb(size)
        tracemalloc.start()
        try:
            assert deflate.inflate(bomb, 1 << 20) == 1009
            assert tracemalloc.get_traced_memory()[1] < (3 << 20) + len(bomb)
        finally:
            tracemalloc.stop()

    def test_split_over_fragments(self) -> None:
        bomb = self.bomb(1 << 26)
        reader = FrameReader(True, 1 << 20, 1 << 20, 100)
        step = len(bomb) // 9
        pieces = [bomb[at : at + step] for at in range(0, len(bomb), step)]
        events: list[tuple[object, ...]] = []
        for number, piece in enumerate(pieces):
            fin = number == len(pieces) - 1
            events += reader.feed(client_frame(0 if number else 2, piece, fin=fin, rsv=0 if number else 4))
        assert events == [("message", 2, True, bomb)]
        assert deflate.inflate(bomb, 1 << 20) == 1009

    def test_exactly_the_limit(self) -> None:
        for size in (1, 100, 65_536, 1 << 20):
            compressed = deflate.deflate(bytes(size))
            assert deflate.inflate(compressed, size) == bytes(size)
            assert deflate.inflate(compressed, size - 1) == 1009

    def test_limit_above_what_python_counts(self) -> None:
        assert deflate.inflate(deflate.deflate(b"x"), (1 << 64) - 1) == b"x"
