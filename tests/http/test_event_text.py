"""Envelopes as the text of an event stream."""

import json

import pytest

from realtime_communication.http.event_ids import Position, Positions, positions_in
from realtime_communication.http.event_text import CLOSE, HEARTBEAT, PING, EventText

EPOCH, OTHER_EPOCH = "0123456789abcdef", "fedcba9876543210"
TEXT = 1


def frame(**envelope):
    return TEXT, json.dumps(envelope).encode()


def subscribed(number=0, topic="t", offset=0, recovered=False, messages=()):
    return frame(
        type="Subscribed", id=number, topic=topic, epoch=EPOCH, offset=offset, recovered=recovered, messages=messages
    )


def message(offset, topic="t"):
    return frame(type="Message", topic=topic, offset=offset, ts=1, **{"from": "bob"}, payload=offset)


def parse(text):
    """Events as a browser reads them (HTML, section 9.2.6): name, id, data; and the retry times."""
    events, retries = [], []
    name, last_id, data = "", None, []
    for line in text.decode().split("\n"):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                events.append((name or "message", last_id, json.loads("\n".join(data))))
            name, last_id, data = "", None, []
        elif field == "event":
            name = value
        elif field == "id":
            last_id = value
        elif field == "data":
            data.append(value)
        elif field == "retry":
            retries.append(int(value))
        else:
            assert not field, line
    return events, retries


def stream(topics=("t",), known=None):
    return EventText(topics, {} if known is None else known, 1500)


def begun():
    text = stream()
    text.write([frame(type="Connected")])
    return text


def positions(event, *topics):
    return positions_in(event[1], topics)


def test_begins_with_the_time_to_wait():
    text = stream()
    assert text.write([]) == b""
    assert text.write([frame(type="Connected")]) == b'retry: 1500\nevent: Connected\ndata: {"type": "Connected"}\n\n'


def test_a_subscription_and_messages():
    text = stream()
    events, _ = parse(text.write([subscribed(offset=4), message(5), message(6)]))
    assert [(name, data["type"]) for name, _, data in events] == [
        ("Subscribed", "Subscribed"),
        ("message", "Message"),
        ("message", "Message"),
    ]
    assert events[0][2] == {"type": "Subscribed", "topic": "t", "epoch": EPOCH, "offset": 4, "recovered": False}
    assert events[2][2] == {"type": "Message", "topic": "t", "offset": 6, "ts": 1, "from": "bob", "payload": 6}
    assert [positions(event, "t")["t"] for event in events] == [Position(EPOCH, offset) for offset in (4, 5, 6)]


def test_what_a_subscription_brings_follows_as_messages():
    stored = [{"offset": offset, "ts": 1, "from": "bob", "payload": {"n": offset}} for offset in (7, 8)]
    events, _ = parse(stream().write([subscribed(offset=8, recovered=True, messages=stored)]))
    assert [data.get("payload") for _, _, data in events] == [None, {"n": 7}, {"n": 8}]
    assert events[1][2] == {"type": "Message", "topic": "t", **stored[0]}
    # Whoever is cut off between them comes back for the rest.
    assert [positions(event, "t")["t"].offset for event in events] == [6, 7, 8]


def test_the_id_tells_of_all_topics():
    text = stream(("a", "b"))
    events, _ = parse(text.write([subscribed(0, "a", 1), subscribed(1, "b", 5), message(2, "a"), message(6, "b")]))
    assert {name: position.offset for name, position in positions(events[0], "a", "b").items()} == {"a": 1}
    assert {name: position.offset for name, position in positions(events[-1], "a", "b").items()} == {"a": 2, "b": 6}


def test_what_was_known_stays_until_the_topic_is_there():
    known = {"a": Position(EPOCH, 3), "b": Position(EPOCH, 4)}
    text = EventText(("a", "b"), known, 1500)
    events, _ = parse(text.write([message(9, "b"), subscribed(0, "a", 7)]))
    assert events[0][1] is None
    assert {name: position.offset for name, position in positions(events[1], "a", "b").items()} == {"a": 7, "b": 4}


def test_requests():
    text = EventText(("a", "b"), {"b": Position(EPOCH, 4)}, 1500)
    assert [json.loads(asked) for asked in text.requests(history=9, presence=True)] == [
        {"id": 0, "type": "Subscribe", "topic": "a", "history": 9, "presence": True},
        {
            "id": 1,
            "type": "Subscribe",
            "topic": "b",
            "recover": {"epoch": EPOCH, "offset": 4},
            "history": 9,
            "presence": True,
        },
    ]


def test_an_id_that_cannot_be_read_asks_for_what_no_topic_has():
    (asked,) = EventText(("a",), None, 1500).requests()
    assert json.loads(asked)["recover"] == {"epoch": "0" * 16, "offset": 0}


def test_unanswered_and_refused():
    text = stream(("a", "b"))
    assert text.unanswered == 2
    text.write([subscribed(0, "a")])
    assert (text.unanswered, text.failure) == (1, None)
    text.write([frame(type="Error", id=1, code="forbidden", message="no", retry_after_ms=5)])
    assert text.unanswered == 0
    assert (text.failure.code, text.failure.message, text.failure.retry_after_ms) == ("forbidden", "no", 5)


def test_a_gap_leaves_the_id_and_another_epoch_changes_it():
    text = stream()
    lagged = {"type": "Lagged", "topic": "t", "missed": 3, "recovered": False}
    events, _ = parse(
        text.write(
            [
                subscribed(offset=1),
                frame(**lagged, epoch=EPOCH, offset=4),
                message(5),
                frame(**lagged, epoch=OTHER_EPOCH, offset=2),
            ]
        )
    )
    assert events[1][:2] == ("Lagged", None)
    assert positions(events[2], "t")["t"] == Position(EPOCH, 5)
    assert positions(events[3], "t")["t"] == Position(OTHER_EPOCH, 2)


@pytest.mark.parametrize("kind", ["Connected", "DirectMessage", "Join", "Leave", "TokenExpiring", "Error", "Later"])
def test_what_else_comes_is_named_by_its_type(kind):
    text = stream()
    text.write([subscribed()])
    assert parse(text.write([frame(type=kind, topic="t", code="x")]))[0] == [
        (kind, None, {"type": kind, "topic": "t", "code": "x"})
    ]
    assert not text.over


def test_a_subscription_that_somebody_else_made_is_told_as_it_is():
    text = stream()
    told = {"type": "Subscribed", "topic": "u", "epoch": EPOCH, "offset": 3, "recovered": False, "messages": []}
    events, _ = parse(text.write([subscribed(), frame(**told), message(4, "u")]))
    assert events[1] == ("Subscribed", None, told)
    assert events[2][1] is None


def test_a_heartbeat_is_a_comment():
    text = begun()
    assert text.write([(PING, b"")]) == HEARTBEAT == b":\n"


@pytest.mark.parametrize(("after_ms", "retry"), [(1730, 1730), (3, 1000)])
def test_closing_says_when_to_come_back(after_ms, retry):
    text = begun()
    closing = {"type": "Closing", "code": 1001, "reason": "bye", "reconnect": True, "after_ms": after_ms}
    assert parse(text.write([frame(**closing), message(9)])) == ([("Closing", None, closing)], [retry])
    assert text.over


@pytest.mark.parametrize(
    ("payload", "code", "reason", "reconnect"),
    [
        ((4403).to_bytes(2, "big") + b"enough", 4403, "enough", False),
        ((4490).to_bytes(2, "big") + b"slow consumer", 4490, "slow consumer", True),
        ((3999).to_bytes(2, "big"), 3999, "", False),
        (b"", 1000, "", False),
    ],
)
def test_a_close_frame_is_a_closing(payload, code, reason, reconnect):
    text = begun()
    events, _ = parse(text.write([(CLOSE, payload), message(1)]))
    assert events == [
        (
            "Closing",
            None,
            {"type": "Closing", "code": code, "reason": reason, "reconnect": reconnect, "after_ms": 1500},
        )
    ]
    assert text.over


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\r\n", "\n\n"])
def test_line_ends_in_a_payload(end):
    text = stream()
    text.write([subscribed()])
    body = '{"type":"Message","topic":"t","offset":1,"ts":1,"from":"bob","payload":{"a":' + end + "[1]" + end + "}}"
    written = text.write([(TEXT, body.encode())])
    assert b"\r" not in written
    assert parse(written)[0][0][2]["payload"] == {"a": [1]}


def test_an_envelope_that_cannot_be_read_goes_as_it_is():
    text = begun()
    assert text.write([(TEXT, b"[1]")]) == b"data: [1]\n\n"


def test_positions_of_a_stream_are_its_own():
    known = {"t": Position(EPOCH, 1)}
    EventText(("t",), known, 1).write([subscribed(offset=9)])
    assert known == {"t": Position(EPOCH, 1)}
    assert Positions().id == ""


def direct(offset, kind="DirectMessage"):
    return frame(type=kind, offset=offset, ts=1, **{"from": "bob"}, payload=offset)


def page(offset, *offsets):
    messages = [{"offset": at, "ts": 1, "from": "bob", "payload": at} for at in offsets]
    return frame(type="HistoryPage", id="inbox", topic="@me", epoch=EPOCH, offset=offset, messages=messages)


class TestInbox:
    def stream(self, known=None):
        return EventText(("t",), {} if known is None else {"@me": known}, 1500, "@me")

    def test_the_id_tells_of_it(self):
        text = self.stream()
        assert json.loads(text.requests()[-1]) == {
            "id": "inbox", "type": "History", "topic": "@me", "limit": 1, "reverse": True
        }  # fmt: skip
        assert text.unanswered == 2
        events, _ = parse(text.write([subscribed(), page(4, 4), direct(5)]))
        assert text.unanswered == 0
        assert [name for name, _, _ in events] == ["Subscribed", "DirectMessage"]
        assert positions(events[0], "@me", "t") == {"t": Position(EPOCH, 0)}
        assert positions(events[1], "@me", "t") == {"t": Position(EPOCH, 0), "@me": Position(EPOCH, 5)}

    def test_what_was_missed_comes_before_what_is_live(self):
        text = self.stream(Position(EPOCH, 2))
        events, _ = parse(text.write([direct(5), page(4, 3, 4), direct(4), direct(6), subscribed()]))
        assert [data.get("offset") for _, _, data in events] == [3, 4, 5, 6, 0]
        assert events[0][2] == json.loads(direct(3)[1])
        assert positions(events[-1], "@me") == {"@me": Position(EPOCH, 6)}

    def test_pages_are_asked_for_until_the_last(self):
        text = self.stream(Position(EPOCH, 2))
        text.write([page(9, 3, 4)])
        (asked,) = text.more_requests()
        assert json.loads(asked)["after"] == {"epoch": EPOCH, "offset": 4}
        text.write([page(9, *range(5, 10))])
        assert text.more_requests() == []

    def test_where_it_cannot_be_read_nothing_is_known(self):
        text = self.stream(Position(EPOCH, 2))
        error = frame(type="Error", id="inbox", code="rate_limited", message="no")
        events, _ = parse(text.write([direct(5), error, direct(6), subscribed()]))
        assert [name for name, _, _ in events] == ["Lagged", "DirectMessage", "DirectMessage", "Subscribed"]
        assert positions(events[-1], "@me") == {}
        assert text.failure is None
        plain = stream()
        assert parse(plain.write([direct(5)]))[0] == [("DirectMessage", None, json.loads(direct(5)[1]))]

    def test_another_epoch(self):
        text = self.stream()
        text.write([page(4)])
        lagged = frame(type="Lagged", topic="@me", missed=1, epoch=OTHER_EPOCH, offset=0, recovered=False)
        events, _ = parse(text.write([lagged, direct(1)]))
        assert [positions(event, "@me")["@me"] for event in events] == [
            Position(OTHER_EPOCH, 0),
            Position(OTHER_EPOCH, 1),
        ]
