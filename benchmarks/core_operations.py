"""Operations of the data plane without a socket, each a loop over bytes of clients, for `benchmarks/instructions`.

`python -m benchmarks.core_operations NAME…` runs them one after the other under callgrind: each is warmed up, then done
N and 2N times, with a mark before, between and behind. A mark is a call of `getpgid`, at which callgrind writes down
what it counted since the last one. The clocks stand still, and what is drawn at random elsewhere is the
same in every run.
"""

import gc
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
_draw = os.urandom
os.urandom = lambda size: b"\x5a" * size  # the tables of the data plane draw the secret of their hash as they load

from core.hub.node import make_node  # noqa: E402  (the path has to be set first)
from core.hub.sans_io import KEY, Envelope, Peer, Server, client_frame, make_hub  # noqa: E402
from realtime_communication.config.topics import TopicRule  # noqa: E402

os.urandom = _draw

Loop = Callable[[int], None]

MARK = "getpgid"
SECRET = "a secret of the benchmarks, 32 bytes or longer"
NOW = 1_767_220_000
PAYLOAD = "x" * 98
LARGE = "".join(f"line {number} of a text that compresses well; " for number in range(60))
KEPT = 64
"""Messages in the history: it is full after the warm-up, so that every publication forgets one."""


class Operation(msgspec.Struct, frozen=True):
    """`prepare` makes the peers and gives the loop; `units` of the operation are in one pass of it."""

    prepare: Callable[[], Loop]
    passes: int
    units: int = 1


def server(**changes: object) -> Server:
    """A hub with a short history."""
    return make_hub(max_cache_entries=KEPT, **changes)


def feeding(sender: Peer, data: bytes, expected: dict[Peer, bytes]) -> Loop:
    """Bytes of `sender`, over and over; what comes is taken away. At the last time each peer got what is expected."""
    feed = sender.connection.feed
    drains = [peer.connection.drain for peer in expected]

    def loop(count: int) -> None:
        for _ in range(count - 1):
            feed(data)
            for drain in drains:
                drain()
        feed(data)
        for drain, wanted in zip(drains, expected.values(), strict=True):
            got = drain()
            assert wanted in got, got
        assert sender.connection.open

    return loop


def frame(envelope: Envelope) -> bytes:
    """One message in JSON."""
    return client_frame(json.dumps(envelope, separators=(",", ":")).encode())


def publication(**fields: object) -> bytes:
    """A Broadcast that wants an Ack."""
    return frame({"type": "Broadcast", "id": 7, "topic": "bench", "payload": PAYLOAD, **fields})


def control_frames() -> Loop:
    peer = server().connect("alice")
    peer.send_frame(b"12345678", 9)
    assert peer.frames() and peer.close is None
    return feeding(peer, client_frame(b"12345678", 10) * 16, {peer: b""})


def ping() -> Loop:
    peer = server().connect("alice")
    return feeding(peer, frame({"type": "Ping", "id": 7}), {peer: b'"Pong"'})


def echo() -> Loop:
    peer = server().connect("alice", path="/debug/echo")
    return feeding(peer, client_frame(b"x" * 100), {peer: b"x" * 100})


def fan_out(
    subscribers: int, in_flight: int = 1, payload: str = PAYLOAD, expected: bytes = b'"Message"', **form: str
) -> Loop:
    hub = server()
    readers = [hub.connect(f"reader-{number}", **form) for number in range(subscribers)]
    for reader in readers:
        reader.subscribe("bench")
    writer = hub.connect("alice")
    return feeding(
        writer, publication(payload=payload) * in_flight, {**dict.fromkeys(readers, expected), writer: b'"Ack"'}
    )


def publish_msgpack() -> Loop:
    hub = server()
    reader = hub.connect("bob", protocol="rtc.v1.msgpack")
    writer = hub.connect("alice", protocol="rtc.v1.msgpack")
    reader.subscribe("bench")
    envelope = {"type": "Broadcast", "id": 7, "topic": "bench", "payload": PAYLOAD}
    return feeding(writer, client_frame(msgspec.msgpack.encode(envelope), 2), {reader: b"Message", writer: b"Ack"})


def history() -> Loop:
    peer = server().connect("alice")
    return feeding(peer, publication(), {peer: b'"Ack"'})


def limited() -> Loop:
    plenty = 1_000_000
    names = ("connection_rps", "connection_burst", "user_rps", "user_burst", "global_rps", "global_burst")
    peer = server(rate_limiting_enabled=True, **dict.fromkeys(names, plenty)).connect("alice")
    return feeding(peer, publication(), {peer: b'"Ack"'})


def ruled() -> Loop:
    """The last rule of eight counts, and it bounds the history."""
    rules = [TopicRule(pattern=f"other:{number}:*", publish_roles=("staff",)) for number in range(7)]
    rules.append(TopicRule(pattern="ben*", publish_roles=("staff",), history_size=KEPT // 2))
    peer = server(topics=rules).connect("alice", roles=("staff",))
    return feeding(peer, publication(), {peer: b'"Ack"'})


def authorized() -> Loop:
    hub = server()
    hub.hub.ask_about(("publish",), lambda action, user, topic: True, 1000, 1000, 1 << 40)
    peer = hub.connect("alice")
    return feeding(peer, publication(), {peer: b'"Ack"'})


def direct(in_flight: int = 1) -> Loop:
    hub = server()
    reader, writer = hub.connect("bob"), hub.connect("alice")
    data = frame({"type": "DirectMessage", "id": 7, "to": "bob", "payload": PAYLOAD}) * in_flight
    return feeding(writer, data, {reader: b'"DirectMessage"', writer: b'"Ack"'})


def subscribe() -> Loop:
    peer = server().connect("alice")
    data = frame({"type": "Subscribe", "id": 7, "topic": "bench"})
    data += frame({"type": "Unsubscribe", "id": 8, "topic": "bench"})
    return feeding(peer, data, {peer: b'"Unsubscribed"'})


def presence() -> Loop:
    hub = server()
    watcher, peer = hub.connect("bob"), hub.connect("alice")
    watcher.subscribe("bench", presence=True)
    come, go = (frame({"type": type_, "topic": "bench"}) for type_ in ("Subscribe", "Unsubscribe"))

    def loop(count: int) -> None:
        for _ in range(count):
            peer.connection.feed(come + go)
            peer.connection.drain()
            got = watcher.connection.drain()
        assert b'"Join"' in got and b'"Leave"' in got, got

    return loop


def connect() -> Loop:
    from realtime_communication.auth.chain import AuthenticationChain
    from realtime_communication.auth.jwt import JwtRules, JwtVerifier
    from realtime_communication.auth.providers import JwtProvider
    from realtime_communication.auth.revocation import Revocations
    from realtime_communication.auth.tokens import TokenIssuer

    hub = server()
    provider = JwtProvider(JwtVerifier(JwtRules(secret=SECRET, issuer="i", audience="a")))
    chain = AuthenticationChain([provider], lambda: NOW, revocations=Revocations(hub.hub.disconnect))
    token = TokenIssuer(secret=SECRET, issuer="i", audience="a", lifetime_secs=3600).access_token("alice", NOW)
    head = b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    head += b"Sec-WebSocket-Key: %b\r\nAuthorization: Bearer %b\r\n\r\n" % (KEY, token.encode())

    hub.hub.set_callbacks(chain.authenticate_upgrade, chain.authenticate_message)
    hub.hub.set_token_callback(chain.accept_token)

    def once() -> bytes:
        connection = hub.driver.connect()
        connection.feed(head)
        answer = connection.drain()
        connection.end()
        return answer

    assert b'"Connected"' in once()

    def loop(count: int) -> None:
        for _ in range(count):
            once()

    return loop


def crossing() -> Loop:
    node = make_node(2, max_cache_entries=KEPT)
    topic = node.topic_at(1)
    writer, reader = node.workers[0].connect("alice"), node.workers[1].connect("bob")
    node.subscribe(reader, topic)
    data = publication(topic=topic)
    node.publish(writer, topic, PAYLOAD)
    assert b'"Message"' in reader.connection.drain()
    near, far = node.workers[0], node.workers[1]

    def loop(count: int) -> None:
        for _ in range(count):
            writer.connection.feed(data)
            far.hub.receive_from_peer(0, near.hub.take_for_peer(1))
            far.flush()
            near.hub.receive_from_peer(1, far.hub.take_for_peer(0))
            near.flush()
            reader.connection.drain()
            writer.connection.drain()

    loop(1)
    node.pump()
    return loop


OPERATIONS: dict[str, Operation] = {
    "control frame": Operation(control_frames, 50, 16),
    "ping": Operation(ping, 300),
    "echo, 100 bytes": Operation(echo, 300),
    "publication into the history": Operation(history, 300),
    "publication under rate limits": Operation(limited, 300),
    "publication under topic rules": Operation(ruled, 300),
    "publication that was allowed": Operation(authorized, 300),
    "publication to 1": Operation(partial(fan_out, 1), 200),
    "publication to 1, MessagePack": Operation(publish_msgpack, 200),
    "delivery to one of 100": Operation(partial(fan_out, 100), 30, 100),
    "delivery to one of 100, 16 in flight": Operation(partial(fan_out, 100, 16), 20, 1600),
    "delivery to one of 10, zstd": Operation(
        partial(fan_out, 10, 1, LARGE, b"\x28\xb5\x2f\xfd", protocol="rtc.v1.json+zstd"), 20, 10
    ),
    "delivery to one of 10, deflate": Operation(
        partial(fan_out, 10, 1, LARGE, b"", extensions="permessage-deflate"), 20, 10
    ),
    "direct message": Operation(direct, 200),
    "direct message, 16 in flight": Operation(partial(direct, 16), 30, 16),
    "subscribe and unsubscribe": Operation(subscribe, 200),
    "presence, join and leave": Operation(presence, 100),
    "connect with a token": Operation(connect, 100),
    "publication to 1 on another worker": Operation(crossing, 200),
}


def mark() -> None:
    """Where callgrind writes down what it counted."""
    os.getpgid(0)


def main(names: list[str]) -> None:
    gc.disable()
    for operation in (OPERATIONS[name] for name in names):
        loop = operation.prepare()
        loop(-(-2 * KEPT * 8 // max(operation.units, 8)))
        for rounds in (operation.passes, 2 * operation.passes):
            mark()
            loop(rounds)
        mark()


if __name__ == "__main__":
    main(sys.argv[1:])
