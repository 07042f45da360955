"""The lines of a feed: opened when they are needed, kept, probed, and not opened again too soon after a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from realtime_communication.broker.redis_errors import RedisFailed
from realtime_communication.broker.redis_line import Events, Line
from realtime_communication.broker.redis_link import (
    RECONNECT_MAX_SECS,
    RECONNECT_MIN_SECS,
    RedisLink,
    first_to_fail,
)
from realtime_communication.broker.redis_probe import Prober
from realtime_communication.broker.redis_replies import explain
from realtime_communication.resilience.supervision import honour_cancellation

_MAX_DOUBLINGS: Final = 10


class _Server(msgspec.Struct):
    """What is remembered of a server that had a line."""

    failures: int = 0  # one after the other
    not_before: float = 0.0  # when a line may be opened again


class Lines:
    """At most one line to each server.

    `connected` is called when channels can be asked of another line, `ended` with each line that is no more, and with
    the reason unless that was on purpose. `events` are for the lines.
    """

    def __init__(
        self,
        link: RedisLink,
        prober: Prober,
        events: Events,
        connected: Callable[[], None],
        ended: Callable[[Line, RedisFailed | None], None],
        clock: Callable[[], float],
        uniform: Callable[[float, float], float],
    ) -> None:
        self.by_server: dict[str, Line] = {}
        self.lost = 0  # lines that had been of use
        self._link = link
        self._prober = prober
        self._events = events
        self._connected = connected
        self._ended = ended
        self._clock = clock
        self._uniform = uniform
        self._tasks: dict[Line, asyncio.Task[RedisFailed | None]] = {}
        self._servers: dict[str, _Server] = {}
        self._past_messages = 0  # of lines that are no more

    @property
    def joined(self) -> int:
        """How many lines are of use."""
        return sum(line.joined for line in self.by_server.values())

    @property
    def messages(self) -> int:
        """How many messages have come since the start."""
        return self._past_messages + sum(line.messages for line in self.by_server.values())

    def due(self, now: float) -> list[float]:
        """When lines may be opened that must not be yet."""
        return [server.not_before for server in self._servers.values() if server.not_before > now]

    def line_to(self, server: str) -> Line | None:
        """The line to a server, opened if there is none; None while it must not be."""
        line = self.by_server.get(server)
        if line is None and self._clock() >= self._servers.setdefault(server, _Server()).not_before:
            topology = self._link.topology
            connection = topology.subscription(server)
            line = Line(server, connection, sharded=topology.sharded, events=self._events, clock=self._clock)
            self.by_server[server] = line
            task = self._tasks[line] = asyncio.create_task(self._hold(line))
            # Not in the task: one that is cancelled before its first turn never runs.
            task.add_done_callback(lambda task: self._forget(line, None if task.cancelled() else task.result()))
        return line

    def cancel(self, lines: Iterable[Line]) -> list[asyncio.Task[RedisFailed | None]]:
        """Begin to end lines on purpose; what still runs of them."""
        tasks = [self._tasks[line] for line in lines]
        for task in tasks:
            if not task.cancelling():  # twice would tear it out of waiting for its own parts
                task.cancel()
        return tasks

    async def end(self) -> None:
        """End all lines, and wait until they have."""
        tasks = self.cancel(list(self.by_server.values()))
        if tasks:
            await asyncio.wait(tasks)

    def cancel_idle(self, home: str | None) -> None:
        """End the lines that feed nothing but their probe, other than the one to `home`."""
        probes = self._prober.channels
        idle = [
            line
            for line in self.by_server.values()
            if line.server != home and line.joined and not line.channels.keys() - {probes.get(line)}
        ]
        self.cancel(idle)
        for server in self._servers.keys() - self.by_server.keys():
            if self._servers[server].not_before <= self._clock():
                del self._servers[server]

    async def _hold(self, line: Line) -> RedisFailed | None:
        """Open a line, and keep it until it fails, for the reason that is returned, or is cancelled."""
        try:
            async with asyncio.timeout(self._link.join_secs):
                await line.connect()
            honour_cancellation()
            self._prober.choose(line)
            self._connected()
            await first_to_fail(line.read(), self._prober.keep(line))
        except Exception as error:
            return explain(error)
        finally:
            await line.close()
        return None

    def _forget(self, line: Line, failed: RedisFailed | None) -> None:
        del self.by_server[line.server], self._tasks[line]
        self._prober.forget(line)
        self._past_messages += line.messages
        self.lost += line.joined
        if failed is not None:
            server = self._servers.setdefault(line.server, _Server())
            server.failures = 0 if line.joined else server.failures + 1
            pause = min(RECONNECT_MAX_SECS, RECONNECT_MIN_SECS * 2.0 ** min(server.failures, _MAX_DOUBLINGS))
            server.not_before = self._clock() + self._uniform(pause / 2, pause)
        self._ended(line, failed)
