"""The engine in a real cluster: topics of all slots, masters that die, slots that move."""

import pytest

from broker.links import running, until
from serving.proxy import scenario
from serving.redis_cluster import cluster


@pytest.fixture(scope="module")
def redis_cluster():
    with cluster(replicas=False) as made:
        yield made


@pytest.fixture
def nodes(redis_cluster, engine_node):
    options = {"cluster": {"enabled": True, "nodes": [f"redis://{redis_cluster.nodes[0].address}"]}}
    return engine_node("one", **options), engine_node("two", **options)


@scenario
async def test_topics_of_all_masters(nodes):
    one, two = nodes
    async with running(*one.parts, *two.parts):
        for node in nodes:
            await node.joined()
        topics = [b"t{%d}" % number for number in range(40)]
        tokens = [node.hub.subscribe(topic) for node in nodes for topic in topics]
        answers = [await one.answer(token) for token in tokens[:40]] + [
            await two.answer(token) for token in tokens[40:]
        ]
        assert {answer[0] for answer in answers} == {"subscribed"}
        for number in range(10):
            for topic in topics:
                nodes[number % 2].hub.publish(topic, str(number), b"%d" % number)
        await until(lambda: all(len(one.hub.delivered(topic)) == 10 for topic in topics))
        await until(lambda: all(len(two.hub.delivered(topic)) == 10 for topic in topics))
        for topic in topics:
            assert one.hub.feeds[topic] == two.hub.feeds[topic]
        one.hub.ask("user_here", b"alice")
        one.hub.ask("user_here", b"bob")
        one.hub.ask("enter", topics[0], b"0" * 32, b"alice", 1, b"{}")
        await until(lambda: two.hub.presence == [(topics[0], False, b"alice", b"0" * 32, b"{}")])
        while (await two.published(b"@alice", "hi"))[3] is not True:
            pass  # another master than that of the topic has it
        assert (await two.published(b"@nobody", "hi"))[3] is False
        page = await two.answer(two.hub.history(topics[7], None, 3, True))
        assert page[2:4] == (10, 8)


@scenario
async def test_a_slot_that_moves_takes_its_topic_along(redis_cluster, nodes):
    one, two = nodes
    topic = b"moving"
    async with running(*one.parts, *two.parts):
        for node in nodes:
            await node.joined()
            await node.subscribed(topic)
        before = await two.published(topic, "1", "2")
        owner = redis_cluster.owner_of("rtc:{moving}:s")
        redis_cluster.move_slot("rtc:{moving}:s", next(node for node in redis_cluster.masters if node is not owner))
        after = await two.published(topic, *(str(number) for number in range(3, 30)))
        assert after[:3] == ("published", before[1], 29)
        for node in nodes:
            await until(lambda hub=node.hub: len(hub.delivered(topic)) == 29)
            assert node.hub.delivered(topic) == [str(number) for number in range(1, 30)]
            assert node.hub.resets == []
