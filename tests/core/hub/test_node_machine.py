"""Three workers and what their clients must see: sessions move, workers die, links break, and the account that they
keep says that nothing is lost, doubled, out of order or for somebody else.

What travels between workers is carried when a rule says so, so that every order of things comes up. Where nothing was
killed and the strategy drops nothing, all is delivered in the end; else each gap must have been told.
"""

from dataclasses import dataclass, field
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

from core.hub.books import assert_empty
from core.hub.node import Node, make_node
from core.hub.presence import GRACE_MS, PATIENT, SETTLE_MS
from core.hub.sans_io import Envelope, Peer
from model.profiles import bounds
from serving.checker import Checker, Track

SLOTS = 3
CLIENTS = 8
USERS = ["ann", "ben", "cat"]
TOPICS = [f"topic-{number}" for number in range(4)]
FORMS = [None, "rtc.v1.msgpack", "rtc.v1.json+zstd"]
UNASKED = ("*", "@")
"""What every connection is subscribed to unasked begins with one of them."""
LONG_MS = 400_000
"""Past the life of what is cached."""

clients = st.integers(0, CLIENTS - 1)
topics = st.sampled_from(TOPICS)
slots = st.integers(0, SLOTS - 1)


@dataclass
class Client:
    """One user's program: it keeps its places over all its connections."""

    number: int
    user: str
    form: str | None
    peer: Peer | None = None
    slot: int = 0  # where it connected
    tracks: dict[str, Track] = field(default_factory=dict)
    wanted: set[str] = field(default_factory=set)  # topics whose Subscribed came or is to come
    asking: set[str] = field(default_factory=set)  # topics with an answer to come
    unanswered: dict[int, tuple[str, bool]] = field(default_factory=dict)  # message: topic, exclude_self
    own: dict[tuple[str, str], dict[int, int]] = field(default_factory=dict)  # by topic and epoch: offset, message
    directs: list[int] = field(default_factory=list)


class OneNode(RuleBasedStateMachine):
    """`strategy` is that of the class made of this one."""

    strategy = ""

    @initialize(capacity=st.sampled_from([1, 3, 10, 100]), cache=st.sampled_from([5, 2000, 2000]))
    def begin(self, capacity: int, cache: int) -> None:
        self.capacity = capacity
        self.node: Node = make_node(
            SLOTS, overflow_strategy=self.strategy, mailbox_capacity=capacity, max_cache_entries=cache, **PATIENT
        )
        self.checker = Checker(ordered=False)
        self.clients = [
            Client(number, USERS[number % len(USERS)], FORMS[number % len(FORMS)]) for number in range(CLIENTS)
        ]
        self.messages = 0
        self.senders: dict[int, str] = {}
        self.broken = False
        self.killed = False
        self.large = cache > 5
        for client in self.clients[:4]:
            self.connect(client, client.number)

    # --- clients

    def connect(self, client: Client, slot: int) -> None:
        slot = sorted(self.node.workers)[slot % len(self.node.workers)]
        self.node.pump()  # so that nothing comes with Connected
        client.peer, client.slot = self.node.workers[slot].connect(client.user, protocol=client.form), slot
        for topic in sorted(client.wanted):
            self.ask_for(client, topic)
        for message in list(client.unanswered):
            self.send(client, message)

    def ask_for(self, client: Client, topic: str) -> None:
        track = client.tracks.get(topic)
        if track is None:
            track = client.tracks[topic] = self.checker.track(f"client {client.number}", topic)
        request: Envelope = {"type": "Subscribe", "id": topic, "topic": topic}
        if track.position is not None:
            request["recover"] = {"epoch": track.position[0], "offset": track.position[1]}
        track.subscribing(track.position)
        client.wanted.add(topic)
        client.asking.add(topic)
        assert client.peer is not None
        client.peer.send(request)

    def send(self, client: Client, message: int) -> None:
        topic, excluded = client.unanswered[message]
        request = {"type": "Broadcast", "id": message, "topic": topic, "payload": message, "exclude_self": excluded}
        assert client.peer is not None
        client.peer.send({**request, "idempotency_key": str(message)})

    def gone(self, client: Client) -> None:
        """Its connection is no more."""
        client.peer = None
        client.asking.clear()
        for track in client.tracks.values():
            track.disconnected()

    def here(self, place: int) -> Client | None:
        connected = [client for client in self.clients if client.peer is not None]
        return connected[place % len(connected)] if connected else None

    @rule(place=clients, slot=slots)
    def come(self, place: int, slot: int) -> None:
        client = self.clients[place]
        if client.peer is None:
            self.connect(client, slot)
            self.listen()

    @rule(place=clients)
    def go(self, place: int) -> None:
        client = self.here(place)
        if client is not None and client.peer is not None:
            client.peer.end()
            self.gone(client)

    @rule(place=clients, topic=topics)
    def subscribe(self, place: int, topic: str) -> None:
        client = self.here(place)
        if client is not None and topic not in client.wanted | client.asking:
            self.ask_for(client, topic)

    @rule(place=clients, topic=topics)
    def unsubscribe(self, place: int, topic: str) -> None:
        client = self.here(place)
        if client is not None and client.peer is not None and topic in client.wanted - client.asking:
            client.wanted.discard(topic)
            client.asking.add(topic)
            client.peer.send({"type": "Unsubscribe", "id": topic, "topic": topic})

    @rule(place=clients, topic=topics, count=st.integers(1, 6), excluded=st.booleans())
    def publish(self, place: int, topic: str, count: int, excluded: bool) -> None:
        client = self.here(place)
        for _ in range(count if client is not None else 0):
            assert client is not None
            self.messages += 1
            self.senders[self.messages] = client.user
            self.checker.published(f"client {client.number}", self.messages)
            client.unanswered[self.messages] = topic, excluded
            self.send(client, self.messages)

    @rule(place=clients, to=st.sampled_from(USERS))
    def direct(self, place: int, to: str) -> None:
        client = self.here(place)
        if client is not None and client.peer is not None:
            self.messages += 1
            self.senders[self.messages] = client.user
            client.peer.send({"type": "DirectMessage", "to": to, "payload": [to, self.messages]})

    @rule(place=clients)
    def stall(self, place: int) -> None:
        client = self.here(place)
        if client is not None and client.peer is not None:
            client.peer.stall()

    @rule(place=clients, limit=st.sampled_from([-1, 1, 90, 700]))
    def resume(self, place: int, limit: int) -> None:
        client = self.here(place)
        if client is not None and client.peer is not None:
            client.peer.resume(limit)

    # --- workers

    @rule(giver=slots, taker=slots, most=st.integers(1, 4))
    def move(self, giver: int, taker: int, most: int) -> None:
        if giver != taker and {giver, taker} <= self.node.workers.keys():
            self.node.workers[giver].flush()
            self.node.move(giver, taker, most)

    @rule(giver=slots, taker=slots, kept=st.sampled_from([0, 1, 40]))
    def carry(self, giver: int, taker: int, kept: int) -> None:
        """What waits on one link, but for its last bytes."""
        if giver == taker or not {giver, taker} <= self.node.workers.keys():
            return
        data = self.node.left.pop((giver, taker), b"") + self.node.workers[giver].hub.take_for_peer(taker)
        used = self.node.workers[taker].hub.receive_from_peer(giver, data[: max(0, len(data) - kept)])
        assert used >= 0
        if data[used:]:
            self.node.left[giver, taker] = data[used:]
        self.node.workers[taker].flush()

    @rule()
    def pump(self) -> None:
        self.node.pump()

    @rule(milliseconds=st.sampled_from([100, 700, 2100]))
    def advance(self, milliseconds: int) -> None:
        for worker in self.node.workers.values():
            worker.advance(milliseconds)

    @precondition(lambda self: self.messages > 3 and len(self.node.workers) > 1)
    @rule(slot=slots, told=st.booleans())
    def kill(self, slot: int, told: bool) -> None:
        if slot not in self.node.workers:
            return
        self.listen()
        lost = [each for each in self.here_all() if self.slot_of(each) == slot]
        self.killed = True
        self.node.kill(slot, tell=told)
        for client in lost:
            self.gone(client)
        if not told:
            self.node.start(slot)

    @precondition(lambda self: len(self.node.workers) < SLOTS)
    @rule(slot=slots)
    def start(self, slot: int) -> None:
        if slot not in self.node.workers:
            self.node.start(slot)

    @rule(members=st.sets(slots, min_size=1))
    def choose_homes(self, members: set[int]) -> None:
        chosen = sorted(members & self.node.workers.keys())
        if chosen:
            self.node.tell_members(chosen)

    # --- what must hold

    @invariant()
    def nothing_wrong_was_delivered(self) -> None:
        self.broken = True
        self.listen()
        self.checker.assert_sound()
        self.broken = False

    @invariant()
    def mailboxes_are_bounded(self) -> None:
        if self.strategy == "block":
            return  # what is under way from other workers is taken
        for worker in self.node.workers.values():
            assert all(entry["queued"] <= self.capacity + 1 for entry in worker.hub.connections())

    def listen(self) -> None:
        for client in self.clients:
            if client.peer is None:
                continue
            for envelope in client.peer.messages():
                self.hear(client, envelope)
            assert client.peer.close is None, client.peer.close

    def hear(self, client: Client, envelope: Envelope) -> None:
        kind, topic = envelope["type"], envelope.get("topic", "")
        match kind:
            case "Subscribed":
                client.asking.discard(topic)
                found = [(each["offset"], each["payload"]) for each in envelope["messages"]]
                assert all(self.senders[each["payload"]] == each["from"] for each in envelope["messages"])
                client.tracks[topic].subscribed(envelope["epoch"], envelope["offset"], envelope["recovered"], found)
            case "Unsubscribed":
                client.asking.discard(topic)
                client.tracks[topic].disconnected()
            case "Message":
                assert topic in client.wanted | client.asking, f"{client.user} is not subscribed to {topic}"
                assert envelope["from"] == self.senders[envelope["payload"]]
                self.pass_own(client, topic, envelope["offset"])
                client.tracks[topic].message(envelope["offset"], envelope["payload"])
            case "Lagged" if not topic.startswith(UNASKED):
                self.lagged(client, topic, envelope)
            case "DirectMessage":
                to, message = envelope["payload"]
                assert (to, self.senders[message]) == (client.user, envelope["from"])
                assert message not in client.directs[-1000:], "twice"
                client.directs.append(message)
            case "Ack" if "offset" in envelope:
                self.acknowledged(client, envelope)
            case "Error":
                self.refused(client, envelope)

    def acknowledged(self, client: Client, envelope: Envelope) -> None:
        message, place = envelope["id"], (envelope["epoch"], envelope["offset"])
        topic, excluded = client.unanswered.pop(message)
        self.checker.acknowledged(message, topic, *place)
        if excluded:
            client.own.setdefault((topic, place[0]), {})[place[1]] = message

    def pass_own(self, client: Client, topic: str, until: int) -> None:
        """What it published and did not want back counts as seen."""
        track = client.tracks[topic]
        own = client.own.get((topic, track.epoch or ""), {})
        while track.connected and track.offset + 1 < until and track.offset + 1 in own:
            track.message(track.offset + 1, own[track.offset + 1])

    def lagged(self, client: Client, topic: str, envelope: Envelope) -> None:
        """What a client did not want back may be counted as missed, or not."""
        track, missed, offset = client.tracks[topic], envelope["missed"], envelope["offset"]
        if envelope["epoch"] == track.epoch:
            self.pass_own(client, topic, offset - missed + 1)
            own = [each for each in client.own.get((topic, track.epoch), {}) if track.offset < each <= offset]
            whole = offset - track.offset
            if not envelope["recovered"] and whole - len(own) <= missed <= whole:
                missed = whole
        track.lagged(missed, envelope["epoch"], offset, envelope["recovered"])

    def refused(self, client: Client, envelope: Envelope) -> None:
        message = envelope.get("id")
        if isinstance(message, str):  # a Subscribe: the client asks again
            client.asking.discard(message)
            client.wanted.discard(message)
        elif message in client.unanswered:
            assert envelope["code"] == "unavailable", envelope
            self.checker.refused(message, envelope["code"])
            del client.unanswered[message]
        else:
            assert envelope["code"] in ("backpressure", "unavailable"), envelope

    # --- the end

    def settle(self) -> None:
        """Nobody stalls, and all that is under way arrives."""
        for _ in range(200):
            for client in self.clients:
                if client.peer is not None:
                    client.peer.resume()
            self.node.pump()
            self.node.advance(100)
            self.listen()
            held = [entry for worker in self.node.workers.values() for entry in worker.hub.connections()]
            busy = any(entry["queued"] or entry["blocked"] for entry in held)
            if not busy and not any(client.asking or client.unanswered for client in self.here_all()):
                return
        raise AssertionError([(client.number, client.asking, client.unanswered) for client in self.here_all()])

    def slot_of(self, client: Client) -> int:
        """Of the worker that has its connection."""
        assert client.peer is not None
        return self.node.moved_to.get(client.peer.connection, client.slot)

    def here_all(self) -> list[Client]:
        return [client for client in self.clients if client.peer is not None]

    def teardown(self) -> None:
        if self.broken:
            return  # what went wrong is known
        self.node.tell_members()
        self.settle()
        for topic in TOPICS:
            self.publish(0, topic, 1, excluded=False)
        self.settle()
        for client in self.clients:
            for topic, track in client.tracks.items():
                self.pass_own(client, topic, 1 << 60)
                assert track.connected == (client.peer is not None and topic in client.wanted)
        self.checker.finish()
        self.checker.assert_sound()
        self.presence_is_true()
        if not self.killed and self.large and self.strategy == "backpressure":
            assert self.checker.totals.gaps_told == self.checker.totals.resets == 0, self.checker.report()
        for client in self.here_all():
            assert client.peer is not None
            client.peer.end()
        for milliseconds in (GRACE_MS, SETTLE_MS, LONG_MS, 1000):
            self.node.advance(milliseconds)
        for worker in self.node.workers.values():
            assert_empty(worker)

    def presence_is_true(self) -> None:
        self.node.advance(SETTLE_MS)
        self.node.advance(SETTLE_MS)
        self.listen()
        for worker in self.node.workers.values():
            asks = worker.connect("asks")
            for topic in TOPICS:
                answer = self.node.ask(asks, {"type": "Presence", "id": 1, "topic": topic})
                assert answer["type"] == "PresenceState", answer
                found = sorted(each["user_id"] for each in answer["members"])
                assert found == sorted(client.user for client in self.here_all() if topic in client.wanted)
            asks.end()


@pytest.mark.parametrize("strategy", ["drop_oldest", "drop_newest", "backpressure", "block"])
def test_one_node(strategy: str) -> None:
    machine: Any = type(f"OneNode_{strategy}", (OneNode,), {"strategy": strategy})
    run_state_machine_as_test(machine, settings=bounds(examples=12, steps=40))
