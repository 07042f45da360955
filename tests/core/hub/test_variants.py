"""The 22 forms of an envelope: all say the same."""

import gzip
import json
import zlib

import lz4.frame
import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from core.hub.sans_io import BINARY, TEXT, make_hub, split_frames
from realtime_communication._core.hub.variants import frame, index

JSON, MSGPACK = 0, 1
NONE, ZSTD, LZ4, GZIP = range(4)
FORMS = [(NONE, 0), (ZSTD, 0), (LZ4, 0), (GZIP, 0), *((NONE, bits) for bits in range(9, 16))]
VARIANTS = [(encoding, *form) for encoding in (JSON, MSGPACK) for form in FORMS]
every = pytest.mark.parametrize(("encoding", "compression", "window_bits"), VARIANTS)
ENVELOPE = {
    "type": "Message",
    "topic": "räume:42",
    "offset": 18,
    "ts": 1767220000123,
    "from": "bob",
    "payload": {"text": "hello " * 900, "list": list(range(100))},
}


def encode(encoding: int, envelope: object) -> bytes:
    return json.dumps(envelope, ensure_ascii=False).encode() if encoding == JSON else msgspec.msgpack.encode(envelope)


def unpack(compression: int, window_bits: int, payload: bytes) -> bytes:
    """What a client's decoder makes of a compressed payload."""
    if window_bits:
        # A client keeps a window of just the size that was agreed on: RFC 7692, section 7.1.2.1.
        return zlib.decompressobj(wbits=-window_bits).decompress(payload + b"\x00\x00\xff\xff")
    if compression == ZSTD:
        return zstandard.ZstdDecompressor().decompress(payload)
    return bytes(lz4.frame.decompress(payload)) if compression == LZ4 else gzip.decompress(payload)


def test_each_has_a_number_of_its_own() -> None:
    assert sorted(index(*variant) for variant in VARIANTS) == list(range(22))


@pytest.mark.parametrize("compression", [ZSTD, LZ4, GZIP])
def test_message_compression_wins_over_deflate(compression: int) -> None:
    assert index(JSON, compression, 15) == index(JSON, compression, 0)


@pytest.mark.parametrize("variant", [-1, 22, 1000])
def test_there_are_no_others(variant: int) -> None:
    with pytest.raises(ValueError, match="variant"):
        frame(variant, b"{}", 0)


@every
class TestEach:
    """Of every variant."""

    def test_says_the_same(self, encoding: int, compression: int, window_bits: int) -> None:
        message = encode(encoding, ENVELOPE)
        ((opcode, rsv1, payload),), rest = split_frames(frame(index(encoding, compression, window_bits), message, 1024))
        assert rest == b""
        assert rsv1 == (window_bits > 0)
        plain_opcode = TEXT if encoding == JSON else BINARY
        assert opcode == (BINARY if compression else plain_opcode)
        if compression or window_bits:
            assert len(payload) < len(message) // 4
            payload = unpack(compression, window_bits, payload)
        assert payload == message

    def test_small_ones_stay_plain(self, encoding: int, compression: int, window_bits: int) -> None:
        message = encode(encoding, {"payload": "x" * 500})
        variant = index(encoding, compression, window_bits)
        plain = (TEXT if encoding == JSON else BINARY, False, message)
        assert split_frames(frame(variant, message, len(message) + 1)) == ([plain], b"")
        assert (split_frames(frame(variant, message, len(message)))[0] == [plain]) == (
            (compression, window_bits) == (NONE, 0)
        )

    def test_never_larger_than_plain(self, encoding: int, compression: int, window_bits: int) -> None:
        noise = zlib.compress(bytes(i * i % 251 for i in range(5000)), 9)
        ((opcode, rsv1, payload),), _ = split_frames(frame(index(encoding, compression, window_bits), noise, 0))
        assert len(payload) <= len(noise)
        if payload == noise:
            assert (opcode, rsv1) == (TEXT if encoding == JSON else BINARY, False)

    def test_empty(self, encoding: int, compression: int, window_bits: int) -> None:
        ((_, rsv1, payload),), _ = split_frames(frame(index(encoding, compression, window_bits), b"", 0))
        assert (rsv1, payload) == (False, b"")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.sampled_from(VARIANTS),
    st.builds(lambda piece, times: piece * times, st.binary(max_size=200), st.integers(1, 700)),
    st.integers(0, 3000),
)
def test_any_bytes_come_back(variant: tuple[int, int, int], message: bytes, threshold: int) -> None:
    encoding, compression, window_bits = variant
    ((opcode, rsv1, payload),), rest = split_frames(frame(index(*variant), message, threshold))
    assert rest == b""
    assert len(payload) <= len(message)
    if payload != message:
        assert len(message) >= threshold
        assert rsv1 == (window_bits > 0)
        assert unpack(compression, window_bits, payload) == message
    else:
        assert (opcode, rsv1) == (TEXT if encoding == JSON else BINARY, False)


@pytest.mark.parametrize("body", [{"text": "short"}, {"text": "long " * 2000}, "x" * 70_000])
def test_a_publication_reaches_all_subscribers_alike(body: object) -> None:
    """All kinds of clients at once, through the hub, which makes each form once."""
    server = make_hub(max_frame_size=1 << 20)
    clients = [
        server.connect(f"user-{name}{form}", protocol=f"rtc.v1.{name}{form}")
        for name in ("json", "msgpack")
        for form in ("", "+zstd", "+lz4", "+gzip")
    ]
    for name in ("json", "msgpack"):
        for bits in range(9, 16):
            offer = f"permessage-deflate; server_max_window_bits={bits}"
            clients.append(server.connect(f"user-{name}{bits}", protocol=f"rtc.v1.{name}", extensions=offer))
            assert f"server_max_window_bits={bits}".encode() in clients[-1].response or bits == 15
    for client in clients:
        client.subscribe("room")
    sender = server.connect("sender")
    sender.request({"type": "Broadcast", "id": 1, "topic": "room", "payload": body})
    received = [client.messages() for client in clients]
    assert len(received) == 22
    assert all(messages == received[0] for messages in received)
    assert [message["payload"] for message in received[0]] == [body]
