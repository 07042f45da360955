"""Events between nodes over a real Redis that comes and goes."""

import asyncio

import pytest

from broker.links import down, running, until
from realtime_communication.broker import redis_events
from realtime_communication.broker.events import EventCodec, Skipped
from realtime_communication.broker.redis_events import SETTLE_SECS, RedisEvents
from realtime_communication.broker.sealing import Seal
from realtime_communication.resilience.breaker import Breakers, BreakerState
from serving.processes import free_port
from serving.proxy import Proxy, scenario
from serving.redis import RedisServer
from serving.tokens import SECRET


@pytest.fixture
def node_of(link_to, redis_config):
    """A node: link, bus and the payloads it got."""

    def make(name, *, secret=SECRET, breakers=None, settle_secs=0.0, **redis):
        breakers = breakers or Breakers(redis_config().circuit_breaker)
        link = link_to(breakers=breakers, **redis)
        codec = EventCodec(name, Seal([secret], "events"))
        events = RedisEvents(link, codec, breakers["message_queue"], settle_secs=settle_secs)
        got = []
        events.subscribe("news", got.append)
        return link, events, got

    return make


@scenario
async def test_the_others_get_it_and_the_sender_does_not(redis_server, node_of):
    one, two, three = (node_of(name, url=redis_server.url) for name in ("one", "two", "three"))
    async with running(*one[:2], *two[:2], *three[:2]):
        for link, _, _ in (one, two, three):
            await link.joined()
        for number in range(100):
            one[1].publish("news", {"number": number})
        two[1].publish("news", {"number": -1})
        await until(lambda: len(two[2]) == 100 and len(three[2]) == 101 and len(one[2]) == 1)
        assert [each["number"] for each in two[2]] == list(range(100))
        assert one[2] == [{"number": -1}]
        assert one[1].skipped == {Skipped.OWN: 100}
        assert one[1].sent == 100


@scenario
async def test_while_a_node_is_cut_off_its_events_wait_and_then_go_out_in_order(redis_server, node_of):
    async with Proxy(redis_server.port) as proxy:
        one, two = node_of("one", url=f"redis://127.0.0.1:{proxy.port}"), node_of("two", url=redis_server.url)
        proxy.refusing = True
        async with running(*one[:2], *two[:2]):
            await two[0].joined()
            await down(one[0])
            for number in range(50):
                one[1].publish("news", {"number": number})
            assert one[0].health()[1]["buffered_events"] == 50
            proxy.refusing = False
            await until(lambda: len(two[2]) == 50)
            assert one[0].health()[1]["buffered_events"] == 0
            proxy.refusing = True
            proxy.cut()
            await down(one[0])
            one[1].publish("news", {"number": 50})
            proxy.refusing = False
            await until(lambda: len(two[2]) == 51)
            assert [each["number"] for each in two[2]] == list(range(51))


@scenario
async def test_after_redis_was_away_events_wait_until_the_others_listen_again(node_of):
    with RedisServer() as server:
        one, two = (node_of(name, url=server.url, settle_secs=SETTLE_SECS) for name in ("one", "two"))
        async with running(*one[:2], *two[:2]):
            await one[0].joined()
            await two[0].joined()
            server.kill()
            await down(one[0])
            await down(two[0])
            one[1].publish("news", {"a": 1})
            server.start(ready=False)
            await until(lambda: two[2] == [{"a": 1}])


@scenario
async def test_the_oldest_give_way_and_are_counted(node_of, caplog, monkeypatch):
    monkeypatch.setattr(redis_events, "MAX_BUFFERED", 3)
    port = free_port()
    one, two = (node_of(name, url=f"redis://127.0.0.1:{port}") for name in ("one", "two"))
    for number in range(10):
        one[1].publish("news", {"number": number})
    assert one[1].dropped == 7
    assert [record.getMessage() for record in caplog.records] == [
        "events for other nodes are dropped: the oldest give way"
    ]
    with RedisServer(port=port):
        async with running(*two[:2]):
            await two[0].joined()
            async with running(*one[:2]):
                await until(lambda: len(two[2]) == 3)
    assert [each["number"] for each in two[2]] == [7, 8, 9]


@scenario
async def test_what_else_comes_on_the_channel_is_skipped_and_counted(redis_server, node_of, caplog):
    link, events, got = node_of("one", url=redis_server.url)
    forger = EventCodec("two", Seal(["another secret of at least thirty-two bytes"], "events"))
    friend = EventCodec("three", Seal([SECRET], "events"))
    genuine = friend.seal(friend.number("news", {"a": 1}), events._now())
    other_kind = friend.seal(friend.number("of tomorrow", {}), events._now())
    async with running(link, events):
        await link.joined()
        messages = [
            forger.seal(forger.number("news", {}), events._now()),
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
        await until(lambda: sum(events.skipped.values()) + events.handled == len(messages))
    assert got == [{"a": 1}]
    assert events.skipped == {
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
    two[1].subscribe("broken", lambda payload: 1 / 0)
    two[1].subscribe("broken", calls.append)
    async with running(*one[:2], *two[:2]):
        await two[0].joined()
        one[1].publish("broken", {"a": 1})
        one[1].publish("news", {"a": 2})
        await until(lambda: two[2])
    assert (calls, two[2], two[1].skipped) == ([{"a": 1}], [{"a": 2}], {Skipped.FAILED: 1})


@scenario
async def test_two_nodes_with_one_id_are_told_of(redis_server, node_of, caplog):
    one, namesake = (node_of("one", url=redis_server.url) for _ in range(2))
    async with running(*one[:2], *namesake[:2]):
        await one[0].joined()
        namesake[1].publish("news", {"a": 1})
        namesake[1].publish("news", {"a": 2})
        await until(lambda: len(one[2]) == 2)
    assert sum("this node's id" in record.getMessage() for record in caplog.records) == 1


@scenario
async def test_the_breaker_of_the_message_queue_holds_events_back(redis_server, node_of, redis_config, monkeypatch):
    monkeypatch.setattr(redis_events, "RETRY_SECS", 0.0)
    monkeypatch.setattr(redis_events, "MAX_BREAKER_WAIT_SECS", 0.01)
    now = [0.0]
    breakers = Breakers(redis_config().circuit_breaker, clock=lambda: now[0])
    redis_server.client.execute_command("ACL", "SETUSER", "mute", "on", ">hush", "~*", "&*", "+@all", "-publish")
    user = f"redis://mute:hush@127.0.0.1:{redis_server.port}"
    link, events, _ = node_of("one", url=user, breakers=breakers)
    link._probe_secs = 3600
    async with running(link, events):
        await link.joined()
        events.publish("news", {"a": 1})
        await until(lambda: breakers["message_queue"].state is BreakerState.OPEN)
        assert link.errors["NOPERM"] == 5
        redis_server.client.execute_command("ACL", "SETUSER", "mute", "+publish")
        await asyncio.sleep(0.03)
        assert events.sent == 0
        now[0] += 60
        await until(lambda: events.sent == 1)
