"""A hub beside the model of all of it: whatever clients do, each is sent what the model says, envelope by envelope."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from core.hub.books import Book, assert_empty
from core.hub.sans_io import ADMIN, READ, SUBSCRIBE, WALL_MS, WRITE, Envelope, Peer, identity, make_hub
from model.profiles import bounds
from model.whole_hub import WholeHub

TOPICS = ["red", "green", "blue"]
USERS = ["ann", "ben", "cat", "dan"]
FORMS: list[tuple[str | None, str | None]] = [
    (None, None),
    ("rtc.v1.msgpack", None),
    ("rtc.v1.json+zstd", None),
    ("rtc.v1.msgpack+lz4", None),
    ("rtc.v1.json+gzip", None),
    (None, "permessage-deflate"),
]
CLIENTS = 8
CACHE_SECS = 20
PATIENT = {"client_timeout_secs": 3_000_000, "heartbeat_interval_secs": 3_900_000, "priority_mailbox_size": 1_000_000}

clients = st.integers(0, CLIENTS - 1)
topics = st.sampled_from(TOPICS)
users = st.sampled_from(USERS)


class OneHub(RuleBasedStateMachine):
    """`strategy` is that of the class made of this one."""

    strategy = ""

    @initialize(capacity=st.sampled_from([8, 12]), cache=st.sampled_from([6, 40, 500]))
    def begin(self, capacity: int, cache: int) -> None:
        self.capacity = capacity
        self.server = make_hub(
            overflow_strategy=self.strategy,
            mailbox_capacity=capacity,
            max_cache_entries=cache,
            cache_ttl_secs=CACHE_SECS,
            compression_threshold_bytes=60,
            **PATIENT,
        )
        self.model = WholeHub(self.strategy, capacity, cache, WALL_MS, CACHE_SECS * 1000)
        self.peers: dict[int, Peer] = {}
        self.books: dict[int, Book] = {}
        self.numbers = 0
        self.broken = False
        self.payloads = 0
        self.places: dict[str, list[tuple[str, int]]] = {topic: [] for topic in TOPICS}

    # --- who

    def at(self, place: int) -> tuple[int, Peer]:
        """A connected client."""
        number = list(self.peers)[place % len(self.peers)]
        return number, self.peers[number]

    def somebody(self) -> bool:
        return bool(self.peers)

    def payload(self, size: int) -> Any:
        self.payloads += 1
        return [self.payloads, "x" * size]

    def place_of(self, topic: str, back: int | None) -> tuple[str, int] | None:
        """A place that somebody once was told of."""
        known = self.places[topic]
        return known[-1 - back % len(known)] if back is not None and known else None

    @rule(user=users, form=st.sampled_from(FORMS))
    def connect(self, user: str, form: tuple[str | None, str | None]) -> None:
        if len(self.peers) == CLIENTS:
            return
        self.numbers += 1
        who = identity(user, READ | WRITE | SUBSCRIBE | ADMIN)
        self.peers[self.numbers] = self.server.connect(who, protocol=form[0], extensions=form[1])
        self.model.connect(self.numbers, user)
        self.books[self.numbers] = Book(user)

    @precondition(somebody)
    @rule(place=clients)
    def end(self, place: int) -> None:
        number, peer = self.at(place)
        peer.end()
        self.model.end(number)
        del self.peers[number], self.books[number]

    # --- requests

    @precondition(somebody)
    @rule(
        place=clients,
        topic=topics,
        back=st.none() | st.integers(0, 20),
        history=st.integers(0, 12),
        presence=st.booleans(),
    )
    def subscribe(self, place: int, topic: str, back: int | None, history: int, presence: bool) -> None:
        number, peer = self.at(place)
        request: Envelope = {"type": "Subscribe", "id": 1, "topic": topic}
        recover = self.place_of(topic, back)
        if recover is not None:
            request["recover"] = {"epoch": recover[0], "offset": recover[1]}
        if history:
            request["history"] = history
        if presence:
            request["presence"] = True
        peer.send(request)
        self.model.subscribe(number, topic, recover, history, presence)

    @precondition(somebody)
    @rule(place=clients, topic=topics)
    def unsubscribe(self, place: int, topic: str) -> None:
        number, peer = self.at(place)
        peer.send({"type": "Unsubscribe", "id": 1, "topic": topic})
        self.model.unsubscribe(number, topic)

    @precondition(somebody)
    @rule(
        place=clients, topic=topics, count=st.integers(1, 5), size=st.sampled_from([0, 90]), exclude_self=st.booleans()
    )
    def publish(self, place: int, topic: str, count: int, size: int, exclude_self: bool) -> None:
        number, peer = self.at(place)
        payloads = [self.payload(size) for _ in range(count)]
        request = {"type": "Broadcast", "id": 1, "topic": topic, "exclude_self": exclude_self}
        peer.send(*({**request, "payload": payload} for payload in payloads))
        self.model.broadcast(number, topic, payloads, exclude_self)

    @precondition(somebody)
    @rule(place=clients, topic=topics, key=st.sampled_from("kl"))
    def publish_once(self, place: int, topic: str, key: str) -> None:
        number, peer = self.at(place)
        payload = self.payload(0)
        peer.send({"type": "Broadcast", "id": 1, "topic": topic, "payload": payload, "idempotency_key": key})
        self.model.broadcast_once(number, topic, key, payload)

    @rule(user=users, topic=topics, key=st.sampled_from("kl"))
    def publish_by_http(self, user: str, topic: str, key: str) -> None:
        payload = self.payload(0)
        answer = self.server.publish(identity(user), topic=topic, payload=payload, idempotency_key=key)
        epoch, offset = self.model.publish_by_http(user, topic, key, payload)
        assert answer == {"epoch": epoch, "offset": offset}

    @precondition(somebody)
    @rule(place=clients, to=st.lists(users, min_size=1, max_size=3, unique=True))
    def direct(self, place: int, to: list[str]) -> None:
        number, peer = self.at(place)
        payload = self.payload(0)
        peer.send({"type": "DirectMessage", "id": 1, "to": to, "payload": payload})
        self.model.direct(number, to, payload)

    @precondition(somebody)
    @rule(place=clients)
    def shout(self, place: int) -> None:
        number, peer = self.at(place)
        payload = self.payload(0)
        peer.send({"type": "Broadcast", "id": 1, "topic": "*", "payload": payload})
        self.model.shout(number, payload)

    @precondition(somebody)
    @rule(place=clients, topic=topics | st.just("@"))
    def presence(self, place: int, topic: str) -> None:
        number, peer = self.at(place)
        name = topic if topic != "@" else "@" + self.model.connections[number].user
        peer.send({"type": "Presence", "id": 1, "topic": name})
        self.model.presence(number, name)

    @precondition(somebody)
    @rule(
        place=clients,
        topic=topics | st.just("@"),
        back=st.none() | st.integers(0, 20),
        limit=st.sampled_from([1, 3, 100]),
        reverse=st.booleans(),
    )
    def history(self, place: int, topic: str, back: int | None, limit: int, reverse: bool) -> None:
        number, peer = self.at(place)
        name = topic if topic != "@" else "@" + self.model.connections[number].user
        after = self.place_of(topic, back) if topic != "@" else None
        request: Envelope = {"type": "History", "id": 1, "topic": name, "limit": limit, "reverse": reverse}
        if after is not None:
            request["after"] = {"epoch": after[0], "offset": after[1]}
        peer.send(request)
        self.model.history(number, name, after, limit, reverse)

    @precondition(somebody)
    @rule(place=clients)
    def ping(self, place: int) -> None:
        number, peer = self.at(place)
        peer.send({"type": "Ping", "id": 1})
        self.model.ping(number)

    # --- what befalls them

    @precondition(somebody)
    @rule(place=clients)
    def stall(self, place: int) -> None:
        number, peer = self.at(place)
        peer.stall()
        self.model.stall(number)

    @precondition(somebody)
    @rule(place=clients)
    def resume(self, place: int) -> None:
        number, peer = self.at(place)
        peer.resume()
        self.model.resume(number)

    @rule(milliseconds=st.sampled_from([50, 950, 1950, 2000, 7000, 20_050]))
    def advance(self, milliseconds: int) -> None:
        self.server.advance(milliseconds)
        self.model.advance(milliseconds)

    # --- what must hold

    @invariant()
    def everybody_was_sent_what_the_model_says(self) -> None:
        for number, peer in self.peers.items():
            sent, self.model.connections[number].sent = self.model.connections[number].sent, []
            got = peer.messages()
            self.broken |= in_one_form(got) != in_one_form(sent)
            assert not self.broken, (number, got, sent)
            for envelope in got:
                self.books[number].read(envelope)
                if envelope.get("topic") in self.places and "epoch" in envelope:
                    self.places[envelope["topic"]].append((envelope["epoch"], envelope["offset"]))

    @invariant()
    def mailboxes_hold_what_the_model_says(self) -> None:
        queued = [item["queued"] for item in reversed(self.server.hub.connections())]
        assert queued == [self.model.waiting(connection) for connection in self.model.connections.values()]

    @invariant()
    def topics_are_those_of_the_model(self) -> None:
        held = sorted(state_of(each) for each in self.server.hub.topics())
        expected = sorted(
            (topic.name, f"{topic.epoch:016x}", topic.offset, len(self.model.subscribers(name)), len(topic.cached))
            for name, topic in self.model.topics.items()
        )
        assert held == expected, (held, expected)
        assert self.server.stats()["cached_messages"] == len(self.model.cache)

    def teardown(self) -> None:
        if self.broken:
            return  # what went wrong is known
        for number, peer in self.peers.items():
            peer.resume()
            self.model.resume(number)
        self.everybody_was_sent_what_the_model_says()
        for peer in self.peers.values():
            peer.end()
        self.server.advance(3000)
        self.server.advance(CACHE_SECS * 1000 + 1000)
        assert_empty(self.server)


def state_of(topic: dict[str, Any]) -> tuple[str, str, int, int, int]:
    return topic["topic"], topic["epoch"], topic["offset"], topic["subscribers"], topic["cached"]


def in_one_form(envelopes: list[Envelope]) -> list[Envelope]:
    """Without what the protocol leaves open: in which order members are listed, and who left at the same moment."""
    made: list[Envelope] = []
    leaving: list[Envelope] = []
    for envelope in envelopes:
        if envelope["type"] == "Leave":
            leaving.append(envelope)
            continue
        made += sorted(leaving, key=str)
        leaving = []
        members = envelope.get("members")
        made.append(envelope if members is None else {**envelope, "members": sorted(members, key=str)})
    return made + sorted(leaving, key=str)


@pytest.mark.parametrize("strategy", ["drop_oldest", "drop_newest", "backpressure"])
def test_one_hub(strategy: str) -> None:
    machine = type(f"OneHub_{strategy}", (OneHub,), {"strategy": strategy})
    run_state_machine_as_test(machine, settings=bounds(examples=20, steps=50))
