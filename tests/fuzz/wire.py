"""Targets for what is parsed without a hub: each takes any bytes and asserts what has to hold for them."""

import base64
import gzip
import hashlib
import hmac
import json
import zlib

import h11
import lz4.frame
import msgspec
import zstandard

from fuzz import exact as memory
from model import frames as frame_model
from model import json_text
from model.frames import Event
from realtime_communication._core.wire import (
    compression,
    deflate,
    envelope,
    handshake,
    json_scan,
    members,
    msgpack_scan,
    tokens,
    transcode,
)
from realtime_communication._core.wire.frames import FrameReader
from realtime_communication._core.wire.http_head import EndFinder, HeadRefused, RequestHead
from realtime_communication.auth import token_rules
from realtime_communication.auth.identity import Identity
from realtime_communication.auth.jwt import JwtRules, JwtVerifier
from realtime_communication.errors import AuthenticationFailed

JSON, MSGPACK = 0, 1
NONE, ZSTD, LZ4, GZIP = range(4)
HEAD_LIMIT = 16384
NOW = 1_700_000_000
SECRET = "a secret of the fuzz targets, of 40 bytes or so"


def cut(data: bytes, piece: int) -> list[bytes]:
    """The bytes in pieces of that size."""
    return [memory.exact(data[at : at + piece]) for at in range(0, len(data), piece)]


# --- HTTP heads


def end_of(data: bytes, piece: int) -> int:
    """Where a head ends that comes in pieces; a negative status; 0 when it does not."""
    finder = EndFinder()
    found = 0
    for part in cut(data, piece):
        found = finder.feed(part)
        if found:
            break
    return found


def read_by_h11(data: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]] | None:
    """Method, target and fields, None when there are none. It writes a Transfer-Encoding in small letters."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)
    try:
        connection.receive_data(data)
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, h11.Request):
        return None
    return event.method, event.target, [(bytes(name), bytes(value)) for name, value in event.headers]


def http_head(data: bytes) -> None:
    """A head ends at the same place however it is cut; what is accepted, h11 reads the same; nothing is read beyond."""
    end = end_of(data, max(1, len(data)))
    if len(data) <= 2000:
        assert end == end_of(data, 1), "the end depends on the cuts"
    try:
        head = RequestHead(memory.exact(data))
    except HeadRefused:
        return
    assert head.size <= len(data)
    assert end == head.size, "the two ways to find the end disagree"
    assert head.content_length is None or not head.chunked, "two lengths"
    fields = [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in head.fields]
    assert (head.method, head.target, fields) == read_by_h11(data[: head.size]), "h11 reads something else"
    for name, _value in head.fields:
        assert head.count(name) >= 1
        head.has_token(name, b"x")
    verdict = handshake.check_handshake(memory.exact(data))
    assert verdict is None or verdict[0] in (400, 405, 426)
    if verdict is None:
        assert head.wants_upgrade
    handshake.subprotocol_of(memory.exact(data), True)
    origin = head.get(b"origin")
    if origin is not None:
        handshake.is_origin_allowed(memory.exact(origin), ["https://example.com", "http://localhost:8080"])
    extensions = head.get(b"sec-websocket-extensions")
    if extensions is not None:
        offer = deflate.negotiate(memory.exact(extensions))
        assert offer is None or 9 <= offer[1] <= 15


# --- WebSocket frames


def masked(data: bytes) -> bytes:
    """Sets the mask bit of the first frame, without which nothing behind its second byte would ever be read."""
    return data[:1] + bytes([data[1] | 0x80]) + data[2:] if len(data) > 1 else data


def events_of(stream: bytes, piece: int, deflated: bool, limits: frame_model.Limits) -> list[Event]:
    """What the parser makes of a stream in pieces, the text of a failure left out."""
    reader = FrameReader(deflated, limits.max_frame, limits.max_message, limits.max_fragments)
    events: list[Event] = []
    for part in cut(stream, piece):
        events += reader.feed(part)
        if events and events[-1][0] in ("failed", "close"):
            break
    assert reader.held <= 2 * limits.max_message + 256, "the parser holds more than a message"
    return [event[:2] if event[0] == "failed" else event for event in events]


def frames(data: bytes) -> None:
    """The first byte has the limits; behind it a stream, whole and byte by byte beside the slow parser."""
    if not data:
        return
    limits = frame_model.Limits(*((1 << 20, 1 << 20, 1024), (100, 300, 3), (1 << 16, 70_000, 4))[data[0] % 3])
    deflated = bool(data[0] & 4)
    stream = masked(data[1:])
    expected = frame_model.expected_events(stream, deflate=deflated, limits=limits)
    for piece in (max(1, len(stream)), 1, 1 + (data[0] >> 3)):
        assert events_of(stream, piece, deflated, limits) == expected, f"pieces of {piece}"


# --- compression


def inflate(data: bytes) -> None:
    """The first two bytes have the limit: never more comes out, and what does, zlib says too. There and back again."""
    limit, body = int.from_bytes(data[:2], "big"), data[2:]
    out = deflate.inflate(memory.exact(body), limit)
    if isinstance(out, bytes):
        assert len(out) <= limit
        decoder = zlib.decompressobj(-15)
        assert out == b"" if not body else decoder.decompress(body + b"\x00\x00\xff\xff") == out
    else:
        assert out in (1007, 1009)
    for window in (9, 12, 15):
        packed = deflate.deflate(memory.exact(body), window)
        assert len(packed) <= len(body) + len(body) // 8 + 64, "made larger"
        assert deflate.inflate(packed, len(body)) == body
        assert not body or deflate.inflate(packed, len(body) - 1) == 1009


def reference(form: int, data: bytes) -> bytes:
    """What the standard decoder of a form says; raises what it raises."""
    if form == ZSTD:
        return zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj().decompress(data)
    if form == LZ4:
        return bytes(lz4.frame.decompress(data))
    return gzip.decompress(data)


def compressed(data: bytes) -> None:
    """The first three bytes have form and limit: never more comes out, and what does, the standard decoder says too."""
    if len(data) < 3:
        return
    form, limit, body = data[0] % 4, int.from_bytes(data[1:3], "big"), data[3:]
    out = compression.decompress(form, memory.exact(body), limit)
    if isinstance(out, bytes):
        assert len(out) <= limit
        assert out == (body if form == NONE else reference(form, body))
    else:
        assert out in (1007, 1009)
    detected = compression.detect(memory.exact(body))
    assert 0 <= detected <= 3
    packed = compression.compress(form, memory.exact(body))
    assert compression.decompress(form, packed, len(body)) == body
    assert not body or compression.decompress(form, packed, len(body) - 1) == 1009


# --- JSON and MessagePack


def is_json(data: bytes) -> bool:
    try:
        json_scan.validate(memory.exact(data))
    except ValueError:
        return False
    return True


def is_msgpack(data: bytes) -> bool:
    try:
        msgpack_scan.validate(memory.exact(data))
    except ValueError:
        return False
    return True


def walk(data: bytes, encoding: int) -> None:
    """Look at the members of a container, which has to agree with whether the whole is valid."""
    for is_map in (True, False):
        try:
            found = members.members(memory.exact(data), encoding, is_map)
        except (ValueError, UnicodeDecodeError):
            continue
        for _key, value in found:
            assert is_json(value) if encoding == JSON else is_msgpack(value), "a member that is no value"


def json_value(data: bytes) -> None:
    """Accepted exactly when Python's reader, made strict, accepts it; as MessagePack and back it stays the same."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    try:
        json_text.read(text)
        expected = True
    except json_text.NotAccepted:
        expected = False
    assert is_json(data) is expected, "Python says otherwise"
    walk(data, JSON)
    if not expected:
        transcoded(data, JSON)
        return
    packed = transcode.convert(memory.exact(data), JSON, MSGPACK)
    assert is_msgpack(packed)
    value = json.loads(text, parse_int=bounded)
    assert repr(msgspec.msgpack.decode(packed)) == repr(value)
    back = transcode.convert(packed, MSGPACK, JSON)
    assert is_json(back)
    assert repr(json.loads(back)) == repr(value)
    if isinstance(value, str):
        inside = text.strip(" \t\r\n")[1:-1].encode()
        assert json_scan.unescape(memory.exact(inside)) == value.encode()
        assert json.loads(json_scan.quote(memory.exact(value.encode()))) == value


def bounded(digits: str) -> int | float:
    """An integer of 64 bits, else a double."""
    if len(digits) > 21:
        return float(digits)
    value = int(digits)
    return value if -(2**63) <= value < 2**64 else float(value)


def transcoded(data: bytes, source: int) -> None:
    """Of what was never validated nothing is asked but a bound."""
    try:
        out = transcode.convert(memory.exact(data), source, 1 - source)
    except ValueError:
        return
    assert len(out) <= 25 * len(data) + 32


def has_only_strings_as_keys(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and has_only_strings_as_keys(item) for key, item in value.items())
    return not isinstance(value, list) or all(map(has_only_strings_as_keys, value))


def msgpack_value(data: bytes) -> None:
    """What is accepted, msgspec decodes to the same; as JSON and back it is the shortest form of the same value."""
    walk(data, MSGPACK)
    if not is_msgpack(data):
        transcoded(data, MSGPACK)
        return
    value = msgspec.msgpack.decode(data)
    assert has_only_strings_as_keys(value)
    text = transcode.convert(memory.exact(data), MSGPACK, JSON)
    assert is_json(text)
    packed = transcode.convert(text, JSON, MSGPACK)
    assert is_msgpack(packed)
    assert repr(msgspec.msgpack.decode(packed)) == repr(without_binary(value))
    assert transcode.convert(packed, MSGPACK, JSON) == text


def without_binary(value: object) -> object:
    """The value as it comes out of JSON: bytes in base64."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return [without_binary(item) for item in value]
    if isinstance(value, dict):
        return {key: without_binary(item) for key, item in value.items()}
    return value


def request(data: bytes) -> None:
    """The first byte has encoding and type. A request that is read has an `id` and a `payload` that are values; its
    strings are text."""
    if not data:
        return
    encoding, forced, body = data[0] & 1, (data[0] >> 1) % 6, data[1:]
    if encoding == JSON:
        try:
            body.decode()
        except UnicodeDecodeError:
            return
    read = envelope.parse(memory.exact(body), encoding, {4: 4, 5: 5}.get(forced, 0))
    if "error" in read:
        assert read["error_message"]
        return
    for field in ("id", "payload"):
        value = read.get(field)
        if isinstance(value, bytes) and value:
            assert is_json(value) if encoding == JSON else is_msgpack(value), field
    if encoding == JSON:
        assert is_json(body), "a request that is no JSON"
        strict = json.loads(body)
        for field in ("topic", "token"):
            if isinstance(read.get(field), str):
                assert read[field] == strict[field]
    else:
        assert is_msgpack(body), "a request that is no MessagePack"


# --- tokens

verifier = JwtVerifier(JwtRules(secret=SECRET, issuer="issuer", audience="audience"))
quick = tokens.Hs256Tokens(
    [SECRET.encode()],
    Identity,
    types=token_rules.ACCESS_TYPES,
    issuer="issuer",
    audience="audience",
    validate_exp=True,
    validate_nbf=True,
)


def url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(data: bytes) -> None:
    """A line with the header, the claims behind it, signed; or, behind a zero, a token as it is. What is accepted in
    one go, the rules accept with the same identity."""
    if data[:1] == b"\x00":
        text = data[1:].decode("latin-1")
        found = tokens.decoded(memory.exact(data[1:]))
        if found is not None:
            assert url64(found).encode() == data[1:], "another text has the same value"
    else:
        header, _, claims = data.partition(b"\n")
        text = f"{url64(header)}.{url64(claims)}"
        text += "." + url64(hmac.digest(SECRET.encode(), text.encode(), hashlib.sha256))
    made = quick.accept(text, NOW)
    try:
        by_rules = verifier.verify_by_rules(text, NOW)
    except AuthenticationFailed:
        by_rules = None
    assert made is None or made == by_rules, "wider than the rules"
    if by_rules is not None:
        assert verifier.verify(text, NOW) == by_rules


TARGETS = {
    "http_head": http_head,
    "frames": frames,
    "inflate": inflate,
    "compressed": compressed,
    "json": json_value,
    "msgpack": msgpack_value,
    "request": request,
    "token": token,
}
