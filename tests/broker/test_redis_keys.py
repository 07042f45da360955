"""Names in Redis: no topic can leave its slot, end its tag or take another one's name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from realtime_communication.broker.redis_keys import TopicKeys

KEYS = TopicKeys("rtc:")
NASTY = [
    b"room:1",
    b"{tag}",
    b"a}b",
    b"}",
    b"{",
    b"{}",
    b"%7D",
    b"%",
    b"%25",
    b"a}:s",
    "größe".encode(),
    b"@alice",
    b"*",
]


def names(topic, keys=KEYS):
    return [
        *(keys.stream(topic), keys.batch(topic, b"run-1"), keys.idempotency(topic, b"any\0}thing")),
        *(keys.members(topic), keys.nodes(topic), keys.routes(topic), keys.channel(topic)),
    ]


def test_what_they_look_like():
    assert names(b"room:1") == [
        b"rtc:{room:1}:s",
        b"rtc:{room:1}:b:run-1",
        b"rtc:{room:1}:i:" + KEYS.idempotency(b"x", b"any\0}thing").rpartition(b":")[2],
        b"rtc:{room:1}:m",
        b"rtc:{room:1}:n",
        b"rtc:{room:1}:r",
        b"rtc:{room:1}:c",
    ]
    assert KEYS.stream(b"a{b}%") == b"rtc:{a%7Bb%7D%25}:s"


@pytest.mark.parametrize("prefix", ["rtc:", "", "app{1}:", "app{"])
@pytest.mark.parametrize("topic", NASTY)
def test_all_names_of_a_topic_are_in_one_slot(prefix, topic):
    assert len({key_slot(name) for name in names(topic, TopicKeys(prefix))}) == 1


def test_no_two_topics_share_a_name():
    every = [name for topic in NASTY for name in names(topic)]
    assert len(set(every)) == len(every)


@given(st.binary(min_size=1, max_size=40))
def test_the_topic_of_a_channel(topic):
    assert KEYS.topic(KEYS.channel(topic)) == topic
    assert key_slot(KEYS.channel(topic)) == key_slot(KEYS.stream(topic))


@pytest.mark.parametrize("channel", [b"", b"rtc:events", b"rtc:{a", b"rtc:{a}b}:c", b"rtc:{%}:c", b"other:{a}:c"])
def test_what_is_no_channel_of_a_topic(channel):
    assert KEYS.topic(channel) is None
