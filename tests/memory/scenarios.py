"""What clients do while memory runs out, and what has to hold of it: scenarios for `operations.py`.

Whatever fails, every request with an id is answered once or its connection is closed; the messages of a topic come
without gaps, or `Lagged` says so; and with memory again, everybody who is still there is served.
"""

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from core.hub.node import Node, Upstream
from core.hub.sans_io import ADMIN, READ, SUBSCRIBE, WRITE, Envelope, Peer, Server, identity
from realtime_communication._core.hub.hub import RequestError
from realtime_communication._core.hub.stream import Stream

LONG_MS = 15_000  # after which a request that nobody answered is refused
REPLIES = [
    "Subscribed",
    "Unsubscribed",
    "Ack",
    "PresenceState",
    "HistoryPage",
    "Refreshed",
    "Pong",
    "Error",
    "Connected",
]


class Client:
    """A peer, and what it was answered and told."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.ids = itertools.count(1)
        self.asked: set[int] = set()
        self.places: dict[str, int | None] = {}  # newest offset by topic; None behind a Lagged
        self.heard: dict[str, list[Any]] = {}

    @property
    def open(self) -> bool:
        """Whether it is served."""
        return self.peer.connection.open and self.peer.close is None and self.peer.status == 101

    def ask(self, *envelopes: Envelope) -> None:
        """Send requests, in one piece."""
        numbered = [{**envelope, "id": next(self.ids)} for envelope in envelopes]
        self.asked |= {envelope["id"] for envelope in numbered}
        self.peer.send(*numbered)

    def look(self) -> None:
        """Take what came."""
        if self.peer.status is None:
            self.peer.take_response()
        if self.peer.status == 101:
            for message in self.peer.messages():
                self.take(message)

    def take(self, message: Envelope) -> None:
        kind = message["type"]
        if kind in REPLIES and message.get("id") is not None:
            assert message["id"] in self.asked, f"a second answer, or to nobody: {message}"
            self.asked.remove(message["id"])
        topic = message.get("topic", "@")
        if kind == "Subscribed":
            if topic not in self.places:
                self.places[topic] = message["offset"]
        elif kind == "Unsubscribed":
            self.places.pop(topic, None)
        elif kind == "Lagged":
            self.places[topic] = None
        elif kind in ("Message", "DirectMessage"):
            place = self.places.get(topic)
            assert place is None or message["offset"] == place + 1, f"a gap behind {place}: {message}"
            self.places[topic] = message["offset"]
            self.heard.setdefault(topic, []).append(message["payload"])


@dataclass
class World:
    """Workers of one node and their clients."""

    node: Node
    clients: list[Client] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)

    def connect(self, user: str, slot: int = 0, **options: Any) -> Client:
        """A client; nobody waits for its `Connected`."""
        client = Client(self.node.workers[slot].connect(user, welcome=False, **options))
        self.clients.append(client)
        return client

    @property
    def server(self) -> Server:
        return self.node.workers[0]

    def carry(self) -> None:
        """Let everybody who is not a client do what there is to do."""
        for worker in self.node.workers.values():
            worker.flush()
        if len(self.node.workers) > 1 or self.node.upstream:
            self.node.carry()

    def unlink(self) -> None:
        """Workers lose each other."""
        for slot, worker in self.node.workers.items():
            for other in self.node.workers:
                if other != slot:
                    worker.hub.link(other, False)
        self.carry()

    def settle(self) -> None:
        """With memory again: what was asked is answered at last. Workers that had no memory for a frame have lost each
        other, and meet again."""
        self.carry()
        self.node.meet()
        self.carry()
        for client in self.clients:
            client.peer.resume()
        for _ in range(3):
            for worker in self.node.workers.values():
                worker.advance(LONG_MS // 3)
            self.carry()
        for client in self.clients:
            client.look()
            assert not client.open or not client.asked, f"never answered: {client.asked}"

    def use(self) -> None:
        """Everything works for new clients and for those that are left."""
        writer = self.connect("writer")
        reader = self.connect("reader", len(self.node.workers) - 1, protocol="rtc.v1.msgpack")
        self.carry()
        for client in self.clients:
            client.look()
        topics = sorted({topic for client in self.clients for topic in client.places if topic[0] != "@"} | {"after"})
        for topic in topics:
            reader.ask({"type": "Subscribe", "topic": topic})
            self.carry()
            writer.ask({"type": "Broadcast", "topic": topic, "payload": "after all"})
            self.carry()
        for client in self.clients:
            if client.open:
                client.ask({"type": "Ping"})
        self.carry()
        for client in self.clients:
            client.look()
            assert not client.open or not client.asked, f"not answered: {client.asked}"
            for topic in client.places if client.open else ():
                if topic[0] != "@":
                    assert client.heard.get(topic, [None])[-1] == "after all", f"a subscriber of {topic} heard nothing"
        assert reader.open
        assert writer.open
        assert set(reader.places) >= set(topics)

    def end(self) -> None:
        """All leave; nothing of them stays."""
        for client in self.clients:
            client.peer.end()
        for stream in self.streams:
            stream.end()
        self.carry()
        self.unlink()
        for worker in self.node.workers.values():
            worker.advance(200_000)
        self.carry()
        for worker in self.node.workers.values():
            stats = worker.stats()
            left = {name: stats[name] for name in ("sessions", "connections", "members")}
            assert not any(left.values()), left


@dataclass
class Scenario:
    """`prepare` happens with memory, `act` while it runs out."""

    name: str
    act: Callable[[World], None]
    prepare: Callable[[World], None] = lambda world: None
    changes: dict[str, Any] = field(default_factory=dict)
    workers: int = 1
    upstream: bool = False

    def world(self) -> World:
        """A fresh world, prepared."""
        node = Node(self.workers, **self.changes)
        if self.upstream:
            node.go_below(Upstream())
        world = World(node)
        world.carry()
        self.prepare(world)
        world.carry()
        for client in world.clients:
            client.look()
        return world


def crowd(world: World) -> None:
    """Four clients who speak differently."""
    world.connect("alice")
    world.connect("bob", protocol="rtc.v1.msgpack")
    world.connect("carol", protocol="rtc.v1.json+zstd")
    world.connect("dave", extensions="permessage-deflate")


def audience(world: World) -> None:
    """The same, subscribed to a topic."""
    crowd(world)
    for client in world.clients:
        client.ask({"type": "Subscribe", "topic": "t", "presence": True})


def connecting(world: World) -> None:
    world.connect("alice", login="login", subscribe_patterns=("t*", "u"), publish_patterns=("t*",))
    world.connect("bob", protocol="rtc.v1.msgpack", presence_info=b'{"a":"%b"}' % (b"x" * 50))
    world.connect("eve", permissions=READ | WRITE | SUBSCRIBE | ADMIN, extensions="permessage-deflate")
    late = Client(world.server.connect(None))
    world.clients.append(late)
    world.server.identities["token"] = identity("late")
    late.ask({"type": "Authenticate", "token": "token"})
    late.ask({"type": "Refresh", "token": "token"})
    world.server.advance(100)


def subscribing(world: World) -> None:
    for client in world.clients:
        for topic in ("t", "u", "v"):
            client.ask({"type": "Subscribe", "topic": topic, "presence": True, "history": 5})
        client.ask({"type": "Unsubscribe", "topic": "u"}, {"type": "Presence", "topic": "t"})
    world.server.flush()


def publishing(world: World) -> None:
    alice, bob, *_ = world.clients
    for number in range(3):
        alice.ask({"type": "Broadcast", "topic": "t", "payload": number, "idempotency_key": f"key {number}"})
        bob.ask({"type": "Broadcast", "topic": "t", "payload": {"n": [number, 1.5, "\u00e9\n"]}})
    bob.ask({"type": "Broadcast", "topic": "new", "payload": "x" * 40_000})
    alice.ask({"type": "Broadcast", "topic": "t", "payload": "y" * 40_000})
    world.server.flush()


def messaging(world: World) -> None:
    alice, bob, *_ = world.clients
    everybody = ["alice", "bob", "carol", "dave", *(f"nobody {number}" for number in range(20))]
    alice.ask({"type": "DirectMessage", "to": everybody, "payload": {"a": 1}, "idempotency_key": "once"})
    bob.ask({"type": "DirectMessage", "to": "alice", "payload": "z" * 2000})
    world.server.flush()


def overflowing(world: World) -> None:
    alice, *others = world.clients
    for other in others:
        other.peer.stall()
    for number in range(30):
        alice.ask({"type": "Broadcast", "topic": "t", "payload": "w" * 50 * (number % 3 + 1)})
    for other in others:
        other.peer.resume(100)
    alice.ask({"type": "Broadcast", "topic": "t", "payload": 0})
    for other in others:
        other.peer.resume()
    world.server.flush()


def remembering(world: World) -> None:
    alice, bob, carol, _ = world.clients
    for number in range(40):
        alice.ask({"type": "Broadcast", "topic": "t", "payload": number})
    bob.ask({"type": "History", "topic": "t", "limit": 30, "reverse": True}, {"type": "History", "topic": "t"})
    carol.ask({"type": "Subscribe", "topic": "t", "history": 20})
    world.server.flush()


def fragmenting(world: World) -> None:
    alice, bob, *_ = world.clients
    number = next(alice.ids)
    alice.asked.add(number)
    text = b'{"type":"Broadcast","topic":"t","id":%d,"payload":"%b"}' % (number, b"f" * 9000)
    alice.peer.send_frame(text[:3000], fin=False)
    alice.peer.send_frame(text[3000:5000], 0, fin=False)
    alice.peer.send_frame(b"ping", 9)
    alice.peer.send_frame(text[5000:], 0)
    bob.ask({"type": "Ping"})
    for client in world.clients:
        half = b"\x81\xfe\x10\x00abcd" + b"x" * 3000
        if client is not alice:
            client.peer.send_raw(half)
    world.server.flush()


def over_http(world: World) -> None:
    writer = identity("http", READ | WRITE | SUBSCRIBE | ADMIN)
    hub = world.server.hub
    calls: list[Callable[[], object]] = [
        lambda: hub.publish_request(b'{"topic":"t","payload":{"a":1},"idempotency_key":"k"}', writer),
        lambda: hub.send_request(b'{"to":["alice","nobody"],"payload":[1,2,3]}', writer),
        lambda: hub.presence_request("t"),
        lambda: hub.history_request("t", limit=10),
        lambda: hub.subscribe_user("alice", "given"),
        lambda: hub.unsubscribe_user("alice", "given"),
        lambda: hub.publish_system("t", b'"system"'),
        lambda: hub.topics(10),
        lambda: hub.connections(10),
        lambda: hub.topic_counts(1),
        lambda: hub.disconnect(user_id="dave"),
    ]
    for call in calls:
        with contextlib.suppress(MemoryError, RequestError):
            call()
        world.server.flush()


def streaming(world: World) -> None:
    try:
        stream = Stream(world.server.hub, "memory", lambda: None)
        world.streams.append(stream)
        stream.begin(identity("sse"))
        stream.ask(b'{"type":"Subscribe","topic":"t","id":1,"history":5}')
    except (MemoryError, RequestError):
        return
    world.server.flush()
    stream.take()
    world.clients[0].ask({"type": "Broadcast", "topic": "t", "payload": "s" * 3000})
    world.server.flush()
    stream.take()


def draining(world: World) -> None:
    world.server.hub.close_all(1012, "restart")
    world.server.advance(1000)


def two_crowds(world: World) -> None:
    """Clients of two workers on topics of both."""
    for number, user in enumerate(("alice", "bob", "carol", "dave")):
        world.connect(user, number & 1, protocol="rtc.v1.msgpack" if number & 2 else None)


def between_workers(world: World) -> None:
    topics = [world.node.topic_at(0), world.node.topic_at(1)]
    for client in world.clients:
        for topic in topics:
            client.ask({"type": "Subscribe", "topic": topic, "history": 3, "presence": True})
            world.carry()
            client.ask({"type": "Broadcast", "topic": topic, "payload": {"p": 1}, "idempotency_key": "k"})
        client.ask({"type": "DirectMessage", "to": ["alice", "bob", "carol", "nobody"], "payload": 1})
        world.carry()
        client.ask({"type": "History", "topic": topics[0]}, {"type": "Presence", "topic": topics[1]})
        world.carry()
    world.clients[0].ask({"type": "Unsubscribe", "topic": topics[1]})
    world.carry()


def on_two_topics(world: World) -> None:
    two_crowds(world)
    between_workers(world)


def changing_homes(world: World) -> None:
    """A worker is no home any more, and is again."""
    for worker in world.node.workers.values():
        worker.hub.set_members(next(slot for slot, each in world.node.workers.items() if each is worker), [0], 2)
    world.carry()
    world.clients[0].ask({"type": "Broadcast", "topic": world.node.topic_at(0), "payload": 1})
    for slot, worker in world.node.workers.items():
        worker.hub.set_members(slot, [0, 1], 3)
    world.carry()


def losing_a_link(world: World) -> None:
    world.node.workers[0].hub.link(1, False)
    world.node.workers[1].hub.link(0, False)
    world.clients[0].ask({"type": "Broadcast", "topic": world.node.topic_at(1), "payload": 1})
    world.clients[1].ask({"type": "Broadcast", "topic": world.node.topic_at(1), "payload": 1})
    world.node.link(0)
    world.carry()


def moving(world: World) -> None:
    world.node.move(0, 1)
    world.carry()


OVERFLOWS = ["backpressure", "drop_oldest", "drop_newest", "block"]
SMALL = {"mailbox_capacity": 8, "compression_threshold_bytes": 64, "max_batch_size": 4}
SCENARIOS = {
    scenario.name: scenario
    for scenario in [
        Scenario("connecting", connecting),
        Scenario("subscribing", subscribing, crowd),
        Scenario("publishing", publishing, audience, {"compression_threshold_bytes": 64}),
        Scenario("publishing_gzip", publishing, audience, {"compression_algorithm": "gzip"}),
        Scenario("messaging", messaging, crowd),
        *(
            Scenario(f"overflowing_{each}", overflowing, audience, {**SMALL, "overflow_strategy": each})
            for each in OVERFLOWS
        ),
        Scenario("remembering", remembering, audience),
        Scenario("forgetting", remembering, audience, {"max_cache_entries": 10}),
        Scenario("fragmenting", fragmenting, audience),
        Scenario("over_http", over_http, audience),
        Scenario("streaming", streaming, audience),
        Scenario("draining", draining, audience),
        Scenario("between_workers", between_workers, two_crowds, workers=2),
        Scenario("changing_homes", changing_homes, on_two_topics, workers=2),
        Scenario("losing_a_link", losing_a_link, on_two_topics, workers=2),
        Scenario("moving", moving, on_two_topics, workers=2),
        Scenario("below_upstream", between_workers, two_crowds, workers=2, upstream=True),
    ]
}
