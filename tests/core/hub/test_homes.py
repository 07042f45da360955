"""Topics whose home changes."""

import pytest

from core.hub.node import Node, make_node, texts, texts_of
from core.hub.sans_io import Envelope, make_hub
from realtime_communication._core.hub.peers import split_frames


class TestWorkersThatCome:
    """A new home is handed its topics, with their history."""

    def test_a_worker_that_comes_back_is_handed_its_topics(self) -> None:
        node = make_node(3)
        topic = node.topic_at(2)
        readers = [node.workers[slot].connect(f"r{slot}") for slot in (0, 1)]
        for reader in readers:
            node.subscribe(reader, topic)
        node.kill(2)
        node.pump()
        place = node.publish(node.workers[0].connect("w"), topic, 1)
        for reader in readers:
            reader.messages()
        node.start(2)
        node.pump()
        assert node.publish(node.workers[2].connect("w"), topic, 2) == (place[0], 2)
        assert [texts(reader.messages()) for reader in readers] == [[(2, 2)]] * 2
        late = node.workers[1].connect("late")
        assert texts_of(node.subscribe(late, topic, recover={"epoch": place[0], "offset": 0})) == [(1, 1), (2, 2)]

    def test_who_hears_late_of_the_members_is_handed_its_topics_too(self) -> None:
        node = make_node(1)
        topic, empty = (next(f"{x}-{n}" for n in range(99) if node.home(f"{x}-{n}", [0, 1]) == 1) for x in "te")
        peer = node.workers[0].connect("alice")
        epoch = node.subscribe(peer, topic)["epoch"]
        node.publish(node.workers[0].connect("bob"), topic, 1)
        peer.messages()
        fresh = node.subscribe(peer, empty)["epoch"]
        node.workers[1] = type(node.workers[0])(deterministic_ids=False)
        node.tell_members([0])
        node.link(1)
        node.pump()
        node.workers[0].hub.set_members(0, [0, 1], node.version + 1)
        peer.send({"type": "Broadcast", "topic": topic, "payload": 2})
        node.pump()
        node.workers[1].hub.set_members(1, [0, 1], node.version + 1)
        node.pump()
        for worker in node.workers.values():
            worker.advance(1000)
        node.pump()
        assert [each["type"] for each in peer.messages()] == ["Message"], "no Lagged"
        assert node.publish(node.workers[1].connect("bob"), topic, 3) == (epoch, 3)
        assert node.publish(node.workers[1].connect("bob"), empty, 1) == (fresh, 1)


class TestMembersThatChange:
    """Workers hear of new members each in its own time."""

    def joined(self) -> Node:
        """A third worker is linked, and is no home yet."""
        node = make_node(2)
        node.workers[2] = make_hub(deterministic_ids=False)
        node.tell_members([0, 1])
        node.link(2)
        node.pump()
        return node

    def topic_that_moves(self, node: Node, home: int) -> str:
        """A topic that is at home there and moves to the third worker."""
        names = (f"topic-{number}" for number in range(5000))
        return next(name for name in names if node.home(name, [0, 1]) == home and node.home(name) == 2)

    @pytest.mark.parametrize("goes", [False, True])
    def test_who_unsubscribes_at_the_home_before_is_fed_no_longer(self, goes: bool) -> None:
        node = self.joined()
        topic = self.topic_that_moves(node, 0)
        reader = node.workers[1].connect("reader")
        node.subscribe(reader, topic)
        for slot in (0, 2):
            node.workers[slot].hub.set_members(slot, [0, 1, 2], node.version + 1)
        if goes:
            reader.send({"type": "Unsubscribe", "id": 2, "topic": topic})
        node.pump()
        node.workers[1].hub.set_members(1, [0, 1, 2], node.version + 1)
        node.pump()
        writer = node.workers[2].connect("writer")
        writer.send({"type": "Broadcast", "topic": topic, "payload": 1})
        frames, _ = split_frames(node.workers[2].hub.take_for_peer(1))
        assert (topic.encode() in [frame[3] for frame in frames]) == (not goes)

    @pytest.mark.parametrize("late", [[2], [0], [1], [2, 0]])
    def test_a_topic_keeps_its_epoch_whoever_hears_late(self, late: list[int]) -> None:
        node = self.joined()
        for home in (0, 1):
            topic = next(
                name for n in range(5000) if node.home(name := f"t{n}", [0, 1]) == home and node.home(name) == 2
            )
            reader, writer = node.workers[0].connect("reader"), node.workers[1].connect("writer")
            node.subscribe(reader, topic)
            assert node.publish(writer, topic, "a")[1] == 1
            node.version += 1
            for slot in sorted(node.workers, key=lambda slot: slot in late):
                node.pump()
                node.workers[slot].hub.set_members(slot, [0, 1, 2], node.version)
            node.pump()
            assert node.publish(writer, topic, "b")[1] == 2
            node.advance(200)  # who asked too early asks again
            assert texts(reader.messages()) == [(1, "a"), (2, "b")]
            node.tell_members([0, 1])
            node.pump()
            assert node.publish(writer, topic, "c")[1] == 3
            assert texts(reader.messages()) == [(3, "c")]

    def test_changes_one_right_after_the_other(self) -> None:
        node = self.joined()
        topic = self.topic_that_moves(node, 0)
        reader, writer = node.workers[0].connect("reader"), node.workers[1].connect("writer")
        node.subscribe(reader, topic)
        node.publish(writer, topic, "a")
        node.tell_members([0, 1, 2])
        node.tell_members([1, 2])
        node.tell_members([1])
        node.pump()
        assert node.publish(writer, topic, "b")[1] == 2
        assert texts(reader.messages()) == [(1, "a"), (2, "b")]

    def test_changes_that_the_others_have_heard_of_already_are_all_taken(self) -> None:
        node = make_node(2)
        worker, other = (each.hub for each in node.workers.values())
        for version in (1, 2, 3):
            worker.set_members(0, [0, 1], node.version + version)
        other.set_members(1, [0, 1], node.version + 3)
        node.pump()
        for slot, hub in enumerate((worker, other)):
            hub.set_members(slot, [0], node.version + 4)
        node.pump()
        assert not worker.holding
        writer = node.workers[0].connect("writer")
        assert node.publish(writer, node.topic_at(1), "a")[1] == 1  # which is at home here now

    def test_what_is_held_meanwhile_is_bounded_in_bytes(self) -> None:
        node = make_node(2, max_frame_size=2 << 20, max_message_size=2 << 20)
        peer = node.workers[0].connect("alice")
        version = node.version + 1
        node.workers[1].hub.set_members(1, [0, 1], version)  # it waits for the other one from now on
        payload, outcomes = "x" * (1 << 20), []
        for number in range(70):
            peer.send({"type": "Broadcast", "id": number, "topic": node.topic_at(1), "payload": payload})
            node.pump()
            outcomes += peer.messages()
        assert [each["id"] for each in outcomes] == list(range(63, 70)), "those above 64 MiB are refused at once"
        assert {each["code"] for each in outcomes} == {"unavailable"}
        node.workers[0].hub.set_members(0, [0, 1], version)
        node.pump()
        acknowledged = peer.messages()
        assert [(each["type"], each["offset"]) for each in acknowledged] == [("Ack", n + 1) for n in range(63)]


class TestInboxes:
    """Of users on other workers."""

    def test_a_home_that_is_one_no_more_forgets_them(self) -> None:
        node = make_node(2)
        user = node.user_at(1)
        peer = node.workers[1].connect(user)
        node.tell_members([0])  # meanwhile another one counts the sessions
        node.pump()
        assert node.ask(node.workers[0].connect("writer"), direct(user))["delivered"] == [user]
        node.tell_members()
        node.pump()
        assert node.ask(node.workers[0].connect("writer"), direct(user))["delivered"] == [user]
        node.pump()
        assert [each["payload"] for each in peer.messages()] == ["hello", "hello"]
        for worker in node.workers.values():
            for session in worker.hub.connections():
                worker.hub.disconnect(session_id=session["session_id"])
        for milliseconds in (5100, 400_000, 1000):
            node.advance(milliseconds)
        for worker in node.workers.values():
            assert [each["topic"] for each in worker.hub.topics() if each["topic"] != "*"] == []


def direct(user: str) -> Envelope:
    return {"type": "DirectMessage", "id": 1, "to": user, "payload": "hello"}


def test_an_epoch_that_went_on_elsewhere_is_not_begun_again() -> None:
    """A topic that was handed over before anybody published on it comes back without its history."""
    node = make_node(2)
    topic = node.topic_at(1)
    node.tell_members([0])
    node.pump()
    reader = node.workers[0].connect("reader")
    node.subscribe(reader, topic)
    node.tell_members()
    node.pump()
    reader.messages()
    node.ask(reader, {"type": "Unsubscribe", "id": 1, "topic": topic})
    writer = node.workers[0].connect("writer")
    epoch, offset = node.publish(writer, topic, "lost")
    node.kill(1)
    node.pump()
    assert offset == 1
    assert node.publish(writer, topic, "new")[0] != epoch
