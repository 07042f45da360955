"""The feed against real servers that die, stall and come back. Sentinel and Cluster: test_redis_feed_topologies.py."""

import asyncio
from random import Random

import pytest

from broker.links import running, until
from realtime_communication.broker.redis_errors import RedisFailed
from serving.proxy import scenario
from serving.redis import RedisServer
from serving.stalling_proxy import StallingProxy


@scenario
async def test_what_is_published_comes_in_order(redis_server, node_at):
    node = node_at(url=redis_server.url)
    async with running(*node.parts):
        await node.feed.subscribe(b"a\x00\xff")
        assert node.feed.up
        redis_server.client.publish(b"a\x00\xff", b"\x00one")
        redis_server.client.publish(b"other", b"no")
        redis_server.client.publish(b"a\x00\xff", b"two\r\n")
        await until(lambda: len(node.told) == 2)
    assert node.told == [(b"a\x00\xff", b"\x00one"), (b"a\x00\xff", b"two\r\n")]


@scenario
async def test_subscriptions_of_one_turn_go_out_together(redis_server, node_at):
    node = node_at(url=redis_server.url)
    async with running(*node.parts):
        await node.feed.subscribe(b"first")
        before = redis_server.client.info("commandstats")["cmdstat_subscribe"]["calls"]
        await asyncio.gather(*(node.feed.subscribe(b"%d" % number) for number in range(2500)))
        assert redis_server.client.info("commandstats")["cmdstat_subscribe"]["calls"] - before == 3
        assert node.feed.health() == (True, {"state": "up", "servers": 1, "servers_up": 1, "channels_waiting": 0})
        assert redis_server.client.pubsub_numsub(b"2499") == [(b"2499", 1)]


@scenario
async def test_unsubscribed_and_taken_back(redis_server, node_at):
    node = node_at(url=redis_server.url)
    feed = node.feed
    async with running(*node.parts):
        first = feed.subscribe(b"a")
        assert feed.subscribe(b"a") is first
        await first
        feed.unsubscribe(b"a")
        feed.unsubscribe(b"unknown")
        assert feed.subscribe(b"a").done()  # within one turn: it was never without a feed
        feed.unsubscribe(b"a")
        await until(lambda: redis_server.client.pubsub_numsub(b"a") == [(b"a", 0)])
        again = feed.subscribe(b"a")
        assert not again.done()
        feed.unsubscribe(b"a")
        assert again.cancelled()
        await feed.subscribe(b"a")
        redis_server.client.publish(b"a", b"1")
        await until(lambda: node.told)
        assert node.told == [(b"a", b"1")]


@scenario
async def test_whoever_waited_gave_up(redis_server, node_at):
    node = node_at(url=redis_server.url)
    waited = node.feed.subscribe(b"a")
    waited.cancel()
    async with running(*node.parts):
        await node.feed.subscribe(b"a")
        node.feed._channels[b"a"].fed.cancel()
        assert node.feed.subscribe(b"a").done()


@scenario
async def test_a_server_that_dies_and_is_back(node_at):
    with RedisServer() as server:
        node = node_at(url=server.url)
        async with running(*node.parts):
            await asyncio.gather(node.feed.subscribe(b"a"), node.feed.subscribe(b"b"))
            server.kill()
            await until(lambda: not node.feed.up)
            assert node.told == ["lost"]
            late = node.feed.subscribe(b"late")
            server.start(ready=False)
            await late
            await until(lambda: len(node.told) == 2)
            assert node.told == ["lost", ("restored", [b"a", b"b"])]
            server.client.publish(b"b", b"1")
            await until(lambda: len(node.told) == 3)
            assert node.feed.statistics()["restored"] == 2


@scenario
async def test_a_connection_that_is_cut(redis_server, node_at):
    node = node_at(url=redis_server.url)
    async with running(*node.parts):
        await node.feed.subscribe(b"a")
        redis_server.client.client_kill_filter(_type="pubsub", skipme=True)
        await until(lambda: len(node.told) == 2)
        assert node.told == ["lost", ("restored", [b"a"])]


async def play_half_open(server, node_at, harm):
    """A feed whose connection comes to harm, while commands go their way; it finds out, and is whole again."""
    async with StallingProxy(server.port, only=b"SUBSCRIBE") as proxy:
        node = node_at(url=f"redis://127.0.0.1:{proxy.port}")
        async with running(*node.parts):
            await node.feed.subscribe(b"a")
            harm(proxy)
            await node.link.execute("PING")
            await until(lambda: not node.feed.up)
            assert node.feed.statistics()["probes_lost"] > 0
            assert node.link.health()[0] is False
            late = node.feed.subscribe(b"late")
            proxy.flow()
            await late
            await until(lambda: node.restored() == {b"a"})
            server.client.publish(b"a", b"again")
            await until(lambda: node.messages() == [(b"a", b"again")])
            await until(lambda: node.link.health()[0])


@pytest.mark.parametrize(
    "harm",
    [
        lambda proxy: proxy.down.drop(),
        lambda proxy: proxy.down.stall(),
        lambda proxy: proxy.down.delay(60.0),
    ],
    ids=["dropped", "stalled", "delayed"],
)
def test_a_line_that_only_looks_alive_is_found_out(redis_server, node_at, harm):
    scenario(play_half_open)(redis_server, node_at, harm)


@scenario
async def test_all_of_redis_stalls(redis_server, node_at):
    async with StallingProxy(redis_server.port) as proxy:
        node = node_at(url=f"redis://127.0.0.1:{proxy.port}")
        async with running(*node.parts):
            await node.feed.subscribe(b"a")
            proxy.stall()
            await until(lambda: not node.feed.up)
            proxy.flow()
            await until(lambda: node.restored() == {b"a"})


@scenario
async def test_a_channel_that_is_refused(redis_server, node_at, caplog):
    redis_server.client.execute_command(
        "ACL", "SETUSER", "narrow", "on", ">hush", "~*", "resetchannels", "&rtc:*", "+@all"
    )
    node = node_at(url=f"redis://narrow:hush@127.0.0.1:{redis_server.port}")
    async with running(*node.parts):
        futures = [node.feed.subscribe(channel) for channel in (b"rtc:a", b"foreign")]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert [type(result) for result in results] in ([type(None), RedisFailed], [RedisFailed, RedisFailed])
        assert results[1].reply == "NOPERM"
        await node.feed.subscribe(b"rtc:b")
        assert node.feed.up
    assert sum("refuses channels" in record.getMessage() for record in caplog.records) == 1


@scenario
async def test_a_message_that_cannot_be_handled_harms_no_other(redis_server, node_at, caplog):
    node = node_at(url=redis_server.url)
    node.feed.on_message = lambda channel, data: node.told.append(int(data))
    async with running(*node.parts):
        await node.feed.subscribe(b"a")
        for data in (b"1", b"x", b"2"):
            redis_server.client.publish(b"a", data)
        await until(lambda: len(node.told) == 2)
    assert node.told == [1, 2]


@scenario
async def test_own_receivers(redis_server, node_at):
    node, got = node_at(url=redis_server.url), []
    node.feed.listen(b"own", got.append)
    async with running(*node.parts):
        await node.feed.subscribe(b"own")
        redis_server.client.publish(b"own", b"1")
        await until(lambda: got)
    assert node.told == []


@scenario
async def test_joined_counts_each_loss(redis_server, node_at):
    node = node_at(url=redis_server.url)
    node.feed.listen(b"own", lambda data: None)
    async with running(*node.parts):
        first = await node.feed.joined()
        again = asyncio.create_task(node.feed.joined(first))
        redis_server.client.client_kill_filter(_type="pubsub", skipme=True)
        assert await again > first
        second = await node.feed.joined()
        node.link.rebuild()
        assert await node.feed.joined(second) > second


@scenario
async def test_what_was_wanted_is_so_when_it_runs_again(redis_server, node_at):
    node = node_at(url=redis_server.url)
    async with running(node.link):
        async with running(node.feed):
            await node.feed.subscribe(b"a")
        assert (node.feed.up, node.told) == (False, [])
        async with running(node.feed):
            await until(lambda: node.told)
            assert node.told == [("restored", [b"a"])]


@scenario
async def test_a_storm_of_channels_that_come_and_go(redis_server, node_at):
    node, random = node_at(url=redis_server.url), Random(7)
    wanted = set()
    async with running(*node.parts):
        for turn in range(2000):
            channel = b"%d" % random.randrange(50)
            if random.random() < 0.5:
                node.feed.subscribe(channel)
                wanted.add(channel)
            else:
                node.feed.unsubscribe(channel)
                wanted.discard(channel)
            if turn % 500 == 250:
                redis_server.client.client_kill_filter(_type="pubsub", skipme=True)
            if random.random() < 0.3:
                await asyncio.sleep(0)
        await asyncio.gather(*(node.feed.subscribe(channel) for channel in wanted))
        probe = node.feed._prober.name
        await until(lambda: set(redis_server.client.pubsub_channels()) == {*wanted, probe})
