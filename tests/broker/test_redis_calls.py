"""Calls of scripts: keys of one slot, arguments within their bounds."""

import pytest
from redis.crc import key_slot

from realtime_communication.broker.redis_calls import (
    EPOCH_BITS,
    MAX_STREAM_MESSAGES,
    Calls,
    StreamBounds,
    bounds_of,
    fresh_epoch,
)
from realtime_communication.broker.redis_keys import TopicKeys
from realtime_communication.broker.redis_outgoing import Queue
from realtime_communication.config.traffic import MessageRouting


def calls(*, sharded=False, secs=300.0):
    return Calls(TopicKeys("rtc:"), StreamBounds(100, secs), sharded=sharded)


def batch(topic, *keys):
    queue = Queue(b"run")
    for key in keys:
        queue.put(topic, 1, b"12345678body", key)
    return queue.gather()[0]


@pytest.mark.parametrize("topic", [b"room:1", b"@alice", b"a{b}c"])
def test_all_keys_of_a_call_are_in_the_slot_of_the_channel(topic):
    made = calls()
    for call in (
        made.publish(batch(topic, b"", b"key", b"other")),
        made.read(topic, [(1, 2)], newest=0, most=1, known=None, condemned=None),
        made.history(topic, None, 1, False),
        made.keep(topic),
        made.presence(topic, b"run", b"", []),
        made.members(topic),
    ):
        assert {key_slot(key) for key in call.keys} == {key_slot(made.keys.channel(topic))}


def test_publish():
    call = calls().publish(batch(b"t", b"", b"key"))
    assert call.keys[:2] == [b"rtc:{t}:s", b"rtc:{t}:b:run-1"]
    assert len(call.keys) == 3
    command, channel, epoch, *bounds = call.arguments[:9]
    assert (command, channel) == (b"PUBLISH", b"rtc:{t}:c")
    assert 0 < epoch < 1 << EPOCH_BITS
    assert bounds == [100, 420_000, 120_000, 300_000, 0, "01"]
    inbox = calls(sharded=True).publish(batch(b"@alice", b""))
    assert inbox.keys == [b"rtc:{@alice}:s", b"rtc:{@alice}:b:run-1", b"rtc:{@alice}:r"]
    assert (inbox.arguments[0], inbox.arguments[7:9]) == (b"SPUBLISH", [1, ""])


def test_opening_many_topics():
    call = calls().open([b"@alice", b"a{b}c"])
    assert call.keys == [b"rtc:{@alice}:s", b"rtc:{a%7Bb%7Dc}:s"]
    epoch, stream_ms = call.arguments
    assert 0 < epoch < 1 << EPOCH_BITS
    assert stream_ms == 420_000


def test_what_is_too_old_is_for_redis_to_say():
    """By its own clock: a node only says how old."""
    assert calls().history(b"t", (5, 6), 7, True).arguments[4:12] == [300_000, "", "", 0, 7, 1, 5, 6]
    assert calls(secs=5000.0).history(b"t", None, 7, False).arguments[4:12] == [5_000_000, "", "", 0, 7, 0, "", 0]


def test_how_much_of_a_history_is_shown():
    assert calls().history(b"t", None, 7, False).arguments[12:] == [0, 0]
    assert calls().history(b"t", None, 7, False, 2, 3000).arguments[12:] == [2, 3000]


def test_bounds_may_change():
    made = calls()
    made.bounds = StreamBounds(0, 0.0001)
    assert made.publish(batch(b"t", b"")).arguments[3:7] == [0, 120_000, 120_000, 1]


def test_epochs_are_unlike_each_other():
    epochs = {fresh_epoch() for _ in range(1000)}
    assert len(epochs) == 1000
    assert all(0 < epoch < 1 << EPOCH_BITS for epoch in epochs)


def test_the_bounds_of_a_configuration():
    assert bounds_of(MessageRouting(max_cache_entries=50, cache_ttl_secs=7.0)) == StreamBounds(50, 7.0)
    assert bounds_of(MessageRouting(max_cache_entries=100_000_000)).messages == MAX_STREAM_MESSAGES
    assert bounds_of(MessageRouting(enable_caching=False)).messages == 0
