"""The scripts alone, called as an impatient or a doubled node would call them."""

import pytest
import redis

from realtime_communication.broker import redis_scripts
from realtime_communication.broker.redis_calls import Calls, StreamBounds
from realtime_communication.broker.redis_frames import framed, parse_frame, split_bodies
from realtime_communication.broker.redis_keys import TopicKeys
from realtime_communication.broker.redis_outgoing import Queue


@pytest.fixture
def topic(request):
    return request.node.name.encode()


@pytest.fixture
def calls():
    return Calls(TopicKeys("rtc:"), StreamBounds(100, 300.0), sharded=False)


@pytest.fixture
def run(redis_server):
    return lambda call: redis_server.client.eval(call.script.text, *call.operands)


def batch(topic, *items):
    """Of (text, idempotency key)."""
    queue = Queue(b"run-of-" + topic)
    for text, key in items:
        queue.put(topic, 1, b"\xff" * 6 + bytes(2) + text, key)
    return queue.gather()[0]


def stream(redis_server, topic):
    return redis_server.client.xrange(f"rtc:{{{topic.decode()}}}:s")


def test_a_batch_that_is_sent_twice_is_stored_and_published_once(redis_server, calls, run, topic):
    listener = redis_server.client.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(calls.keys.channel(topic))
    listener.get_message(timeout=1)
    one = batch(topic, (b"a", b""), (b"b", b"key"), (b"c", b"key"))
    first = run(calls.publish(one))
    epoch, offset, reached, *places = first.split()
    assert (offset, reached) == (b"1", b"0")
    assert places == [epoch + b"-1", epoch + b"-2", epoch + b"-2"]
    assert run(calls.publish(one)) == first
    assert [entry for entry, _ in stream(redis_server, topic)] == [epoch + b"-1", epoch + b"-2"]
    run(calls.publish(batch(topic + b"other", (b"x", b""))))
    frames = []
    while message := listener.get_message(timeout=0.05):
        frames.append(parse_frame(message["data"]))
    listener.close()
    assert len(frames) == 1
    assert (frames[0].epoch, frames[0].first, frames[0].count) == (int(epoch), 1, 2)
    assert [each[8:] for each in split_bodies(frames[0].bodies)] == [b"a", b"b"]


def test_the_position_outlives_the_messages(redis_server, calls, run, topic):
    run(calls.publish(batch(topic, *((b"x", b""),) * 5)))
    epoch, offset, first, *bodies = run(calls.history(topic, None, 10, False))
    assert (offset, first, len(bodies)) == (b"5", b"1", 5)
    redis_server.client.xtrim(calls.keys.stream(topic), maxlen=0)
    assert run(calls.history(topic, None, 10, False)) == [epoch, b"5", b"6"]
    redis_server.client.delete(calls.keys.stream(topic))
    again = run(calls.history(topic, None, 10, False))
    assert again[0] != epoch
    assert again[1:] == [b"0", b"1"]


def test_a_page_of_what_is_shown(redis_server, calls, run, topic):
    """Of a stream that keeps more, for those who were subscribed all along."""
    run(calls.publish(batch(topic, *((b"%d" % number, b"") for number in range(1, 6)))))
    epoch = int(run(calls.history(topic, None, 1, False))[0])

    def page(position, limit, reverse, shown):
        _, offset, first, *bodies = run(calls.history(topic, position, limit, reverse, shown))
        assert offset == b"5"
        assert [int(body[-1:]) for body in bodies] == list(range(int(first), int(first) + len(bodies)))
        return [int(body[-1:]) for body in bodies]

    assert page(None, 10, False, 2) == [4, 5]
    assert page(None, 1, False, 2) == [4]
    assert page(None, 1, True, 2) == [5]
    assert page((epoch, 2), 10, False, 2) == [4, 5]
    assert page((epoch, 4), 10, False, 2) == [5]
    assert page((epoch, 5), 10, True, 2) == [4]
    assert page((epoch, 4), 10, True, 2) == []
    assert page(None, 10, False, 9) == page(None, 10, False, 0) == [1, 2, 3, 4, 5]
    assert redis_server.client.xlen(calls.keys.stream(topic)) == 5


def test_a_page_of_what_is_not_too_old(redis_server, calls, run, topic):
    run(calls.publish(batch(topic, *((b"x", b""),) * 4)))
    stream = calls.keys.stream(topic)
    entries = redis_server.client.xrange(stream)
    redis_server.client.xtrim(stream, maxlen=0)
    for (name, fields), age in zip(entries, (90_000, 70_000, 50_000, 0), strict=True):
        again = name.decode().split("-")[1]
        stored = b"%d" % (int(fields[b"t"]) - age)
        redis_server.client.xadd(stream + b"2", {"b": fields[b"b"], "t": stored}, id=b"7-" + again.encode())
    redis_server.client.rename(stream + b"2", stream)
    for shown_ms, shown in ((0, 4), (100_000, 4), (80_000, 3), (60_000, 2), (40_000, 1)):
        _, offset, first, *bodies = run(calls.history(topic, None, 10, False, 0, shown_ms))
        assert (offset, int(first), len(bodies)) == (b"4", 5 - shown, shown)
    assert redis_server.client.xlen(stream) == 4


def test_everything_expires(redis_server, calls, run, topic):
    run(calls.publish(batch(topic, (b"x", b"key"))))
    run(calls.presence(topic, b"run", b"", [(b"+", b"s", b"u", b"".join(map(framed, (b"run", b"u", bytes(8), b""))))]))
    run(calls.routes(b"run", [(topic, True)]))
    run(calls.claim(b"rtc:node:" + topic, b"run"))
    keys = [key for key in redis_server.client.scan_iter() if topic in key]
    assert len(keys) == 7
    assert min(redis_server.client.pttl(key) for key in keys) > 0


@pytest.mark.parametrize(
    ("known", "condemned", "is_new"),
    [((0, 3), None, False), ((0, 2), None, False), ((0, 4), None, True), ((1, 9), None, False), (None, 0, True)],
)
def test_a_stream_that_has_lost_something_begins_anew(run, calls, topic, known, condemned, is_new):
    """Epochs here are relative to the stream's."""
    topic = topic.replace(b"[", b"").replace(b"]", b"")
    run(calls.publish(batch(topic, *((b"x", b""),) * 3)))
    epoch = int(run(calls.history(topic, None, 1, False))[0])
    found = run(
        calls.read(
            topic,
            [],
            newest=0,
            most=10,
            known=None if known is None else (epoch + known[0], known[1]),
            condemned=None if condemned is None else epoch,
        )
    )
    assert (int(found[0]) != epoch) is is_new
    assert found[1] == (b"0" if is_new else b"3")


def test_topics_are_opened_together(redis_server, calls, run, topic):
    known, fresh, other = topic + b"-known", topic + b"-fresh", topic + b"-other"
    run(calls.publish(batch(known, *((b"x", b""),) * 3)))
    redis_server.client.set(calls.keys.stream(other), "no stream")
    epoch, offset, _ = run(calls.history(known, None, 1, False))[:3]
    found = run(calls.open([known, fresh, other]))
    assert found[:2] == [epoch, offset]
    assert found[3:] == [b"0", b"", b"0"]
    assert run(calls.history(fresh, None, 1, False)) == [found[2], b"0", b"1"]
    assert redis_server.client.pttl(calls.keys.stream(fresh)) > 0
    assert redis_server.client.get(calls.keys.stream(other)) == b"no stream"


def test_members_of_a_run_that_has_another_name_now_are_moved_or_leave(redis_server, calls, run, topic):
    def entered(node, session):
        return (b"+", session, b"u" + session, b"".join(map(framed, (node, b"u" + session, bytes(8), b""))))

    assert run(calls.presence(topic, b"run-1", b"", [entered(b"run-1", b"1"), entered(b"run-1", b"2")])) == 2
    assert run(calls.presence(topic, b"run-2", b"run-1", [entered(b"run-2", b"2")])) == 1
    assert run(calls.members(topic))[::2] == [b"2"]
    assert redis_server.client.hgetall(calls.keys.members(topic)).keys() == {b"s2", b"uu2", b"crun-2"}


def test_the_claim_of_an_id(run, calls):
    assert run(calls.claim(b"rtc:node:mine", b"one")) is None
    assert run(calls.claim(b"rtc:node:mine", b"one")) == b"one"
    assert run(calls.claim(b"rtc:node:mine", b"two")) == b"one"


def test_a_refusal_comes_before_anything_was_done(redis_server, calls, run, topic):
    redis_server.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            run(calls.publish(batch(topic, (b"x", b""))))
    finally:
        redis_server.client.config_set("maxmemory", 0)
    assert stream(redis_server, topic) == []


def test_every_script_is_checked_as_a_whole():
    scripts = {name: each for name, each in vars(redis_scripts).items() if name.isupper() and not name.startswith("_")}
    assert len(scripts) == 9
    assert all(each.text.startswith("#!lua\n") for each in scripts.values())
