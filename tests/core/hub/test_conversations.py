"""Random conversations of twenty connections with the hub, beside a plain-Python model of it."""

import random
from typing import Any

import pytest

from core.hub.sans_io import WALL_MS, Envelope, Peer, make_hub
from model.conversation import ConversationModel

TOPICS = ["red", "green", "blue"]
USERS = [f"user-{number}" for number in range(8)]
PEERS = 20
FOREVER = {"client_timeout_secs": 3_000_000, "heartbeat_interval_secs": 3_900_000, "cache_ttl_secs": 4_000_000}


GRACE_MS = 2100
"""Past what presence gives, which the model does not know."""


class Pair:
    """The hub and its model, told the same; `check` compares what every connection has been sent."""

    def __init__(self, strategy: str, seed: int) -> None:
        self.random = random.Random(seed)
        capacity = self.random.choice([8, 12, 20])
        cache = self.random.choice([4, 30, 500])
        self.server = make_hub(
            overflow_strategy=strategy, mailbox_capacity=capacity, max_cache_entries=cache, **FOREVER
        )
        self.model = ConversationModel(strategy, capacity, cache, WALL_MS)
        self.peers: dict[int, Peer] = {}
        self.numbers = 0
        self.count = 0
        self.seen: dict[str, tuple[str, int]] = {}  # topic -> a position some peer once was at

    def connect(self) -> int:
        self.numbers += 1
        user = self.random.choice(USERS)
        peer = self.server.connect(user)
        self.peers[self.numbers] = peer
        self.model.connect(self.numbers, user)
        return self.numbers

    def publish(self, number: int) -> None:
        topic = self.random.choice(TOPICS)
        payloads = [self.count + step for step in range(self.random.choice([1, 1, 2, 3]))]
        self.count += len(payloads)
        exclude_self = self.random.random() < 0.2
        self.peers[number].send(
            *[
                {"type": "Broadcast", "id": 1, "topic": topic, "payload": payload, "exclude_self": exclude_self}
                for payload in payloads
            ]
        )
        self.model.broadcast(number, topic, payloads, exclude_self)

    def direct(self, number: int) -> None:
        users = self.random.sample(USERS, self.random.choice([1, 1, 3]))
        self.peers[number].send({"type": "DirectMessage", "id": 1, "to": users, "payload": "dm"})
        self.model.direct(number, users, "dm")

    def subscribe(self, number: int) -> None:
        topic = self.random.choice(TOPICS)
        request: Envelope = {"type": "Subscribe", "id": 1, "topic": topic}
        recover = self.seen.get(topic) if self.random.random() < 0.5 else None
        if recover is not None:
            request["recover"] = {"epoch": recover[0], "offset": recover[1]}
        history = self.random.choice([0, 0, 2, 10])
        if history:
            request["history"] = history
        self.peers[number].send(request)
        self.model.subscribe(number, topic, recover, history)

    def unsubscribe(self, number: int) -> None:
        topic = self.random.choice(TOPICS)
        self.peers[number].send({"type": "Unsubscribe", "id": 1, "topic": topic})
        self.model.unsubscribe(number, topic)

    def stall(self, number: int) -> None:
        self.peers[number].stall()
        self.model.stall(number)

    def resume(self, number: int) -> None:
        self.peers[number].resume()
        self.model.resume(number)

    def end(self, number: int) -> None:
        self.peers.pop(number).end()
        self.server.advance(GRACE_MS)
        self.model.ts += GRACE_MS
        self.model.end(number)

    def step(self) -> None:
        if len(self.peers) < PEERS:
            self.connect()
        number = self.random.choice(list(self.peers))
        actions: list[Any] = [self.publish] * 10 + [self.direct] * 3 + [self.subscribe] * 4 + [self.unsubscribe] * 2
        actions += [self.resume if self.model.connections[number].stalled else self.stall] * 4 + [self.end]
        self.random.choice(actions)(number)

    def check(self) -> None:
        for number, peer in self.peers.items():
            sent = self.model.connections[number].sent
            assert peer.messages() == sent, number
            for envelope in sent:
                if "epoch" in envelope:
                    self.seen[envelope["topic"]] = (envelope["epoch"], envelope["offset"])
            sent.clear()
        queued = [item["queued"] for item in reversed(self.server.hub.connections())]
        assert queued == [self.model.waiting(connection) for connection in self.model.connections.values()]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("strategy", ["drop_oldest", "drop_newest", "backpressure"])
def test_every_connection_is_sent_what_the_model_says(strategy: str, seed: int) -> None:
    pair = Pair(strategy, seed)
    for _ in range(400):
        pair.step()
        pair.check()
    for number in list(pair.peers):
        pair.resume(number)
        pair.check()
        pair.end(number)
    stats = pair.server.stats()
    gauges = ("connections", "subscriptions", "sessions", "users", "members", "timers")
    assert {name: stats[name] for name in gauges} == dict.fromkeys(gauges, 0)
    assert stats["topics"] == len(pair.model.topics)


class Reader:
    """Follows one subscription: offsets rise by one, except where a Lagged says so."""

    def __init__(self, epoch: str, offset: int) -> None:
        self.epoch = epoch
        self.offset = offset
        self.promised = offset

    def read(self, envelope: Envelope) -> None:
        if envelope["type"] == "Lagged":
            assert envelope["epoch"] == self.epoch
            assert envelope["offset"] - envelope["missed"] == self.offset, envelope
            if envelope["recovered"]:
                self.promised = envelope["offset"]
            else:
                self.offset = envelope["offset"]
        else:
            assert envelope["offset"] == self.offset + 1, (self.offset, envelope)
            self.offset += 1


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("strategy", ["drop_oldest", "drop_newest", "backpressure", "block"])
def test_no_gap_is_untold_and_nothing_comes_twice(strategy: str, seed: int) -> None:
    """Peers that read any number of bytes at a time; messages of any size; under `block` nothing is lost at all."""
    chance = random.Random(seed)
    capacity = chance.choice([2, 7, 40])
    server = make_hub(
        overflow_strategy=strategy,
        mailbox_capacity=capacity,
        max_cache_entries=chance.choice([20, 2000]),
        max_batch_size=chance.choice([1, 5, 100]),
        **FOREVER,
    )
    forms = [None, "rtc.v1.msgpack", "rtc.v1.json+zstd", "rtc.v1.msgpack+lz4"]
    peers = [server.connect(f"user-{number}", protocol=forms[number % 4]) for number in range(12)]
    readers: list[dict[str, Reader]] = []
    for peer in peers:
        answers = [peer.subscribe(topic) for topic in TOPICS if chance.random() < 0.7]
        readers.append({answer["topic"]: Reader(answer["epoch"], answer["offset"]) for answer in answers})
    publishers = [server.connect(f"publisher-{number}") for number in range(4)]
    sent = 0

    def read() -> None:
        for peer, topics in zip(peers, readers, strict=True):
            for envelope in peer.messages():
                topics[envelope["topic"]].read(envelope)

    for _ in range(400):
        what = chance.random()
        peer = chance.choice(peers)
        if what < 0.5:
            payloads = ["x" * chance.choice([0, 10, 1500, 20_000]) for _ in range(chance.choice([1, 1, 3, 20]))]
            topic = chance.choice(TOPICS)
            sent += len(payloads)
            requests: list[Envelope] = [{"type": "Broadcast", "topic": topic, "payload": text} for text in payloads]
            chance.choice(publishers).send(*requests)
        elif what < 0.7:
            peer.stall()
        elif what < 0.8:
            peer.resume()
        else:
            peer.resume(chance.choice([1, 10, 700, 5000, 100_000]))
        read()
        assert max(item["queued"] for item in server.hub.connections()) <= capacity + 1
    while any(item["queued"] or item["blocked"] for item in server.hub.connections()):
        for peer in peers:
            peer.resume()
        read()
    ends = {item["topic"]: item["offset"] for item in server.hub.topics()}
    assert sum(ends.values()) == sent
    for topics in readers:
        for topic, reader in topics.items():
            assert reader.offset == ends.get(topic, 0)
    if strategy == "block":
        assert server.stats()["dropped"] == server.stats()["lagged"] == 0
        assert all(publisher.connection.reading for publisher in publishers)
