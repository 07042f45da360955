"""Messages as zstd, lz4 and gzip frames: readable by the standard decoders, bounded against what peers send."""

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable

import lz4.frame
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication._core.wire import compression

NONE, ZSTD, LZ4, GZIP = range(4)
FORMS = [ZSTD, LZ4, GZIP]
attack = settings(max_examples=200, deadline=None, derandomize=True)
decoders: dict[int, Callable[[bytes], bytes]] = {
    ZSTD: zstandard.ZstdDecompressor().decompress,
    LZ4: lz4.frame.decompress,
    GZIP: gzip.decompress,
}
messages = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda piece, times: piece * times, st.binary(min_size=1, max_size=40), st.integers(1, 3000)),
    st.builds(lambda seed, size: random.Random(seed).randbytes(size), st.integers(), st.integers(0, 70_000)),
)


def zstd_unsized(message: bytes, **options: int) -> bytes:
    """A zstd frame as a streaming encoder writes it, without the content's size."""
    parameters = zstandard.ZstdCompressionParameters(write_content_size=0, **options)
    encoder = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return encoder.compress(message) + encoder.flush()


@pytest.mark.parametrize("form", FORMS)
class TestEveryForm:
    """What holds for all three."""

    @attack
    @given(message=messages)
    def test_there_and_back(self, form: int, message: bytes) -> None:
        frame = compression.compress(form, message)
        assert compression.detect(frame) == form
        assert decoders[form](frame) == message
        assert compression.decompress(form, frame, len(message)) == message
        if message:
            assert compression.decompress(form, frame, len(message) - 1) == 1009

    def test_empty(self, form: int) -> None:
        assert compression.decompress(form, compression.compress(form, b""), 0) == b""
        assert compression.decompress(form, b"", 100) == 1007

    def test_truncated_anywhere(self, form: int) -> None:
        frame = compression.compress(form, b'{"type":"Ping","id":1}' * 20 + random.Random(1).randbytes(200))
        assert {compression.decompress(form, frame[:size], 10_000) for size in range(len(frame))} == {1007}

    @pytest.mark.parametrize("more", [b"\x00", b"x", b"more bytes"])
    def test_trailing_data(self, form: int, more: bytes) -> None:
        frame = compression.compress(form, b"message" * 10)
        assert compression.decompress(form, frame + more, 1000) == 1007
        assert compression.decompress(form, frame + frame, 1000) == 1007

    @attack
    @given(data=st.data())
    def test_damaged(self, form: int, data: st.DataObject) -> None:
        damaged = bytearray(compression.compress(form, b'{"type":"Broadcast","topic":"t"}' * 8))
        for _ in range(data.draw(st.integers(1, 3))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
        result = compression.decompress(form, bytes(damaged), 1000)
        assert result in (1007, 1009) or (isinstance(result, bytes) and len(result) <= 1000)

    @attack
    @given(noise=st.binary(max_size=100))
    def test_noise_behind_the_magic(self, form: int, noise: bytes) -> None:
        magic = compression.compress(form, b"")[: 2 if form == GZIP else 4]
        result = compression.decompress(form, magic + noise, 1000)
        assert result in (1007, 1009) or isinstance(result, bytes)

    def test_other_forms_are_garbage(self, form: int) -> None:
        for other in FORMS:
            if other != form:
                assert compression.decompress(form, compression.compress(other, b"message"), 1000) == 1007
        assert compression.decompress(form, b'{"type":"Ping"}', 1000) == 1007

    def test_bomb(self, form: int) -> None:
        blocks = {
            ZSTD: lambda: zstandard.ZstdCompressor().compress(bytes(1 << 27)),
            LZ4: lambda: lz4.frame.compress(bytes(1 << 27), store_size=False),
            GZIP: lambda: gzip.compress(bytes(1 << 27)),
        }
        bomb = blocks[form]()
        tracemalloc.start()
        try:
            assert compression.decompress(form, bomb, 1 << 20) == 1009
            assert tracemalloc.get_traced_memory()[1] < (3 << 20) + 2 * len(bomb)
        finally:
            tracemalloc.stop()

    def test_a_refused_message_leaves_nothing_behind(self, form: int) -> None:
        good = compression.compress(form, b"good")
        for bad in (compression.compress(form, bytes(1000)), good[:-1], good[:6] + b"\xff" * 20):
            assert compression.decompress(form, bad, 100) in (1007, 1009)
            assert compression.decompress(form, good, 100) == b"good"


class TestDetection:
    """By the first bytes."""

    def test_plain_messages(self) -> None:
        for message in (b"", b"\x1f", b"\x28\xb5\x2f", b"\x04\x22\x4d", b'{"type":"Ping"}', b"\x81\xa4type\xa4Ping"):
            assert compression.detect(message) == NONE

    def test_magic_numbers(self) -> None:
        assert compression.detect(b"\x28\xb5\x2f\xfd") == ZSTD
        assert compression.detect(b"\x04\x22\x4d\x18") == LZ4
        assert compression.detect(b"\x1f\x8b") == GZIP


class TestNone:
    """No compression is a form too."""

    def test_as_it_is(self) -> None:
        assert compression.compress(NONE, b"message") == b"message"
        assert compression.compress(NONE, b"") == b""
        assert compression.decompress(NONE, b"message", 7) == b"message"
        assert compression.decompress(NONE, b"", 0) == b""
        assert compression.decompress(NONE, b"message", 6) == 1009

    @pytest.mark.parametrize("form", [-1, 4])
    def test_unknown_form(self, form: int) -> None:
        with pytest.raises(ValueError, match="no message compression"):
            compression.compress(form, b"message")
        assert compression.decompress(form, b"message", 100) == 1007


class TestZstd:
    """RFC 8878."""

    def test_the_size_is_written(self) -> None:
        assert zstandard.frame_content_size(compression.compress(ZSTD, b"x" * 5000)) == 5000

    @attack
    @given(messages)
    def test_frames_without_size(self, message: bytes) -> None:
        frame = zstd_unsized(message)
        assert compression.decompress(ZSTD, frame, len(message)) == message
        if message:
            assert compression.decompress(ZSTD, frame, len(message) - 1) == 1009

    @attack
    @given(messages, st.integers(1, 19), st.booleans(), st.booleans())
    def test_what_other_encoders_send(self, message: bytes, level: int, checksum: bool, sized: bool) -> None:
        encoder = zstandard.ZstdCompressor(level=level, write_checksum=checksum, write_content_size=sized)
        assert compression.decompress(ZSTD, encoder.compress(message), len(message)) == message

    @pytest.mark.parametrize("sized", [True, False])
    def test_checksum_is_checked(self, sized: bool) -> None:
        encoder = zstandard.ZstdCompressor(write_checksum=True, write_content_size=sized)
        frame = bytearray(encoder.compress(b"message" * 10))
        frame[-1] ^= 1
        assert compression.decompress(ZSTD, bytes(frame), 1000) == 1007

    def test_frames_without_size_truncated_anywhere(self) -> None:
        frame = zstd_unsized(random.Random(2).randbytes(300))
        assert {compression.decompress(ZSTD, frame[:size], 1000) for size in range(len(frame))} == {1007}

    def test_a_bomb_that_hides_its_size(self) -> None:
        bomb = zstd_unsized(bytes(1 << 27))
        tracemalloc.start()
        try:
            assert compression.decompress(ZSTD, bomb, 1 << 20) == 1009
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()

    def test_a_declared_size_the_blocks_cannot_make(self) -> None:
        header = b"\x28\xb5\x2f\xfd" + b"\xa0" + (1 << 30).to_bytes(4, "little")
        assert compression.decompress(ZSTD, header + b"\x0b\x00\x00a", 1 << 31) == 1007

    def test_windows(self) -> None:
        largest = zstd_unsized(b"message", window_log=23)
        assert compression.decompress(ZSTD, largest, 1000) == b"message"
        for log in (24, 27, 30):
            frame = zstd_unsized(b"message", window_log=log)
            assert compression.decompress(ZSTD, frame, 1000) == 1009

    def test_dictionary_we_do_not_have(self) -> None:
        dictionary = zstandard.ZstdCompressionDict(random.Random(3).randbytes(2000) * 2)
        frame = zstandard.ZstdCompressor(dict_data=dictionary).compress(random.Random(3).randbytes(2000))
        assert compression.decompress(ZSTD, frame, 10_000) == 1007

    def test_reserved_bits_and_blocks(self) -> None:
        frame = bytearray(compression.compress(ZSTD, b"message"))
        assert compression.decompress(ZSTD, bytes(frame[:4]) + bytes([frame[4] | 8]) + bytes(frame[5:]), 100) == 1007
        header = bytes(frame[:6])
        assert compression.decompress(ZSTD, header + b"\x07\x00\x00", 100) == 1007


class TestLz4:
    """LZ4 frames."""

    @attack
    @given(messages, st.booleans(), st.booleans(), st.sampled_from([4, 5, 6, 7]), st.booleans())
    def test_what_other_encoders_send(
        self, message: bytes, linked: bool, checksum: bool, block_size: int, sized: bool
    ) -> None:
        frame = lz4.frame.compress(
            message, block_linked=linked, content_checksum=checksum, block_size=block_size, store_size=sized
        )
        assert compression.decompress(LZ4, frame, len(message)) == message


class TestGzip:
    """RFC 1952."""

    def test_checksum_and_size_are_checked(self) -> None:
        frame = compression.compress(GZIP, b"message" * 10)
        for at in range(1, 9):
            damaged = bytearray(frame)
            damaged[-at] ^= 1
            assert compression.decompress(GZIP, bytes(damaged), 1000) == 1007

    def test_name_and_comment(self) -> None:
        raw = zlib.compressobj(wbits=-15)
        body = raw.compress(b"message") + raw.flush()
        head = b"\x1f\x8b\x08\x18" + bytes(4) + b"\x00\x03name\x00comment\x00"
        trailer = zlib.crc32(b"message").to_bytes(4, "little") + (7).to_bytes(4, "little")
        assert compression.decompress(GZIP, head + body + trailer, 100) == b"message"
