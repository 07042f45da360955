"""Who is present, told over workers and nodes."""

import itertools
import random
from collections.abc import Iterable
from typing import Any

import pytest

from core.hub.node import Node, Upstream, make_node
from core.hub.sans_io import Peer, identity, make_hub

GRACE_MS = 2100
SETTLE_MS = 5100


def events(peer: Peer) -> list[tuple[str, str]]:
    """Joins and leaves that came since the last look, and nothing else."""
    messages = peer.messages()
    assert {each["type"] for each in messages} <= {"Join", "Leave"}, messages
    return [(each["type"], each["user_id"]) for each in messages]


def watcher(node: Node, slot: int, topic: str, user: str = "watcher") -> Peer:
    peer = node.workers[slot].connect(user)
    node.subscribe(peer, topic, presence=True)
    return peer


def enter(node: Node, slot: int, topic: str, user: str = "alice", **fields: Any) -> Peer:
    peer = node.workers[slot].connect(user, **fields)
    node.subscribe(peer, topic)
    return peer


def exit_(node: Node, peer: Peer, topic: str) -> None:
    assert node.ask(peer, {"type": "Unsubscribe", "id": 3, "topic": topic})["type"] == "Unsubscribed"


def present(node: Node, peer: Peer, topic: str) -> list[str]:
    answer = node.ask(peer, {"type": "Presence", "id": 4, "topic": topic})
    assert answer["type"] == "PresenceState", answer
    assert answer["count"] == len(answer["members"])
    return sorted(each["user_id"] for each in answer["members"])


def assert_nothing_is_left(nodes: Iterable[Node], *, with_topics: bool = True) -> None:
    """Once all have gone and what was cached is forgotten."""
    for node in nodes:
        for slot, worker in node.workers.items():
            stats = worker.stats()
            kept = {key: stats[key] for key in ("members", "users", "sessions", "timers")}
            assert kept == {"members": 0, "users": 0, "sessions": 0, "timers": 0}, (slot, kept)
            topics = [each["topic"] for each in worker.hub.topics() if each["topic"][0] not in "@*"]
            assert topics == [] or not with_topics, slot


PLACES = [(home, watch, subject) for home in range(3) for watch in range(3) for subject in range(3)]


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


class TestGrace:
    """A reconnect within it is not seen, on whichever worker it comes."""

    @pytest.mark.parametrize("home", [0, 1, 2])
    @pytest.mark.parametrize("again", [1, 2])
    def test_on_another_worker(self, home: int, again: int) -> None:
        node = make_node(3)
        topic = node.topic_at(home)
        watching = watcher(node, 0, topic)
        enter(node, 1, topic).end()
        node.pump()
        node.advance(1000)
        assert events(watching) == [("Join", "alice")]
        assert present(node, watching, topic) == ["watcher"]
        alice = enter(node, again, topic)
        node.advance(10_000)
        assert events(watching) == []
        alice.end()
        node.pump()
        node.advance(1900)
        assert events(watching) == []
        node.advance(200)
        assert events(watching) == [("Leave", "alice")]

    @pytest.mark.parametrize("home", [0, 1])
    def test_not_for_those_who_unsubscribe(self, home: int) -> None:
        node = make_node(2)
        topic = node.topic_at(home)
        watching = watcher(node, 0, topic)
        exit_(node, enter(node, 1, topic), topic)
        assert events(watching) == [("Join", "alice"), ("Leave", "alice")]


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


def carry(upstream: Upstream, *nodes: Node) -> None:
    """Until nobody has anything to say."""
    while True:
        for node in nodes:
            node.pump()
        if not upstream.step():
            return


class Cluster:
    """Nodes below one upstream."""

    def __init__(self, count: int, workers: int, **changes: Any) -> None:
        self.upstream = Upstream()
        self.nodes = [make_node(workers, **changes) for _ in range(count)]
        for node in self.nodes:
            for worker in node.workers.values():
                self.upstream.join(worker.hub)
        self.carry()

    def carry(self) -> None:
        carry(self.upstream, *self.nodes)

    def advance(self, milliseconds: int) -> None:
        for node in self.nodes:
            node.advance(milliseconds)
        self.carry()

    def bury(self, hub: Any) -> None:
        """A worker is dead, and what it vouched for is over."""
        self.upstream.bury(hub)

    def enter(self, place: tuple[int, int], topic: str, user: str = "alice", **fields: Any) -> Peer:
        watches = fields.pop("presence", False)
        peer = self.nodes[place[0]].workers[place[1]].connect(user, **fields)
        self.carry()
        peer.send({"type": "Subscribe", "id": 1, "topic": topic, "presence": watches})
        self.carry()
        assert [each["type"] for each in peer.messages()] == ["Subscribed"]
        return peer

    def leave(self, peer: Peer, topic: str) -> None:
        peer.send({"type": "Unsubscribe", "id": 1, "topic": topic})
        self.carry()
        assert [each["type"] for each in peer.messages() if each["type"] not in ("Join", "Leave")] == ["Unsubscribed"]

    def present(self, peer: Peer, topic: str) -> list[str]:
        peer.send({"type": "Presence", "id": 1, "topic": topic})
        self.carry()
        (answer,) = peer.messages()
        assert answer["type"] == "PresenceState"
        return sorted(each["user_id"] for each in answer["members"])


PATIENT = {"heartbeat_interval_secs": 30_000, "client_timeout_secs": 60_000}
SPOTS = [(0, 0), (0, 1), (1, 0), (1, 1)]


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
        hub.set_upstream(lambda: None)
        hub.upstream_back()
        hub.take_upstream()
        peer = server.connect("watcher")
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


def test_frames_that_make_no_sense_are_passed_over() -> None:
    hub = make_node(2).workers[0].hub
    for kind in range(16, 30):
        for rest in (b"", b"\x01", b"\xff" * 40):
            for topic in (b"", b"t", b"@x"):
                size = 12 + len(topic) + len(rest)
                frame = size.to_bytes(4, "little") + bytes([kind, 0, len(topic), 0]) + b"\x01" + bytes(7) + topic + rest
                assert hub.receive_from_peer(1, frame) == len(frame)


class Crowd:
    """Random clients of one node, and what its watchers must believe."""

    def __init__(self, seed: int, cluster: Cluster | None = None) -> None:
        self.random = random.Random(seed)
        self.cluster = cluster
        self.nodes = cluster.nodes if cluster is not None else [make_node(self.random.choice([1, 2, 3]), **PATIENT)]
        self.topics = ["a", "b", "c"]
        self.peers: list[tuple[int, int, Peer, str, set[str]]] = []  # node, slot, itself, user, topics
        self.beliefs: dict[tuple[int, str], tuple[Peer, str, set[str]]] = {}  # by peer and topic
        self.numbers = itertools.count()

    def settle(self, milliseconds: int = 0) -> None:
        if self.cluster is not None:
            self.cluster.carry()
            self.cluster.advance(milliseconds)
        else:
            self.nodes[0].pump()
            self.nodes[0].advance(milliseconds)
        self.listen()

    def listen(self) -> None:
        for number, slot, peer, _user, _topics in self.peers:
            if slot not in self.nodes[number].workers:
                continue
            for each in peer.messages():
                if each["type"] not in ("Join", "Leave"):
                    continue
                _, _, believed = self.beliefs[id(peer), each["topic"]]
                assert (each["user_id"] in believed) is (each["type"] == "Leave"), each
                (believed.remove if each["type"] == "Leave" else believed.add)(each["user_id"])

    def truth(self, topic: str) -> set[str]:
        return {user for _, _, _, user, topics in self.peers if topic in topics}

    def subscribe(self, watches: bool) -> None:
        number = self.random.randrange(len(self.nodes))
        slot = self.random.choice(list(self.nodes[number].workers))
        user, topic = f"user-{self.random.randrange(4)}", self.random.choice(self.topics)
        if watches:
            # Who is in its grace is not listed, but told of by nothing when it is back.
            self.settle(SETTLE_MS)
            user = f"watcher-{next(self.numbers)}"
        peer = self.nodes[number].workers[slot].connect(user)
        self.peers.append((number, slot, peer, user, {topic}))
        self.beliefs[id(peer), topic] = (peer, topic, self.truth(topic))
        peer.send({"type": "Subscribe", "id": 1, "topic": topic, "presence": watches})
        self.settle()
        if not watches:
            del self.beliefs[id(peer), topic]

    def leave(self) -> None:
        if self.peers:
            each = self.peers.pop(self.random.randrange(len(self.peers)))
            if self.random.random() < 0.5:
                each[2].send({"type": "Unsubscribe", "topic": next(iter(each[4]))})
            each[2].end()
            self.forget(each[2])
        if self.random.random() < 0.5:
            self.settle()

    def forget(self, peer: Peer) -> None:
        self.beliefs = {key: value for key, value in self.beliefs.items() if value[0] is not peer}

    def kill(self) -> None:
        number = self.random.randrange(len(self.nodes))
        node = self.nodes[number]
        if len(node.workers) < 2:
            return
        slot = self.random.choice(list(node.workers))
        if self.cluster is not None:
            # Redis no longer hears of it; here that is told by hand.
            self.cluster.bury(node.workers[slot].hub)
        for each in [each for each in self.peers if each[:2] == (number, slot)]:
            self.peers.remove(each)
            self.forget(each[2])
        tells = self.random.random() < 0.7
        node.kill(slot, tell=tells)
        self.settle(self.random.choice([0, 500]))
        if not tells:
            self.start(number, slot)

    def start(self, number: int, slot: int) -> None:
        server = self.nodes[number].start(slot)
        if self.cluster is not None:
            self.cluster.upstream.join(server.hub)
        self.settle()

    def grow(self) -> None:
        number = self.random.randrange(len(self.nodes))
        free = [slot for slot in range(4) if slot not in self.nodes[number].workers]
        if free:
            self.start(number, self.random.choice(free))

    def choose_homes(self) -> None:
        node = self.random.choice(self.nodes)
        members = [slot for slot in node.workers if self.random.random() < 0.7]
        node.tell_members(members or None)
        self.settle()

    def cut(self) -> None:
        node = self.random.choice(self.nodes)
        if len(node.workers) > 1:
            one, other = self.random.sample(list(node.workers), 2)
            for up in (False, True):
                node.workers[one].hub.link(other, up)
                node.workers[other].hub.link(one, up)
                if self.random.random() < 0.5:
                    self.settle(self.random.choice([0, 500]) * (not up))
            self.settle()

    def check(self) -> None:
        self.settle(SETTLE_MS)
        self.settle(SETTLE_MS)
        for peer, topic, believed in self.beliefs.values():
            assert believed == self.truth(topic), (peer, topic)
        for number, node in enumerate(self.nodes):
            for topic in self.topics:
                peer = self.random.choice(list(node.workers.values())).connect("asks")
                peer.send({"type": "Presence", "id": 1, "topic": topic})
                self.settle()
                (answer,) = [each for each in peer.messages() if each["type"] == "PresenceState"]
                found = sorted(each["user_id"] for each in answer["members"])
                assert found == sorted(user for _, _, _, user, topics in self.peers if topic in topics), (number, topic)
                peer.end()

    def run(self, steps: int) -> None:
        acts = [lambda: self.subscribe(False)] * 6 + [lambda: self.subscribe(True)] * 2 + [self.leave] * 5
        acts += [self.kill, self.grow, self.choose_homes, self.cut, lambda: self.settle(1000)]
        for _ in range(steps):
            for _ in range(12):
                self.random.choice(acts)()
            self.check()
        for each in self.peers:
            each[2].end()
        self.peers, self.beliefs = [], {}
        self.settle(SETTLE_MS)
        self.settle(SETTLE_MS)
        if self.cluster is not None:
            assert self.cluster.upstream.members == {}
        assert_nothing_is_left(self.nodes, with_topics=self.cluster is None)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_watchers_believe_what_is_true(seed: int) -> None:
    Crowd(seed).run(4)


@pytest.mark.parametrize("seed", range(8))
def test_so_they_do_below_an_upstream(seed: int) -> None:
    Crowd(seed, Cluster(2, 2, **PATIENT)).run(3)
