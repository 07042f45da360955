"""Events between nodes over a real Redis that comes and goes."""

import asyncio

import pytest

from broker.links import down, running, until
from realtime_communication.broker import redis_events
from realtime_communication.broker.events import EventCodec, Skipped
from realtime_communication.broker.redis_events import SETTLE_SECS, RedisEvents
from realtime_communication.broker.redis_feed import Feed
from realtime_communication.broker.sealing import Seal
from realtime_communication.resilience.breaker import Breakers, BreakerState
from serving.processes import free_port
from serving.proxy import Proxy, scenario
from serving.redis import RedisServer
from serving.tokens import SECRET


class Node:
    """The parts of a node, and the payloads it got."""

    def __init__(self, link, feed, events, got):
        self.link, self.feed, self.events, self.got = link, feed, events, got
        self.parts = (link, feed, events)


@pytest.fixture
def node_of(link_to, redis_config):
    """A node that is not running yet."""

    def make(name, *, secret=SECRET, breakers=None, settle_secs=0.0, **redis):
        breakers = breakers or Breakers(redis_config().circuit_breaker)
        link = link_to(breakers=breakers, **redis)
        codec = EventCodec(name, Seal([secret], "events"))
        feed = Feed(link)
        events = RedisEvents(link, feed, codec, breakers["message_queue"], settle_secs=settle_secs)
        got = []
        events.subscribe("news", got.append)
        return Node(link, feed, events, got)

    return make


@scenario
async def test_the_others_get_it_and_the_sender_does_not(redis_server, node_of):
    one, two, three = (node_of(name, url=redis_server.url) for name in ("one", "two", "three"))
    async with running(*one.parts, *two.parts, *three.parts):
        for node in (one, two, three):
            await node.feed.joined()
        for number in range(100):
            one.events.publish("news", {"number": number})
        two.events.publish("news", {"number": -1})
        await until(lambda: len(two.got) == 100 and len(three.got) == 101 and len(one.got) == 1)
        assert [each["number"] for each in two.got] == list(range(100))
        assert one.got == [{"number": -1}]
        assert one.events.skipped == {Skipped.OWN: 100}
        assert one.events.sent == 100


@scenario
async def test_while_a_node_is_cut_off_its_events_wait_and_then_go_out_in_order(redis_server, node_of):
    async with Proxy(redis_server.port) as proxy:
        one, two = node_of("one", url=f"redis://127.0.0.1:{proxy.port}"), node_of("two", url=redis_server.url)
        proxy.refusing = True
        async with running(*one.parts, *two.parts):
            await two.feed.joined()
            await down(one.link)
            for number in range(50):
                one.events.publish("news", {"number": number})
            assert one.link.health()[1]["buffered_events"] == 50
            proxy.refusing = False
            await until(lambda: len(two.got) == 50)
            await until(lambda: one.link.health()[1]["buffered_events"] == 0)
            proxy.refusing = True
            proxy.cut()
            await down(one.link)
            one.events.publish("news", {"number": 50})
            proxy.refusing = False
            await until(lambda: len(two.got) == 51)
            assert [each["number"] for each in two.got] == list(range(51))


@scenario
async def test_after_redis_was_away_events_wait_until_the_others_listen_again(node_of):
    with RedisServer() as server:
        one, two = (node_of(name, url=server.url, settle_secs=SETTLE_SECS) for name in ("one", "two"))
        async with running(*one.parts, *two.parts):
            await one.feed.joined()
            await two.feed.joined()
            server.kill()
            await down(one.link)
            await down(two.link)
            one.events.publish("news", {"a": 1})
            server.start(ready=False)
            await until(lambda: two.got == [{"a": 1}])


@scenario
async def test_the_oldest_give_way_and_are_counted(node_of, caplog, monkeypatch):
    monkeypatch.setattr(redis_events, "MAX_BUFFERED", 3)
    port = free_port()
    one, two = (node_of(name, url=f"redis://127.0.0.1:{port}") for name in ("one", "two"))
    for number in range(10):
        one.events.publish("news", {"number": number})
    assert one.events.dropped == 7
    assert [record.getMessage() for record in caplog.records] == [
        "events for other nodes are dropped: the oldest give way"
    ]
    with RedisServer(port=port):
        async with running(*two.parts):
            await two.feed.joined()
            async with running(*one.parts):
                await until(lambda: len(two.got) == 3)
    assert [each["number"] for each in two.got] == [7, 8, 9]


@scenario
async def test_what_else_comes_on_the_channel_is_skipped_and_counted(redis_server, node_of, caplog):
    node = node_of("one", url=redis_server.url)
    forger = EventCodec("two", Seal(["another secret of at least thirty-two bytes"], "events"))
    friend = EventCodec("three", Seal([SECRET], "events"))
    genuine = friend.seal(friend.number("news", {"a": 1}), node.events._now())
    other_kind = friend.seal(friend.number("of tomorrow", {}), node.events._now())
    async with running(*node.parts):
        await node.feed.joined()
        messages = [
            forger.seal(forger.number("news", {}), node.events._now()),
            b"garbage",
            genuine[:-5],
            genuine.replace(b'"version":1', b'"version":2'),
            b"x" * 70_000,
            genuine,
            genuine,
            other_kind,
        ]
        for message in messages:
            redis_server.client.publish("rtc:events", message)
        await until(lambda: sum(node.events.skipped.values()) + node.events.handled == len(messages))
    assert node.got == [{"a": 1}]
    assert node.events.skipped == {
        Skipped.FORGED: 1,
        Skipped.GARBAGE: 2,
        Skipped.NEWER: 1,
        Skipped.TOO_LARGE: 1,
        Skipped.REPEATED: 1,
        Skipped.UNKNOWN: 1,
    }
    logged = [record for record in caplog.records if "is skipped" in record.getMessage()]
    assert len(logged) == 5


@scenario
async def test_a_handler_that_fails_harms_nobody_else(redis_server, node_of):
    one, two = (node_of(name, url=redis_server.url) for name in ("one", "two"))
    calls = []
    two.events.subscribe("broken", lambda payload: 1 / 0)
    two.events.subscribe("broken", calls.append)
    async with running(*one.parts, *two.parts):
        await two.feed.joined()
        one.events.publish("broken", {"a": 1})
        one.events.publish("news", {"a": 2})
        await until(lambda: two.got)
    assert (calls, two.got, two.events.skipped) == ([{"a": 1}], [{"a": 2}], {Skipped.FAILED: 1})


@scenario
async def test_two_nodes_with_one_id_are_told_of(redis_server, node_of, caplog):
    one, namesake = (node_of("one", url=redis_server.url) for _ in range(2))
    async with running(*one.parts, *namesake.parts):
        await one.feed.joined()
        namesake.events.publish("news", {"a": 1})
        namesake.events.publish("news", {"a": 2})
        await until(lambda: len(one.got) == 2)
    assert sum("this node's id" in record.getMessage() for record in caplog.records) == 1


@scenario
async def test_the_breaker_of_the_message_queue_holds_events_back(redis_server, node_of, redis_config, monkeypatch):
    monkeypatch.setattr(redis_events, "RETRY_SECS", 0.0)
    monkeypatch.setattr(redis_events, "MAX_BREAKER_WAIT_SECS", 0.01)
    now = [0.0]
    breakers = Breakers(redis_config().circuit_breaker, clock=lambda: now[0])
    redis_server.client.execute_command("ACL", "SETUSER", "mute", "on", ">hush", "~*", "&*", "+@all", "-publish")
    user = f"redis://mute:hush@127.0.0.1:{redis_server.port}"
    node = node_of("one", url=user, breakers=breakers)
    node.link._probe_secs = 3600
    async with running(*node.parts):
        await node.feed.joined()
        node.events.publish("news", {"a": 1})
        await until(lambda: breakers["message_queue"].state is BreakerState.OPEN)
        assert node.link.errors["NOPERM"] >= 5  # a probe of the feed among them
        redis_server.client.execute_command("ACL", "SETUSER", "mute", "+publish")
        await asyncio.sleep(0.03)
        assert node.events.sent == 0
        now[0] += 60
        await until(lambda: node.events.sent == 1)
