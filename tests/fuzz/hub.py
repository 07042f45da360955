"""Targets that need a hub: clients, other workers and what stands above, as scripts of steps.

An input is steps, each of a byte for what is done, a byte for who does it, and what is given to it, up to SEPARATOR.
Each script runs twice, the second time with all that is fed cut into pieces: nothing that a peer sees may differ.
"""

import contextlib
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from core.hub.sans_io import BINARY, TEXT, Peer, Server, client_frame, decompress, deflate, inflate
from fuzz.exact import exact
from realtime_communication._core.hub.memory_driver import Connection
from realtime_communication._core.hub.peers import RingProbe
from realtime_communication._core.hub.peers import split_frames as split_peer_frames

SEPARATOR = b"\xff\n"
KIND_OF = {b"@": 1, b"*": 2}  # of topics, by how their names begin
STEPS_MOST = 60
HERE, THERE = 0, 1
KINDS = ["rtc.v1.json", "rtc.v1.msgpack", "rtc.v1.json", "rtc.v1.msgpack+zstd"]
EXTENSIONS = [None, None, "permessage-deflate", None]
Seen = list[Any]


def topic_at(slot: int) -> str:
    """A topic that is at home at one of two workers."""
    ring = RingProbe([HERE, THERE])
    return next(name for number in range(100) if ring.home((name := f"t{number}").encode()) == slot)


TOPICS = [topic_at(HERE), topic_at(THERE)]
USERS = ["alice", "bob", "carol", "dave"]
NAMES = [*(name.encode() for name in TOPICS), *(b"@" + name.encode() for name in USERS), b"*", b"?"]


def steps_of(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """What is done, by whom, with what."""
    for step in data.split(SEPARATOR)[:STEPS_MOST]:
        if len(step) >= 2:
            yield step[0], step[1], step[2:]


class World:
    """A server with four clients, who speak different encodings, and what they have seen."""

    def __init__(self, piece: int, *, readable: bool, **changes: Any) -> None:
        small = {"mailbox_capacity": 20, "max_message_size": 4096, "max_frame_size": 2048, "max_cache_entries": 50}
        self.server = Server(**{**small, "compression_threshold_bytes": 64, **changes})
        self.piece = piece
        self.readable = readable  # every payload was validated: what comes can be decoded
        self.guests: list[Connection] = []
        self.peers = [self.connect(number) for number in range(4)]
        self.seen: list[Seen] = [[] for _ in self.peers]

    def connect(self, number: int) -> Peer:
        """Client `number`, afresh."""
        return self.server.connect(USERS[number], protocol=KINDS[number], extensions=EXTENSIONS[number])

    def feed(self, number: int, data: bytes) -> None:
        """Bytes of a client."""
        piece = self.piece or max(1, len(data))
        for at in range(0, len(data), piece):
            self.peers[number].send_raw(exact(data[at : at + piece]))

    def look(self) -> None:
        """Note what came."""
        for number, peer in enumerate(self.peers):
            if peer.status is None:
                peer.take_response()
            for opcode, rsv1, payload in peer.frames() if peer.status == 101 else ():
                message = inflate(payload) if rsv1 else decompress(payload) if opcode == BINARY else payload
                self.seen[number].append((opcode, message))
                if self.readable and opcode in (TEXT, BINARY):
                    value = msgspec.msgpack.decode(message) if peer.msgpack else json.loads(message)
                    assert isinstance(value["type"], str)

    def finish(self) -> None:
        """All leave; nothing of them stays."""
        self.look()
        for peer in self.peers:
            peer.end()
        for guest in self.guests:
            guest.end()
        self.server.flush()
        self.server.advance(120_000)
        left = self.server.stats()
        assert (left["sessions"], left["members"], left["connections"]) == (0, 0, 0), left

    def common(self, what: int, who: int, given: bytes) -> bool:
        """Do a step that has nothing to do with others; whether it was one."""
        number = who & 3
        peer = self.peers[number]
        if what == 0:
            self.feed(number, client_frame(given, BINARY if peer.msgpack else TEXT))
        elif what == 1:
            self.feed(number, client_frame(deflate(given), BINARY if peer.msgpack else TEXT, rsv1=True))
        elif what == 2:
            self.feed(number, given)
        elif what == 3:
            self.feed(number, client_frame(given[:125], (who >> 2) & 15, fin=bool(who & 64), rsv1=bool(who & 128)))
        elif what == 4:
            self.server.advance(who * 100)
        elif what == 5:
            peer.stall()
        elif what == 6:
            peer.resume(-1 if who < 128 else (who & 127) * 50)
        elif what == 7:
            self.look()
            peer.end()
            self.peers[number] = self.connect(number)
        else:
            return False
        return True


def same(run: Callable[[int], list[Any]], pieces: tuple[int, ...]) -> None:
    """What is seen does not depend on the pieces."""
    whole = run(0)
    for piece in pieces:
        assert run(piece) == whole, f"pieces of {piece} change what is seen"


def session(data: bytes) -> None:
    """Clients of one worker, who may send anything."""
    if not data:
        return
    strategy = ["backpressure", "drop_oldest", "drop_newest", "block"][data[0] & 3]

    def run(piece: int) -> list[Any]:
        world = World(piece, readable=True, overflow_strategy=strategy, drop_invalid_messages=bool(data[0] & 4))
        for what, who, given in steps_of(data[1:]):
            if not world.common(what, who, given):
                if what == 8:
                    with contextlib.suppress(ValueError, RuntimeError, RecursionError):
                        json.loads(given)  # it has to be valid
                        world.server.hub.publish_system(TOPICS[who & 1], exact(given))
                elif what == 9:
                    world.server.hub.disconnect(user_id=USERS[who & 3])
            world.server.flush()
        world.finish()
        return world.seen

    same(run, (1 + data[0] // 8,))


def worker(data: bytes) -> None:
    """Frames from another worker, which may be anything too: one step is one frame, its size put right."""
    if not data:
        return

    def run(piece: int) -> list[Any]:
        world = World(piece, readable=False)
        hub = world.server.hub
        hub.set_members(HERE, [HERE, THERE], 1)
        hub.link(THERE, True)
        sent: list[Any] = []
        left = b""
        for what, who, given in steps_of(data[1:]):
            if world.common(what, who, given):
                world.server.flush()
                continue
            if what == 255:
                hub.link(THERE, bool(who & 1))
                left = b""
            elif what == 254:
                guest = Connection() if who & 1 else None
                frame = struct.pack("<I", max(0, len(given) - 4)) + given[4:]
                if world.server.driver.arrive(THERE, exact(frame), guest) and guest is not None:
                    world.guests.append(guest)
            else:
                left = take(hub, left + (given if what == 253 else peer_frame(what, who, given)), piece)
            world.server.flush()
            sent += split_peer_frames(hub.take_for_peer(THERE))[0]
        hub.link(THERE, False)  # with it goes who is said to be present there
        world.finish()
        return [world.seen, sent]

    same(run, (1 + data[0] // 8,))


def peer_frame(type: int, who: int, given: bytes) -> bytes:
    """A frame of this type: `who` has the topic, whether its kind is wrong, and whether the token is one of the first
    few or as it is given."""
    name = NAMES[who & 7]
    kind = KIND_OF.get(name[:1], 0)
    if who & 24 == 24:
        kind = (kind + 1) & 3
    token = given[0] if given and who < 128 else int.from_bytes(given[:8], "little")
    rest = given[1:] if who < 128 else given[8:]
    inside = struct.pack("<BBHQ", type, kind, len(name), token) + name + rest
    return struct.pack("<I", len(inside)) + inside


def take(hub: Any, data: bytes, piece: int) -> bytes:
    """Bytes of the bus; those that are no whole frame yet. Behind what is no frame the link is cut."""
    at = 0
    end = piece or len(data)
    while True:
        used = hub.receive_from_peer(THERE, exact(data[at:end]))
        if used < 0:
            hub.link(THERE, False)
            return b""
        assert used <= end - at
        at += used
        if end >= len(data):
            return data[at:]
        end += piece


def upstream(data: bytes) -> None:
    """What stands above says anything about any request: numbers and messages as Redis has kept them."""

    def run(piece: int) -> list[Any]:
        world = World(piece, readable=False)
        hub = world.server.hub
        hub.set_upstream(lambda: None)
        hub.upstream_back()
        asked: list[Any] = []
        for what, who, given in steps_of(data):
            if not world.common(what, who, given):
                say(hub, what, who, given)
            world.server.flush()
            asked += hub.take_upstream()
        hub.upstream_lost()
        world.finish()
        return [world.seen, asked]

    same(run, (3,))


def say(hub: Any, what: int, who: int, given: bytes) -> None:
    """One call of the upstream. The first bytes have the numbers."""
    token, offset, first = given[0:1], given[1:2], given[2:3]
    numbers = [int.from_bytes(each, "little") for each in (token, offset, first)]
    epoch = 1 + (who >> 6)
    name = NAMES[who & 7]
    rest = given[3:]
    bodies = exact(framed(rest) if who & 32 else rest)
    if what == 16:
        hub.published(numbers[0], epoch, numbers[1], bool(who & 8))
    elif what == 17:
        hub.refuse_waiting(numbers[0], "unavailable" if who & 1 else "?", rest.decode("latin-1"), None)
    elif what == 18:
        hub.subscribed(numbers[0], epoch, numbers[1], bool(who & 8), numbers[2], bodies)
    elif what == 19:
        hub.history_page(numbers[0], epoch, numbers[1], numbers[2], bodies)
    elif what == 20:
        hub.deliver_upstream(name, epoch, numbers[2], bodies)
    elif what == 21:
        hub.reset_topic(name, epoch, numbers[1])
    elif what == 22:
        members = [(each[:20], bytes(32), number, each[20:]) for number, each in enumerate(rest.split(b"\n"))]
        hub.presence_state(numbers[0], members)
    elif what == 23:
        hub.tell_presence(name, bool(who & 8), exact(rest[:20]), exact(rest[20:36]), exact(rest[36:]))
    elif what == 24:
        hub.upstream_lost()
    elif what == 25:
        hub.upstream_back()


def framed(rest: bytes) -> bytes:
    """Lines as messages of a stream: time, no session to leave out, encoding, sender and payload, behind their size."""
    out = b""
    for line in rest.split(b"\n"):
        body = struct.pack("<QQQBB", 1_767_220_000_000, 0, 0, line[:1] == b"m", 5) + b"alice" + line[1:]
        out += struct.pack("<I", len(body)) + body
    return out


TARGETS = {"session": session, "worker": worker, "upstream": upstream}
