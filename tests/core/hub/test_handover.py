"""Who is present when workers come and go, and topics move to other homes."""

import pytest

from core.hub.node import Node, make_node
from core.hub.presence import GRACE_MS, SETTLE_MS, assert_nothing_is_left, enter, events, present, watcher
from core.hub.sans_io import Peer


class TestWorkersThatGo:
    """Nobody is told of those who stay."""

    def test_with_its_sessions(self) -> None:
        node = make_node(3)
        topic = node.topic_at(0)
        watchers = [watcher(node, slot, topic, f"w{slot}") for slot in (0, 1)]
        stays = enter(node, 1, topic, "stays")
        enter(node, 2, topic, "goes")
        enter(node, 2, topic, "moves")
        for peer in watchers:
            peer.messages()
        node.kill(2)
        node.pump()
        assert present(node, stays, topic) == ["stays", "w0", "w1"]
        enter(node, 1, topic, "moves")
        node.advance(GRACE_MS)
        for peer in watchers:
            assert events(peer) == [("Leave", "goes")]
        node.advance(10_000)
        assert present(node, stays, topic) == ["moves", "stays", "w0", "w1"]
        assert events(watchers[0]) == events(watchers[1]) == []

    def test_the_home(self) -> None:
        node = make_node(3)
        topic = node.topic_at(2)
        watchers = [watcher(node, slot, topic, f"w{slot}") for slot in (0, 1)]
        enter(node, 0, topic, "zero")
        enter(node, 1, topic, "one")
        enter(node, 2, topic, "goes")
        enter(node, 2, topic, "moves")
        for peer in watchers:
            peer.messages()
        node.kill(2)
        node.pump()
        for peer in watchers:
            assert [each for each in peer.messages() if each["type"] != "Lagged"] == []
            assert present(node, peer, topic) == ["one", "w0", "w1", "zero"]
        enter(node, 1, topic, "moves")
        enter(node, 0, topic, "comes")
        node.advance(SETTLE_MS)
        for peer in watchers:
            assert sorted(events(peer)) == [("Join", "comes"), ("Leave", "goes")]
            assert present(node, peer, topic) == ["comes", "moves", "one", "w0", "w1", "zero"]

    def test_the_home_comes_back_in_its_place(self) -> None:
        node = make_node(2)
        topic = node.topic_at(1)
        watching = watcher(node, 0, topic)
        alice = enter(node, 0, topic)
        enter(node, 1, topic, "goes")
        watching.messages()
        node.kill(1, tell=False)
        node.start(1)
        node.pump()
        alice.messages()
        assert present(node, alice, topic) == ["alice", "watcher"]
        node.advance(SETTLE_MS)
        told = [each for each in watching.messages() if each["type"] != "Lagged"]
        assert [(each["type"], each["user_id"]) for each in told] == [("Leave", "goes")]
        enter(node, 1, topic, "new")
        assert [each["user_id"] for each in watching.messages() if each["type"] == "Join"] == ["new"]

    @pytest.mark.parametrize("watch", [0, 1])
    def test_a_link_that_is_made_again(self, watch: int) -> None:
        node = make_node(2)
        topic = node.topic_at(1)
        watching = watcher(node, watch, topic)
        enter(node, 1 - watch, topic)
        assert events(watching) == [("Join", "alice")]
        for slot in (0, 1):
            node.workers[slot].hub.link(1 - slot, False)
        for slot in (0, 1):
            node.workers[slot].hub.link(1 - slot, True)
        node.pump()
        node.advance(SETTLE_MS)
        assert [each for each in watching.messages() if each["type"] != "Lagged"] == []
        assert present(node, watching, topic) == ["alice", "watcher"]

    def test_all_go(self) -> None:
        node = make_node(3)
        topics = [node.topic_at(slot) for slot in range(3)]
        peers = [watcher(node, slot, topic, f"u{slot}") for slot in range(3) for topic in topics]
        assert len(peers) == 9
        node.kill(1)
        node.pump()
        for peer in peers:
            peer.end()
        node.pump()
        node.advance(SETTLE_MS)
        assert_nothing_is_left([node])


class TestMembersThatChange:
    """Topics move to other homes and take the presence of all workers along."""

    def test_a_worker_more_and_less(self) -> None:
        node = make_node(2)
        topics = [f"t{number}" for number in range(12)]
        watchers = {topic: [watcher(node, slot, topic, f"w{slot}") for slot in range(2)] for topic in topics}
        for topic in topics:
            enter(node, 0, topic)
            enter(node, 1, topic)
            for peer in watchers[topic]:
                peer.messages()
        node.start(2)
        node.pump()
        assert {node.home(topic) for topic in topics} == {0, 1, 2}
        self.nobody_was_told(node, watchers, ["alice", "alice", "w0", "w1"])
        for topic in topics:
            enter(node, 2, topic, "new")
            for peer in watchers[topic]:
                assert [(each["type"], each["user_id"]) for each in peer.messages()] == [("Join", "new")]
        node.kill(2)
        node.pump()
        node.advance(SETTLE_MS)
        for topic in topics:
            for peer in watchers[topic]:
                told = [each for each in peer.messages() if each["type"] != "Lagged"]
                assert [(each["type"], each["user_id"]) for each in told] == [("Leave", "new")], topic
        self.nobody_was_told(node, watchers, ["alice", "alice", "w0", "w1"])

    def nobody_was_told(self, node: Node, watchers: dict[str, list[Peer]], expected: list[str]) -> None:
        node.advance(SETTLE_MS)
        for topic, peers in watchers.items():
            for peer in peers:
                assert [each for each in peer.messages() if each["type"] != "Lagged"] == []
                assert present(node, peer, topic) == expected

    def test_from_one_worker_to_two_and_back(self) -> None:
        node = make_node(1)
        watchers = {topic: [watcher(node, 0, topic)] for topic in ("a", "b", "c", "d", "e")}
        for topic in watchers:
            enter(node, 0, topic)
            assert events(watchers[topic][0]) == [("Join", "alice")]
        node.start(1)
        node.pump()
        assert {node.home(topic) for topic in watchers} == {0, 1}
        self.nobody_was_told(node, watchers, ["alice", "watcher"])
        node.kill(1)
        node.pump()
        self.nobody_was_told(node, watchers, ["alice", "watcher"])

    def test_somebody_hears_of_it_later(self) -> None:
        node = make_node(2)
        topics = [f"t{number}" for number in range(8)]
        watchers = {topic: [watcher(node, slot, topic, f"w{slot}") for slot in range(2)] for topic in topics}
        for peers in watchers.values():
            for peer in peers:
                peer.messages()
        for slot in (0, 1):  # all homes move to 1, which is told last
            node.workers[slot].hub.set_members(slot, [1])
            node.pump()
        self.nobody_was_told(node, watchers, ["w0", "w1"])
        for slot in (0, 1):
            node.workers[slot].hub.set_members(slot, [0])
            node.pump()
        self.nobody_was_told(node, watchers, ["w0", "w1"])
