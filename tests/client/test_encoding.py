"""Envelopes in bytes."""

import contextlib
import gzip
import json
from typing import Any

import lz4.frame
import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication.client import encoding
from realtime_communication.client.encoding import Codec
from realtime_communication.client.errors import ProtocolViolation

LIMIT = 100_000
PACKED: dict[Any, Any] = {"zstd": zstandard.compress, "lz4": lz4.frame.compress, "gzip": gzip.compress}
PONG = b'{"type":"Pong","id":1,"ts":5}'


@pytest.mark.parametrize("format", ["json", "msgpack"])
@pytest.mark.parametrize("compression", [None, "zstd", "lz4", "gzip"])
def test_subprotocol_is_offered_and_understood(format: Any, compression: Any) -> None:
    offered = Codec.subprotocols(format, compression)
    codec = Codec.from_subprotocol(offered[0], LIMIT)
    assert (codec.format, codec.compression) == (format, compression)
    assert offered[-1] == f"rtc.v1.{format}"


def test_no_subprotocol_is_json() -> None:
    assert Codec.from_subprotocol(None, LIMIT).format == "json"


@pytest.mark.parametrize("name", ["rtc.v2.json", "rtc.v1.json+brotli", "x"])
def test_unknown_subprotocol(name: str) -> None:
    with pytest.raises(ProtocolViolation):
        Codec.from_subprotocol(name, LIMIT)


@pytest.mark.parametrize("compression", PACKED)
def test_compressed_and_plain_are_told_apart(compression: Any) -> None:
    codec = Codec("json", compression, LIMIT)
    for data in (PONG, PACKED[compression](PONG)):
        assert codec.decode(data) == encoding.PongEnvelope(id=1, ts=5)


@pytest.mark.parametrize("compression", PACKED)
def test_bomb_is_not_inflated(compression: Any) -> None:
    with pytest.raises(ProtocolViolation, match="inflates"):
        Codec("json", compression, LIMIT).decode(PACKED[compression](b" " * 10_000_000))


@pytest.mark.parametrize("compression", PACKED)
def test_broken_compression(compression: Any) -> None:
    with pytest.raises(ProtocolViolation):
        Codec("json", compression, LIMIT).decode(PACKED[compression](PONG)[:-9] + b"\xff" * 4)


@pytest.mark.parametrize("compression", PACKED)
def test_large_messages_are_sent_compressed(compression: Any) -> None:
    is_text, data = Codec("json", compression, LIMIT).encode({"type": "Ping", "x": "y" * 5000})
    assert not is_text
    assert len(data) < 500
    assert Codec("json", compression, LIMIT).encode({"type": "Ping"}) == (True, b'{"type":"Ping"}')


def test_unknown_type_is_ignored_and_unknown_fields_too() -> None:
    codec = Codec("json", None, LIMIT)
    assert codec.decode(b'{"type":"OfTheFuture","x":1}') is None
    assert codec.decode(b'{"type":"Pong","ts":5,"new":[1]}') == encoding.PongEnvelope(ts=5)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"type":"Pong"}', b'{"type":"Pong","ts":"x"}', b'{"type":7}'])
def test_what_is_no_envelope(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        Codec("json", None, LIMIT).decode(data)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=60), st.sampled_from(["json", "msgpack"]))
def test_no_bytes_do_anything_else(data: bytes, format: Any) -> None:
    with contextlib.suppress(ProtocolViolation):
        decoded = Codec(format, None, LIMIT).decode(data)
        assert decoded is None or isinstance(decoded, encoding.Envelope)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(values)
def test_payload_in_both_encodings(payload: Any) -> None:
    fields = {"type": "Message", "topic": "t", "offset": 1, "ts": 2, "from": "bob", "payload": payload}
    expected = encoding.MessageEnvelope(topic="t", offset=1, ts=2, sender="bob", payload=payload)
    assert Codec("json", None, LIMIT).decode(json.dumps(fields).encode()) == expected
    assert Codec("msgpack", None, LIMIT).decode(msgspec.msgpack.encode(fields)) == expected
