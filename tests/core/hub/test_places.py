"""Sessions that move go on in their topics where they were."""

import random
from typing import Any

import pytest

from core.hub.moving import by_home, carry_some, moved
from core.hub.node import Upstream, make_node, texts
from core.hub.sans_io import ADMIN, READ, SUBSCRIBE


class TestMessages:
    """Nothing is lost, doubled or told out of order."""

    @by_home
    def test_a_subscriber_gets_each_message_once(self, topic_home: int) -> None:
        node = make_node(3)
        topic = node.topic_at(topic_home)
        writer = node.workers[2].connect("writer")
        reader = node.workers[0].connect("reader")
        epoch = node.subscribe(reader, topic)["epoch"]
        for number in range(3):
            node.publish(writer, topic, number)
        assert moved(node) == 1
        assert [worker.hub.connection_count() for worker in node.workers.values()] == [0, 1, 1]
        for number in range(3, 6):
            assert node.publish(writer, topic, number)[0] == epoch
        assert reader.messages() and reader.connection.open
        assert node.workers[0].stats()["migrated"] == 1

    @by_home
    def test_what_is_under_way_arrives_in_its_place(self, topic_home: int) -> None:
        node = make_node(3)
        topic = node.topic_at(topic_home)
        writers = [node.workers[slot].connect(f"writer{slot}") for slot in range(3)]
        reader = node.workers[0].connect("reader", permissions=READ | SUBSCRIBE)
        other = node.workers[1].connect("other")
        for peer in (reader, other):
            node.subscribe(peer, topic)
        node.move(0, 1)
        node.pump()
        for peer in writers:  # nobody carries anything until the session has gone
            peer.send(*({"type": "Broadcast", "topic": topic, "payload": n} for n in range(4)))
        assert node.move(0, 1) >= 1
        for peer in writers[1:]:
            peer.send(*({"type": "Broadcast", "topic": topic, "payload": n} for n in range(4)))
        node.pump(piece=11)
        seen = texts(reader.messages())
        assert [offset for offset, _ in seen] == list(range(1, 21))
        assert seen == texts(other.messages())

    @pytest.mark.parametrize("seed", range(6))
    def test_sessions_that_wander_while_all_publish(self, seed: int) -> None:
        chosen = random.Random(seed)
        node = make_node(3)
        topics = [node.topic_at(slot) for slot in range(3)]
        readers = [node.workers[slot].connect(f"reader{slot}") for slot in range(3)]
        writers = [node.workers[slot].connect(f"writer{slot}") for slot in range(3)]
        for reader in readers:
            for topic in topics:
                node.subscribe(reader, topic)
        moves = 0
        for number in range(120):
            writer = chosen.choice(writers)
            writer.send({"type": "Broadcast", "id": number, "topic": chosen.choice(topics), "payload": number})
            if chosen.random() < 0.6:
                node.workers[chosen.randrange(3)].flush()
                giver, taker = chosen.sample(range(3), 2)
                moves += node.move(giver, taker, 2)
            if chosen.random() < 0.5:
                carry_some(node, chosen)
        node.pump()
        assert moves > 5
        histories = []
        for reader in readers:
            by_topic: dict[str, list[tuple[int, Any]]] = {topic: [] for topic in topics}
            for each in reader.messages():
                assert each["type"] == "Message", each
                by_topic[each["topic"]].append((each["offset"], each["payload"]))
            histories.append(by_topic)
        for topic in topics:
            history = histories[0][topic]
            assert [offset for offset, _ in history] == list(range(1, len(history) + 1))
            assert all(other[topic] == history for other in histories)
        assert sum(len(history) for history in histories[0].values()) == 120
        acks = [each for writer in writers for each in writer.messages()]
        assert sorted(each["id"] for each in acks if each["type"] == "Ack") == list(range(120))

    def test_a_publisher_with_an_answer_to_come_stays(self) -> None:
        node = make_node(2)
        topic = node.topic_at(1)
        writer = node.workers[0].connect("writer")
        node.move(0, 1)
        node.pump()
        writer.send({"type": "Broadcast", "topic": topic, "payload": 1})
        assert node.move(0, 1) == 0
        node.pump()
        assert node.move(0, 1) == 1

    @by_home
    def test_who_publishes_goes_on_where_it_is_now(self, topic_home: int) -> None:
        node = make_node(3)
        topic = node.topic_at(topic_home)
        writer = node.workers[0].connect("writer")
        reader = node.workers[2].connect("reader")
        node.subscribe(reader, topic)
        node.publish(writer, topic, "a")
        assert moved(node) == 1
        writer.send({"type": "Broadcast", "topic": topic, "payload": "b"})
        node.publish(writer, topic, "c")
        assert [payload for _, payload in texts(reader.messages())] == ["a", "b", "c"]

    def test_direct_messages_find_the_user(self) -> None:
        for home in range(3):
            node = make_node(3)
            user = node.user_at(home)
            reader = node.workers[0].connect(user)
            writer = node.workers[2].connect("writer")
            node.move(0, 1)
            node.pump()
            writer.send({"type": "DirectMessage", "id": 1, "to": user, "payload": 1})
            assert node.move(0, 1) == 1
            writer.send({"type": "DirectMessage", "id": 2, "to": user, "payload": 2})
            node.pump()
            answers = writer.messages()
            assert [each["delivered"] for each in answers] == [[user], [user]], (home, answers)
            node.workers[2].connect("other").send({"type": "DirectMessage", "to": user, "payload": 3})
            node.pump()
            assert [each["payload"] for each in reader.messages()] == [1, 2, 3]

    def test_messages_to_all_connections(self) -> None:
        node = make_node(3)
        admin = node.workers[2].connect("admin", permissions=ADMIN)
        reader = node.workers[0].connect("reader")
        node.move(0, 1)
        node.pump()
        admin.send({"type": "Broadcast", "topic": "*", "payload": 1})
        assert node.move(0, 1) == 1
        admin.send({"type": "Broadcast", "topic": "*", "payload": 2})
        node.pump()
        assert [each["payload"] for each in reader.messages()] == [1, 2]

    def test_a_consumer_that_gets_full_before_it_has_all_its_places_holds_publishers_there_too(self) -> None:
        node = make_node(3, overflow_strategy="block", mailbox_capacity=4)
        early, late = node.topic_at(1), node.topic_at(2)
        reader = node.workers[0].connect("reader")
        writers = [node.workers[slot].connect(f"writer{slot}") for slot in (1, 2)]
        for topic in (early, late):
            node.subscribe(reader, topic)
        node.move(0, 1)
        node.pump()
        reader.stall()
        assert node.move(0, 1) == 1
        for number in range(5):
            writers[0].send({"type": "Broadcast", "topic": early, "payload": number})
            node.workers[1].flush()
        assert not writers[0].connection.reading
        node.pump()  # it is subscribed to the other topic from now on
        writers[1].send(*({"type": "Broadcast", "topic": late, "payload": number} for number in range(2)))
        assert not writers[1].connection.reading
        reader.resume()
        node.pump()
        assert writers[1].connection.reading
        assert len(texts(reader.messages())) == 7

    def test_a_gap_that_nobody_can_fill_is_told(self) -> None:
        node = make_node(2, max_cache_entries=1)
        topic = node.topic_at(1)
        reader = node.workers[0].connect("reader")
        writer = node.workers[1].connect("writer")
        node.subscribe(reader, topic)
        node.move(0, 1)
        node.pump()
        writer.send(*({"type": "Broadcast", "topic": topic, "payload": n} for n in range(5)))
        node.workers[1].flush()
        assert node.move(0, 1) == 1
        node.pump()
        lagged = [each for each in reader.messages() if each["type"] == "Lagged"]
        assert [(each["recovered"], each["missed"], each["offset"]) for each in lagged] == [(False, 5, 5)]
        assert node.publish(writer, topic, "on")[1] == 6
        assert texts(reader.messages()) == [(6, "on")]

    def test_a_gap_into_another_epoch_has_no_number(self) -> None:
        node = make_node(3)
        topic = node.topic_at(2)
        reader, writer = node.workers[0].connect("reader"), node.workers[1].connect("writer")
        node.subscribe(reader, topic)
        node.move(0, 1)
        node.pump()
        for number in range(3):
            node.publish(writer, topic, number)
        reader.messages()
        assert node.move(0, 1) == 1
        node.kill(2)
        for _ in range(5):
            node.advance(200)
        (lagged,) = [each for each in reader.messages() if each["topic"] == topic]
        assert (lagged["type"], lagged["recovered"], lagged["missed"]) == ("Lagged", False, 0)
        writer.messages()
        assert node.publish(writer, topic, "on") == (lagged["epoch"], lagged["offset"] + 1)
        assert texts(reader.messages()) == [(lagged["offset"] + 1, "on")]

    @by_home
    def test_without_a_cache_the_workers_keep_what_is_published_while_sessions_move(self, topic_home: int) -> None:
        node = make_node(3, enable_caching=False)
        topic = node.topic_at(topic_home)
        reader = node.workers[0].connect("reader")
        writer = node.workers[2].connect("writer")
        node.subscribe(reader, topic)
        for _ in range(2):
            assert node.move(0, 1) == 0
            node.pump()
        writer.send(*({"type": "Broadcast", "topic": topic, "payload": n} for n in range(3)))
        node.workers[2].flush()
        assert node.move(0, 1) == 1
        writer.send(*({"type": "Broadcast", "topic": topic, "payload": n} for n in range(3, 6)))
        node.pump(piece=11)
        assert texts(reader.messages()) == [(n + 1, n) for n in range(6)]
        node.advance(21_000)
        node.publish(writer, topic, 6)
        node.advance(2_000)
        assert texts(reader.messages()) == [(7, 6)]
        assert [worker.stats()["cached_messages"] for worker in node.workers.values()] == [0, 0, 0]

    def test_without_a_cache_a_worker_that_joins_keeps_what_is_published_for_a_while(self) -> None:
        """A topic may come to it while sessions are on their way that were given before it was there."""
        node = make_node(2, enable_caching=False)
        node.advance(21_000)
        node.start(2)
        topic = node.topic_at(2)
        writer = node.workers[0].connect("writer")
        node.publish(writer, topic, 1)
        assert node.workers[2].stats()["cached_messages"] == 1
        node.advance(21_000)
        node.publish(writer, topic, 2)
        node.advance(2_000)
        assert node.workers[2].stats()["cached_messages"] == 0

    def test_with_an_upstream(self) -> None:
        node, upstream = make_node(3), Upstream()
        node.go_below(upstream)

        def settle() -> None:
            node.pump()
            while upstream.step():
                node.pump()

        topics = [node.topic_at(slot) for slot in range(3)]
        reader, writer = node.workers[0].connect("reader"), node.workers[2].connect("writer")
        for topic in topics:
            reader.send({"type": "Subscribe", "id": 1, "topic": topic})
            settle()
        reader.messages()
        node.move(0, 1)
        settle()
        for topic in topics:
            writer.send({"type": "Broadcast", "topic": topic, "payload": 1})
        node.workers[2].flush()
        assert node.move(0, 1) == 1
        settle()
        for topic in topics:
            writer.send({"type": "Broadcast", "topic": topic, "payload": 2})
        settle()
        seen = reader.messages()
        for topic in topics:
            assert [(each["offset"], each["payload"]) for each in seen if each["topic"] == topic] == [(1, 1), (2, 2)]
        assert all(each["type"] == "Message" for each in seen)
