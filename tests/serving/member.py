"""One client of a swarm: a subscriber or a publisher over many connections."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import struct
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import picows

from serving.certificates import trusted
from serving.checker import UNDECIDED, Track
from serving.peer import JSON

if TYPE_CHECKING:
    from serving.swarm import Swarm

CONNECT_SECS = 10.0
UNANSWERED_MOST = 1000
"""Publications of one publisher that may wait for their answer; it holds back at that number."""
TICK_SECS = 0.01
UNASKED = ("*", "@")
"""What every connection is subscribed to unasked: the topic for all, and its user's inbox."""
RETRY_MS = 100
"""Before a publication that met a passing error is sent again, where the error does not say."""


class Item(msgspec.Struct):
    """One of a Subscribed's messages. A payload is [message id, sent at, padding]."""

    offset: int
    payload: tuple[int, int, str]


class Heard(msgspec.Struct):
    """Whatever the server sends, as far as a swarm wants to know it."""

    type: str
    id: int | None = None
    topic: str = ""
    epoch: str = ""
    offset: int = 0
    recovered: bool = False
    messages: list[Item] = []
    missed: int = 0
    payload: tuple[int, int, str] | None = None
    code: str | int = ""
    after_ms: int = 0
    retry_after_ms: int | None = None


_decode = msgspec.json.Decoder(Heard).decode
_encode = msgspec.json.encode


class Client(picows.WSListener):
    """One client over many connections; `Subscriber` and `Publisher` say what it does on one.

    ``closes`` are the close codes so far, 1006 for a connection that just ended; ``opened`` counts the connections.
    """

    def __init__(self, swarm: Swarm, name: str, address: int, receive_buffer: int | None = None) -> None:
        self.name = name
        self.closes: list[int] = []
        self.opened = 0
        self.stopping = False
        self.transport: picows.WSTransport | None = None
        self._swarm = swarm
        self._address = address
        self._receive_buffer = receive_buffer
        self._token = swarm.sign(name)
        self._ended = asyncio.Event()
        self._code = 1006
        self._pause_secs = 0.0
        self._held_back = asyncio.Event()
        self._held_back.set()

    @property
    def is_ready(self) -> bool:
        """Whether it has a connection on which it does its work."""
        return self.transport is not None

    # what a test does to it

    def cut(self) -> None:
        """Reset the connection (RST); what was under way in either direction is gone."""
        if self.transport is not None:
            wire = self.transport.underlying_transport
            wire.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            wire.abort()
            self._gone()

    def stay_away(self) -> None:
        """Do not connect again until `come_back`."""
        self._held_back.clear()

    def come_back(self) -> None:
        """Connect again."""
        self._held_back.set()

    def stop_reading(self) -> None:
        """Leave everything in the socket from now on."""
        if self.transport is not None:
            self.transport.underlying_transport.pause_reading()

    def read_on(self) -> None:
        """Read again."""
        if self.transport is not None:
            self.transport.underlying_transport.resume_reading()

    # its life

    async def run(self) -> None:
        """Connect, work, reconnect, until ``stopping``."""
        while not self.stopping:
            await self._held_back.wait()
            self._ended.clear()
            self._code, self._pause_secs = 1006, 0.0
            if await self._connect():
                await self._ended.wait()
                self.closes.append(self._code)
            if not self.stopping:
                await asyncio.sleep(self._pause_secs or random.uniform(*self._swarm.reconnect_secs))

    async def _connect(self) -> bool:
        urls = self._swarm.urls
        url = urls[self._address % len(urls)]
        self._address += 1
        try:
            async with self._swarm.opening:  # waiting for it is no part of the time a connection may take
                async with asyncio.timeout(CONNECT_SECS):
                    _, listener = await picows.ws_connect(
                        lambda: self,
                        url,
                        extra_headers={"Authorization": f"Bearer {self._token}", "Sec-WebSocket-Protocol": JSON},
                        ssl_context=trusted(url),
                        websocket_handshake_timeout=CONNECT_SECS,
                        max_frame_size=1 << 26,
                        socket_factory=self._socket if self._receive_buffer else None,
                    )
        except (OSError, TimeoutError, picows.WSError):
            return False
        return listener is not None

    def _socket(self, url: Any) -> socket.socket:
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer or 0)
        made.connect((url.host, url.port))
        made.setblocking(False)
        return made

    def send(self, envelope: dict[str, Any]) -> None:
        """Queue one envelope on the connection there is."""
        assert self.transport is not None
        self.transport.send(picows.WSMsgType.TEXT, _encode(envelope))

    def stop(self) -> None:
        """End for good, with a close frame where there is a connection."""
        self.stopping = True
        self._held_back.set()
        if self.transport is not None:
            self.read_on()
            self.transport.send_close(picows.WSCloseCode.OK)
            self.transport.disconnect()
        else:
            self._ended.set()

    # picows calls these

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self.transport = transport
        self.opened += 1
        if self.stopping:
            transport.disconnect()
        else:
            self.begin()

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if transport is not self.transport:
            return  # cut already
        if frame.msg_type is picows.WSMsgType.TEXT:
            try:
                self._take(frame.get_payload_as_bytes())
            except Exception as error:  # picows would only log it
                self._swarm.failures.append(error)
                raise
        elif frame.msg_type is picows.WSMsgType.CLOSE:
            payload = frame.get_payload_as_bytes()
            self._code = int.from_bytes(payload[:2], "big") if payload else 1005
            transport.disconnect()

    def _take(self, data: bytes) -> None:
        try:
            heard = _decode(data)
        except msgspec.MsgspecError as error:
            raise AssertionError(f"{self.name} cannot read {data[:200]!r}") from error
        if heard.type == "Closing":
            self._pause_secs = min(heard.after_ms / 1000, self._swarm.longest_pause_secs)
        else:
            self.hear(heard)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self._gone()
        self._ended.set()

    def _gone(self) -> None:
        if self.transport is not None:
            self.transport = None
            self.lost()

    # what the kinds of clients do

    def begin(self) -> None:
        """The connection is open."""
        raise NotImplementedError

    def hear(self, heard: Heard) -> None:
        """An envelope came."""
        raise NotImplementedError

    def lost(self) -> None:
        """The connection is gone."""
        raise NotImplementedError


class Subscriber(Client):
    """Subscribes to its topics, and again from where it was on each new connection."""

    def __init__(
        self, swarm: Swarm, name: str, address: int, topics: Sequence[str], receive_buffer: int | None
    ) -> None:
        super().__init__(swarm, name, address, receive_buffer)
        self.tracks: dict[str, Track] = {topic: swarm.checker.track(name, topic) for topic in topics}
        self.refusals: list[str | int] = []

    @property
    def is_ready(self) -> bool:
        return all(track.connected for track in self.tracks.values())

    def begin(self) -> None:
        for topic, track in self.tracks.items():
            request: dict[str, Any] = {"type": "Subscribe", "id": 0, "topic": topic}
            if (position := track.position) is not None:
                request["recover"] = {"epoch": position[0], "offset": position[1]}
            track.subscribing(position)
            self.send(request)

    def hear(self, heard: Heard) -> None:
        match heard.type:
            case "Message":
                assert heard.payload is not None
                self.tracks[heard.topic].message(heard.offset, heard.payload[0])
                if self._swarm.on_delivery is not None:
                    self._swarm.on_delivery(time.monotonic_ns() - heard.payload[1])
            case "Subscribed":
                self.tracks[heard.topic].subscribed(
                    heard.epoch,
                    heard.offset,
                    heard.recovered,
                    ((item.offset, item.payload[0]) for item in heard.messages),
                )
            case "Lagged" if not heard.topic.startswith(UNASKED):  # nothing is published there
                self.tracks[heard.topic].lagged(heard.missed, heard.epoch, heard.offset, heard.recovered)
            case "Error":
                self.refusals.append(heard.code)
                self.cut()  # to ask again

    def lost(self) -> None:
        for track in self.tracks.values():
            track.disconnected()


class Publisher(Client):
    """Publishes at a rate, on its topics in turn, whenever it has a connection.

    What was not answered is sent again on the next connection, what met a passing error after a pause.
    """

    def __init__(self, swarm: Swarm, name: str, address: int, topics: Sequence[str], rate: float, padding: str) -> None:
        super().__init__(swarm, name, address)
        self.unanswered: dict[int, tuple[str, int]] = {}  # message id: topic, when it was first sent
        self._topics = itertools.cycle(topics)
        self._rate = rate
        self._padding = padding

    async def publish(self) -> None:
        """Until cancelled: what is due by the rate. What falls due without a connection is left out."""
        due = time.monotonic()
        while True:
            now = time.monotonic()
            while due <= now:
                due += 1 / self._rate
                if self.transport is not None and len(self.unanswered) < UNANSWERED_MOST:
                    self._publish_one()
            await asyncio.sleep(max(TICK_SECS, due - now))

    def _publish_one(self) -> None:
        message, topic = next(self._swarm.message_ids), next(self._topics)
        self._swarm.checker.published(self.name, message)
        self.unanswered[message] = (topic, time.monotonic_ns())
        self._send(message)

    def _send(self, message: int) -> None:
        topic, sent_ns = self.unanswered[message]
        payload = (message, sent_ns, self._padding)
        self.send(
            {"type": "Broadcast", "id": message, "topic": topic, "payload": payload, "idempotency_key": str(message)}
        )

    def begin(self) -> None:
        for message in self.unanswered:
            self._send(message)

    def hear(self, heard: Heard) -> None:
        if heard.id not in self.unanswered:
            return  # no answer at all, or the second one to what was sent twice
        if heard.type == "Ack":
            topic, _ = self.unanswered.pop(heard.id)
            self._swarm.checker.acknowledged(heard.id, topic, heard.epoch, heard.offset)
        elif heard.type == "Error":
            self._swarm.checker.refused(heard.id, str(heard.code))
            if heard.code in UNDECIDED:
                pause_secs = (heard.retry_after_ms or RETRY_MS) / 1000
                asyncio.get_running_loop().call_later(pause_secs, self._retry, heard.id)
            else:
                del self.unanswered[heard.id]

    def _retry(self, message: int) -> None:
        if message in self.unanswered and self.transport is not None:
            self._send(message)

    def lost(self) -> None:
        """The unanswered ones are sent again on the next connection."""
