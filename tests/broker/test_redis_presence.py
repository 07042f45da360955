"""Presence over a real Redis: first in, last out, nodes that die, and a Redis that forgets."""

import contextlib

import pytest

from broker.links import running, until
from realtime_communication.broker import redis_calls
from serving.proxy import Proxy, scenario
from serving.redis import RedisServer


@pytest.fixture
def topic(request):
    return request.node.name.encode()


@contextlib.asynccontextmanager
async def joined(*nodes):
    async with running(*(part for node in nodes for part in node.parts)):
        for node in nodes:
            await node.joined()
        yield


def session(number):
    return b"%032x" % number


def enter(node, topic, number, user, joined_ms=1000, info=b"{}"):
    node.hub.ask("enter", topic, session(number), user, joined_ms, info)


def leave(node, topic, number, user):
    node.hub.ask("exit", topic, session(number), user)


async def members(node, topic):
    kind, found = await node.answer(node.hub.members(topic))
    assert kind == "members"
    return found


@scenario
async def test_the_first_one_in_and_the_last_one_out_are_told_to_the_other_nodes(redis_server, engine_node, topic):
    one, two = engine_node("one", url=redis_server.url), engine_node("two", url=redis_server.url)
    async with joined(one, two):
        for node in (one, two):
            await node.subscribed(topic)
        enter(one, topic, 1, b"alice", 7, b'{"a":1}')
        assert await members(one, topic) == [(b"alice", session(1), 7, b'{"a":1}')]
        enter(one, topic, 2, b"alice")
        enter(two, topic, 3, b"alice")
        enter(two, topic, 4, b"bob")
        await members(two, topic)
        await members(one, topic)
        await until(lambda: one.hub.presence and two.hub.presence)
        assert two.hub.presence == [(topic, False, b"alice", session(1), b'{"a":1}')]
        assert one.hub.presence == [(topic, False, b"bob", session(4), b"{}")]
        assert await members(one, topic) == await members(two, topic)
        assert len(await members(one, topic)) == 4
        leave(one, topic, 1, b"alice")
        leave(one, topic, 2, b"alice")
        leave(one, topic, 2, b"alice")
        assert [each[:2] for each in await members(one, topic)] == [(b"alice", session(3)), (b"bob", session(4))]
        leave(two, topic, 3, b"alice")
        assert [each[0] for each in await members(two, topic)] == [b"bob"]
        await until(lambda: len(one.hub.presence) == 2)
        assert one.hub.presence[1] == (topic, True, b"alice", session(3), b"{}")
        assert len(two.hub.presence) == 1


@scenario
async def test_whoever_is_on_a_dead_node_is_gone_when_it_no_longer_vouches(
    redis_server, engine_node, topic, monkeypatch
):
    monkeypatch.setattr(redis_calls, "VOUCH_SECS", 0.5)
    quick, watcher = (engine_node(name, url=redis_server.url, times={"renew_secs": 0.05}) for name in ("quick", "eyes"))
    dead = engine_node("dead", url=redis_server.url)
    async with joined(quick, watcher):
        async with joined(dead):
            for node in (quick, watcher):
                await node.subscribed(topic)
            enter(dead, topic, 1, b"alice")
            enter(dead, topic, 2, b"bob")
            dead.hub.ask("user_here", b"alice")
            await members(dead, topic)
            enter(quick, topic, 3, b"bob")
            enter(watcher, topic, 4, b"carol")
            await members(quick, topic)
            assert [each[0] for each in await members(watcher, topic)] == [b"alice", b"bob", b"bob", b"carol"]
            await until(lambda: redis_server.client.zcard("rtc:{@alice}:r") == 1)
        for node in (quick, watcher):
            await until(lambda hub=node.hub: (topic, True, b"alice", session(1), b"{}") in hub.presence)
        assert [each[0] for each in await members(quick, topic)] == [b"bob", b"carol"]
        # Told once, although two nodes look; bob is still here by his other session.
        leaves = [each for each in quick.hub.presence if each[1]]
        assert leaves == [(topic, True, b"alice", session(1), b"{}")]
        assert [each for each in watcher.hub.presence if each[1]] == leaves
        await until(lambda: not redis_server.client.exists("rtc:{@alice}:r"))


@scenario
async def test_another_worker_vouches_for_what_has_moved(redis_server, engine_node, topic, monkeypatch):
    monkeypatch.setattr(redis_calls, "VOUCH_SECS", 0.5)
    before, after = (engine_node(name, url=redis_server.url, times={"renew_secs": 0.05}) for name in ("old", "new"))
    async with joined(before, after):
        await after.subscribed(topic)
        enter(before, topic, 1, b"alice")
        enter(before, topic, 2, b"bob")
        await members(before, topic)
        leave(before, topic, 2, b"bob")
        enter(before, topic, 3, b"carol")
        for number in (1, 2, 3):
            before.hub.ask("moved", topic, session(number))
        enter(after, topic, 1, b"alice")
        await members(before, topic)
        await until(lambda: (topic, True, b"bob", session(2), b"{}") in after.hub.presence)
        assert [each[0] for each in await members(after, topic)] == [b"alice"]
        leave(after, topic, 1, b"alice")
        assert await members(after, topic) == []
        assert [each[2] for each in after.hub.presence if not each[1]] == [b"alice", b"bob"]


@scenario
async def test_nobody_is_left_when_all_nodes_are_dead(redis_server, engine_node, topic, monkeypatch):
    monkeypatch.setattr(redis_calls, "VOUCH_SECS", 0.2)
    node = engine_node(url=redis_server.url)
    async with joined(node):
        enter(node, topic, 1, b"alice")
        node.hub.ask("user_here", b"alice")
        await members(node, topic)
    await until(lambda: not redis_server.client.keys("rtc:{" + topic.decode() + "}*"))
    await until(lambda: not redis_server.client.exists("rtc:{@alice}:r"))


@scenario
async def test_what_redis_forgot_is_told_again(engine_node, topic):
    with RedisServer() as server:
        node = engine_node(url=server.url, times={"renew_secs": 0.05})
        async with joined(node):
            enter(node, topic, 1, b"alice")
            node.hub.ask("user_here", b"alice")
            assert len(await members(node, topic)) == 1
            server.client.flushall()
            await until(lambda: server.client.hlen("rtc:{" + topic.decode() + "}:m") == 3)
            await until(lambda: server.client.exists("rtc:{@alice}:r"))
            assert [each[0] for each in await members(node, topic)] == [b"alice"]


@scenario
async def test_those_who_went_while_redis_was_away_are_gone_when_it_is_back(redis_server, engine_node, topic):
    async with Proxy(redis_server.port) as proxy:
        one = engine_node("one", url=f"redis://127.0.0.1:{proxy.port}")
        two = engine_node("two", url=redis_server.url)
        async with joined(one, two):
            await two.subscribed(topic)
            enter(one, topic, 1, b"alice")
            enter(one, topic, 2, b"bob")
            assert len(await members(one, topic)) == 2
            proxy.refusing = True
            proxy.cut()
            await until(lambda: not one.hub.here)
            leave(one, topic, 1, b"alice")
            enter(one, topic, 3, b"carol")
            assert [each[0] for each in await members(one, topic)] == [b"bob", b"carol"]
            proxy.refusing = False
            await one.joined()
            assert [each[0] for each in await members(one, topic)] == [b"bob", b"carol"]
            await until(lambda: len(two.hub.presence) == 4)
            told = [(leave, user) for _, leave, user, _, _ in two.hub.presence]
            assert told == [(False, b"alice"), (False, b"bob"), (False, b"carol"), (True, b"alice")]
            assert one.hub.presence == []


@scenario
async def test_a_direct_message_tells_whether_its_user_is_anywhere(redis_server, engine_node):
    one, two = engine_node("one", url=redis_server.url), engine_node("two", url=redis_server.url)
    async with joined(one, two):
        assert (await two.published(b"@dora", "a"))[3] is False
        one.hub.ask("user_here", b"dora")
        await until(lambda: redis_server.client.exists("rtc:{@dora}:r"))
        assert (await two.published(b"@dora", "b"))[3] is True
        assert (await two.published(b"@dora", "c", key=b"k"))[3] is True
        assert (await two.published(b"dora", "d"))[3] is False
        two.hub.ask("user_here", b"dora")
        await until(lambda: redis_server.client.zcard("rtc:{@dora}:r") == 2)
        one.hub.ask("user_gone", b"dora")
        await until(lambda: redis_server.client.zcard("rtc:{@dora}:r") == 1)
        assert (await one.published(b"@dora", "e"))[3] is True
        two.hub.ask("user_gone", b"dora")
        await until(lambda: not redis_server.client.exists("rtc:{@dora}:r"))
        assert (await one.published(b"@dora", "f"))[3] is False


@scenario
async def test_many_sessions_on_many_topics(redis_server, engine_node):
    one, two = engine_node("one", url=redis_server.url), engine_node("two", url=redis_server.url)
    async with joined(one, two):
        for node, base in ((one, 0), (two, 100_000)):
            for number in range(3000):
                enter(node, b"many:%d" % (number % 300), base + number, b"u%d" % (number % 7))
                node.hub.ask("user_here", b"many%d" % number)
            for number in range(1500):
                enter(node, b"crowd", base + number, b"u%d" % number)
        tokens = [one.hub.members(b"many:%d" % number) for number in range(300)]
        await two.answer(two.hub.members(b"many:299"))
        for token in tokens:
            assert len((await one.answer(token))[1]) >= 10
        await members(two, b"crowd")
        await members(one, b"crowd")
        await until(lambda: redis_server.client.hlen("rtc:{crowd}:m") == 3000 + 1500 + 2)
        assert len(await members(one, b"crowd")) == 3000
        for node, base in ((one, 0), (two, 100_000)):
            for number in range(1500):
                leave(node, b"crowd", base + number, b"u%d" % number)
        await until(lambda: not redis_server.client.exists("rtc:{crowd}:m"))
        await until(lambda: redis_server.client.zcard("rtc:{@many2999}:r") == 2)
