"""A full consumer holds publishers on every worker of its node."""

import pytest

from core.hub.node import Node, make_node, texts
from core.hub.sans_io import Peer
from realtime_communication._core.hub.hub import RequestError
from realtime_communication._core.hub.peers import split_frames

CAPACITY = 4
FULL = 15


@pytest.fixture(params=[(0, 1, 0), (0, 1, 1), (0, 1, 2), (1, 0, 0)], ids=str)
def places(request: pytest.FixtureRequest) -> tuple[int, int, int]:
    """Where a consumer, a publisher and the topic are: the publisher always at another worker than the consumer."""
    chosen: tuple[int, int, int] = request.param
    return chosen


def stalled(node: Node, slot: int, topic: str) -> Peer:
    """A subscriber of the topic that reads nothing."""
    consumer = node.workers[slot].connect("consumer")
    node.subscribe(consumer, topic)
    consumer.stall()
    return consumer


def fill(node: Node, publisher: Peer, topic: str, count: int = CAPACITY) -> None:
    """Publish, each in a turn of its own."""
    for number in range(count):
        publisher.send({"type": "Broadcast", "topic": topic, "payload": number})
        node.pump()


class TestBlock:
    """Overflow `block`."""

    def test_a_publisher_elsewhere_waits_and_goes_on(self, places: tuple[int, int, int]) -> None:
        consumers, publishers, home = places
        node = make_node(3, overflow_strategy="block", mailbox_capacity=CAPACITY)
        topic = node.topic_at(home)
        consumer = stalled(node, consumers, topic)
        publisher = node.workers[publishers].connect("publisher")
        fill(node, publisher, topic, CAPACITY + 2)
        assert not publisher.connection.reading
        consumer.resume()
        node.pump()
        assert publisher.connection.reading
        assert texts(consumer.messages()) == [(number + 1, number) for number in range(CAPACITY + 2)]
        node.publish(publisher, topic, "more")

    def test_publishers_of_other_topics_go_on(self) -> None:
        node = make_node(2, overflow_strategy="block", mailbox_capacity=CAPACITY)
        topic, other = node.topic_at(0), node.topic_at(0, "other")
        stalled(node, 0, topic)
        fill(node, node.workers[1].connect("publisher"), topic)
        node.publish(node.workers[1].connect("another"), other, 1)

    def test_over_http(self, places: tuple[int, int, int]) -> None:
        consumers, publishers, home = places
        node = make_node(3, overflow_strategy="block", mailbox_capacity=CAPACITY)
        topic = node.topic_at(home)
        consumer = stalled(node, consumers, topic)
        publisher = node.workers[publishers].connect("publisher")
        fill(node, publisher, topic)
        hub, who = node.workers[publishers].hub, next(iter(node.workers[publishers].identities.values()))
        body = b'{"topic":"%b","payload":1}' % topic.encode()
        with pytest.raises(RequestError) as caught:
            hub.publish_request(body, who)
        assert caught.value.code == "backpressure"
        consumer.resume()
        node.pump()
        hub.publish_request(body, who)

    def test_a_consumer_that_goes_frees_them(self, places: tuple[int, int, int]) -> None:
        consumers, publishers, home = places
        node = make_node(3, overflow_strategy="block", mailbox_capacity=CAPACITY)
        topic = node.topic_at(home)
        consumer = stalled(node, consumers, topic)
        publisher = node.workers[publishers].connect("publisher")
        fill(node, publisher, topic, CAPACITY + 1)
        assert not publisher.connection.reading
        consumer.end()
        node.pump()
        assert publisher.connection.reading

    def test_a_worker_that_dies_frees_them(self) -> None:
        for dying in (0, 2):
            node = make_node(3, overflow_strategy="block", mailbox_capacity=CAPACITY)
            topic = node.topic_at(dying)
            stalled(node, 0, topic)
            publisher = node.workers[1].connect("publisher")
            fill(node, publisher, topic, CAPACITY + 1)
            assert not publisher.connection.reading
            node.kill(dying)
            node.pump()
            fill(node, publisher, topic, 1)
            assert publisher.connection.reading is (dying == 0), "held on by the consumer that is still there"

    def test_a_worker_that_comes_is_told(self) -> None:
        node = make_node(2, overflow_strategy="block", mailbox_capacity=CAPACITY)
        topic = next(each for n in range(99) if node.home(each := f"t{n}") == node.home(each, [0, 1, 2]) == 0)
        consumer = stalled(node, 1, topic)
        fill(node, node.workers[0].connect("publisher"), topic)
        late = node.start(2).connect("late")
        node.pump()
        fill(node, late, topic, 1)
        assert not late.connection.reading
        consumer.resume()
        node.pump()
        assert late.connection.reading

    def test_the_topic_goes_with_the_last_who_needed_it(self) -> None:
        node = make_node(2, overflow_strategy="block", mailbox_capacity=CAPACITY, max_cache_entries=1)
        topic = node.topic_at(0)
        consumer = stalled(node, 0, topic)
        publisher = node.workers[1].connect("publisher")
        fill(node, publisher, topic)
        assert [each["topic"] for each in node.workers[1].hub.topics() if each["topic"] == topic] == [topic]
        consumer.resume()
        node.pump()
        assert [each["topic"] for each in node.workers[1].hub.topics() if each["topic"] == topic] == []


class TestBackpressure:
    """Overflow `backpressure`: only direct messages are refused."""

    def test_a_direct_message_to_a_user_elsewhere(self, places: tuple[int, int, int]) -> None:
        consumers, publishers, home = places
        node = make_node(3, mailbox_capacity=CAPACITY)
        user, topic = node.user_at(home), node.topic_at(home)
        consumer = node.workers[consumers].connect(user)
        node.subscribe(consumer, topic)
        consumer.stall()
        sender = node.workers[publishers].connect("sender")
        fill(node, sender, topic)
        # An inbox is made with its first message, and told of then.
        assert node.ask(sender, {"type": "DirectMessage", "id": 0, "to": [user], "payload": 0})["type"] == "Ack"
        answer = node.ask(sender, {"type": "DirectMessage", "id": 1, "to": ["carol", user], "payload": 1})
        assert (answer["type"], answer["code"]) == ("Error", "backpressure")
        assert answer["retry_after_ms"] > 0
        consumer.resume()
        node.pump()
        answer = node.ask(sender, {"type": "DirectMessage", "id": 2, "to": [user], "payload": 1})
        assert (answer["type"], answer["delivered"]) == ("Ack", [user])

    def test_nobody_is_told_of_topics(self) -> None:
        node = make_node(2, mailbox_capacity=CAPACITY)
        topic = node.topic_at(0)
        stalled(node, 1, topic)
        fill(node, node.workers[0].connect("publisher"), topic)
        told = node.workers[1].hub.take_for_peer(0)
        assert not [frame for frame in split_frames(told)[0] if frame[0] == FULL]
