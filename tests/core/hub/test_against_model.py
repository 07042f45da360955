"""The outbound order: fan-out in runs, order within a topic, and random operations against the model of the hub."""

import itertools
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.hub.sans_io import Peer, Server, make_hub
from model.hub import ModelHub

FORMS = [
    (None, None),
    ("rtc.v1.msgpack", None),
    ("rtc.v1.json+zstd", None),
    ("rtc.v1.msgpack+zstd", None),
    ("rtc.v1.json+lz4", None),
    ("rtc.v1.msgpack+gzip", None),
    (None, "permessage-deflate"),
    ("rtc.v1.msgpack", "permessage-deflate; server_max_window_bits=9"),
]


def envelopes(topic: str, count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"type": "Broadcast", "topic": topic, "payload": number, **fields} for number in range(count)]


class TestRuns:
    """Many messages of one turn."""

    @pytest.mark.parametrize("count", [1, 2, 49, 50, 51, 63, 64, 65, 200])
    def test_all_in_order(self, count: int) -> None:
        server = make_hub()
        publisher = server.connect("bob")
        consumers = [server.connect(f"u{number}") for number in range(3)]
        for consumer in [publisher, *consumers]:
            consumer.subscribe("t")
        publisher.send(*envelopes("t", count))
        for consumer in [publisher, *consumers]:
            got = consumer.messages()
            assert [(message["offset"], message["payload"]) for message in got] == [(n + 1, n) for n in range(count)]
            assert {(message["from"], message["topic"]) for message in got} == {("bob", "t")}

    def test_exclude_self_within_a_run(self) -> None:
        server = make_hub()
        alice, bob = server.connect("alice"), server.connect("bob")
        alice.subscribe("t")
        bob.subscribe("t")
        alice.send(*({"type": "Broadcast", "topic": "t", "payload": n, "exclude_self": n % 3 == 0} for n in range(40)))
        assert [message["payload"] for message in bob.messages()] == list(range(40))
        assert [message["payload"] for message in alice.messages()] == [n for n in range(40) if n % 3]

    def test_exclude_self_leaves_out_one_session_of_the_user(self) -> None:
        server = make_hub()
        first, second = server.connect("alice"), server.connect("alice")
        first.subscribe("t")
        second.subscribe("t")
        first.send({"type": "Broadcast", "topic": "t", "payload": 1, "exclude_self": True})
        assert first.messages() == []
        assert len(second.messages()) == 1

    def test_every_form_in_one_topic(self) -> None:
        server = make_hub(compression_threshold_bytes=300)
        publisher = server.connect("bob")
        consumers = [server.connect(f"u{n}", protocol=p, extensions=e) for n, (p, e) in enumerate(FORMS)]
        for consumer in consumers:
            consumer.subscribe("t")
        payloads = [
            ["x" * size, {"é": [None, True, -1.5, size]}] for size in (0, 100, 250, 290, 310, 1000, 70_000, 5, 300)
        ]
        publisher.send(*({"type": "Broadcast", "topic": "t", "payload": payload} for payload in payloads[:6]))
        publisher.send(*({"type": "Broadcast", "topic": "t", "payload": payload} for payload in payloads[7:]))
        publisher = server.connect("carol", protocol="rtc.v1.msgpack")
        publisher.send(*({"type": "Broadcast", "topic": "t", "payload": payload} for payload in payloads[:6]))
        wanted = payloads[:6] + payloads[7:] + payloads[:6]
        for consumer in consumers:
            got = consumer.messages()
            assert [message["payload"] for message in got] == wanted
            assert [message["offset"] for message in got] == list(range(1, len(wanted) + 1))

    def test_topics_in_turn(self) -> None:
        server = make_hub()
        publisher, consumer = server.connect("bob"), server.connect("alice")
        for topic in "abc":
            consumer.subscribe(topic)
        publisher.send(*({"type": "Broadcast", "topic": "abc"[n % 3], "payload": n} for n in range(48)))
        got = consumer.messages()
        for index, topic in enumerate("abc"):
            assert [message["payload"] for message in got if message["topic"] == topic] == list(range(index, 48, 3))

    def test_untranscoded(self) -> None:
        server = make_hub(enable_message_transformation=False)
        publisher, same = server.connect("bob"), server.connect("alice")
        other = server.connect("carol", protocol="rtc.v1.msgpack")
        same.subscribe("t")
        other.subscribe("t")
        publisher.send(*envelopes("t", 3))
        assert len(same.messages()) == 3
        assert other.messages() == []
        assert server.stats()["untranscoded"] == 3

    def test_payloads_that_one_encoding_lacks(self) -> None:
        """Whatever MessagePack may carry, JSON subscribers are not left with a gap."""
        server = make_hub()
        publisher = server.connect("bob", protocol="rtc.v1.msgpack")
        consumer = server.connect("alice")
        consumer.subscribe("t")
        accepted = 0
        for payload in (float("nan"), float("inf"), b"\x00\xff", 2**64 - 1, -(2**63), "\u0000", {"a": b""}):
            answer = publisher.request({"type": "Broadcast", "id": 1, "topic": "t", "payload": payload})
            accepted += answer["type"] == "Ack"
            assert answer["type"] == "Ack" or answer["code"] == "bad_request"
        assert [message["offset"] for message in consumer.messages()] == list(range(1, accepted + 1))


class TestOrder:
    """Replies, subscriptions and data of one turn."""

    def test_a_subscription_in_the_middle_of_a_run(self) -> None:
        server = make_hub()
        peer = server.connect("alice")
        peer.send(*envelopes("t", 3), {"type": "Subscribe", "id": 1, "topic": "t"}, *envelopes("t", 3))
        subscribed, *rest = peer.messages()
        assert (subscribed["offset"], [message["offset"] for message in rest]) == (3, [4, 5, 6])

    def test_unsubscribed_and_subscribed_again_in_one_turn(self) -> None:
        server = make_hub()
        peer = server.connect("alice")
        peer.subscribe("t")
        peer.send(
            *envelopes("t", 3),
            {"type": "Unsubscribe", "id": 2, "topic": "t"},
            *envelopes("t", 2),
            {"type": "Subscribe", "id": 3, "topic": "t", "history": 5},
            *envelopes("t", 1),
        )
        got = peer.messages()
        assert [message.get("id", message.get("offset")) for message in got] == [1, 2, 3, 2, 3, 6]
        assert [stored["offset"] for stored in got[4]["messages"]] == [1, 2, 3, 4, 5]

    def test_an_ack_is_not_behind_the_data(self) -> None:
        server = make_hub()
        peer = server.connect("alice")
        peer.subscribe("t")
        peer.send({"type": "Broadcast", "id": 5, "topic": "t", "payload": 0})
        assert [message["type"] for message in peer.messages()] == ["Ack", "Message"]

    def test_replies_in_order_without_a_priority_lane(self) -> None:
        server = make_hub(enable_priority_mailbox=False)
        peer, other = server.connect("alice"), server.connect("bob")
        peer.subscribe("t")
        peer.stall()
        other.send(*envelopes("t", 2))
        peer.send({"type": "Ping", "id": 1})
        other.send(*envelopes("t", 1))
        peer.resume()
        assert [message["type"] for message in peer.messages()] == ["Message", "Message", "Pong", "Message"]


USERS = ["alice", "bob", "carol", "dave"]
TOPICS = ["r", "s", "t"]
CONNECTIONS = 8
CAPACITY = 5


def operations(seed: int, count: int) -> list[tuple[Any, ...]]:
    """Random operations that keep mailboxes full; the lower half of the connections stalls now and then."""
    random = Random(seed)
    made: list[tuple[Any, ...]] = []
    for _ in range(count):
        place, topic = random.randrange(CONNECTIONS), random.choice(TOPICS)
        kind = random.choices(
            ["broadcast", "direct", "subscribe", "unsubscribe", "stall", "resume", "reconnect"], [8, 3, 3, 1, 4, 3, 1]
        )[0]
        if kind == "broadcast":
            made.append((kind, place, topic, random.randint(1, 12), random.random() < 0.3))
        elif kind == "direct":
            made.append((kind, place, random.choices(USERS, k=random.randint(1, 3))))
        elif kind in ("subscribe", "unsubscribe"):
            made.append((kind, place, topic))
        elif kind == "stall":
            made.append((kind, place % (CONNECTIONS // 2)))
        elif kind == "resume":
            made.append((kind, place % (CONNECTIONS // 2), random.choice([-1, 1, 60, 500])))
        else:
            made.append((kind, place))
    return made


class Client:
    """A connection that keeps book of the offsets it has seen, as a careful client does."""

    def __init__(self, server: Server, number: int) -> None:
        self.user = USERS[number % len(USERS)]
        self.peer: Peer = server.connect(self.user)
        self.steady = number >= CONNECTIONS // 2  # never stalls
        self.expected: dict[str, int] = {}  # topic -> next offset
        self.epochs: dict[str, str] = {}
        self.announced: dict[str, int] = {}  # topic -> messages that a Lagged said follow
        self.own: dict[str, set[int]] = {}  # offsets it published and does not want back
        self.log: list[tuple[str, int, str, Any]] = []
        self.acks: list[dict[str, Any]] = []
        self.sent: dict[int, tuple[str, int, bool]] = {}  # id -> topic, payload, exclude_self; not answered yet

    def advance_to(self, topic: str, offset: int) -> None:
        """`offset` is next, but for those that were left out on purpose."""
        at = self.expected[topic]
        while at < offset and at in self.own.get(topic, ()):
            at += 1
        assert at == offset, f"{self.user} on {topic}: {offset} came, {at} was due"

    def read(self) -> None:
        for message in self.peer.messages():
            kind = message["type"]
            topic = message.get("topic", f"@{self.user}")
            if kind == "Subscribed":
                self.subscribed(message)
            elif kind == "Unsubscribed":
                self.expected.pop(topic, None)
            elif kind in ("Message", "DirectMessage"):
                self.expected.setdefault(topic, message["offset"])
                self.advance_to(topic, message["offset"])
                self.expected[topic] = message["offset"] + 1
                self.log.append((topic, message["offset"], message["from"], message["payload"]))
            elif kind == "Lagged":
                first = message["offset"] + 1 - message["missed"]
                self.expected.setdefault(topic, first)
                if message["recovered"]:
                    self.advance_to(topic, first)
                else:
                    self.told(topic, message)
            else:
                assert kind in ("Ack", "Error"), message
                self.acks.append(message)
                if self.sent.get(message["id"], (0, 0, False))[2]:
                    self.own.setdefault(topic, set()).add(message["offset"])

    def told(self, topic: str, message: dict[str, Any]) -> None:
        """Messages are lost: as many as were said, and what was this client's own."""
        lost = [n for n in range(self.expected[topic], message["offset"] + 1) if n not in self.own.get(topic, ())]
        whole = message["offset"] + 1 - self.expected[topic]
        assert len(lost) <= message["missed"] <= whole
        self.expected[topic] = message["offset"] + 1

    def subscribed(self, message: dict[str, Any]) -> None:
        topic = message["topic"]
        for stored in message["messages"]:
            self.log.append((topic, stored["offset"], stored["from"], stored["payload"]))
        self.expected[topic] = message["offset"] + 1
        self.epochs[topic] = message["epoch"]


class World:
    """The hub, the model, and the clients that both have."""

    def __init__(self, strategy: str) -> None:
        self.strategy = strategy
        self.server = make_hub(
            overflow_strategy=strategy, mailbox_capacity=CAPACITY, cache_ttl_secs=10, client_timeout_secs=3000
        )
        self.model = ModelHub()
        self.numbers = itertools.count()
        self.payloads = itertools.count()
        self.clients: list[Client] = []
        self.keys: list[int] = []  # of the clients' connections in the model
        self.owed: list[list[tuple[str, int, str, Any]]] = [[] for _ in range(CONNECTIONS)]
        for place in range(CONNECTIONS):
            self.clients.append(Client(self.server, place))
            self.keys.append(self.connected(place))
            for topic in TOPICS[: 1 + place % 3]:
                self.subscribe(place, topic)

    def connected(self, place: int) -> int:
        key = next(self.numbers)
        self.model.connect(key, self.clients[place].user)
        return key

    def may_send(self, place: int) -> bool:
        """A stalled client sees no replies, and one that waits is not read: both would leave the model behind."""
        connection = self.clients[place].peer.connection
        return not connection.stalled and connection.reading

    def settle(self) -> None:
        """Everybody reads; what has been acknowledged is published in the model, in the order of its offsets."""
        acknowledged = []
        for key, client in zip(self.keys, self.clients, strict=True):
            client.read()
            for ack in client.acks:
                topic, payload, exclude = client.sent.pop(ack["id"])
                acknowledged.append((topic, ack["offset"], key, payload, exclude))
            client.acks.clear()
        for topic, offset, key, payload, exclude in sorted(acknowledged):
            assert self.model.broadcast(key, topic, payload, exclude) == offset
        # Once again, for those that were handed something while others read.
        for client in self.clients:
            client.read()
        for entry in self.server.hub.connections():
            assert entry["queued"] <= CAPACITY + 1

    def subscribe(self, place: int, topic: str) -> None:
        client = self.clients[place]
        if self.may_send(place) and topic not in client.expected:
            client.peer.send({"type": "Subscribe", "id": 1, "topic": topic})
            self.model.subscribe(self.keys[place], topic)
            client.read()

    def unsubscribe(self, place: int, topic: str) -> None:
        if self.may_send(place):
            self.clients[place].peer.send({"type": "Unsubscribe", "id": 2, "topic": topic})
            self.model.unsubscribe(self.keys[place], topic)

    def broadcast(self, place: int, topic: str, count: int, exclude: bool) -> None:
        client = self.clients[place]
        for _ in range(count):
            if self.may_send(place):
                payload = next(self.payloads)
                client.sent[payload] = (topic, payload, exclude)
                client.peer.send(
                    {"type": "Broadcast", "id": payload, "topic": topic, "payload": payload, "exclude_self": exclude}
                )
                self.settle()

    def direct(self, place: int, to: list[str]) -> None:
        client = self.clients[place]
        if not self.may_send(place) or self.strategy == "block":
            return  # under `block` its Ack says nothing of its place among others that waited
        payload = next(self.payloads)
        client.peer.send({"type": "DirectMessage", "id": payload, "to": to, "payload": payload})
        client.read()
        answer = client.acks.pop()
        if answer["type"] == "Error":
            assert (self.strategy, answer["code"]) == ("backpressure", "backpressure")
        else:
            here, away = self.model.direct(self.keys[place], to, payload)
            assert (answer["delivered"], answer["offline"]) == (here, away)

    def stall(self, place: int) -> None:
        if not self.clients[place].sent:  # its Ack is awaited
            self.clients[place].peer.stall()

    def resume(self, place: int, limit: int) -> None:
        if not self.clients[place].sent:
            self.clients[place].peer.resume(limit)

    def reconnect(self, place: int) -> None:
        """The stream ends; the client comes back and recovers every topic from where it stood."""
        old = self.clients[place]
        old.sent.clear()  # what was held back is lost with its connection
        old.peer.end()
        old.read()
        self.model.end(self.keys[place])
        self.owed[place] += self.model.received[self.keys[place]]
        self.settle()
        made = self.clients[place] = Client(self.server, place)
        made.log, made.own = old.log, old.own
        self.keys[place] = self.connected(place)
        for topic, offset in old.expected.items():
            if topic.startswith("@"):
                continue
            position = {"epoch": old.epochs[topic], "offset": offset - 1}
            answer = made.peer.request({"type": "Subscribe", "id": 1, "topic": topic, "recover": position})
            missed = self.model.subscribe(self.keys[place], topic, offset - 1)
            assert answer["recovered"]
            assert [(m["offset"], m["from"], m["payload"]) for m in answer["messages"]] == missed
            made.subscribed(answer)
            self.model.received[self.keys[place]] += [(topic, *stored) for stored in missed]

    def finish(self) -> None:
        """Everybody reads; who never stalled has got exactly what the model says; nothing is left behind."""
        for _ in range(3):
            for client in self.clients:
                client.peer.resume()
            self.settle()
        for place, client in enumerate(self.clients):
            for topic, offset in client.expected.items():
                left = set(range(offset, self.model.topic(topic).offset + 1)) - client.own.get(topic, set())
                assert not left, f"{client.user} never heard of {left} on {topic}"
            if client.steady:
                wanted = self.owed[place] + self.model.received[self.keys[place]]
                for topic in {entry[0] for entry in wanted + client.log}:
                    assert [e for e in client.log if e[0] == topic] == [e for e in wanted if e[0] == topic]
        assert self.server.hub.queued() == 0
        for client in self.clients:
            client.peer.end()
        for _ in range(3):
            self.server.advance(10_000)
        stats = self.server.stats()
        for gauge in (
            "connections",
            "subscriptions",
            "sessions",
            "topics",
            "users",
            "members",
            "timers",
            "cached_messages",
            "cached_bytes",
        ):
            assert stats[gauge] == 0, gauge


def run(strategy: str, steps: list[tuple[Any, ...]]) -> dict[str, int]:
    """The hub's counters in the end."""
    world = World(strategy)
    for name, *arguments in steps:
        getattr(world, name)(*arguments)
        world.settle()
    world.finish()
    return world.server.stats()


@pytest.mark.parametrize("strategy", ["backpressure", "drop_oldest", "drop_newest", "block"])
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), count=st.integers(10, 80))
def test_random_operations_against_the_model(strategy: str, seed: int, count: int) -> None:
    run(strategy, operations(seed, count))


@pytest.mark.parametrize(
    "strategy, counter",
    [
        ("backpressure", "caught_up"),
        ("backpressure", "backpressure"),
        ("drop_oldest", "dropped"),
        ("drop_newest", "dropped"),
    ],
)
def test_the_operations_fill_mailboxes(strategy: str, counter: str) -> None:
    """Without this the test above would say little."""
    assert all(run(strategy, operations(seed, 80))[counter] for seed in range(3))
