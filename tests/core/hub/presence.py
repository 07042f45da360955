"""Who watches whom: small steps that tests of presence are made of, nodes below an upstream, and random clients."""

import itertools
import random
from collections.abc import Iterable
from typing import Any

from core.hub.node import Node, Upstream, make_node
from core.hub.sans_io import Peer

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


PATIENT = {"heartbeat_interval_secs": 30_000, "client_timeout_secs": 60_000}


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
            node.go_below(self.upstream)
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
        assert_nothing_is_left(self.nodes, with_topics=True)
