"""The whole data plane without a socket: a hub on a `MemoryDriver`, and peers that speak the protocol to it in bytes.

`make_hub(**changes)` gives a `Server`, `server.connect("alice")` a `Peer`. Time stands still until `server.advance`.
"""

import gzip
import itertools
import json
import struct
import types
import zlib
from collections.abc import Callable
from typing import Any

import lz4.frame
import msgspec
import zstandard

from realtime_communication._core.hub.hub import Hub
from realtime_communication._core.hub.memory_driver import Connection, MemoryDriver

READ, WRITE, SUBSCRIBE, ADMIN = 1, 2, 4, 8
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
NOW_MS = 1_000_000  # monotonic, when a server is made
WALL_MS = 1_767_220_000_000  # since the epoch, at the same time
KEY = b"AAAAAAAAAAAAAAAAAAAAAA=="
Envelope = dict[str, Any]
Frame = tuple[int, bool, bytes]  # opcode, RSV1, payload


def settings(**changes: Any) -> types.SimpleNamespace:
    """Settings of the data plane as the control plane hands them over: generous, without rate limits."""
    made = types.SimpleNamespace(
        heartbeat_interval_secs=30,
        client_timeout_secs=60,
        auth_timeout_secs=10,
        max_connections=1000,
        max_unauthenticated=1000,
        max_unauthenticated_per_address=1000,
        max_frame_size=65536,
        max_message_size=1 << 20,
        mailbox_capacity=1000,
        enable_priority_mailbox=True,
        priority_mailbox_size=100,
        overflow_strategy="backpressure",
        batch_size=50,
        batch_timeout_ms=10,
        max_batch_size=100,
        batch_window_ms=5,
        compression_algorithm="zstd",
        compression_threshold_bytes=1024,
        enable_caching=True,
        cache_ttl_secs=300,
        max_cache_entries=10000,
        max_targets_per_message=1000,
        enable_message_transformation=True,
        transforms=[],
        topics=(),
        drop_invalid_messages=False,
        rate_limiting_enabled=False,
        connection_rps=100,
        connection_burst=200,
        user_rps=500,
        user_burst=1000,
        global_rps=10000,
        global_burst=20000,
        refill_interval_ms=100,
        token_precision=0.1,
        cleanup_interval_secs=300,
        cleanup_threshold_secs=600,
        custom_limits=[],
        deterministic_ids=True,
        debug_echo=True,
        require_origin_match=False,
        allowed_origins=[],
        trusted_proxies=None,
        refusal_headers=[],
        secure_refusal_headers=[],
        connection_pool_size=100,
        message_pool_size=100,
        buffer_pool_size=100,
    )
    unknown = changes.keys() - vars(made).keys()
    assert not unknown, f"no such settings: {unknown}"
    vars(made).update(changes)
    return made


def identity(user: str, permissions: int = READ | WRITE | SUBSCRIBE, **changes: Any) -> types.SimpleNamespace:
    """What authentication found out about `user`."""
    made = types.SimpleNamespace(
        user_id=user,
        login=None,
        permissions=permissions,
        expires_at=None,
        refresh_at=None,
        subscribe_patterns=None,
        publish_patterns=None,
        presence_info=None,
        roles=(),
    )
    unknown = changes.keys() - vars(made).keys()
    assert not unknown, f"no such fields: {unknown}"
    vars(made).update(changes)
    return made


def client_frame(payload: bytes, opcode: int = TEXT, *, fin: bool = True, rsv1: bool = False) -> bytes:
    """A masked frame of a client."""
    mask = b"\x37\xfa\x21\x3d"
    size = len(payload)
    head = bytes([fin << 7 | rsv1 << 6 | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += b"\xfe" + struct.pack(">H", size)
    else:
        head += b"\xff" + struct.pack(">Q", size)
    key = (mask * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
    return head + mask + masked


def split_frames(data: bytes) -> tuple[list[Frame], bytes]:
    """The whole frames that a server sent, and the bytes of one that is not whole yet."""
    frames: list[Frame] = []
    while len(data) >= 2:
        assert not data[1] & 0x80, "a server does not mask"
        assert data[0] & 0x80, "a server does not fragment"
        size, at = data[1], 2
        if size >= 126:
            at = 4 if size == 126 else 10
            size = int.from_bytes(data[2:at], "big")
        if len(data) < max(at, at + size):
            break
        frames.append((data[0] & 15, bool(data[0] & 0x40), data[at : at + size]))
        data = data[at + size :]
    return frames, data


def decompress(payload: bytes) -> bytes:
    """A binary message's bytes, unpacked when its first bytes name a compression."""
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(payload)
    if payload.startswith(b"\x04\x22\x4d\x18"):
        return bytes(lz4.frame.decompress(payload))
    if payload.startswith(b"\x1f\x8b"):
        return gzip.decompress(payload)
    return payload


def deflate(message: bytes, window_bits: int = 15) -> bytes:
    """A message as permessage-deflate carries it (RFC 7692, section 7.2.1)."""
    encoder = zlib.compressobj(wbits=-window_bits)
    packed = encoder.compress(message) + encoder.flush(zlib.Z_SYNC_FLUSH)
    return packed[:-4]


def inflate(payload: bytes, window_bits: int = 15) -> bytes:
    """The message of a frame with RSV1 (RFC 7692, section 7.2.2)."""
    return zlib.decompressobj(wbits=-window_bits).decompress(payload + b"\x00\x00\xff\xff")


def offsets(answer: Envelope) -> list[int]:
    """Those of the messages in an answer."""
    return [message["offset"] for message in answer["messages"]]


class Peer:
    """A client of a server in memory. Made by `Server.connect`; the upgrade has been answered by then.

    `carry` is called between the request and the look at its answer.
    """

    def __init__(
        self, connection: Connection, head: bytes, protocol: str | None, carry: Callable[[], None] = lambda: None
    ) -> None:
        self.connection = connection
        self.msgpack = protocol is not None and "msgpack" in protocol
        self.close: tuple[int, str] | None = None  # code and reason of the server's close frame
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.response = b""
        self.connection.feed(head)
        carry()
        self.take_response()

    def take_response(self) -> None:
        """The answer to the upgrade, as far as it has come; it may be held back until others have done their part."""
        answer, found, self.rest = (self.response + self.connection.drain()).partition(b"\r\n\r\n")
        self.response = answer + found
        self.status = int(answer.split(b" ")[1]) if found else None
        self.body = b""
        if self.status != 101:
            self.body, self.rest = self.rest, b""

    def encode(self, envelope: Envelope) -> bytes:
        """The envelope in this peer's encoding."""
        return msgspec.msgpack.encode(envelope) if self.msgpack else json.dumps(envelope).encode()

    def send(self, *envelopes: Envelope) -> None:
        """Send envelopes, one message each, in one piece."""
        opcode = BINARY if self.msgpack else TEXT
        self.send_raw(b"".join(client_frame(self.encode(envelope), opcode) for envelope in envelopes))

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.connection.feed(data)

    def send_frame(self, payload: bytes, opcode: int = TEXT, *, fin: bool = True, rsv1: bool = False) -> None:
        """Send one frame."""
        self.send_raw(client_frame(payload, opcode, fin=fin, rsv1=rsv1))

    def frames(self) -> list[Frame]:
        """Whole frames that came since the last look; control frames are noted in `pings`, `pongs` and `close` too."""
        if self.status is None:
            self.take_response()
        frames, self.rest = split_frames(self.rest + self.connection.drain())
        for opcode, _rsv1, payload in frames:
            assert self.close is None, "nothing follows a close frame"
            if opcode == CLOSE:
                self.close = (int.from_bytes(payload[:2], "big"), payload[2:].decode()) if payload else (1005, "")
            elif opcode == PING:
                self.pings.append(payload)
            elif opcode == PONG:
                self.pongs.append(payload)
        if self.close is not None:
            assert not self.rest, "nothing follows a close frame"
        return frames

    def decode(self, frame: Frame) -> Envelope:
        """The envelope of a data frame, whatever its form."""
        opcode, rsv1, payload = frame
        message = inflate(payload) if rsv1 else (decompress(payload) if opcode == BINARY else payload)
        decoded: Envelope = msgspec.msgpack.decode(message) if self.msgpack else json.loads(message)
        return decoded

    def messages(self) -> list[Envelope]:
        """Envelopes that came since the last look."""
        return [self.decode(frame) for frame in self.frames() if frame[0] in (TEXT, BINARY)]

    def request(self, envelope: Envelope) -> Envelope:
        """Send an envelope; the one and only answer to it."""
        self.send(envelope)
        (answer,) = self.messages()
        return answer

    def refused(self, code: str, envelope: Envelope) -> str:
        """Send an envelope that is refused with `code`; the message for people."""
        answer = self.request({"id": 9, **envelope})
        assert (answer["type"], answer["id"], answer["code"]) == ("Error", 9, code), answer
        return str(answer["message"])

    def subscribe(self, topic: str, **fields: Any) -> Envelope:
        """Subscribe, and what was answered."""
        answer = self.request({"type": "Subscribe", "id": 1, "topic": topic, **fields})
        assert answer["type"] == "Subscribed", answer
        return answer

    def stall(self) -> None:
        """Read nothing from now on."""
        self.connection.stall()

    def resume(self, limit: int = -1) -> None:
        """Read again; at most `limit` bytes when given, then stall again."""
        self.connection.resume(limit)

    def end(self) -> None:
        """The stream ends, without a closing handshake."""
        self.connection.end()


class Server:
    """A configured hub with its driver. `identities` holds who may come in, by name."""

    def __init__(self, **changes: Any) -> None:
        self.hub = Hub("node-1")
        self.hub.configure(settings(**changes))
        self.hub.set_callbacks(self.authenticate_upgrade, self.authenticate_message)
        self.driver = MemoryDriver(self.hub)
        self.driver.set_time(NOW_MS, WALL_MS)
        self.identities: dict[str, types.SimpleNamespace] = {}
        self.keys = itertools.count()
        self.carry: Callable[[], None] = lambda: None  # what others have to do before `Connected` comes

    def authenticate_upgrade(self, headers: list[tuple[bytes, bytes]], query: bytes, peer: str, secure: bool) -> Any:
        return self.identities[query.decode()] if query else None

    def authenticate_message(self, token: str | None, api_key: str | None, peer: str) -> Any:
        """A token is the name of an identity."""
        return self.identities.get(token or "", ("unauthorized", "token: not valid"))

    def connect(
        self,
        user: str | types.SimpleNamespace | None = "alice",
        *,
        protocol: str | None = None,
        extensions: str | None = None,
        path: str = "/ws",
        headers: bytes = b"",
        welcome: bool = True,
        **fields: Any,
    ) -> Peer:
        """A peer behind its upgrade. `user` is a name, an `identity`, or None: the first message must authenticate.

        `fields` are those of `identity`. With `welcome` a `Connected` that came is checked and taken away.
        """
        query = b""
        if user is not None:
            who = user if isinstance(user, types.SimpleNamespace) else identity(user, **fields)
            query = b"?%d" % next(self.keys)
            self.identities[query[1:].decode()] = who
        head = b"GET %b%b HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" % (path.encode(), query)
        head += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n" % KEY
        if protocol is not None:
            head += b"Sec-WebSocket-Protocol: %b\r\n" % protocol.encode()
        if extensions is not None:
            head += b"Sec-WebSocket-Extensions: %b\r\n" % extensions.encode()
        carry = self.carry if welcome else lambda: None
        peer = Peer(self.driver.connect(), head + headers + b"\r\n", protocol, carry)
        if user is not None and welcome and peer.status == 101 and path == "/ws":
            (connected,) = peer.messages()
            assert connected["type"] == "Connected", connected
        return peer

    def publish(self, who: types.SimpleNamespace, **fields: Any) -> dict[str, Any]:
        """Publish over HTTP; the answer."""
        answer: dict[str, Any] = self.hub.publish_request(json.dumps(fields).encode(), who)
        self.flush()
        return answer

    def send(self, who: types.SimpleNamespace, **fields: Any) -> dict[str, Any]:
        """Send a direct message over HTTP; the answer."""
        answer: dict[str, Any] = self.hub.send_request(json.dumps(fields).encode(), who)
        self.flush()
        return answer

    def fill(self, topic: str, count: int, size: int = 0) -> None:
        """Publish `count` messages, as nobody: their numbers from 0, or strings of `size` bytes."""
        for number in range(count):
            self.hub.publish_system(topic, b'"%b"' % (b"x" * size) if size else b"%d" % number)
        self.flush()

    def authenticating(self, user: str, *envelopes: Envelope) -> Peer:
        """A peer that has sent Authenticate and more behind it; what comes of that has not been looked at."""
        peer = self.connect(None)
        token = f"token {next(self.keys)}"
        self.identities[token] = identity(user)
        peer.send({"type": "Authenticate", "id": 0, "token": token}, *envelopes)
        return peer

    def advance(self, milliseconds: int) -> None:
        """Let time pass; what is due is done."""
        self.driver.advance(milliseconds)

    def flush(self) -> None:
        """End the turn, after a call to the hub that came from outside."""
        self.driver.flush()

    def stats(self) -> dict[str, int]:
        """Counters and gauges by name."""
        return self.hub.stats()


def make_hub(**changes: Any) -> Server:
    """A server under `settings(**changes)`."""
    return Server(**changes)
