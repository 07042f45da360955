"""One subscribed connection to one Redis server: channels in, messages out.

What may live here: the protocol of SUBSCRIBE and of SSUBSCRIBE, and nothing of which server owns what, of probes or of
trying again. `Feed` (see `redis_feed.py`) decides those.

Theory of operation. redis-py opens the connection and authenticates; then its reader is taken over, and replies are
taken out of whole chunks in one go, because redis-py needs some ten microseconds for each. Commands are written
without waiting. An error reply does not say which channels it is about, so each batch of commands ends with a fence: a
PING with a number. When its answer is here, the server has answered everything before it: channels of the batch that
are not confirmed were refused, for the reason of the batch's errors. ::

    subscribe ──▶ ASKED ──confirmed──▶ FED ──`sunsubscribe` unasked──▶ given back as lost
                    └──fence passed──▶ given back as refused

Source: https://redis.io/docs/latest/develop/pubsub/ and, for what a cluster does to subscriptions when a slot moves,
https://redis.io/docs/latest/commands/ssubscribe/.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import hiredis
import msgspec
from redis.asyncio.connection import AbstractConnection as Connection
from redis.crc import key_slot
from redis.exceptions import InvalidResponse

from realtime_communication.broker.redis_errors import MEANINGS, RedisFailed
from realtime_communication.broker.redis_replies import explain
from realtime_communication.observability.logs import get_logger

READ_BYTES: Final = 64 << 10  # at most, before others have their turn
COMMAND_CHANNELS: Final = 1000  # in one command, so that none of them holds the server up

# hiredis' own annotation is that of a tuple with one element.
_pack_command: Final[Callable[[tuple[bytes, ...]], bytes]] = hiredis.pack_command  # type: ignore[assignment]

_MESSAGES: Final = frozenset({b"message", b"smessage"})
_CONFIRMATIONS: Final = frozenset({b"subscribe", b"ssubscribe"})
_ENDS: Final = frozenset({b"unsubscribe", b"sunsubscribe"})
_NOTHING: Final = object()  # no whole reply is here

_log = get_logger(__name__)


class Refusal(msgspec.Struct, frozen=True):
    """Why a server does not take channels: a key of MEANINGS, and the slot and the server that MOVED names."""

    reply: str
    slot: int = -1
    server: str = ""

    @classmethod
    def of(cls, text: str) -> Refusal:
        """What an error reply says."""
        word, _, rest = text.partition(" ")
        reply = word if word in MEANINGS else "ERR"
        slot, _, server = rest.partition(" ")
        if reply == "MOVED" and slot.isascii() and slot.isdigit():
            return cls(reply, int(slot), server.strip())
        return cls(reply)


class _Batch(msgspec.Struct):
    """Channels that were asked for together, and what went wrong with them."""

    number: int
    sent_at: float
    channels: Sequence[bytes]
    refusals: list[Refusal]


class Events(msgspec.Struct, frozen=True):
    """Whom a line tells; nothing of it may raise but `message`, whose exceptions are logged."""

    message: Callable[[bytes, bytes], None]
    confirmed: Callable[[Line, Sequence[bytes]], None]
    lost: Callable[[Line, Sequence[bytes]], None]  # the server gave them up: their slot is moving
    refused: Callable[[Line, Sequence[bytes], Sequence[Refusal]], None]
    joined: Callable[[Line], None]  # once: the first batch was answered


class Line:
    """See the head of this module. `server` is the name the owner knows it by.

    First `connect`, then `subscribe`, then `read`, which only ever ends by raising; in the end `close`.
    """

    def __init__(
        self, server: str, connection: Connection, *, sharded: bool, events: Events, clock: Callable[[], float]
    ) -> None:
        self.server = server
        self.channels: dict[bytes, int] = {}  # each to the batch it was asked for in; 0: confirmed
        self.joined = False
        self.messages = 0
        self._connection = connection
        self._sharded = sharded
        self._events = events
        self._clock = clock
        self._reader = hiredis.Reader(protocolError=InvalidResponse, notEnoughData=_NOTHING)
        self._batches: collections.deque[_Batch] = collections.deque()
        self._numbers = itertools.count(1)
        self._confirmed: list[bytes] = []
        self._given_back: list[bytes] = []

    async def connect(self) -> None:
        """Open the connection. Raises RedisFailed."""
        try:
            await self._connection.connect()
        except Exception as error:
            raise explain(error) from error

    async def close(self) -> None:
        """Close without waiting for the other side."""
        try:
            await self._connection.disconnect(nowait=True)
        except Exception as error:
            _log.debug("closing a connection to Redis failed", reason=str(explain(error)))

    @property
    def connected(self) -> bool:
        """Whether channels can be asked for."""
        return bool(self._connection.is_connected)

    def is_confirmed(self, channel: bytes) -> bool:
        """Whether the server feeds this line with `channel`."""
        return self.channels.get(channel) == 0

    @property
    def waiting_since(self) -> float | None:
        """Since when the oldest batch has had no answer."""
        return self._batches[0].sent_at if self._batches else None

    def subscribe(self, channels: Sequence[bytes]) -> None:
        """Ask for channels. Those the line has already are asked for again, which does no harm."""
        number = next(self._numbers)
        self.channels.update(dict.fromkeys(channels, number))
        self._batches.append(_Batch(number, self._clock(), channels, []))
        name = b"SSUBSCRIBE" if self._sharded else b"SUBSCRIBE"
        self._write([*((name, *group) for group in self._groups(channels)), (b"PING", b"%d" % number)])

    def unsubscribe(self, channels: Iterable[bytes]) -> None:
        """Give channels up; what comes on them still is handed on."""
        known = [channel for channel in channels if self.channels.pop(channel, None) is not None]
        if known:
            name = b"SUNSUBSCRIBE" if self._sharded else b"UNSUBSCRIBE"
            self._batches.append(_Batch(number := next(self._numbers), self._clock(), (), []))
            self._write([*((name, *group) for group in self._groups(known)), (b"PING", b"%d" % number)])

    def check(self) -> None:
        """Ask for a sign of life, which ends `waiting_since`."""
        self.subscribe(())

    async def read(self) -> None:
        """Hand on what comes. Raises RedisFailed when the connection is lost or does not make sense."""
        stream = self._connection._reader
        try:
            if stream is None:
                raise RedisFailed("LOST")
            while True:
                data = await stream.read(READ_BYTES)
                if not data:
                    raise RedisFailed("LOST")
                self.receive_data(data)
                await asyncio.sleep(0)
        except Exception as error:
            raise explain(error) from error

    def receive_data(self, data: bytes) -> None:
        """Hand on what is in these bytes, in order. Raises RedisFailed and InvalidResponse."""
        self._reader.feed(data)
        take, hand_on, notes = self._reader.gets, self._events.message, (self._confirmed, self._given_back)
        while (reply := take()) is not _NOTHING:
            if isinstance(reply, list) and len(reply) == 3 and reply[0] in _MESSAGES:
                if notes[0] or notes[1]:
                    self._tell()
                self.messages += 1
                try:
                    hand_on(reply[1], reply[2])
                except Exception:
                    _log.exception("a message of Redis could not be handled")
            else:
                self._control(reply)
        self._tell()

    def _control(self, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            if not self._batches:
                raise RedisFailed(Refusal.of(str(reply)).reply)
            self._batches[0].refusals.append(Refusal.of(str(reply)))
        elif isinstance(reply, bytes):  # of a PING while nothing is subscribed
            self._pass_fence(reply)
        elif not isinstance(reply, list) or len(reply) < 2:
            raise RedisFailed("GARBAGE")
        elif reply[0] == b"pong":
            self._pass_fence(reply[1])
        elif reply[0] in _CONFIRMATIONS and self.channels.get(reply[1]):
            self.channels[reply[1]] = 0
            self._confirmed.append(reply[1])
        elif reply[0] in _ENDS and self.channels.get(reply[1]) == 0:
            del self.channels[reply[1]]
            self._given_back.append(reply[1])

    def _pass_fence(self, number: object) -> None:
        if not self._batches or number != b"%d" % self._batches[0].number:
            raise RedisFailed("GARBAGE")
        batch = self._batches.popleft()
        refused = [channel for channel in batch.channels if self.channels.get(channel) == batch.number]
        for channel in refused:
            del self.channels[channel]
        self._tell()
        if not self.joined:
            self.joined = True
            self._events.joined(self)
        if refused:
            self._events.refused(self, refused, batch.refusals or [Refusal("ERR")])

    def _tell(self) -> None:
        """Tell what was confirmed and lost before what comes next."""
        if self._confirmed:
            self._events.confirmed(self, tuple(self._confirmed))
            self._confirmed.clear()
        if self._given_back:
            self._events.lost(self, tuple(self._given_back))
            self._given_back.clear()

    def _groups(self, channels: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
        """The channels of each command: SSUBSCRIBE takes those of one slot only."""
        if not self._sharded:
            return [channels[at : at + COMMAND_CHANNELS] for at in range(0, len(channels), COMMAND_CHANNELS)]
        slots: dict[int, list[bytes]] = {}
        for channel in channels:
            slots.setdefault(key_slot(channel), []).append(channel)
        return slots.values()

    def _write(self, commands: Iterable[Sequence[bytes]]) -> None:
        """Send without waiting: what is on its way is bounded by the channels there are."""
        writer = self._connection._writer
        if writer is not None:
            writer.write(b"".join([_pack_command(tuple(command)) for command in commands]))
