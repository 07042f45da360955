"""JSON to MessagePack and back: the same value as msgspec and Python read it."""

import base64
import json
import math
import struct

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication._core.wire import json_scan, msgpack_scan, transcode

JSON, MSGPACK = 0, 1
attack = settings(max_examples=200, deadline=None, derandomize=True)
text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(text, inner, max_size=8),
    max_leaves=15,
)


def to_msgpack(data: bytes) -> bytes:
    out = transcode.convert(data, JSON, MSGPACK)
    msgpack_scan.validate(out)
    return out


def to_json(data: bytes) -> bytes:
    out = transcode.convert(data, MSGPACK, JSON)
    json_scan.validate(out)
    return out


def same(one: object, other: object) -> bool:
    """Equal with types: 1 is not 1.0 and 0.0 not -0.0."""
    return repr(one) == repr(other)


@attack
@given(values, st.sampled_from([None, 0]), st.booleans())
def test_json_to_msgpack(value: object, indent: int | None, ascii_only: bool) -> None:
    data = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    assert same(msgspec.msgpack.decode(to_msgpack(data)), value)


@attack
@given(values)
def test_json_to_msgpack_is_the_shortest_form(value: object) -> None:
    assert to_msgpack(json.dumps(value).encode()) == msgspec.msgpack.encode(value)


@attack
@given(values)
def test_msgpack_to_json(value: object) -> None:
    out = to_json(msgspec.msgpack.encode(value))
    assert same(json.loads(out), value)
    assert len(out) <= 6 * len(msgspec.msgpack.encode(value)) + 32


@attack
@given(values)
def test_there_and_back(value: object) -> None:
    data = msgspec.msgpack.encode(value)
    assert to_msgpack(to_json(data)) == data


@attack
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_doubles_keep_every_bit(number: float) -> None:
    out = to_json(msgspec.msgpack.encode(number))
    assert math.copysign(1, float(out)) == math.copysign(1, number)
    assert float(out) == number
    assert any(letter in out for letter in b".e")
    assert msgspec.msgpack.decode(to_msgpack(out)) == number


@pytest.mark.parametrize(
    ("data", "value"),
    [(b"1.0", 1.0), (b"1", 1), (b"-0", 0), (b"-0.0", -0.0), (b"1e2", 100.0), (b"18446744073709551615", 2**64 - 1),
     (b"18446744073709551616", 2.0**64), (b"-9223372036854775808", -(2**63)), (b"-9223372036854775809", -(2.0**63)),
     (b"1" + b"0" * 300, 1e300), (b"0." + b"3" * 1000, 1 / 3), (b"1e-999", 0.0), (b"5e-324", 5e-324)],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_json_numbers(data: bytes, value: float) -> None:
    assert same(msgspec.msgpack.decode(to_msgpack(data)), value)


@pytest.mark.parametrize("number", [0.1, 1.5, -3.25, 1e30])
def test_single_precision_keeps_its_exact_value(number: float) -> None:
    (single,) = struct.unpack(">f", struct.pack(">f", number))
    assert float(to_json(b"\xca" + struct.pack(">f", number))) == single


@attack
@given(st.binary(max_size=300))
def test_binary_becomes_base64(content: bytes) -> None:
    assert json.loads(to_json(msgspec.msgpack.encode([content]))) == [base64.b64encode(content).decode()]


def test_repeated_keys_stay_as_they_are() -> None:
    data = to_msgpack(b'{"a":1,"b":2,"a":[3]}')
    assert data == b"\x83\xa1a\x01\xa1b\x02\xa1a\x91\x03"
    assert to_json(data) == b'{"a":1,"b":2,"a":[3]}'


@pytest.mark.parametrize("data", [b"[]", b"{}", b"[[],[],{}]", b'{"a":{},"b":[]}', b' [ 1 , [ ] , { "a" : [ ] } ] '])
def test_empty_containers(data: bytes) -> None:
    assert json.loads(to_json(to_msgpack(data))) == json.loads(data)


@pytest.mark.parametrize("size", [15, 16, 31, 32, 255, 256, 65535, 65536])
def test_borders_of_length(size: int) -> None:
    for value in ["x" * size, [None] * size, {str(number): number for number in range(size)}]:
        data = to_msgpack(msgspec.json.encode(value))
        assert data == msgspec.msgpack.encode(value)
        assert to_json(data) == msgspec.json.encode(value)


def test_as_deep_as_it_gets() -> None:
    data = b"[" * 127 + b'{"a":1}' + b"]" * 127
    assert to_json(to_msgpack(data)) == data


def test_same_encoding_is_a_copy() -> None:
    assert transcode.convert(b' {"a" : 1.50}', JSON, JSON) == b' {"a" : 1.50}'
    assert transcode.convert(b"\xcd\x00\x01", MSGPACK, MSGPACK) == b"\xcd\x00\x01"


@settings(attack, max_examples=1000)
@given(st.binary(max_size=30) | st.text('[]{}",:tfn1-.e\\\\u ', max_size=30).map(str.encode))
def test_bytes_that_were_never_validated_do_no_harm(data: bytes) -> None:
    for source in (JSON, MSGPACK):
        try:
            out = transcode.convert(data, source, 1 - source)
        except ValueError:
            continue
        assert len(out) <= 6 * len(data) + 32
