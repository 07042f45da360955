"""Workers that are linked, and lost."""

from core.hub.node import Node, make_node, texts
from core.hub.sans_io import make_hub


class TestLostWorkers:
    """A home that is gone takes its history with it, and everybody is told."""

    def killed(self) -> tuple[Node, str]:
        node = make_node(3)
        return node, node.topic_at(2)

    def test_subscribers_are_told_of_the_new_epoch(self) -> None:
        node, topic = self.killed()
        readers = [node.workers[slot].connect(f"r{slot}") for slot in (0, 1)]
        for reader in readers:
            epoch = node.subscribe(reader, topic)["epoch"]
        node.publish(node.workers[0].connect("w"), topic, 1)
        for reader in readers:
            reader.messages()
        node.kill(2)
        node.pump()
        told = [reader.messages() for reader in readers]
        for (lagged,) in told:
            assert (lagged["type"], lagged["missed"], lagged["recovered"]) == ("Lagged", 0, False)
            assert (lagged["offset"], lagged["topic"]) == (0, topic)
            assert lagged["epoch"] != epoch
        assert told[0][0]["epoch"] == told[1][0]["epoch"]
        writer = node.workers[1].connect("w")
        assert node.publish(writer, topic, 2) == (told[0][0]["epoch"], 1)
        assert [texts(reader.messages()) for reader in readers] == [[(1, 2)]] * 2
        late = node.workers[0].connect("late")
        assert not node.subscribe(late, topic, recover={"epoch": epoch, "offset": 1})["recovered"]

    def test_what_waits_for_it_is_refused(self) -> None:
        node, topic = self.killed()
        peer = node.workers[0].connect("alice")
        peer.send({"type": "Broadcast", "id": 1, "topic": topic, "payload": 1})
        peer.send({"type": "Subscribe", "id": 2, "topic": topic})
        node.workers[0].flush()
        node.kill(2)
        answers = peer.messages()
        assert [(each["type"], each["id"], each["code"]) for each in answers] == [
            ("Error", 1, "unavailable"),
            ("Error", 2, "unavailable"),
        ]
        assert all(each["retry_after_ms"] > 0 for each in answers)
        assert node.subscribe(peer, topic)["offset"] == 0

    def test_what_waits_for_it_is_refused_once_when_the_next_members_are_without_it(self) -> None:
        node = make_node(2)
        worker, topic = node.workers[0], node.topic_at(1)
        peer = worker.connect("alice")
        worker.hub.set_members(0, [0, 1], node.version + 1)
        worker.hub.set_members(0, [0], node.version + 2)
        assert worker.hub.holding  # for the other, and so the next members have to wait
        for number in (1, 2, 3):
            peer.send({"type": "Broadcast", "id": number, "topic": topic, "payload": number})
        worker.hub.link(1, False)
        worker.flush()
        answers = peer.messages()
        assert [(each["id"], each.get("code")) for each in answers] == [(id, "unavailable") for id in (1, 2, 3)]
        assert not worker.hub.holding
        assert peer.request({"type": "Broadcast", "id": 4, "topic": topic, "payload": 4})["type"] == "Ack"

    def test_a_link_that_was_cut_loses_nothing_that_is_cached(self) -> None:
        node = make_node(2)
        topic = node.topic_at(1)
        reader, writer = node.workers[0].connect("r"), node.workers[1].connect("w")
        node.subscribe(reader, topic)
        node.publish(writer, topic, 1)
        node.workers[0].hub.link(1, False)
        node.workers[1].hub.link(0, False)
        node.publish(writer, topic, 2)
        assert texts(reader.messages()) == [(1, 1)]
        node.link(0)
        node.pump()
        node.publish(writer, topic, 3)
        assert texts(reader.messages()) == [(2, 2), (3, 3)]

    def test_direct_messages_go_on(self) -> None:
        node, _ = self.killed()
        user = node.user_at(2)
        peer = node.workers[0].connect(user)
        node.pump()
        node.kill(2)
        node.pump()
        answer = node.ask(node.workers[1].connect("s"), {"type": "DirectMessage", "id": 1, "to": user, "payload": 1})
        assert answer["delivered"] == [user]
        assert len(peer.messages()) == 1

    def test_nobody_answers(self) -> None:
        node = make_node(2)
        topic = node.topic_at(1)
        peer = node.workers[0].connect("alice")
        peer.send({"type": "Subscribe", "id": 1, "topic": topic})
        node.workers[0].advance(11_000)
        (answer,) = peer.messages()
        assert (answer["type"], answer["code"]) == ("Error", "unavailable")
        assert peer.request({"type": "Ping", "id": 2})["type"] == "Pong"

    def test_garbage_hurts_nobody(self) -> None:
        node = make_node(2)
        hub = node.workers[0].hub
        for kind in range(256):
            frame = bytes([kind, 0, 1, 0]) + bytes(8) + b"t"
            for tail in (b"", b"\xff" * 30):
                whole = len(frame + tail).to_bytes(4, "little") + frame + tail
                assert hub.receive_from_peer(1, whole) == len(whole)
        assert hub.receive_from_peer(1, b"\xff\xff\xff\xff") == -1
        assert hub.receive_from_peer(1, b"\x05\x00\x00\x00\x01") == -1


def test_one_worker_alone_asks_nobody() -> None:
    server = make_hub()
    peer = server.connect("alice")
    peer.subscribe("t")
    assert peer.request({"type": "DirectMessage", "id": 1, "to": "bob", "payload": 1})["offline"] == ["bob"]
    assert server.hub.take_upstream() == []
