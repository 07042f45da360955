"""The engine against a real Redis that comes and goes, and a hub that records what it is told."""

import asyncio

import pytest

from broker.links import down, running, until
from serving.proxy import Proxy, scenario
from serving.redis import RedisServer


@pytest.fixture
def topic(request):
    """A topic of the test, with what must not matter in it."""
    return f"{{{request.node.name}}}%}}:s".encode()


@scenario
async def test_what_is_published_on_one_node_reaches_all_in_order(redis_server, engine_node, topic):
    one, two = engine_node("one", url=redis_server.url), engine_node("two", url=redis_server.url)
    async with running(*one.parts, *two.parts):
        for node in (one, two):
            await node.joined()
        subscribed = await one.subscribed(topic)
        assert subscribed[2:] == (0, False, 1, [])
        assert await two.subscribed(topic) == subscribed
        tokens = [node.hub.publish(topic, f"{name}{n}") for n in range(1000) for name, node in (("a", one), ("b", two))]
        assert len(tokens) == 2000
        await until(lambda: len(one.hub.delivered(topic)) == len(two.hub.delivered(topic)) == 2000)
        assert one.hub.feeds == two.hub.feeds
        assert [offset for _, offset, _ in one.hub.feeds[topic]] == list(range(1, 2001))
        assert {epoch for epoch, _, _ in one.hub.feeds[topic]} == {subscribed[1]}
        for node, name in ((one, "a"), (two, "b")):
            assert [text for text in node.hub.delivered(topic) if text[0] == name] == [
                f"{name}{n}" for n in range(1000)
            ]
            await until(lambda hub=node.hub: len(hub.answers) == 1001)
            places = {(epoch, offset): text for epoch, offset, text in node.hub.feeds[topic]}
            acked = [
                places[answer[1:3]] for token, answer in sorted(node.hub.answers.items()) if answer[0] == "published"
            ]
            assert acked == [f"{name}{n}" for n in range(1000)]
        assert one.engine.statistics()["published"] == 1000
        assert one.engine.statistics()["waiting"] == one.engine.statistics()["waiting_bytes"] == 0


@scenario
async def test_without_redis_publications_are_kept_and_sent_when_it_comes(redis_server, engine_node, topic):
    async with Proxy(redis_server.port) as proxy:
        one = engine_node("one", url=f"redis://127.0.0.1:{proxy.port}")
        two = engine_node("two", url=redis_server.url)
        proxy.refusing = True
        async with running(*one.parts, *two.parts):
            await two.joined()
            await two.subscribed(topic)
            await until(lambda: one.hub.lost)
            for n in range(2000):
                one.hub.publish(topic, str(n))
            refused = await one.subscribed(topic)
            assert refused[:2] == ("refused", "unavailable")
            assert (await one.answer(one.hub.history(topic)))[:2] == ("refused", "unavailable")
            await until(lambda: one.engine.statistics()["waiting"] == 2000)
            ok, health = one.engine.health()
            assert (ok, health["state"], health["kept_publications"]) == (False, "away", 2000)
            proxy.refusing = False
            await one.joined()
            # What was kept is there before the hub is back.
            assert (await one.subscribed(topic))[2] == 2000
            await until(lambda: len(two.hub.delivered(topic)) == 2000)
            assert two.hub.delivered(topic) == [str(n) for n in range(2000)]
            assert one.engine.health()[0]


@scenario
async def test_redis_dies_and_returns_empty(engine_node, topic):
    with RedisServer() as server:
        node = engine_node(url=server.url)
        async with running(*node.parts):
            await node.joined()
            subscribed = await node.subscribed(topic)
            await node.published(topic, "before")
            server.kill()
            token = node.hub.publish(topic, "between")
            refused = await node.answer(token)
            assert refused[:2] == ("refused", "unavailable")
            assert refused[3] == 1000
            await until(lambda: node.hub.lost == 2)
            node.hub.publish(topic, "alone")
            server.start()
            await node.joined()
            back = await node.subscribed(topic, (subscribed[1], 1), 10)
            assert back[1] != subscribed[1]
            assert back[2:] == (1, False, 1, ["alone"])
            await node.published(topic, "after")
            await until(lambda: "after" in node.hub.delivered(topic))
            assert node.engine.statistics()["losses"] == 1


@scenario
async def test_redis_without_memory_is_as_if_away(engine_node, topic):
    with RedisServer() as server:
        node = engine_node(url=server.url)
        async with running(*node.parts):
            await node.joined()
            await node.published(topic, "stored")
            server.client.config_set("maxmemory", 1)
            refused = await node.answer(node.hub.publish(topic, "refused"))
            assert refused[:2] == ("refused", "unavailable")
            await until(lambda: node.hub.lost == 2)
            assert "memory" in node.engine.health()[1]["reason"]
            node.hub.publish(topic, "kept")
            await until(lambda: node.engine.statistics()["waiting"] == 1)
            server.client.config_set("maxmemory", 0)
            await node.joined()
            assert (await node.answer(node.hub.history(topic)))[4] == ["stored", "kept"]


@scenario
async def test_garbage_on_a_channel_is_skipped_and_counted(redis_server, engine_node, topic):
    node = engine_node(url=redis_server.url)
    async with running(*node.parts):
        await node.joined()
        _, epoch, _, _, _, _ = await node.subscribed(topic)
        channel = node.engine._keys.channel(topic)
        for data in (b"", b"\xff" * 40, b"\x02\x01\0\0", b"\x01\x01\0\0", b"\x01\x09\0\0"):
            redis_server.client.publish(channel, data)
        await until(lambda: sum(node.engine.skipped.values()) == 5)
        assert node.engine.skipped == {"garbage": 2, "newer_version": 2, "truncated": 1}
        await node.published(topic, "fine")
        await until(lambda: node.hub.feeds)
        assert node.hub.feeds[topic] == [(epoch, 1, "fine")]


@scenario
async def test_two_nodes_with_one_id_are_told_apart(redis_server, engine_node):
    one, two, again = (engine_node("twin", url=redis_server.url, times={"claim_secs": 0.02}) for _ in range(3))
    async with running(*one.parts):
        await one.joined()
        async with running(*two.parts):
            await two.joined()
            await until(lambda: one.engine.namesake and two.engine.namesake)
            assert two.engine.health()[1]["same_node_id"] is True
        await until(lambda: not one.engine.namesake)
    async with running(*again.parts):  # a restart is no doubling
        await again.joined()
        redis_server.client.config_resetstat()
        await until(lambda: redis_server.client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"] > 3)
        assert not again.engine.namesake


@scenario
async def test_the_end_of_the_engine_leaves_the_hub_alone(redis_server, engine_node, topic):
    node = engine_node(url=redis_server.url)
    async with running(node.link, node.feed):
        task = asyncio.create_task(node.engine.run())
        await node.joined()
        await node.subscribed(topic)
        task.cancel()
        await asyncio.wait([task])
        assert not node.hub.here
        assert node.hub._notify is None
        async with running(node.engine):
            await node.joined()
            assert (await node.subscribed(topic))[0] == "subscribed"


@scenario
async def test_a_short_loss_costs_nobody_its_recovery(redis_server, engine_node, topic):
    async with Proxy(redis_server.port) as proxy:
        node = engine_node(url=f"redis://127.0.0.1:{proxy.port}", times={"patience_secs": 20.0})
        other = engine_node("other", url=redis_server.url)
        async with running(*node.parts, *other.parts):
            await node.joined()
            await other.joined()
            subscribed = await node.subscribed(topic)
            node.hub.ask("enter", topic, b"0" * 32, b"alice", 1, b"{}")
            await node.published(topic, "1")
            proxy.refusing = True
            proxy.cut()
            await down(node.link)
            await other.published(topic, "2")
            tokens = [
                node.hub.publish(topic, "3"),
                node.hub.subscribe(topic, (subscribed[1], 1)),
                node.hub.history(topic),
            ]
            node.hub.ask("exit", topic, b"0" * 32, b"alice")
            members = node.hub.members(topic)
            await until(lambda: node.engine.statistics()["waiting"] == 1)
            proxy.refusing = False
            published, recovered, _ = [await node.answer(token) for token in tokens]
            assert published[:3] == ("published", subscribed[1], 3)
            assert recovered[3:5] == (True, 2)
            assert await node.answer(members) == ("members", [])
            await until(lambda: node.hub.delivered(topic) == ["1", "2", "3"])
            assert (node.hub.lost, node.hub.resets) == (1, [])
            assert node.engine.health()[0]


@scenario
async def test_a_demoted_master_is_as_if_away_until_it_is_one_again(engine_node, topic):
    with RedisServer() as server, RedisServer() as other:
        node = engine_node(url=server.url)
        async with running(*node.parts):
            await node.joined()
            await node.published(topic, "1")
            server.client.replicaof("127.0.0.1", other.port)
            await until(lambda: not node.hub.here)
            node.hub.publish(topic, "kept")
            server.client.replicaof("NO", "ONE")
            await node.joined()
            # It is empty now, as the other one is.
            assert (await node.answer(node.hub.history(topic)))[2:] in [(1, 1, ["kept"]), (2, 1, ["1", "kept"])]


@scenario
async def test_rights_that_are_taken_away_are_as_if_away(engine_node, topic):
    with RedisServer() as server:
        server.client.execute_command("ACL SETUSER node on >pass ~* &* +@all")
        node = engine_node(url=f"redis://node:pass@127.0.0.1:{server.port}")
        async with running(*node.parts):
            await node.joined()
            server.client.execute_command("ACL SETUSER node -evalsha -eval")
            assert (await node.answer(node.hub.publish(topic, "x")))[:2] == ("refused", "unavailable")
            assert "may not" in node.engine.health()[1]["reason"]
            server.client.execute_command("ACL SETUSER node +evalsha +eval")
            await node.joined()
            assert (await node.published(topic, "y"))[2] == 1


@scenario
async def test_a_redis_that_is_busy_with_a_script_is_waited_for(engine_node, topic):
    with RedisServer(busy_reply_threshold=20) as server:
        node = engine_node(url=server.url, times={"patience_secs": 20.0}, retry_attempts=20)
        async with running(*node.parts):
            await node.joined()
            spin = "local t = redis.call('TIME') repeat local n = redis.call('TIME') until n[1] - t[1] >= 1"
            busy = asyncio.get_running_loop().run_in_executor(None, server.client.eval, spin, 0)
            await asyncio.sleep(0.1)
            answer = await node.answer(node.hub.publish(topic, "patient"))
            await busy
            assert answer[0] == "published"
            assert node.hub.lost == 1


@scenario
async def test_before_the_end_everything_is_told(redis_server, engine_node, topic):
    node = engine_node(url=redis_server.url)
    async with running(*node.parts):
        await node.joined()
        node.hub.ask("enter", topic, b"0" * 32, b"erin", 1, b"{}")
        node.hub.ask("user_here", b"erin")
        await node.engine.drain(5.0)
        assert redis_server.client.exists("rtc:{@erin}:r")
        tokens = [node.hub.publish(topic, str(n)) for n in range(1000)]
        node.hub.ask("exit", topic, b"0" * 32, b"erin")
        node.hub.ask("user_gone", b"erin")
        await node.engine.drain(5.0)
        assert all(node.hub.answers[token][0] == "published" for token in tokens)
        assert not redis_server.client.exists("rtc:{@erin}:r")
        assert not redis_server.client.exists(node.engine._keys.members(topic))
