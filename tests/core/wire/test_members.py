"""Maps and arrays member by member, in both encodings: keys as text, values as the bytes they are."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication._core.wire.members import members

JSON, MSGPACK = 0, 1
attack = settings(max_examples=200, deadline=None, derandomize=True)
text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | text
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(text, scalars, max_size=3)
both = pytest.mark.parametrize("encoding", [JSON, MSGPACK], ids=["json", "msgpack"])


def encode(encoding: int, value: object) -> bytes:
    return msgspec.msgpack.encode(value) if encoding == MSGPACK else json.dumps(value).encode()


@both
@attack
@given(value=st.dictionaries(text, values, max_size=20))
def test_map(encoding: int, value: dict[str, object]) -> None:
    assert members(encode(encoding, value), encoding) == [(key, encode(encoding, item)) for key, item in value.items()]


@both
@attack
@given(value=st.lists(values, max_size=20))
def test_array(encoding: int, value: list[object]) -> None:
    assert members(encode(encoding, value), encoding, False) == [("", encode(encoding, item)) for item in value]


@both
@pytest.mark.parametrize("value", [None, True, 1, -1, 1.5, "", "{}", [], [{}]], ids=repr)
def test_no_map(encoding: int, value: object) -> None:
    with pytest.raises(ValueError, match="container"):
        members(encode(encoding, value), encoding)


@both
def test_no_array(encoding: int) -> None:
    with pytest.raises(ValueError, match="container"):
        members(encode(encoding, {"a": []}), encoding, False)
    with pytest.raises(ValueError, match="container"):
        members(b"", encoding, False)


@both
def test_every_cut_is_refused(encoding: int) -> None:
    data = encode(encoding, {"a": [1, {"b": "c"}], "d\n": None})
    for at in range(len(data)):
        with pytest.raises(ValueError, match=r"container|ends"):
            members(data[:at], encoding)


@pytest.mark.parametrize(
    "data",
    [
        "{,}",
        '{"a"}',
        '{"a":}',
        '{"a":1,}',
        '{"a":1 "b":2}',
        '{"a" 1}',
        "{a:1}",
        "{1:1}",
        '{"a":1]',
        '{"a":[1}',
        '{"a":1,,"b":2}',
    ],
)
def test_broken_json(data: str) -> None:
    with pytest.raises(ValueError, match="invalid JSON"):
        members(data.encode(), JSON)


def test_space() -> None:
    assert members(b' { "a" : [ 1 ] , "b" : { } } behind', JSON) == [("a", b"[ 1 ]"), ("b", b"{ }")]
    assert members(b" [ 1 , [ ] ] ", JSON, False) == [("", b"1"), ("", b"[ ]")]
    assert members(b"{ }", JSON) == members(b"[ ]", JSON, False) == []


def test_unescaped_keys_stay_where_they_are() -> None:
    keys = [f"key {number} é" for number in range(500)]
    data = json.dumps(dict.fromkeys(keys)).replace("key", "k\\u0065y").encode()
    assert [key for key, _ in members(data, JSON)] == keys


def test_msgpack_keys_are_strings() -> None:
    with pytest.raises(ValueError, match="key"):
        members(b"\x82\xa1a\x00\x01\x00", MSGPACK)
