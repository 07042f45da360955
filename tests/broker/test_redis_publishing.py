"""Publishing over a real Redis: order, keys, bounds, refusals."""

import pytest

from broker.links import running, until
from realtime_communication.broker.redis_calls import StreamBounds
from realtime_communication.broker.redis_engine import EngineState
from realtime_communication.broker.redis_outgoing import Queue
from serving.proxy import Proxy, scenario


@pytest.fixture
def topic(request):
    """A topic of the test, with what must not matter in it."""
    return f"{{{request.node.name}}}%}}:s".encode()


@scenario
async def test_an_idempotency_key_is_published_once_whichever_node_it_comes_to(redis_server, engine_node, topic):
    one, two = engine_node("one", url=redis_server.url), engine_node("two", url=redis_server.url)
    async with running(*one.parts, *two.parts):
        for node in (one, two):
            await node.joined()
        await two.subscribed(topic)
        keyed = [one.hub.publish(topic, "first", b"alice\0k"), one.hub.publish(topic, "again", b"alice\0k")]
        other = one.hub.publish(topic, "other", b"bob\0k")
        plain = one.hub.publish(topic, "plain")
        answers = [await one.answer(token) for token in (*keyed, other, plain)]
        assert answers[0] == answers[1]
        assert [answer[2] for answer in answers] == [1, 1, 2, 3]
        assert await two.published(topic, "from elsewhere", key=b"alice\0k") == answers[0]
        await until(lambda: len(two.hub.delivered(topic)) == 3)
        assert two.hub.delivered(topic) == ["first", "other", "plain"]


@scenario
async def test_the_stream_keeps_the_newest_messages(redis_server, engine_node, topic):
    node = engine_node(url=redis_server.url, bounds=StreamBounds(5, 300.0))
    async with running(*node.parts):
        await node.joined()
        _, epoch, offset, _ = await node.published(topic, *(str(n) for n in range(1, 9)))
        assert offset == 8
        assert await node.answer(node.hub.history(topic)) == ("page", epoch, 8, 4, ["4", "5", "6", "7", "8"])
        node.engine.configure(StreamBounds(0, 300.0))
        assert (await node.published(topic, "gone"))[1:3] == (epoch, 9)
        assert await node.answer(node.hub.history(topic)) == ("page", epoch, 9, 10, [])


@scenario
async def test_a_stopped_redis_does_not_hold_requests_for_ever_and_nothing_is_published_twice(
    redis_server, engine_node, topic
):
    async with Proxy(redis_server.port) as proxy:
        node = engine_node(url=f"redis://127.0.0.1:{proxy.port}", retry_attempts=1, response_timeout_ms=100)
        other = engine_node("other", url=redis_server.url)
        async with running(*node.parts, *other.parts):
            await node.joined()
            await other.joined()
            await other.subscribed(topic)
            await node.published(topic, "1")
            proxy.stall()
            answer = await node.answer(node.hub.publish(topic, "2", b"key"))
            assert answer[:2] == ("refused", "unavailable")
            await until(lambda: not node.hub.here)
            proxy.flow()
            await node.joined()
            # Whether or not the first attempt had arrived, the repeated one is the same message.
            assert (await node.published(topic, "2", key=b"key"))[2] == 2
            await node.published(topic, "3")
            await until(lambda: "3" in other.hub.delivered(topic))
            assert other.hub.delivered(topic) == ["1", "2", "3"]


@scenario
async def test_the_oldest_give_way_while_redis_is_away(redis_server, engine_node, topic):
    async with Proxy(redis_server.port) as proxy:
        proxy.refusing = True
        queue = Queue(b"run", most_messages=1024)
        node = engine_node(url=f"redis://127.0.0.1:{proxy.port}", queue=queue)
        async with running(*node.parts):
            await until(lambda: node.hub.lost)
            for n in range(3000):
                node.hub.publish(topic, str(n))
            await until(lambda: node.engine.statistics()["dropped"])
            proxy.refusing = False
            await node.joined()
            dropped = node.engine.statistics()["dropped"]
            texts = (await node.answer(node.hub.history(topic, limit=1000)))[4]
            assert 3000 - 1024 <= dropped <= 3000 - 512
            assert texts == [str(n) for n in range(dropped, 3000)]


@scenario
async def test_more_than_may_wait_is_refused(redis_server, engine_node, topic):
    node = engine_node(url=redis_server.url, queue=Queue(b"run", most_messages=100))
    async with running(*node.parts):
        await node.joined()
        answers = [await node.answer(token) for token in [node.hub.publish(topic, str(n)) for n in range(150)]]
        assert [answer[0] for answer in answers] == ["published"] * 100 + ["refused"] * 50
        assert answers[-1] == ("refused", "unavailable", "too many publications wait for Redis; try again later", 1000)
        assert (await node.published(topic, "later"))[2] == 101


@scenario
async def test_a_key_of_another_kind_is_the_fault_of_that_topic_alone(redis_server, engine_node, topic):
    node = engine_node(url=redis_server.url)
    async with running(*node.parts):
        await node.joined()
        redis_server.client.set(b"rtc:{bad}:s", "no stream")
        bad, good = node.hub.publish(b"bad", "x"), node.hub.publish(topic, "y")
        assert await node.answer(bad) == ("refused", "internal", "the message could not be stored", None)
        assert (await node.answer(good))[0] == "published"
        assert node.engine.state is EngineState.HERE


@scenario
async def test_a_script_that_redis_forgot_is_sent_again(redis_server, engine_node, topic):
    node = engine_node(url=redis_server.url)
    async with running(*node.parts):
        await node.joined()
        await node.published(topic, "1")
        redis_server.client.script_flush()
        assert (await node.published(topic, "2", "3"))[2] == 3
