"""Many clients in one event loop that reconnect, recover and tell a `Checker` everything they see.

A `Swarm` has the addresses of one or more servers; its clients take them in turn, the next one after each lost
connection. Publishers give each message a unique id and go on with those that were not answered after a reconnect,
under the same idempotency key. Written for numbers from 2 to 10,000: a client costs one task and no thread.

    checker = Checker()
    async with Swarm([server.url], checker) as swarm:
        await swarm.subscribe(100, ["room"])
        await swarm.publish(3, ["room"], rate=200)
        ...                                # faults
        await swarm.settle()
    checker.assert_sound()
"""

import asyncio
import itertools
import random
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

import msgspec
import picows

from serving.checker import Checker, Track
from serving.peer import JSON
from serving.tokens import token

CONNECT_SECS = 10.0
SETTLE_SECS = 15.0
UNANSWERED_MOST = 1000
"""Publications of one publisher that may wait for their answer; it holds back at that number."""
OPENING_MOST = 64
"""Connections of a swarm that are being opened at any time, so that 10,000 do not overrun the server's backlog."""
TICK_SECS = 0.01


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


_decode = msgspec.json.Decoder(Heard).decode
_encode = msgspec.json.encode


class Client(picows.WSListener):
    """One client over many connections; `Subscriber` and `Publisher` say what it does on one.

    ``closes`` are the close codes so far, 1006 for a connection that just ended; ``opened`` counts the connections.
    """

    def __init__(self, swarm: "Swarm", name: str, address: int, receive_buffer: int | None = None) -> None:
        self.name = name
        self.closes: list[int] = []
        self.opened = 0
        self.stopping = False
        self.transport: picows.WSTransport | None = None
        self._swarm = swarm
        self._address = address
        self._receive_buffer = receive_buffer
        self._token = token(name)
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
            async with self._swarm.opening, asyncio.timeout(CONNECT_SECS):
                _, listener = await picows.ws_connect(
                    lambda: self,
                    url,
                    extra_headers={"Authorization": f"Bearer {self._token}", "Sec-WebSocket-Protocol": JSON},
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
        if frame.msg_type is picows.WSMsgType.TEXT:
            heard = _decode(frame.get_payload_as_memoryview())
            if heard.type == "Closing":
                self._pause_secs = min(heard.after_ms / 1000, self._swarm.longest_pause_secs)
            else:
                self.hear(heard)
        elif frame.msg_type is picows.WSMsgType.CLOSE:
            self._code = frame.get_close_code() or 1005
            transport.disconnect()

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        if self.transport is not None:
            self.transport = None
            self.lost()
        self._ended.set()

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
        self, swarm: "Swarm", name: str, address: int, topics: Sequence[str], receive_buffer: int | None
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
            case "Lagged":
                self.tracks[heard.topic].lagged(heard.missed, heard.epoch, heard.offset, heard.recovered)
            case "Error":
                self.refusals.append(heard.code)
                self.cut()  # to ask again

    def lost(self) -> None:
        for track in self.tracks.values():
            track.disconnected()


class Publisher(Client):
    """Publishes at a rate, on its topics in turn, whenever it has a connection."""

    def __init__(
        self, swarm: "Swarm", name: str, address: int, topics: Sequence[str], rate: float, padding: str
    ) -> None:
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
        if heard.id is None:
            return
        if heard.type == "Ack":
            topic, _ = self.unanswered.pop(heard.id)
            self._swarm.checker.acknowledged(heard.id, topic, heard.epoch, heard.offset)
        elif heard.type == "Error":
            del self.unanswered[heard.id]
            self._swarm.checker.refused(heard.id, str(heard.code))

    def lost(self) -> None:
        """The unanswered ones are sent again on the next connection."""


class Swarm:
    """Clients of the servers at ``urls``. ``async with`` ends them all.

    ``reconnect_secs`` is the range of the pause before a reconnect; a server's ``Closing`` may ask for a longer one,
    up to ``longest_pause_secs``. ``on_delivery`` is called with each live message's age in nanoseconds.
    """

    def __init__(
        self,
        urls: Sequence[str],
        checker: Checker,
        *,
        reconnect_secs: tuple[float, float] = (0.02, 0.2),
        longest_pause_secs: float = 1.0,
        on_delivery: Callable[[int], None] | None = None,
    ) -> None:
        self.urls = list(urls)
        self.checker = checker
        self.reconnect_secs = reconnect_secs
        self.longest_pause_secs = longest_pause_secs
        self.on_delivery = on_delivery
        self.subscribers: list[Subscriber] = []
        self.publishers: list[Publisher] = []
        self.message_ids = itertools.count(1)
        self.opening = asyncio.Semaphore(OPENING_MOST)
        self._running: list[asyncio.Task[None]] = []
        self._publishing: list[asyncio.Task[None]] = []
        self._serial = f"{random.getrandbits(32):08x}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop_publishing()
        for client in self.clients:
            client.stop()
        if self._running:
            await asyncio.wait(self._running)
        for task in self._running:
            task.result()

    @property
    def clients(self) -> list[Client]:
        return [*self.publishers, *self.subscribers]

    async def subscribe(
        self, count: int, topics: Sequence[str], *, receive_buffer: int | None = None
    ) -> list[Subscriber]:
        """So many more clients that each subscribe to ``topics``; returns once they all are."""
        first = len(self.subscribers)
        made = [
            Subscriber(self, f"s{number}-{self._serial}", number, topics, receive_buffer)
            for number in range(first, first + count)
        ]
        self.subscribers += made
        await self._start(made)
        return made

    async def publish(
        self, count: int, topics: Sequence[str], rate: float, *, padding_bytes: int = 0
    ) -> list[Publisher]:
        """So many more clients that publish, ``rate`` messages a second all of them together."""
        first = len(self.publishers)
        made = [
            Publisher(self, f"p{number}-{self._serial}", number, topics, rate / count, "x" * padding_bytes)
            for number in range(first, first + count)
        ]
        self.publishers += made
        await self._start(made)
        self._publishing += [asyncio.create_task(publisher.publish()) for publisher in made]
        return made

    async def stop_publishing(self) -> None:
        """No more new messages."""
        for task in self._publishing:
            task.cancel()
        if self._publishing:
            await asyncio.wait(self._publishing)
        failed = [task.exception() for task in self._publishing if not task.cancelled()]
        self._publishing.clear()
        if failed:
            raise AssertionError(f"a publisher failed: {failed}")

    async def ready(self, secs: float = SETTLE_SECS) -> bool:
        """Wait until every client is connected and subscribed; False when that took too long."""
        return await self.until(lambda: all(client.is_ready for client in self.clients), secs)

    async def settle(self, secs: float = SETTLE_SECS) -> None:
        """Stop publishing, wait until nothing is under way any more, and finish the checker's account.

        What is missing after ``secs`` the checker reports as lost; a client that is not back, and an unanswered
        publication are failures here.
        """
        await self.stop_publishing()
        back = await self.ready(secs)
        answered = await self.until(lambda: not any(one.unanswered for one in self.publishers), secs)
        await self.until(lambda: all(track.is_caught_up for track in self.checker.tracks), secs)
        self.checker.finish()
        self.checker.assert_sound()
        away = [client.name for client in self.clients if not client.is_ready]
        assert back, f"{len(away)} clients are not back: {away[:5]}"
        assert answered, f"unanswered: {[(one.name, list(one.unanswered)[:5]) for one in self.publishers]}"

    async def until(self, reached: Callable[[], bool], secs: float = SETTLE_SECS) -> bool:
        """Whether ``reached`` becomes true in time. A client that failed is raised."""
        deadline = time.monotonic() + secs
        while not reached():
            for task in self._running:
                if task.done():
                    task.result()
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(TICK_SECS)
        return True

    async def _start(self, clients: Sequence[Client]) -> None:
        self._running += [asyncio.create_task(client.run(), name=client.name) for client in clients]
        there = await self.until(lambda: all(client.is_ready for client in clients), max(20.0, len(clients) / 100))
        assert there, f"{sum(not client.is_ready for client in clients)} of {len(clients)} clients did not connect"
