"""Messages on their way from the home of a topic to the workers that mirror it."""

import collections

import pytest

from core.hub.node import make_node, texts, texts_of
from core.hub.sans_io import ADMIN, READ, SUBSCRIBE, WRITE

ALL = READ | WRITE | SUBSCRIBE


@pytest.fixture(params=[0, 1], ids=["at home", "elsewhere"])
def where(request: pytest.FixtureRequest) -> int:
    """The slot that the topic of a test is at home at; its clients are at slot 0."""
    return request.param


class TestFeeds:
    """One order for all, wherever somebody is connected."""

    def test_each_worker_gets_each_message_once_and_in_order(self) -> None:
        node = make_node(3)
        topics = [node.topic_at(slot) for slot in range(3)]
        readers = [node.workers[slot].connect(f"reader{slot}") for slot in range(3)]
        writers = [node.workers[slot].connect(f"writer{slot}") for slot in range(3)]
        for reader in readers:
            for topic in topics:
                assert node.subscribe(reader, topic)["offset"] == 0
        for number in range(5):
            for slot, writer in enumerate(writers):
                for topic in topics:
                    writer.send({"type": "Broadcast", "topic": topic, "payload": [slot, number]})
        node.pump(piece=7)
        seen = []
        for reader in readers:
            messages = reader.messages()
            by_topic = collections.defaultdict(list)
            for each in messages:
                by_topic[each["topic"]].append((each["offset"], each["from"], each["payload"]))
            assert all([offset for offset, *_ in by_topic[topic]] == list(range(1, 16)) for topic in topics)
            seen.append(by_topic)
        assert seen[0] == seen[1] == seen[2]
        for topic in topics:
            assert sorted(payload for _, _, payload in seen[0][topic]) == sorted(
                [s, n] for s in range(3) for n in range(5)
            )

    def test_who_is_excluded_is_left_out_there_only(self, where: int) -> None:
        node = make_node(2)
        topic = node.topic_at(where)
        writer, other, far = (node.workers[slot].connect(f"u{slot}") for slot in (0, 0, 1))
        for peer in (writer, other, far):
            node.subscribe(peer, topic)
        answer = node.ask(writer, {"type": "Broadcast", "id": 1, "topic": topic, "payload": 1, "exclude_self": True})
        assert answer["type"] == "Ack"
        assert texts(other.messages()) == texts(far.messages()) == [(1, 1)]

    def test_encodings_and_compression_of_each_subscriber(self, where: int) -> None:
        node = make_node(2, compression_threshold_bytes=64)
        topic = node.topic_at(where)
        forms = ["rtc.v1.json", "rtc.v1.msgpack", "rtc.v1.msgpack+zstd", "rtc.v1.json+gzip"]
        readers = [node.workers[slot].connect("r", protocol=form) for slot in (0, 1) for form in forms]
        for reader in readers:
            node.subscribe(reader, topic)
        node.publish(node.workers[0].connect("w"), topic, {"text": "x" * 500})
        node.publish(node.workers[1].connect("w", protocol="rtc.v1.msgpack"), topic, [1, None, "é"])
        for reader in readers:
            assert texts(reader.messages()) == [(1, {"text": "x" * 500}), (2, [1, None, "é"])]

    def test_to_everybody(self, where: int) -> None:
        node = make_node(3)
        early = [node.workers[slot].connect(f"u{slot}") for slot in range(3)]
        for slot in range(3):
            admin = node.workers[slot].connect("root", permissions=ALL | ADMIN)
            admin.send({"type": "Broadcast", "topic": "*", "payload": slot})
            node.pump()
            admin.end()
        late = node.workers[2].connect("late")
        for peer in early:
            assert [payload for _, payload in texts(peer.messages())] == [0, 1, 2]
        assert late.messages() == []

    def test_a_feed_ends_with_its_last_subscriber(self) -> None:
        node = make_node(2)
        topic = node.topic_at(1)
        writer = node.workers[1].connect("writer")
        peers = [node.workers[0].connect(f"p{n}") for n in range(2)]
        for peer in peers:
            node.subscribe(peer, topic)
        node.ask(peers[0], {"type": "Unsubscribe", "id": 1, "topic": topic})
        epoch, _ = node.publish(writer, topic, 1)
        assert texts(peers[1].messages()) == [(1, 1)]
        peers[1].end()
        node.pump()
        node.publish(writer, topic, 2)
        assert node.workers[0].hub.take_for_peer(1) == b""
        again = node.workers[0].connect("again")
        answer = node.subscribe(again, topic, recover={"epoch": epoch, "offset": 1})
        assert (answer["recovered"], texts_of(answer)) == (True, [(2, 2)])
