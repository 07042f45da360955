"""Connections that move between workers count once, and only when they are at rest."""

import pytest

from core.hub.node import Node, make_node, texts
from realtime_communication._core.base.shared import Shared


class TestRest:
    """Only sessions that nothing waits for move."""

    @pytest.mark.parametrize("wait", ["half a frame", "half a message", "unread data", "before authentication"])
    def test_one_that_is_busy_stays(self, wait: str) -> None:
        node = make_node(2)
        topic = node.topic_at(0)
        peer = node.workers[0].connect(None if wait == "before authentication" else "u")
        if wait == "half a frame":
            peer.send_raw(b"\x81")
        elif wait == "half a message":
            peer.send_frame(b"{", fin=False)
        elif wait == "unread data":
            node.subscribe(peer, topic)
            peer.stall()
            node.workers[0].connect("w").send({"type": "Broadcast", "topic": topic, "payload": 1})
        node.move(0, 1, 1)
        node.pump()
        for _ in range(3):
            node.move(0, 1)
            node.pump()
        held = node.workers[0].hub.connections()
        assert [each["user_id"] for each in held] == [None if wait == "before authentication" else "u"]


class TestAccounts:
    """Connections count once, also those that do not arrive."""

    def shared_node(self) -> tuple[Node, Shared]:
        node = make_node(2)
        shared = Shared(Shared.create(2))
        for slot, worker in node.workers.items():
            worker.hub.use_shared(shared, slot)
        return node, shared

    def test_no_moment_without_it(self) -> None:
        node, shared = self.shared_node()
        node.workers[0].connect("u")
        node.move(0, 1)
        node.pump()
        assert node.move(0, 1) == 1
        assert shared.connections() >= 1
        node.pump()
        assert [shared.connections_of(slot) for slot in (0, 1)] == [0, 1]

    def test_lost_on_the_way(self) -> None:
        node, shared = self.shared_node()
        node.workers[0].connect("u")
        node.move(0, 1)
        node.pump()
        assert node.move(0, 1, lose=True) == 1
        node.pump()
        assert shared.connections() == 0
        writer = node.workers[0].connect("w")
        assert node.ask(writer, {"type": "DirectMessage", "id": 1, "to": "u", "payload": 1})["offline"] == ["u"]

    def test_the_giver_knows_of_those_on_their_way(self) -> None:
        node = make_node(2)
        giver = node.workers[0]
        for user in ("a", "b"):
            giver.connect(user)
        node.move(0, 1)
        node.pump()
        giver.hub.call_others()
        node.pump()
        assert giver.hub.all_arrived()
        assert node.move(0, 1, 1) == 1
        assert node.move(0, 1, 1, lose=True) == 1
        assert giver.hub.connection_count() == 0
        assert not giver.hub.all_arrived()
        node.pump()
        assert giver.hub.all_arrived()

    def test_one_that_ends_hears_when_the_others_have_its_topics(self) -> None:
        node = make_node(3)
        writer = node.workers[2].connect("writer")
        topic = node.topic_at(0)
        node.publish(writer, topic, "kept")
        ending = node.workers[0]
        ending.hub.call_others()  # its answers come before the topics have
        node.tell_members([1, 2])
        ending.hub.call_others()
        assert not ending.hub.all_arrived()
        home = node.home(topic, [1, 2])
        data = ending.hub.take_for_peer(home)
        assert node.workers[home].hub.receive_from_peer(0, data) == len(data)
        node.workers[home].flush()
        answers = node.workers[home].hub.take_for_peer(0)
        assert ending.hub.receive_from_peer(home, answers) == len(answers)
        assert not ending.hub.all_arrived()  # the third one
        node.pump()
        assert ending.hub.all_arrived()
        node.kill(0, tell=False)
        reader = node.workers[1].connect("reader")
        (message,) = node.subscribe(reader, topic, history=1)["messages"]
        assert message["payload"] == "kept"

    def test_the_taker_dies(self) -> None:
        node, shared = self.shared_node()
        node.workers[0].connect("u")
        node.move(0, 1)
        node.pump()
        assert node.move(0, 1) == 1
        node.kill(1)
        assert shared.connections_of(0) == 0

    def test_a_third_dies_while_places_are_asked_for(self) -> None:
        node = make_node(3)
        topic = node.topic_at(2)
        reader = node.workers[0].connect("reader")
        node.subscribe(reader, topic)
        node.move(0, 1)
        node.pump()
        assert node.move(0, 1) == 1
        node.kill(2)
        for _ in range(5):
            node.pump()
            for worker in node.workers.values():
                worker.advance(200)
        node.pump()
        writer = node.workers[0].connect("w")
        reader.messages()
        node.publish(writer, topic, "on")
        assert [payload for _, payload in texts(reader.messages())] == ["on"]
        assert node.ask(reader, {"type": "Ping", "id": 1})["type"] == "Pong"

    def test_no_other_worker(self) -> None:
        node = make_node(2)
        for slot in (0, -1, 64):
            with pytest.raises(ValueError, match="slot"):
                node.workers[0].hub.give_sessions(slot, 1)
        assert node.workers[0].hub.give_sessions(7, 1) == 0
