"""The MessagePack format held against msgspec; declared lengths, depth, and what has no form in JSON."""

import struct

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication._core.wire import msgpack_scan

attack = settings(max_examples=200, deadline=None, derandomize=True)
text = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
    | st.binary(),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(text, inner, max_size=8),
    max_leaves=15,
)


def refusal(data: bytes) -> str:
    """Why `data` is refused, empty when it is accepted."""
    try:
        msgpack_scan.validate(data)
    except ValueError as error:
        return str(error)
    return ""


def _ext(code: int, data: memoryview) -> object:
    raise ValueError("extension")


def _all_fine(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _all_fine(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_all_fine, value))
    return not isinstance(value, float) or abs(value) <= 1.7976931348623157e308


decoder = msgspec.msgpack.Decoder(ext_hook=_ext)


def model_accepts(data: bytes) -> bool:
    """msgspec's verdict, and its timestamps, other keys, NaN and infinities refused."""
    try:
        value = decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return False
    return _all_fine(value)


class TestFormat:
    @attack
    @given(values)
    def test_whatever_msgspec_writes_is_accepted(self, value: object) -> None:
        assert refusal(msgspec.msgpack.encode(value)) == ""

    @settings(attack, max_examples=1000)
    @given(st.binary(max_size=12))
    def test_same_verdict_on_any_bytes(self, data: bytes) -> None:
        # Timestamps decode without the hook, and repeated keys hide what stands under the first of them.
        if 0xD6 not in data and 0xD7 not in data and 0xC7 not in data:
            assert (refusal(data) == "") is model_accepts(data) or refusal(data) in (
                "MessagePack float is NaN or infinite",
                "MessagePack map has a key that is not a string",
            )

    @attack
    @given(values)
    def test_every_cut_is_refused(self, value: object) -> None:
        data = msgspec.msgpack.encode([value])
        assert [at for at in range(len(data)) if refusal(data[:at]) == ""] == []

    @attack
    @given(values, st.binary(min_size=1))
    def test_trailing_bytes(self, value: object, rest: bytes) -> None:
        assert refusal(msgspec.msgpack.encode(value) + rest) == "MessagePack value is followed by more bytes"

    @pytest.mark.parametrize(
        "data",
        ["00", "7f", "cc00", "cdffff", "ce00000000", "cfffffffffffffffff", "e0", "ff", "d080", "d17fff", "d280000000",
         "d38000000000000000", "c0", "c2", "c3", "ca3f800000", "cb3ff0000000000000", "a0", "a161", "d90161", "da000161",
         "db0000000161", "c40100", "c5000100", "c60000000100", "90", "9100", "dc000100", "dd0000000100", "80", "81a0c0",
         "de0001a0c0", "df00000001a0c0"],
    )  # fmt: skip
    def test_every_form(self, data: str) -> None:
        assert refusal(bytes.fromhex(data)) == ""


class TestRefused:
    @pytest.mark.parametrize("head", ["dd", "df", "db", "c6"])
    def test_four_billion_items_declared(self, head: str) -> None:
        assert refusal(bytes.fromhex(head) + b"\xff\xff\xff\xff" + b"\x00" * 100) == "MessagePack ends within a value"

    @pytest.mark.parametrize("head", [b"\x91", b"\x81\xa0", b"\xdd\x00\x00\x00\x01", b"\x92\x00"])
    def test_depth(self, head: bytes) -> None:
        assert refusal(head * 128 + b"\x00") == ""
        assert "deep" in refusal(head * 129 + b"\x00")
        assert "deep" in refusal(head * 100_000)

    def test_a_wide_tree_is_no_deep_one(self) -> None:
        assert refusal(b"\xdc\x03\xe8" + b"\x91\x90" * 1000) == ""

    @pytest.mark.parametrize(
        "data",
        [
            "d40100",
            "d5010000",
            "d6ff00000000",
            "d7ff0000000000000000",
            "d801" + "00" * 16,
            "c70101ff",
            "c8000101ff",
            "c900000001ffff",
        ],
    )
    def test_extensions_and_timestamps(self, data: str) -> None:
        assert "extension" in refusal(bytes.fromhex(data))
        assert "extension" in refusal(b"\x91" + bytes.fromhex(data))

    @pytest.mark.parametrize("key", ["01", "c0", "c3", "ca00000000", "c400", "90", "80", "e0"])
    def test_keys_that_are_no_strings(self, key: str) -> None:
        assert "key" in refusal(b"\x82\xa1a\x00" + bytes.fromhex(key) + b"\x00")
        assert "key" in refusal(b"\x91\x81" + bytes.fromhex(key) + b"\x00")

    @pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
    def test_no_number(self, number: float) -> None:
        assert "NaN" in refusal(b"\xca" + struct.pack(">f", number))
        assert "NaN" in refusal(b"\xcb" + struct.pack(">d", number))

    @pytest.mark.parametrize("bad", ["ff", "c080", "eda080", "f4908080", "e28c"])
    def test_not_utf8(self, bad: str) -> None:
        content = bytes.fromhex(bad)
        assert "UTF-8" in refusal(bytes([0xA0 + len(content)]) + content)
        assert "UTF-8" in refusal(b"\x81" + bytes([0xA0 + len(content)]) + content + b"\x00")

    def test_reserved(self) -> None:
        assert "0xc1" in refusal(b"\xc1")
        assert "0xc1" in refusal(b"\x92\x00\xc1")

    def test_empty(self) -> None:
        assert "ends" in refusal(b"")
