"""Frames, envelopes and compression, one operation at a time.

The core is reached through its Python-visible classes, so a figure includes the call from Python and the objects made
for its answer. Frames are fed 64 at a time to keep that small. `msgspec` is measured beside the envelope parser.
"""

import json
import struct

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.baseline.envelopes import JSON, MSGPACK, Encoding
from realtime_communication._core.wire import compression, envelope, frames, outbound

FRAMES = 64
MASK = b"\x37\xfa\x21\x3d"
BROADCAST = {"type": "Broadcast", "topic": "room:42", "payload": {"text": "x" * 70, "n": 7}, "id": 12}
PAYLOAD = json.dumps({"text": "x" * 80}).encode()
THREE_KB = json.dumps(
    [{"id": number, "name": f"user {number}", "on": number % 3 == 0} for number in range(70)]
).encode()
FORMS = {"zstd": 1, "lz4": 2, "gzip": 3}


def masked_frame(payload: bytes) -> bytes:
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else struct.pack(">BH", 0x80 | 126, size)
    return b"".join((b"\x81", length, MASK, frames.unmasked(payload, MASK)))


@pytest.mark.parametrize("size", [16, 100, 3000])
def test_read_64_frames(benchmark: BenchmarkFixture, size: int) -> None:
    data = masked_frame(b"x" * size) * FRAMES
    reader = frames.FrameReader()
    events = benchmark(reader.feed, data)
    assert len(events) == FRAMES


@pytest.mark.parametrize("size", [100, 3000, 60_000])
def test_unmask(benchmark: BenchmarkFixture, size: int) -> None:
    assert len(benchmark(frames.unmasked, b"x" * size, MASK)) == size


class TestReadBroadcast:
    @pytest.mark.parametrize("encoding", [0, 1], ids=["json", "msgpack"])
    def test_core(self, benchmark: BenchmarkFixture, encoding: int) -> None:
        data = msgspec.msgpack.encode(BROADCAST) if encoding else msgspec.json.encode(BROADCAST)
        assert benchmark(envelope.parse, data, encoding)

    @pytest.mark.parametrize("encoding", [JSON, MSGPACK], ids=["json", "msgpack"])
    def test_msgspec(self, benchmark: BenchmarkFixture, encoding: Encoding) -> None:
        data = encoding.encode(BROADCAST)
        assert benchmark(encoding.decode_request, data).topic == "room:42"


@pytest.mark.parametrize("encoding", [0, 1], ids=["json", "msgpack"])
def test_write_message(benchmark: BenchmarkFixture, encoding: int) -> None:
    payload = msgspec.msgpack.encode(msgspec.json.decode(PAYLOAD)) if encoding else PAYLOAD

    def write() -> bytes:
        writer = outbound.OutboundWriter(encoding)
        writer.message(b"room:42", 18, 1767220000123, b"bob", payload)
        return bytes(writer)

    assert payload in benchmark(write)


@pytest.mark.parametrize("form", FORMS)
def test_compress_3_kb(benchmark: BenchmarkFixture, form: str) -> None:
    compressed = benchmark(compression.compress, FORMS[form], THREE_KB)
    assert compression.decompress(FORMS[form], compressed, len(THREE_KB)) == THREE_KB


@pytest.mark.parametrize("form", FORMS)
def test_decompress_3_kb(benchmark: BenchmarkFixture, form: str) -> None:
    compressed = compression.compress(FORMS[form], THREE_KB)
    assert benchmark(compression.decompress, FORMS[form], compressed, len(THREE_KB)) == THREE_KB
