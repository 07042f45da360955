"""Envelopes of control events: what is opened, and why the rest is not."""

import msgspec
import pytest

from realtime_communication.broker.events import MAX_AGE_SECS, MAX_EVENT_BYTES, VERSION, EventCodec, Skipped
from realtime_communication.broker.sealing import Seal
from realtime_communication.errors import MisuseError

SECRET = "a secret of at least thirty-two bytes, for tests"
NOW = 1_700_000_000.0


def codec(node, secret=SECRET):
    return EventCodec(node, Seal([secret], "events"))


def sealed(sender, payload=None, kind="kind", at=NOW):
    return sender.seal(sender.number(kind, payload or {"a": 1}), at)


def test_there_and_back():
    body = codec("two").open(sealed(codec("one"), {"text": "ü", "list": [1, None]}), NOW)
    assert (body.node, body.seq, body.kind, body.payload) == ("one", 1, "kind", {"text": "ü", "list": [1, None]})


def test_own_events_are_skipped():
    one = codec("one")
    assert one.open(sealed(one), NOW) is Skipped.OWN


def test_another_run_under_the_own_name_is_noticed():
    one, namesake = codec("one"), codec("one")
    assert one.open(sealed(namesake), NOW).payload == {"a": 1}
    assert one.namesakes == 1


def test_repeated_events_are_skipped():
    one, two = codec("one"), codec("two")
    first, second = sealed(one), sealed(one)
    assert two.open(first, NOW).seq == 1
    assert two.open(first, NOW) is Skipped.REPEATED
    assert two.open(second, NOW).seq == 2
    assert two.open(first, NOW) is Skipped.REPEATED
    again = codec("one")  # the node was restarted and counts anew
    assert two.open(sealed(again), NOW).seq == 1


def test_one_that_is_sent_again_keeps_its_number():
    one, two = codec("one"), codec("two")
    event = one.number("kind", {})
    assert two.open(one.seal(event, NOW), NOW).seq == 1
    assert two.open(one.seal(event, NOW + 1), NOW + 1) is Skipped.REPEATED


@pytest.mark.parametrize("age", [MAX_AGE_SECS + 1, -MAX_AGE_SECS - 1])
def test_what_was_sent_long_ago_is_skipped(age):
    assert codec("two").open(sealed(codec("one")), NOW + age) is Skipped.STALE


def test_forgeries_are_skipped():
    message, two = sealed(codec("one")), codec("two")
    assert two.open(sealed(codec("one", "another secret of thirty-two bytes and more")), NOW) is Skipped.FORGED
    for old, new in ((b'"a":1', b'"a":2'), (b'"seq":1', b'"seq":9'), (b'"one"', b'"eno"'), (b'"kind":"', b'"kind":"x')):
        assert old in message
        assert two.open(message.replace(old, new), NOW) is Skipped.FORGED
    without = msgspec.json.encode(msgspec.json.decode(message) | {"mark": ""})
    assert two.open(without, NOW) is Skipped.FORGED
    assert two.open(message, NOW).seq == 1


def test_newer_versions_are_skipped():
    newer = sealed(codec("one")).replace(b'"version":%d' % VERSION, b'"version":%d' % (VERSION + 1))
    assert codec("two").open(newer, NOW) is Skipped.NEWER


def test_every_cut_of_an_envelope_is_skipped():
    message, two = sealed(codec("one")), codec("two")
    assert {two.open(message[:length], NOW) for length in range(len(message))} == {Skipped.GARBAGE}


@pytest.mark.parametrize(
    "message",
    [
        *(b"", b"\x00", b"null", b"[]", b'"text"', b"{}", b'{"version":"1"}', b'{"version":0}', b"\xff\xfe"),
        *(b"[" * 60_000, b'{"version":1,"mark":"' + b"\xc3" + b'"}', b'{"version":1,"mark":1,"body":{}}'),
    ],
)
def test_garbage_is_skipped(message):
    assert codec("two").open(message, NOW) is Skipped.GARBAGE


def test_a_genuine_body_of_the_wrong_shape_is_garbage():
    seal = Seal([SECRET], "events")
    for body in (b"{}", b"1", b'{"node":1,"run":"r","seq":1,"at":1,"kind":"k","payload":{}}'):
        message = b'{"version":1,"mark":"%s","body":%s}' % (seal.mark(b"1\n" + body).encode(), body)
        assert codec("two").open(message, NOW) is Skipped.GARBAGE


def test_sizes():
    one, two = codec("one"), codec("two")
    assert two.open(b" " * (MAX_EVENT_BYTES + 1), NOW) is Skipped.TOO_LARGE
    with pytest.raises(MisuseError, match=f"more than {MAX_EVENT_BYTES}"):
        one.number("kind", {"a": "x" * MAX_EVENT_BYTES})
    largest = {"a": "x" * (MAX_EVENT_BYTES - 500)}
    assert two.open(sealed(one, largest), NOW).payload == largest
    assert one.number("kind", {}).seq == 2  # what was refused has no number


@pytest.mark.parametrize("payload", [{"a": object()}, {"a": "\ud800"}])
def test_what_is_no_json(payload):
    with pytest.raises(MisuseError, match="cannot be JSON"):
        codec("one").number("kind", payload)
