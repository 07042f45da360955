"""Joins and leaves, told once, over workers and nodes."""

import pytest

from core.hub.node import make_node
from core.hub.presence import (
    GRACE_MS,
    SETTLE_MS,
    Cluster,
    assert_nothing_is_left,
    enter,
    events,
    exit_,
    present,
    watcher,
)
from core.hub.sans_io import identity, make_hub

PLACES = [(home, watch, subject) for home in range(3) for watch in range(3) for subject in range(3)]
SPOTS = [(0, 0), (0, 1), (1, 0), (1, 1)]


class TestJoinAndLeave:
    """Told once, wherever topic, watcher and user are."""

    @pytest.mark.parametrize(("home", "watch", "subject"), PLACES)
    def test_every_place(self, home: int, watch: int, subject: int) -> None:
        node = make_node(3)
        topic = node.topic_at(home)
        watching = watcher(node, watch, topic)
        one = enter(node, subject, topic)
        assert events(watching) == [("Join", "alice")]
        two = enter(node, (subject + 1) % 3, topic)
        assert present(node, watching, topic) == ["alice", "alice", "watcher"]
        assert present(node, one, topic) == present(node, two, topic) == ["alice", "alice", "watcher"]
        exit_(node, one, topic)
        assert events(watching) == []
        assert present(node, watching, topic) == ["alice", "watcher"]
        exit_(node, two, topic)
        assert events(watching) == [("Leave", "alice")]
        for peer in (watching, one, two):
            peer.end()
        node.pump()
        node.advance(GRACE_MS)
        assert_nothing_is_left([node])

    @pytest.mark.parametrize("workers", [1, 2, 3])
    def test_all_watch_all(self, workers: int) -> None:
        node = make_node(workers)
        topic = node.topic_at(workers - 1)
        peers = {}
        for number in range(6):
            user = f"user-{number}"
            peers[user] = watcher(node, number % workers, topic, user)
        for number, peer in enumerate(peers.values()):
            assert events(peer) == [("Join", f"user-{later}") for later in range(number + 1, 6)]
        for peer in peers.values():
            assert present(node, peer, topic) == sorted(peers)
        for peer in peers.values():
            peer.end()
        node.pump()
        node.advance(GRACE_MS)
        assert_nothing_is_left([node])

    @pytest.mark.parametrize("home", [0, 1])
    def test_who_joins_is_described(self, home: int) -> None:
        node = make_node(2)
        topic = node.topic_at(home)
        watchers = [watcher(node, slot, topic, f"w{slot}") for slot in range(2)]
        watchers[0].messages()
        alice = enter(node, 1, topic, presence_info=b'{"name": "\\u0041", "n": [1, null]}')
        for peer in watchers:
            (join,) = peer.messages()
            assert list(join) == ["type", "topic", "user_id", "session_id", "info"]
            assert join["info"] == {"name": "A", "n": [1, None]}
        state = node.ask(watchers[0], {"type": "Presence", "id": 1, "topic": topic})
        (shown,) = [each for each in state["members"] if each["user_id"] == "alice"]
        assert (shown["session_id"], shown["info"]) == (join["session_id"], join["info"])
        assert shown["joined_at"] == 1_767_220_000_000
        node.workers[1].identities["new"] = identity("alice", presence_info=b'{"v":2}')
        assert node.ask(alice, {"type": "Refresh", "id": 1, "token": "new"})["type"] == "Refreshed"
        state = node.ask(watchers[0], {"type": "Presence", "id": 1, "topic": topic})
        assert [each.get("info") for each in state["members"] if each["user_id"] == "alice"] == [{"v": 2}]
        exit_(node, alice, topic)
        for peer in watchers:
            (leave,) = peer.messages()
            assert (leave["type"], leave["session_id"], "info" in leave) == ("Leave", join["session_id"], False)

    @pytest.mark.parametrize("home", [0, 1])
    def test_only_those_who_asked_are_told(self, home: int) -> None:
        node = make_node(2)
        topic = node.topic_at(home)
        plain = enter(node, 0, topic, "plain")
        watching = watcher(node, 0, topic)
        alice = enter(node, 1, topic)
        assert (events(plain), events(watching)) == ([], [("Join", "alice")])
        node.subscribe(watching, topic)  # without presence: no longer
        exit_(node, alice, topic)
        enter(node, 1, topic, "bob")
        assert (events(plain), events(watching)) == ([], [])
        node.subscribe(watching, topic, presence=True)
        enter(node, 1, topic, "carol")
        assert events(watching) == [("Join", "carol")]

    def test_in_pieces(self) -> None:
        node = make_node(2)
        topic = node.topic_at(0)
        watching = watcher(node, 1, topic)
        peer = node.workers[0].connect("alice", presence_info=b'{"a":1}')
        peer.send({"type": "Subscribe", "id": 1, "topic": topic})
        node.pump(piece=1)
        assert events(watching) == [("Join", "alice")]


class TestUpstream:
    """First in and last out are decided above."""

    @pytest.mark.parametrize("home", [0, 1])
    @pytest.mark.parametrize("subject", SPOTS)
    def test_join_and_leave_over_nodes(self, home: int, subject: tuple[int, int]) -> None:
        cluster = Cluster(2, 2)
        topic = cluster.nodes[0].topic_at(home)
        watchers = [cluster.enter(spot, topic, f"w{spot}", presence=True) for spot in SPOTS]
        for peer in watchers:
            peer.messages()
        one = cluster.enter(subject, topic, presence_info=b'{"n":1}')
        for peer in watchers:
            (join,) = peer.messages()
            assert (join["type"], join["user_id"], join["info"]) == ("Join", "alice", {"n": 1})
        two = cluster.enter((1 - subject[0], subject[1]), topic)
        cluster.leave(one, topic)
        names = sorted([f"w{spot}" for spot in SPOTS] + ["alice"])
        for peer in watchers:
            assert cluster.present(peer, topic) == names
        cluster.leave(two, topic)
        for peer in watchers:
            assert events(peer) == [("Leave", "alice")]
        for peer in (*watchers, one, two):
            peer.end()
        cluster.carry()
        cluster.advance(GRACE_MS)
        assert cluster.upstream.members == {}
        assert_nothing_is_left(cluster.nodes)

    def test_a_reconnect_to_another_node_is_not_seen(self) -> None:
        cluster = Cluster(2, 2)
        watching = cluster.enter((0, 0), "t", "watcher", presence=True)
        cluster.enter((0, 1), "t").end()
        cluster.carry()
        cluster.advance(1000)
        alice = cluster.enter((1, 1), "t")
        cluster.advance(5000)
        assert events(watching) == [("Join", "alice")]
        alice.end()
        cluster.carry()
        cluster.advance(GRACE_MS)
        assert events(watching) == [("Leave", "alice")]

    def test_those_who_were_there_before_their_watchers(self) -> None:
        cluster = Cluster(2, 2)
        alice = cluster.enter((1, 0), "t")
        bob = cluster.enter((0, 0), "t", "bob")
        watchers = [cluster.enter((0, slot), "t", f"w{slot}", presence=True) for slot in (0, 1)]
        watchers[0].messages()
        cluster.leave(alice, "t")
        cluster.leave(bob, "t")
        for peer in watchers:
            assert events(peer) == [("Leave", "alice"), ("Leave", "bob")]

    def test_away_and_back(self) -> None:
        cluster = Cluster(2, 2)
        watchers = [cluster.enter((0, slot), "t", f"w{slot}", presence=True) for slot in (0, 1)]
        here, there = cluster.enter((0, 1), "t", "here"), cluster.enter((1, 1), "t", "there")
        goes = cluster.enter((1, 0), "t", "goes")
        for peer in watchers:
            peer.messages()
        hubs = [worker.hub for worker in cluster.nodes[0].workers.values()]
        taken = cluster.upstream.hubs
        for hub in hubs:
            hub.upstream_lost()
        cluster.upstream.hubs = [hub for hub in taken if hub not in hubs]
        for feed in cluster.upstream.feeds.values():
            feed[:] = [hub for hub in feed if hub not in hubs]
        cluster.carry()
        new = cluster.enter((0, 0), "t", "new")
        cluster.enter((1, 1), "t", "far")
        cluster.leave(goes, "t")
        cluster.leave(here, "t")
        for peer in watchers:
            told = [each for each in peer.messages() if each["type"] != "Lagged"]
            assert [(each["type"], each["user_id"]) for each in told] == [("Join", "new"), ("Leave", "here")]
            assert cluster.present(peer, "t") == ["new", "w0", "w1"]
        cluster.upstream.hubs = taken
        for hub in hubs:
            hub.upstream_back()
        cluster.carry()
        for peer in watchers:
            told = [each for each in peer.messages() if each["type"] != "Lagged"]
            assert sorted((each["type"], each["user_id"]) for each in told) == [("Join", "far"), ("Leave", "goes")]
            assert cluster.present(peer, "t") == ["far", "new", "there", "w0", "w1"]
        assert cluster.present(there, "t") == cluster.present(new, "t")

    def test_a_home_that_moves_enters_everybody_again(self) -> None:
        cluster = Cluster(2, 2)
        topic = cluster.nodes[0].topic_at(1)
        watching = cluster.enter((0, 0), topic, "watcher", presence=True)
        cluster.enter((0, 0), topic)
        cluster.enter((1, 0), topic, "far")
        watching.messages()
        for slot, worker in cluster.nodes[0].workers.items():
            worker.hub.set_members(slot, [0])
        cluster.carry()
        assert ("moved", topic.encode()) in [item[:2] for item in cluster.upstream.taken]
        cluster.advance(SETTLE_MS)
        assert [each for each in watching.messages() if each["type"] != "Lagged"] == []
        assert cluster.present(watching, topic) == ["alice", "far", "watcher"]
        cluster.enter((1, 1), topic, "new")
        assert events(watching) == [("Join", "new")]

    def test_what_happens_while_it_is_asked_who_is_there(self) -> None:
        server = make_hub()
        hub = server.hub
        peer = server.connect("watcher")
        hub.set_upstream(lambda: None)
        hub.upstream_back()
        hub.take_upstream()
        peer.send({"type": "Subscribe", "id": 1, "topic": "t", "presence": True})
        server.flush()
        (token,) = [item[2] for item in hub.take_upstream() if item[0] == "subscribe" and item[1] == b"t"]
        hub.subscribed(token, 5, 0, False, 1, b"")
        server.flush()
        (asked,) = [item[2] for item in hub.take_upstream() if item[0] == "presence"]
        peer.messages()
        ids = [b"%032x" % number for number in range(10, 14)]
        hub.tell_presence(b"t", True, b"gone", ids[0], b"")
        hub.tell_presence(b"t", False, b"came", ids[1], b"{}")
        hub.tell_presence(b"t", False, b"back", ids[2], b"")
        hub.tell_presence(b"t", True, b"back", ids[2], b"")
        hub.presence_state(
            asked, [(user, number, 1, b"") for user, number in zip((b"gone", b"back", b"old"), ids[:3], strict=True)]
        )
        server.flush()
        assert events(peer) == [("Leave", "gone"), ("Join", "came"), ("Join", "back"), ("Leave", "back")]
        for leave in (True, False):
            for user in (b"gone", b"back", b"old", b"came"):
                hub.tell_presence(b"t", leave, user, ids[3], b"")
        server.flush()
        told = events(peer)
        assert told[:2] == [("Leave", "old"), ("Leave", "came")]
        assert told[2:] == [("Join", user) for user in ("gone", "back", "old", "came")]

    def test_nonsense_is_passed_over(self) -> None:
        cluster = Cluster(1, 1)
        watching = cluster.enter((0, 0), "t", "watcher", presence=True)
        hub = cluster.nodes[0].workers[0].hub
        hub.tell_presence(b"t", False, b"x", b"short", b"")
        hub.tell_presence(b"t", False, b"", b"0" * 32, b"")
        hub.tell_presence(b"t", False, b"x" * 255, b"0" * 32, b"")
        hub.tell_presence(b"t", False, b"x", b"0" * 32, b"x" * 4097)
        hub.tell_presence(b"nowhere", False, b"x", b"0" * 32, b"")
        hub.presence_state(12345, [])
        cluster.carry()
        assert events(watching) == []
