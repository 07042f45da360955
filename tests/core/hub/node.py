"""Several workers of one node in memory: hubs whose frames `pump` carries to each other, and a stand-in upstream.

`make_node(3)` gives a `Node`; `node.workers[0].connect("alice")` a peer at its first worker. Nothing moves between
workers before `node.pump()`, which a `connect` that waits for `Connected` does too; `node.ask(peer, envelope)` sends,
pumps, and takes the one answer.
"""

import struct
from collections.abc import Callable
from typing import Any

from core.hub.sans_io import Envelope, Peer, Server
from realtime_communication._core.hub.memory_driver import Connection
from realtime_communication._core.hub.peers import RingProbe


class Node:
    """Workers by slot. A worker that is killed loses everything; its slot is taken out of the members."""

    def __init__(self, count: int, **changes: Any) -> None:
        self.changes = changes
        self.workers: dict[int, Server] = {}
        self.left: dict[tuple[int, int], bytes] = {}
        self.apart: set[tuple[int, int]] = set()
        self.version = 0
        self.moved_to: dict[Connection, int] = {}
        self.upstream: Upstream | None = None
        for slot in range(count):
            self.workers[slot] = self.make_worker()
        self.tell_members()
        for slot in self.workers:
            self.link(slot)

    def make_worker(self) -> Server:
        """A server whose peers hear `Connected` when the others have done their part."""
        made = Server(deterministic_ids=False, **self.changes)
        made.carry = self.carry
        return made

    def carry(self) -> None:
        """Until neither the workers nor what is above them have anything to say."""
        self.pump()
        while self.upstream is not None and self.upstream.step():
            self.pump()

    def go_below(self, upstream: "Upstream") -> None:
        """Join all workers to others by what is above them."""
        self.upstream = upstream
        for worker in self.workers.values():
            upstream.join(worker.hub)

    def tell_members(self, members: list[int] | None = None) -> None:
        """Everybody hears who is home of topics: all, unless said otherwise."""
        self.version += 1
        for slot, worker in self.workers.items():
            worker.hub.set_members(slot, sorted(self.workers) if members is None else members, self.version)

    def link(self, slot: int) -> None:
        """Join a worker to all others."""
        for other in self.workers:
            if other != slot:
                self.workers[slot].hub.link(other, True)
                self.workers[other].hub.link(slot, True)

    def cut(self, one: int, other: int) -> None:
        """Two workers lose each other, with all that was on its way; `meet` joins them again."""
        for slot, there in ((one, other), (other, one)):
            self.workers[slot].hub.link(there, False)
            self.left.pop((slot, there), None)
        self.apart.add((min(one, other), max(one, other)))

    def meet(self) -> None:
        """Those who had lost each other are joined again."""
        for one, other in sorted(self.apart):
            self.cut(one, other)
            self.workers[one].hub.link(other, True)
            self.workers[other].hub.link(one, True)
        self.apart.clear()

    def kill(self, slot: int, *, tell: bool = True) -> None:
        """A worker is gone with all it had."""
        del self.workers[slot]
        for worker in self.workers.values():
            worker.hub.link(slot, False)
            worker.flush()
        self.left = {key: data for key, data in self.left.items() if slot not in key}
        if tell:
            self.tell_members()

    def start(self, slot: int) -> Server:
        """A fresh worker in a free slot: it knows of the others, is joined to them, and becomes a home last."""
        members = sorted(self.workers)
        self.workers[slot] = self.make_worker()
        self.tell_members(members)
        self.link(slot)
        self.pump()
        self.tell_members()
        return self.workers[slot]

    def pump(self, piece: int | None = None) -> None:
        """Carry frames until nobody has any; in pieces of so many bytes."""
        moved = True
        while moved:
            moved = False
            for slot, worker in self.workers.items():
                worker.flush()
                for other, receiver in self.workers.items():
                    if other == slot:
                        continue
                    taken = worker.hub.take_for_peer(other)
                    if taken is None:
                        self.cut(slot, other)
                        moved = True
                        continue
                    data = self.left.pop((slot, other), b"") + taken
                    if not data:
                        continue
                    moved = True
                    step = piece or len(data)
                    for at in range(0, len(data), step):
                        waiting = self.left.pop((slot, other), b"") + data[at : at + step]
                        used = receiver.hub.receive_from_peer(slot, waiting)
                        assert used >= 0
                        if waiting[used:]:
                            self.left[slot, other] = waiting[used:]
            for worker in self.workers.values():
                worker.flush()
        assert not self.left, "half a frame is left over"

    def move(self, giver: int, taker: int, most: int = 1000, *, share: float | None = None, lose: bool = False) -> int:
        """Sessions go from one worker to another, in their place between the frames; how many. The frames behind the
        last one are still to be pumped. With `lose` the connections do not make it."""
        hub, taking = self.workers[giver].hub, self.workers[taker]
        count: int = hub.give_sessions(taker, most, share)
        passed = self.workers[giver].driver.take_passed()
        left = self.left.pop((giver, taker), b"")
        data, at = left + hub.take_for_peer(taker), 0
        for slot, queued, frame, connection in passed:
            assert slot == taker
            before = len(left) + queued
            assert taking.hub.receive_from_peer(giver, data[at:before]) == before - at
            taking.driver.arrive(giver, frame, None if lose else connection)
            self.moved_to[connection] = taker
            at = before
        self.workers[giver].flush()
        self.left[giver, taker] = data[at:]
        assert count == len(passed)
        return count

    def advance(self, milliseconds: int) -> None:
        """Let time pass for all workers, and carry what comes of it."""
        for worker in self.workers.values():
            worker.advance(milliseconds)
        self.pump()

    def ask(self, peer: Peer, envelope: Envelope) -> Envelope:
        """The one and only answer to a request."""
        peer.send(envelope)
        self.carry()
        (answer,) = peer.messages()
        return answer

    def subscribe(self, peer: Peer, topic: str, **fields: Any) -> Envelope:
        """Subscribe, and what was answered."""
        answer = self.ask(peer, {"type": "Subscribe", "id": 1, "topic": topic, **fields})
        assert answer["type"] == "Subscribed", answer
        return answer

    def publish(self, peer: Peer, topic: str, payload: Any, **fields: Any) -> tuple[str, int]:
        """Publish; the epoch and offset of the Ack, which is the only message that comes."""
        answer = self.ask(peer, {"type": "Broadcast", "id": 2, "topic": topic, "payload": payload, **fields})
        assert answer["type"] == "Ack", answer
        return answer["epoch"], answer["offset"]

    def home(self, topic: str, members: list[int] | None = None) -> int:
        """The slot at which a topic is at home."""
        return RingProbe(members or list(self.workers)).home(topic.encode())

    def topic_at(self, slot: int, name: str = "topic") -> str:
        """A topic that is at home at that slot."""
        return next(topic for number in range(1000) if self.home(topic := f"{name}-{number}") == slot)

    def user_at(self, slot: int, name: str = "user") -> str:
        """A user whose inbox is at home at that slot."""
        return next(user for number in range(1000) if self.home("@" + (user := f"{name}-{number}")) == slot)


def make_node(count: int = 2, **changes: Any) -> Node:
    """A node with so many workers."""
    return Node(count, **changes)


def texts(messages: list[Envelope]) -> list[tuple[int, Any]]:
    """Offset and payload of each Message."""
    return [(each["offset"], each["payload"]) for each in messages if each["type"] == "Message"]


def texts_of(answer: Envelope) -> list[tuple[int, Any]]:
    """Offset and payload of the messages in a reply."""
    return [(each["offset"], each["payload"]) for each in answer["messages"]]


def join_bodies(bodies: list[bytes]) -> bytes:
    """Bodies, each behind its size."""
    return b"".join(struct.pack("<I", len(body)) + body for body in bodies)


class Upstream:
    """What Redis is to several nodes: streams, feeds and routes, in plain Python. `step` takes what all hubs have."""

    def __init__(self) -> None:
        self.hubs: list[Any] = []
        self.epochs = 100
        self.streams: dict[bytes, tuple[int, list[bytes]]] = {}
        self.feeds: dict[bytes, list[Any]] = {}
        self.users: dict[bytes, list[Any]] = {}
        self.members: dict[bytes, dict[bytes, tuple[Any, bytes, int, bytes]]] = {}  # by topic and session
        self.answered: dict[bytes, tuple[int, int]] = {}
        self.taken: list[tuple[Any, ...]] = []

    def join(self, hub: Any) -> None:
        """A hub whose upstream this is from now on."""
        hub.set_upstream(lambda: None)
        hub.upstream_back()
        self.hubs.append(hub)

    def stream(self, topic: bytes) -> tuple[int, list[bytes]]:
        """Epoch and bodies of a topic."""
        if topic not in self.streams:
            self.epochs += 1
            self.streams[topic] = (self.epochs, [])
        return self.streams[topic]

    def lose(self, topic: bytes) -> None:
        """The history of a topic is lost."""
        del self.streams[topic]

    def step(self) -> bool:
        """Do what was asked for; whether there was anything."""
        some = False
        for hub in self.hubs:
            for item in hub.take_upstream():
                some = True
                self.taken.append(item)
                self.do(hub, item[0], *item[1:])
        return some

    def do(self, hub: Any, what: str, *fields: Any) -> None:
        handler: Callable[..., None] = getattr(self, "on_" + what)
        handler(hub, *fields)

    def on_publish(self, hub: Any, topic: bytes, token: int, body: bytes, key: bytes) -> None:
        epoch, bodies = self.stream(topic)
        reached = topic.startswith(b"@") and bool(self.users.get(topic[1:]))
        if key in self.answered:
            hub.published(token, *self.answered[key], reached)
            return
        bodies.append(body)
        if key:
            self.answered[key] = (epoch, len(bodies))
        if token:
            hub.published(token, epoch, len(bodies), reached)
        for reader in self.feeds.get(topic, []):
            reader.deliver_upstream(topic, epoch, len(bodies), join_bodies([body]))

    def on_subscribe(self, hub: Any, topic: bytes, token: int, position: tuple[int, int] | None, history: int) -> None:
        epoch, bodies = self.stream(topic)
        if hub not in self.feeds.setdefault(topic, []):
            self.feeds[topic].append(hub)
        first, recovered = len(bodies), False
        if position is not None and position[0] == epoch and position[1] <= len(bodies):
            first, recovered = position[1], True
        elif history:
            first = max(0, len(bodies) - history)
        hub.subscribed(token, epoch, len(bodies), recovered, first + 1, join_bodies(bodies[first:]))

    def on_unsubscribe(self, hub: Any, topic: bytes) -> None:
        self.feeds[topic].remove(hub)

    def on_history(
        self,
        hub: Any,
        topic: bytes,
        token: int,
        position: tuple[int, int] | None,
        limit: int,
        reverse: bool,
        shown: int,
        shown_ms: int,
    ) -> None:
        assert shown_ms == 0, "no clock here"
        epoch, bodies = self.stream(topic)
        oldest = max(0, len(bodies) - shown) if shown else 0
        first, last = oldest, len(bodies)
        if position is not None and position[0] == epoch:
            first, last = (oldest, min(last, position[1] - 1)) if reverse else (max(oldest, position[1]), last)
        first, last = (max(first, last - limit), last) if reverse else (first, min(last, first + limit))
        hub.history_page(token, epoch, len(bodies), first + 1, join_bodies(bodies[first:last]))

    def on_user_here(self, hub: Any, user: bytes) -> None:
        self.users.setdefault(user, []).append(hub)

    def on_user_gone(self, hub: Any, user: bytes) -> None:
        self.users[user].remove(hub)

    def bury(self, hub: Any) -> None:
        """A hub is gone: nobody vouches for its sessions any more."""
        self.hubs.remove(hub)
        for readers in (*self.feeds.values(), *self.users.values()):
            readers[:] = [reader for reader in readers if reader is not hub]
        for topic, members in list(self.members.items()):
            for session, (owner, user, *_) in list(members.items()):
                if owner is hub:
                    self.on_exit(hub, topic, session, user)

    def on_enter(self, hub: Any, topic: bytes, session: bytes, user: bytes, joined_ms: int, info: bytes) -> None:
        members = self.members.setdefault(topic, {})
        first = self.is_last(topic, user)
        members[session] = (hub, user, joined_ms, info)
        if first:
            self.tell(topic, False, user, session, info)

    def on_exit(self, hub: Any, topic: bytes, session: bytes, user: bytes) -> None:
        members = self.members.get(topic, {})
        if members.pop(session, None) and self.is_last(topic, user):
            self.tell(topic, True, user, session, b"")
        if not members:
            self.members.pop(topic, None)

    def is_last(self, topic: bytes, user: bytes) -> bool:
        return all(other != user for _, other, *_ in self.members.get(topic, {}).values())

    def tell(self, topic: bytes, leave: bool, user: bytes, session: bytes, info: bytes) -> None:
        for reader in list(self.feeds.get(topic, [])):
            reader.tell_presence(topic, leave, user, session, info)

    def on_moved(self, hub: Any, topic: bytes, session: bytes) -> None:
        """Another worker of that node tells of a session from now on."""

    def on_presence(self, hub: Any, topic: bytes, token: int) -> None:
        members = self.members.get(topic, {}).items()
        hub.presence_state(token, [(user, session, joined, info) for session, (_, user, joined, info) in members])
