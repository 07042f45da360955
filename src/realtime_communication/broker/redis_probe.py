"""Probes: whether what is published comes back on the line that should bring it.

Each line has a channel of its own for that, which no other node knows. A probe is published by the way that commands
take and must come back within a time; so a half-open connection, a stopped server and a demoted master are found out,
whichever of the two ways is the wrong one.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Callable
from typing import Final

from realtime_communication.broker.redis_errors import RedisFailed
from realtime_communication.broker.redis_line import Line
from realtime_communication.broker.redis_link import RedisLink
from realtime_communication.resilience.supervision import honour_cancellation

PROBE_SECS: Final = 2.0
PROBE_BACK_SECS: Final = 3.0  # with PROBE_SECS at most 5 s until a dead line is found out
PROBE_AGAIN_SECS: Final = 0.5  # after a probe could not be published
PROBE_TRIES: Final = 10_000  # names for a channel until one belongs to the line's server


class Prober:
    """Probes the lines of one feed, which hands what comes on the channels in `receivers` to the functions there."""

    def __init__(
        self, link: RedisLink, receivers: dict[bytes, Callable[[bytes], None]], secs: float, back_secs: float
    ) -> None:
        # Of this feed and no other: two nodes may have one id by mistake, and must not take each other's probes.
        self.name = link.key(f"probe:{uuid.uuid4().hex}").encode()
        self.lost = 0
        self.channels: dict[Line, bytes] = {}  # of each line; b"" where there is none
        self._link = link
        self._receivers = receivers
        self._secs = secs
        self._back_secs = back_secs
        self._numbers = itertools.count(1)
        self._expected: dict[bytes, tuple[bytes, asyncio.Future[None]]] = {}

    def choose(self, line: Line) -> None:
        """Give a line a channel for its probes that its server owns, and ask for it."""
        server_of = self._link.topology.server_of
        others = (b"%b:%d" % (self.name, number) for number in range(PROBE_TRIES))
        # A key prefix with a hash tag puts all names into one slot: other servers have no channels then.
        name = next((name for name in itertools.chain([self.name], others) if server_of(name) == line.server), b"")
        self.forget(line)
        self.channels[line] = name
        if name:
            self._receivers[name] = lambda data: self._receive(name, data)
        line.subscribe([name] if name else [])

    def forget(self, line: Line) -> None:
        """A line has ended, or its channel belongs to another server now."""
        self._receivers.pop(self.channels.pop(line, b""), None)

    async def keep(self, line: Line) -> None:
        """Probe a line for as long as it lives. Raises RedisFailed when a probe is lost."""
        while True:
            honour_cancellation()
            channel = self.channels[line]
            if channel and not await self._comes_back(channel) and self.channels[line] == channel:
                self.lost += 1
                if not self._link.topology.sharded:  # the client for clusters leaves a dead node by itself
                    self._link.rebuild()
                raise RedisFailed("TIMEOUT")
            await asyncio.sleep(self._secs)

    async def _comes_back(self, channel: bytes) -> bool:
        message, back = b"%d" % next(self._numbers), asyncio.get_running_loop().create_future()
        self._expected[channel] = message, back
        publishing = asyncio.ensure_future(self._publish(channel, message))
        try:
            await asyncio.wait([back], timeout=self._back_secs)
        finally:
            publishing.cancel()
            await asyncio.wait([publishing])
            del self._expected[channel]
        return back.done()

    async def _publish(self, channel: bytes, message: bytes) -> None:
        while True:
            honour_cancellation()
            try:
                await self._link.publish_once(channel, message)
            except RedisFailed:
                await asyncio.sleep(PROBE_AGAIN_SECS)
            else:
                return

    def _receive(self, channel: bytes, data: bytes) -> None:
        message, back = self._expected.get(channel, (b"", None))
        if back is not None and data == message and not back.done():
            back.set_result(None)
