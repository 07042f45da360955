"""RFC 3629, strictly, in one piece and cut anywhere."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.utf8 import BadText, TextModel
from realtime_communication._core.wire import utf8

BORDER_BYTES = [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE,
                0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF]  # fmt: skip
attack = settings(max_examples=300, deadline=None, derandomize=True)


def python_says(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def first_bad(data: bytes) -> int | None:
    """Index of the byte at which the grammar of RFC 3629 gives up."""
    text = TextModel()
    for at, byte in enumerate(data):
        try:
            text.push(byte)
        except BadText:
            return at
    return None


def first_refused(data: bytes) -> int | None:
    reader = utf8.Utf8Reader()
    for at, byte in enumerate(data):
        if not reader.feed(bytes([byte])):
            return at
    return None


def test_every_two_bytes() -> None:
    wrong = [pair for pair in product(range(256), repeat=2) if utf8.is_valid(bytes(pair)) != python_says(bytes(pair))]
    assert wrong == []


@pytest.mark.parametrize("size", [3, 4])
def test_every_border_case(size: int) -> None:
    for data in map(bytes, product(BORDER_BYTES, repeat=size)):
        assert utf8.is_valid(data) == python_says(data), data.hex()
        if size == 3:
            assert first_refused(data) == first_bad(data), data.hex()


def test_every_code_point() -> None:
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)])).encode()
    assert utf8.is_valid(everything)
    assert not any(utf8.is_valid(chr(point).encode("utf-8", "surrogatepass")) for point in range(0xD800, 0xE000))


@pytest.mark.parametrize("bad", [b"\x80", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff"])
@pytest.mark.parametrize("before", range(70))
def test_a_bad_byte_anywhere_in_ascii(bad: bytes, before: int) -> None:
    data = b"a" * before + bad + b"b" * 40
    assert not utf8.is_valid(data)
    assert not utf8.is_ascii(data)
    assert first_refused(data) == first_bad(data)


@attack
@given(st.text(max_size=200), st.data())
def test_cut_anywhere(text: str, data: st.DataObject) -> None:
    encoded = text.encode()
    cut = data.draw(st.integers(0, len(encoded)))
    reader = utf8.Utf8Reader()
    assert reader.feed(encoded[:cut])
    assert reader.complete == python_says(encoded[:cut])
    assert reader.feed(encoded[cut:])
    assert reader.complete
    assert utf8.is_ascii(encoded) == encoded.isascii()


@attack
@given(st.text(max_size=60), st.binary(max_size=3), st.data())
def test_mutated_text(text: str, noise: bytes, data: st.DataObject) -> None:
    encoded = text.encode()
    at = data.draw(st.integers(0, len(encoded)))
    mutated = encoded[:at] + noise + encoded[at:]
    assert utf8.is_valid(mutated) == python_says(mutated)
    assert first_refused(mutated) == first_bad(mutated)


def test_bad_stays_bad() -> None:
    reader = utf8.Utf8Reader()
    assert not reader.feed(b"\xff")
    assert not reader.feed(b"fine")
    assert not reader.complete


@attack
@given(st.text(max_size=60), st.integers(0, 130))
def test_prefix_cuts_no_code_point(text: str, limit: int) -> None:
    encoded = text.encode()
    end = utf8.prefix(encoded, limit)
    assert end <= limit
    assert python_says(encoded[:end])
    assert end > limit - 4 or end == len(encoded)
