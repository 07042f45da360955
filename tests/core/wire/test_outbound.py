"""Protocol sections 2 and 3: what the server sends, key for key in the order shown, in both encodings."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication._core.wire.outbound import OutboundWriter

JSON, MSGPACK = 0, 1
TS = 1767220000123
attack = settings(max_examples=200, deadline=None, derandomize=True)
text = st.text(st.characters(exclude_categories=["Cs"]))
both = pytest.mark.parametrize("encoding", [JSON, MSGPACK], ids=["json", "msgpack"])


def encode(encoding: int, value: object) -> bytes:
    return msgspec.msgpack.encode(value) if encoding == MSGPACK else msgspec.json.encode(value)


def written(encoding: int, request_id: object, write: Callable[[OutboundWriter], None]) -> dict[str, Any]:
    """What was written, decoded; it has to be the shortest form there is."""
    writer = OutboundWriter(encoding, None if request_id is None else encode(encoding, request_id))
    write(writer)
    out: dict[str, Any] = (msgspec.msgpack if encoding == MSGPACK else msgspec.json).decode(bytes(writer))
    assert bytes(writer) == encode(encoding, out)
    return out


ENVELOPES: list[tuple[Callable[[OutboundWriter], None], dict[str, Any]]] = [
    (
        lambda to: to.connected(b"s1", b"alice", b"n1", 30, 1767225600, 1767222000),
        {"type": "Connected", "session_id": "s1", "user_id": "alice", "node_id": "n1", "protocol": "rtc.v1",
         "heartbeat_interval_secs": 30, "expires_at": 1767225600, "refresh_at": 1767222000},
    ),
    (
        lambda to: to.connected(b"", b"\xc3\xa9", b"n", 0.25, -1, -1),
        {"type": "Connected", "session_id": "", "user_id": "é", "node_id": "n", "protocol": "rtc.v1",
         "heartbeat_interval_secs": 0.25, "expires_at": None, "refresh_at": None},
    ),
    (lambda to: to.unsubscribed(b"t"), {"type": "Unsubscribed", "topic": "t"}),
    (lambda to: to.ack(b"t", b"e", 2**53), {"type": "Ack", "topic": "t", "epoch": "e", "offset": 2**53}),
    (lambda to: to.delivered([], []), {"type": "Ack", "delivered": [], "offline": []}),
    (
        lambda to: to.delivered([b"a", b"b", b'"'], [b"c"]),
        {"type": "Ack", "delivered": ["a", "b", '"'], "offline": ["c"]},
    ),
    (lambda to: to.refreshed(5, -1), {"type": "Refreshed", "expires_at": 5, "refresh_at": None}),
    (lambda to: to.pong(TS), {"type": "Pong", "ts": TS}),
    (lambda to: to.error(1, b"no"), {"type": "Error", "code": "bad_request", "message": "no"}),
    (
        lambda to: to.error(7, "zu schnell für \"uns\"\n".encode(), 120, b"connection"),
        {"type": "Error", "code": "rate_limited", "message": 'zu schnell für "uns"\n', "retry_after_ms": 120,
         "scope": "connection"},
    ),
    (lambda to: to.error(8, b"", 0), {"type": "Error", "code": "backpressure", "message": "", "retry_after_ms": 0}),
]  # fmt: skip

UNASKED: list[tuple[Callable[[OutboundWriter], None], dict[str, Any]]] = [
    (lambda to: to.join(False, b"t", b"u", b"s"), {"type": "Join", "topic": "t", "user_id": "u", "session_id": "s"}),
    (lambda to: to.join(True, b"t", b"u", b"s"), {"type": "Leave", "topic": "t", "user_id": "u", "session_id": "s"}),
    (
        lambda to: to.join(False, b"t", b"u", b"s", '{"a":[1.5,"é"]}'.encode()),
        {"type": "Join", "topic": "t", "user_id": "u", "session_id": "s", "info": {"a": [1.5, "é"]}},
    ),
    (
        lambda to: to.lagged(b"t", 12, b"e", 18, True),
        {"type": "Lagged", "topic": "t", "missed": 12, "epoch": "e", "offset": 18, "recovered": True},
    ),
    (lambda to: to.token_expiring(1767225600), {"type": "TokenExpiring", "expires_at": 1767225600}),
    (
        lambda to: to.closing(1001, b"server shutting down", True, 1730),
        {"type": "Closing", "code": 1001, "reason": "server shutting down", "reconnect": True, "after_ms": 1730},
    ),
]


@both
@pytest.mark.parametrize(("write", "expected"), ENVELOPES, ids=[f"{e[1]['type']}-{i}" for i, e in enumerate(ENVELOPES)])
@pytest.mark.parametrize("request_id", [None, 0, 7, 2**53 - 1, "", 'a"é\n'])
def test_replies(
    encoding: int, write: Callable[[OutboundWriter], None], expected: dict[str, Any], request_id: object
) -> None:
    out = written(encoding, request_id, write)
    wanted = list(expected.items())
    if request_id is not None:
        wanted.insert(1, ("id", request_id))
    assert list(out.items()) == wanted
    assert [type(value) for value in out.values()] == [type(value) for _, value in wanted]


@both
@pytest.mark.parametrize(("write", "expected"), UNASKED, ids=[e[1]["type"] for e in UNASKED])
def test_unasked(encoding: int, write: Callable[[OutboundWriter], None], expected: dict[str, Any]) -> None:
    for request_id in (None, 7):
        assert list(written(encoding, request_id, write).items()) == list(expected.items())


CODES = ["bad_request", "unauthorized", "forbidden", "token_expired", "topic_invalid", "not_subscribed", "rate_limited",
         "backpressure", "too_many_targets", "too_large", "unsupported", "unavailable", "internal"]  # fmt: skip


@both
def test_error_codes(encoding: int) -> None:
    def code(number: int) -> object:
        return written(encoding, None, lambda to: to.error(number, b""))["code"]

    assert [code(number) for number in range(1, 14)] == CODES
    assert [code(number) for number in (-1, 0, 14, 1 << 30)] == [""] * 4


@both
@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 200])
def test_lists(encoding: int, count: int) -> None:
    payload = {"n": [1.5, None], "text": "é"}

    def subscribed(to: OutboundWriter) -> None:
        to.subscribed_head(b"t", b"e", count, False, count)
        for number in range(count):
            source = number % 2
            to.stored_message(number == 0, number + 1, TS + number, b"bob", encode(source, payload), source)
        to.list_tail()

    def members(to: OutboundWriter) -> None:
        to.presence_state_head(b"t", count)
        for number in range(count):
            to.presence_member(number == 0, f"u{number}".encode(), b"s", TS, b'{"n":1}' if number % 2 else b"")
        to.list_tail()

    def page(to: OutboundWriter) -> None:
        to.history_page_head(b"t", b"e", 18, count)
        for number in range(count):
            to.stored_message(number == 0, number, TS, b"", encode(encoding, None), encoding)
        to.list_tail()

    out = written(encoding, 1, page)
    assert list(out) == ["type", "id", "topic", "epoch", "offset", "messages"]
    assert (out["type"], out["epoch"], out["offset"], len(out["messages"])) == ("HistoryPage", "e", 18, count)
    out = written(encoding, 1, subscribed)
    assert list(out) == ["type", "id", "topic", "epoch", "offset", "recovered", "messages"]
    assert (out["type"], out["recovered"]) == ("Subscribed", False)
    assert [list(message.items()) for message in out["messages"]] == [
        [("offset", number + 1), ("ts", TS + number), ("from", "bob"), ("payload", payload)] for number in range(count)
    ]
    out = written(encoding, None, members)
    assert list(out) == ["type", "topic", "count", "members"]
    assert (out["type"], out["count"]) == ("PresenceState", count)
    assert [list(member.items()) for member in out["members"]] == [
        [("user_id", f"u{number}"), ("session_id", "s"), ("joined_at", TS)]
        + ([("info", {"n": 1})] if number % 2 else [])
        for number in range(count)
    ]


@both
@attack
@given(
    topic=st.none() | text,
    offset=st.integers(0, 2**64 - 1) | st.integers(0, 300),
    ts=st.integers(0, 2**64 - 1) | st.integers(0, 2**41),
    sender=text,
    payload=st.none() | st.integers(-5, 5) | text | st.lists(text),
)
def test_messages(encoding: int, topic: str | None, offset: int, ts: int, sender: str, payload: object) -> None:
    name = None if topic is None else topic.encode()
    out = written(encoding, None, lambda to: to.message(name, offset, ts, sender.encode(), encode(encoding, payload)))
    wanted = [("type", "DirectMessage")] if topic is None else [("type", "Message"), ("topic", topic)]
    assert list(out.items()) == [*wanted, ("offset", offset), ("ts", ts), ("from", sender), ("payload", payload)]


def test_literally() -> None:
    to = OutboundWriter(JSON)
    to.message(b"room:42", 18, TS, b"bob", b'{"a" : 1}')
    assert bytes(to) == (
        b'{"type":"Message","topic":"room:42","offset":18,"ts":1767220000123,"from":"bob","payload":{"a" : 1}}'
    )


@both
@attack
@given(parts=st.lists(text, min_size=4, max_size=4))
def test_any_text(encoding: int, parts: list[str]) -> None:
    one, two, three, four = (part.encode() for part in parts)
    out = written(encoding, parts[0], lambda to: to.connected(one, two, three, 1, 0, 0))
    assert [out["id"], out["session_id"], out["user_id"], out["node_id"]] == [parts[0], *parts[:3]]
    out = written(encoding, None, lambda to: to.error(9, four, 2**62, b"user"))
    assert out["message"] == parts[3]


def test_id_is_written_as_it_came() -> None:
    to = OutboundWriter(JSON, b'"\\u0061"')
    to.pong(1)
    assert bytes(to) == b'{"type":"Pong","id":"\\u0061","ts":1}'
    to = OutboundWriter(MSGPACK, b"\xd0\x05")
    to.pong(1)
    assert bytes(to) == b"\x83\xa4type\xa4Pong\xa2id\xd0\x05\xa2ts\x01"


@both
def test_a_payload_that_was_not_validated_leaves_nothing_behind(encoding: int) -> None:
    to = OutboundWriter(encoding)
    to.subscribed_head(b"t", b"e", 1, False, 1)
    before = bytes(to)
    for first in (True, False):
        with pytest.raises(MemoryError):
            to.stored_message(first, 1, 1, b"bob", b'"' if encoding == MSGPACK else b"\xc1", 1 - encoding)
        assert bytes(to) == before


def test_json_is_one_line() -> None:
    to = OutboundWriter(JSON)
    to.closing(1001, b"a\nb\r", False, 0)
    assert b"\n" not in bytes(to)
    assert json.loads(bytes(to))["reason"] == "a\nb\r"
