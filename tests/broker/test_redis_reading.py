"""Subscribing and history over a real Redis: positions, gaps, lost history, many at once."""

import asyncio
import contextlib

import pytest

from broker.hubs import NOW_MS, RecordingHub, body_of
from broker.links import running, until
from realtime_communication.broker import redis_reading
from realtime_communication.broker.redis_calls import Calls, StreamBounds
from realtime_communication.broker.redis_errors import RedisFailed
from realtime_communication.broker.redis_frames import Publications, framed, mark_of
from realtime_communication.broker.redis_keys import TopicKeys
from realtime_communication.broker.redis_reading import RedisReading
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


def names(first, last):
    return [str(n) for n in range(first, last + 1)]


@scenario
async def test_positions_and_history(redis_server, engine_node, topic):
    node = engine_node(url=redis_server.url, bounds=StreamBounds(100, 300.0))
    async with joined(node):
        _, epoch, _, _ = await node.published(topic, *names(1, 120))
        wanted = {
            (None, 0): (False, 121, []),
            (None, 3): (False, 118, names(118, 120)),
            (None, 1000): (False, 21, names(21, 120)),
            ((epoch, 120), 5): (True, 121, []),
            ((epoch, 110), 5): (True, 111, names(111, 120)),
            ((epoch, 20), 0): (True, 21, names(21, 120)),
            ((epoch, 19), 0): (False, 121, []),
            ((epoch, 121), 2): (False, 119, names(119, 120)),
            ((epoch + 1, 110), 2): (False, 119, names(119, 120)),
        }
        # All at once, of one read; and then again, of a topic that is subscribed to.
        for _ in range(2):
            reads = node.engine.statistics()["reads"]
            tokens = {want: node.hub.subscribe(topic, *want) for want in wanted}
            for want, token in tokens.items():
                assert await node.answer(token) == ("subscribed", epoch, 120, *wanted[want])
            assert node.engine.statistics()["reads"] == reads + 1


@scenario
async def test_pages_of_history(redis_server, engine_node, topic):
    node = engine_node(url=redis_server.url, bounds=StreamBounds(100, 300.0))
    async with joined(node):
        _, epoch, _, _ = await node.published(topic, *names(1, 120))
        for (position, limit, reverse), (first, last) in {
            (None, 10, False): (21, 30),
            (None, 10, True): (111, 120),
            ((epoch, 50), 10, False): (51, 60),
            ((epoch, 50), 10, True): (40, 49),
            ((epoch, 3), 5, False): (21, 25),
            ((epoch, 25), 10, True): (21, 24),
            ((epoch, 115), 10, False): (116, 120),
            ((epoch, 120), 10, False): (121, 120),
            ((epoch, 0), 10, True): (1, 0),
            ((epoch + 1, 50), 10, False): (21, 30),
        }.items():
            page = await node.answer(node.hub.history(topic, position, limit, reverse))
            assert page[:3] == ("page", epoch, 120)
            assert page[4] == names(first, last), (position, limit, reverse)
            assert page[3] == first or not page[4]


@scenario
async def test_a_long_absence_is_read_page_by_page(redis_server, engine_node, topic):
    node = engine_node(url=redis_server.url, bounds=StreamBounds(5000, 300.0))
    async with joined(node):
        _, epoch, _, _ = await node.published(topic, *names(1, 2000))
        assert await node.subscribed(topic, (epoch, 700)) == ("subscribed", epoch, 2000, True, 701, names(701, 2000))


@scenario
async def test_what_is_too_much_to_gather_is_not_recovered(redis_server, engine_node, topic, monkeypatch):
    monkeypatch.setattr(redis_reading, "READ_BYTES", 10_000)
    node = engine_node(url=redis_server.url)
    async with joined(node):
        _, epoch, _, _ = await node.published(topic, *("x" * 1000 for _ in range(20)))
        assert (await node.subscribed(topic, (epoch, 2)))[2:] == (20, False, 21, [])
        assert (await node.subscribed(topic, (epoch, 12)))[3:5] == (True, 13)


@scenario
async def test_subscribers_that_come_while_messages_flow_miss_nothing(redis_server, engine_node, topic):
    one, two = engine_node("one", url=redis_server.url), engine_node("two", url=redis_server.url)
    async with joined(one, two):
        _, epoch, _, _ = await one.subscribed(topic), *(await one.published(topic, "0"))[1:]
        tokens = []
        for n in range(1, 400):
            two.hub.publish(topic, str(n))
            tokens.append(one.hub.subscribe(topic, (epoch, 1)))
            if n % 7 == 0:
                await until(lambda: tokens[-5] in one.hub.answers)
        await until(lambda: len(one.hub.delivered(topic)) == 400)
        assert one.hub.delivered(topic) == names(0, 399)
        seen = 0
        for call, what in one.hub.calls:
            if call == "subscribed":
                _, _, offset, recovered, first, messages = one.hub.answers[what]
                if what != min(one.hub.answers):
                    assert (recovered, first, messages) == (True, 2, names(1, offset - 1))
                assert offset >= seen  # nothing that is delivered later is in an answer, and nothing is left out
                seen = offset


@scenario
async def test_a_storm_of_subscribers_to_distinct_topics(redis_server, engine_node):
    node = engine_node(url=redis_server.url)
    async with joined(node):
        tokens = [node.hub.subscribe(f"storm:{n}".encode()) for n in range(3000)]
        answers = [await node.answer(token) for token in tokens]
        assert {answer[0] for answer in answers} == {"subscribed"}
        assert node.engine.statistics()["topics"] == 3000
        for n in range(3000):
            node.hub.ask("unsubscribe", f"storm:{n}".encode())
        await until(lambda: node.engine.statistics()["topics"] == 0)
        await until(lambda: not redis_server.client.pubsub_channels("rtc:{storm*"))


@scenario
async def test_a_message_that_pubsub_lost_is_read_from_the_stream(redis_server, engine_node, topic):
    node = engine_node(url=redis_server.url)
    async with joined(node):
        await node.subscribed(topic)
        await node.published(topic, "1")
        stream = node.engine._keys.stream(topic)
        (entry, fields), *_ = redis_server.client.xrange(stream)
        epoch = int(entry.split(b"-")[0])
        for offset in (2, 3):  # as if their frames had been lost
            redis_server.client.xadd(stream, fields, id=f"{epoch}-{offset}")
        await node.published(topic, "4")
        await until(lambda: len(node.hub.feeds[topic]) == 4)
        assert node.hub.feeds[topic] == [(epoch, 1, "1"), (epoch, 2, "1"), (epoch, 3, "1"), (epoch, 4, "4")]
        assert node.hub.resets == []


class Scripts:
    """A link that answers scripts with what it was given, one after the other."""

    def __init__(self, *replies):
        self.replies = list(replies)

    async def run_scripts(self, calls):
        return [self.replies.pop(0) for _ in calls]


class FedChannels:
    """Channels that are fed at once."""

    def subscribe(self, channel):
        fed = asyncio.get_running_loop().create_future()
        fed.set_result(None)
        return fed

    def unsubscribe(self, channel):
        """Nothing to do."""


def frame_of(epoch, first, *texts):
    bodies = [framed(body_of(text)) for text in texts]
    return Publications(epoch, first, len(bodies), b"".join(bodies), mark_of(bodies[-1]))


@scenario
async def test_a_read_that_was_refused_is_made_again(topic, monkeypatch):
    monkeypatch.setattr(redis_reading, "REREAD_SECS", 0.01)
    bodies = [framed(body_of(text)) for text in names(1, 3)]
    link = Scripts(
        [b"7", b"0", b"1"],
        RedisFailed("ERR"),  # it says nothing of Redis: the engine does not pause for it
        [b"7", b"3", b"1", *bodies],
    )
    hub, failures = RecordingHub(), []
    calls = Calls(TopicKeys("x:"), StreamBounds(100, 300.0), sharded=False)
    reading = RedisReading(hub, link, calls, FedChannels(), failures.append)
    async with running(reading):
        reading.come_back()
        reading.subscribe(topic, 1, None, 0)
        assert await until(lambda: hub.answers.get(1)) == ("subscribed", 7, 0, False, 1, [])
        reading.receive(topic, frame_of(7, 2, "2"))
        await until(lambda: failures)
        reading.receive(topic, frame_of(7, 3, "3"))
        await until(lambda: len(hub.delivered(topic)) == 3)
    assert hub.delivered(topic) == names(1, 3)
    assert not hub.resets


@scenario
async def test_a_gap_that_cannot_be_filled_is_told(redis_server, engine_node, topic):
    node = engine_node(url=redis_server.url, bounds=StreamBounds(0, 300.0))
    async with joined(node):
        _, epoch, _, _, _, _ = await node.subscribed(topic)
        await node.published(topic, "1")
        await until(lambda: node.hub.delivered(topic) == ["1"])
        redis_server.client.xadd(node.engine._keys.stream(topic), {"b": "?"}, id=f"{epoch}-5")
        await node.published(topic, "6")
        await until(lambda: node.hub.delivered(topic) == ["1", "6"])
        assert node.hub.resets == [(topic, epoch, 5)]
        assert node.hub.feeds[topic][-1] == (epoch, 6, "6")


@scenario
async def test_a_forged_frame_changes_nothing(redis_server, engine_node, topic):
    node = engine_node(url=redis_server.url)
    async with joined(node):
        _, epoch, _, _, _, _ = await node.subscribed(topic)
        channel = node.engine._keys.channel(topic)
        for forged in ((epoch, 1_000_000), (epoch + 1, 1)):
            head = b"\x01\x01\0\0" + (1).to_bytes(4, "little")
            head += forged[0].to_bytes(8, "little") + forged[1].to_bytes(8, "little") + (4).to_bytes(4, "little") * 2
            redis_server.client.publish(channel, head + bytes(4))
        await until(lambda: node.engine.statistics()["strays"] == 2)
        await node.published(topic, "1")
        await until(lambda: node.hub.delivered(topic) == ["1"])
        assert node.hub.resets == []


@scenario
async def test_the_feed_is_cut_and_nothing_is_missed(redis_server, engine_node, topic):
    one, two = engine_node("one", url=redis_server.url), engine_node("two", url=redis_server.url)
    async with joined(one, two):
        _, epoch, _, _, _, _ = await one.subscribed(topic)
        for n in range(10):
            redis_server.client.client_kill_filter(_type="pubsub")
            await two.published(topic, *names(n * 10, n * 10 + 9))
        await until(lambda: len(one.hub.delivered(topic)) == 100)
        assert one.hub.delivered(topic) == names(0, 99)
        assert {each[0] for each in one.hub.feeds[topic]} == {epoch}
        assert (one.hub.lost, one.hub.resets) == (1, [])


@scenario
async def test_history_that_is_lost_begins_a_new_epoch_on_all_nodes(engine_node, topic):
    with RedisServer() as server:
        one, two = engine_node("one", url=server.url), engine_node("two", url=server.url)
        async with joined(one, two):
            before = await one.subscribed(topic)
            await two.subscribed(topic)
            await one.published(topic, "old")
            server.client.flushall()
            _, epoch, offset, _ = await two.published(topic, "new")
            assert epoch != before[1]
            assert offset == 1
            for node in (one, two):
                await until(lambda hub=node.hub: hub.delivered(topic) == ["old", "new"])
                assert [each[:2] for each in node.hub.resets] == [(topic, epoch)]


@scenario
async def test_a_master_that_lost_its_end_is_found_out_by_what_it_has_in_its_place(engine_node, topic):
    """As after a failover to a replica that lagged: the same epoch, and other messages under the same offsets."""
    with RedisServer() as server:
        one, two = engine_node("one", url=server.url), engine_node("two", url=server.url)
        async with joined(one, two):
            before = await one.subscribed(topic)
            await two.subscribed(topic)
            await one.published(topic, "1", "2", "3")
            for node in (one, two):
                await until(lambda hub=node.hub: len(hub.delivered(topic)) == 3)
            stream = one.engine._keys.stream(topic)
            entries = server.client.xrange(stream)
            server.client.delete(stream)
            for number, (entry, fields) in enumerate(entries):
                server.client.xadd(stream, fields if number < 2 else {"b": b"\x09\0\0\0" + bytes(9)}, id=entry)
            server.client.client_kill_filter(_type="pubsub")
            for node in (one, two):
                await until(lambda hub=node.hub: hub.resets)
            assert one.hub.resets == two.hub.resets
            assert one.hub.resets[0][1] != before[1]
            await two.published(topic, "4")
            for node in (one, two):
                await until(lambda hub=node.hub: hub.delivered(topic)[-1] == "4")


@scenario
async def test_a_stream_that_is_subscribed_to_does_not_expire(redis_server, engine_node, topic):
    node = engine_node(url=redis_server.url, times={"refresh_secs": 0.02})
    async with joined(node):
        _, epoch, _, _, _, _ = await node.subscribed(topic)
        stream = node.engine._keys.stream(topic)
        redis_server.client.pexpire(stream, 10_000)
        await until(lambda: redis_server.client.pttl(stream) > 20_000)
        redis_server.client.delete(stream)
        await until(lambda: node.hub.resets)
        assert node.hub.resets[0][0] == topic
        assert node.hub.resets[0][1] != epoch
        assert node.hub.resets[0][2] == 0


@scenario
async def test_unsubscribed_and_subscribed_again(redis_server, engine_node, topic):
    node = engine_node(url=redis_server.url)
    async with joined(node):
        for n in range(20):
            first = node.hub.subscribe(topic)
            node.hub.ask("unsubscribe", topic)
            again = node.hub.subscribe(topic)
            assert (await node.answer(first))[0] == "refused"
            assert (await node.answer(again))[0] == "subscribed"
            await node.published(topic, str(n))
            await until(lambda n=n: node.hub.delivered(topic) == names(0, n))
            node.hub.ask("unsubscribe", topic)


@scenario
async def test_messages_too_old_are_neither_read_nor_recovered(redis_server, engine_node, topic):
    node = engine_node(url=redis_server.url, bounds=StreamBounds(1000, 300.0))
    async with joined(node):
        _, epoch, _, _ = await node.published(topic, *(str(n) for n in range(1, 41)))
        stream = node.engine._keys.stream(topic)
        entries = redis_server.client.xrange(stream)
        redis_server.client.delete(stream)
        for number, (entry, fields) in enumerate(entries, 1):
            redis_server.client.xadd(stream, fields if number > 17 else fields | {b"t": 1}, id=entry)
        assert await node.subscribed(topic, (epoch, 16)) == ("subscribed", epoch, 40, False, 41, [])
        recovered = await node.subscribed(topic, (epoch, 17))
        assert recovered == ("subscribed", epoch, 40, True, 18, [str(n) for n in range(18, 41)])


@pytest.mark.parametrize("ts", [1, NOW_MS])
@scenario
async def test_the_age_of_a_message_is_reckoned_by_the_clock_of_redis(redis_server, engine_node, topic, ts):
    """And not by that of the node it came from, which may be wrong."""
    node = engine_node(url=redis_server.url, bounds=StreamBounds(1000, 300.0))
    async with joined(node):
        _, epoch, _, _ = await node.answer(node.hub.publish(topic, "odd", ts=ts))
        assert await node.subscribed(topic, (epoch, 0)) == ("subscribed", epoch, 1, True, 1, ["odd"])
        ((_, fields),) = redis_server.client.xrange(node.engine._keys.stream(topic))
        assert abs(int(fields[b"t"]) / 1000 - redis_server.client.time()[0]) < 60


@scenario
async def test_other_messages_under_known_offsets_are_noticed_after_redis_was_away_too(
    redis_server, engine_node, topic
):
    async with Proxy(redis_server.port) as proxy:
        node = engine_node(url=f"redis://127.0.0.1:{proxy.port}")
        async with joined(node):
            _, epoch, _, _, _, _ = await node.subscribed(topic)
            await node.published(topic, "1", "2", "3")
            await until(lambda: len(node.hub.delivered(topic)) == 3)
            proxy.refusing = True
            proxy.cut()
            await until(lambda: not node.hub.here)
            stream = node.engine._keys.stream(topic)
            entries = redis_server.client.xrange(stream)
            redis_server.client.delete(stream)
            for number, (entry, fields) in enumerate([*entries, (f"{epoch}-4", entries[0][1])]):
                redis_server.client.xadd(stream, fields if number != 2 else entries[0][1], id=entry)
            proxy.refusing = False
            await node.joined()
            answer = await node.subscribed(topic, (epoch, 3))
            assert answer[1] != epoch
            assert answer[2:4] == (0, False)
            assert await node.subscribed(topic, (answer[1], 0)) == ("subscribed", answer[1], 0, True, 1, [])


@scenario
async def test_many_topics_begin_with_few_calls(redis_server, engine_node, topic):
    def calls():
        return redis_server.client.info("commandstats")["cmdstat_evalsha"]["calls"]

    one, two = engine_node("one", url=redis_server.url), engine_node("two", url=redis_server.url)
    topics = [b"%b-%d" % (topic, number) for number in range(300)]
    async with joined(one, two):
        _, epoch, _, _ = await one.published(topics[0], "before")
        before = calls()
        tokens = [two.hub.subscribe(each) for each in topics]
        answers = [await two.answer(token) for token in tokens]
        assert calls() - before < len(topics) / 10
        assert answers[0] == ("subscribed", epoch, 1, False, 2, [])
        assert all(answer[2:] == (0, False, 1, []) for answer in answers[1:])
        for each in topics:
            one.hub.publish(each, "after")
        await until(lambda: all(two.hub.delivered(each) == ["after"] for each in topics))
