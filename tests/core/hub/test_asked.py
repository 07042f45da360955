"""What a worker asks the home of a topic, and is answered."""

import pytest

from core.hub.node import make_node, texts, texts_of
from core.hub.sans_io import identity


@pytest.fixture(params=[0, 1], ids=["at home", "elsewhere"])
def where(request: pytest.FixtureRequest) -> int:
    """The slot that the topic of a test is at home at; its clients are at slot 0."""
    return request.param


class TestPublications:
    """Published where the topic is at home."""

    def test_an_ack_names_the_place(self, where: int) -> None:
        node = make_node(2)
        topic = node.topic_at(where)
        writer = node.workers[0].connect("writer")
        reader = node.workers[1].connect("reader")
        epoch = node.subscribe(reader, topic)["epoch"]
        assert [node.publish(writer, topic, number) for number in range(3)] == [(epoch, n) for n in (1, 2, 3)]
        assert texts(reader.messages()) == [(1, 0), (2, 1), (3, 2)]

    def test_a_repeated_key_publishes_once_whichever_worker_it_comes_to(self) -> None:
        node = make_node(3)
        topic = node.topic_at(1)
        reader = node.workers[2].connect("reader")
        node.subscribe(reader, topic)
        places = {
            node.publish(node.workers[slot].connect("writer"), topic, slot, idempotency_key="k") for slot in range(3)
        }
        assert len(places) == 1
        assert texts(reader.messages()) == [(1, 0)]

    def test_over_http(self, where: int) -> None:
        node = make_node(2)
        topic = node.topic_at(where)
        reader = node.workers[1].connect("reader")
        epoch = node.subscribe(reader, topic)["epoch"]
        server = node.workers[0]
        found = []
        body = b'{"topic":"%b","payload":{"a":1}}' % topic.encode()
        answer = server.hub.publish_request(body, identity("backend"))
        if where == 0:
            found.append(answer)
        else:
            answer.then(lambda value, error: found.append(value))
            node.pump()
            assert answer.settled
        assert found == [{"epoch": epoch, "offset": 1}]
        node.pump()
        assert texts(reader.messages()) == [(1, {"a": 1})]


class TestSubscriptions:
    """History and recovery come from the home."""

    def test_recovery_is_complete_or_not_at_all(self, where: int) -> None:
        node = make_node(2, max_cache_entries=5)
        topic = node.topic_at(where)
        writer = node.workers[1].connect("writer")
        for number in range(1, 9):
            epoch, _ = node.publish(writer, topic, number)
        reader = node.workers[0].connect("reader")
        answer = node.subscribe(reader, topic, recover={"epoch": epoch, "offset": 5})
        assert (answer["recovered"], texts_of(answer)) == (True, [(6, 6), (7, 7), (8, 8)])
        other = node.workers[0].connect("other")
        answer = node.subscribe(other, topic, recover={"epoch": epoch, "offset": 2})
        assert (answer["recovered"], answer["offset"], answer["messages"]) == (False, 8, [])
        third = node.workers[0].connect("third")
        answer = node.subscribe(third, topic, recover={"epoch": "0" * 16, "offset": 8})
        assert (answer["recovered"], answer["offset"]) == (False, 8)
        fourth = node.workers[0].connect("fourth")
        assert texts_of(node.subscribe(fourth, topic, history=2)) == [(7, 7), (8, 8)]
        node.publish(writer, topic, 9)
        for peer in (reader, other, third, fourth):
            assert texts(peer.messages()) == [(9, 9)]

    def test_history_page(self, where: int) -> None:
        node = make_node(2)
        topic = node.topic_at(where)
        writer, reader = (node.workers[slot].connect(f"u{slot}") for slot in (1, 0))
        for number in range(1, 6):
            epoch, _ = node.publish(writer, topic, number)
        page = node.ask(reader, {"type": "History", "id": 1, "topic": topic, "limit": 2})
        assert (page["type"], page["epoch"], page["offset"], texts_of(page)) == (
            "HistoryPage",
            epoch,
            5,
            [(1, 1), (2, 2)],
        )
        after = {"epoch": epoch, "offset": 3}
        page = node.ask(reader, {"type": "History", "id": "x", "topic": topic, "after": after})
        assert texts_of(page) == [(4, 4), (5, 5)]
        page = node.ask(reader, {"type": "History", "id": 1, "topic": topic, "limit": 2, "reverse": True})
        assert texts_of(page) == [(5, 5), (4, 4)]
