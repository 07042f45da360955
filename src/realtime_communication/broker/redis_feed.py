"""What is published on Redis' channels, for this worker: one feed, whatever Redis is made of.

Theory of operation. The channels wanted are spread over *lines* (see `redis_line.py`), one connection to each server
that owns some of them: one in all for a single server and for a Sentinel's master, and one for each master of a
cluster, where channels are sharded by slot. `run` is the one service task; it tends the lines, each of which has a task
that lives as long as its connection. What a line loses, by its end or because a slot moves, goes back to the channels
that wait for a line. ::

    WAITING ──asked──▶ ON A LINE ──confirmed──▶ FED
       ▲                   │                     │
       └─── refused for now, line ended, slot moved (then: restored, when it is fed again)

A line that only looks alive is found out: each publishes a probe on a channel of its own, by the way that commands take
(`RedisLink`), every PROBE_SECS, and expects it back within PROBE_BACK_SECS. So a half-open connection, a stopped
server and a master that was demoted end a line within 5 s, and the link is made anew too, because nobody can tell which
of the two went the wrong way. No line is opened while the link is down.

Nothing here remembers messages. Pub/sub loses what is published while a channel has no feed: whoever subscribes has to
read it elsewhere when the channel is restored.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from realtime_communication.broker.redis_errors import MEANINGS, RedisFailed, Remedy
from realtime_communication.broker.redis_line import Events, Line, Refusal
from realtime_communication.broker.redis_lines import Lines
from realtime_communication.broker.redis_link import (
    RECONNECT_MAX_SECS,
    LinkState,
    RedisLink,
    first_to_fail,
)
from realtime_communication.broker.redis_probe import PROBE_BACK_SECS, PROBE_SECS, Prober
from realtime_communication.broker.redis_replies import explain
from realtime_communication.observability.logs import get_logger
from realtime_communication.resilience.supervision import honour_cancellation

LOOK_SECS: Final = 2.0  # between looks at who owns what, in a cluster
LOOK_MIN_SECS: Final = 0.1
MOVED_SECS: Final = 1.0  # how long the cluster has to say that a slot has moved, if its owner does not
REFUSED_SECS: Final = 0.05  # until channels that were refused for now are asked for again

_log = get_logger(__name__)


class _Channel(msgspec.Struct):
    """A channel that is wanted. `fed` is done when it was first confirmed."""

    fed: asyncio.Future[None]
    line: Line | None = None


class Feed:
    """See the head of this module.

    `on_message` gets the channel and the data of each message; `on_restored` channels that had a feed, lost it and
    have it again; `on_lost` is called when no server feeds this worker any more. All are called on the loop, must not
    block, and in the order of events: what is published after a restoration comes after it. They may be set until `run`
    begins. `probe_secs` and `probe_back_secs` are the times above, shorter in tests.
    """

    def __init__(
        self,
        link: RedisLink,
        *,
        on_message: Callable[[bytes, bytes], None] = lambda channel, data: None,
        on_restored: Callable[[Sequence[bytes]], None] = lambda channels: None,
        on_lost: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
        probe_secs: float = PROBE_SECS,
        probe_back_secs: float = PROBE_BACK_SECS,
    ) -> None:
        self.up = False  # some server feeds this worker; `health` tells whether all do that should
        self.on_message = on_message
        self.on_restored = on_restored
        self.on_lost = on_lost
        self._link = link
        self._clock = clock
        self._channels: dict[bytes, _Channel] = {}
        self._waiting: dict[bytes, None] = {}  # channels without a line, the longest first
        self._leaving: dict[bytes, _Channel] = {}  # no longer wanted, still on their line
        self._own: dict[bytes, Callable[[bytes], None]] = {}  # channels with a receiver of their own
        self._listened: list[bytes] = []  # those of them that others asked for; the rest are probes
        self._left = 0  # of the waiting ones, when they had last been looked at
        self._ask_again_at = 0.0
        self._suspects: dict[bytes, tuple[str, float]] = {}  # channels with the server said to own them, since when
        self._look = asyncio.Event()  # somebody found out that servers own other channels than before
        self._generation = 0  # of the link, when the lines were opened
        self._changed = asyncio.Event()  # there is something to tend
        events = Events(self._receive, self._on_confirmed, self._on_given_back, self._on_refused, self._on_joined)
        self._prober = Prober(link, self._own, probe_secs, probe_back_secs)
        self._lines = Lines(link, self._prober, events, self._changed.set, self._on_ended, clock, uniform)
        self._counts: collections.Counter[str] = collections.Counter()
        self._times_fed = 0  # that a channel with a receiver of its own was confirmed
        self._waiters: set[asyncio.Future[None]] = set()
        link.observers.append(self._on_link)
        link.feed_health = self.health

    # What the worker asks for

    def subscribe(self, channel: bytes) -> asyncio.Future[None]:
        """Have what is published on `channel` handed to `on_message` from now on.

        The future is done when the server has confirmed, which may take long while Redis is away. It fails with
        RedisFailed when the channel was refused for good, and the channel is forgotten then; `unsubscribe` cancels it.
        Calls within one turn of the loop are sent together. Call it on the loop.
        """
        wanted = self._channels.get(channel)
        if wanted is None:
            wanted = self._channels[channel] = self._taken_back(channel) or self._new(channel)
        elif wanted.fed.cancelled():  # by whoever waited for it
            wanted.fed = asyncio.get_running_loop().create_future()
            if wanted.line is not None and wanted.line.is_confirmed(channel):
                wanted.fed.set_result(None)
        return wanted.fed

    def _new(self, channel: bytes) -> _Channel:
        self._waiting[channel] = None
        self._changed.set()
        return _Channel(asyncio.get_running_loop().create_future())

    def _taken_back(self, channel: bytes) -> _Channel | None:
        """A channel that is fed still, although it was given up a moment ago."""
        leaving = self._leaving.get(channel)
        if leaving is None or leaving.line is None or not leaving.line.is_confirmed(channel):
            return None
        if leaving.fed.cancelled():  # it was confirmed after it was given up
            return None
        return self._leaving.pop(channel)

    def unsubscribe(self, channel: bytes) -> None:
        """Want no more of `channel`; what is on its way may still be handed on. Unknown channels are ignored."""
        wanted = self._channels.pop(channel, None)
        if wanted is None:
            return
        self._waiting.pop(channel, None)
        if wanted.line is not None:
            self._leaving[channel] = wanted
        wanted.fed.cancel()  # nothing happens if it is done
        self._changed.set()

    def listen(self, channel: bytes, receive: Callable[[bytes], None]) -> None:
        """Have `receive` called with each message on `channel`, past `on_message`. Before `run`; must not raise."""
        self._own[channel] = receive
        self._listened.append(channel)

    async def joined(self, after: int = 0) -> int:
        """Wait until the link is up and all channels of `listen` are fed, and for the `after + 1`-th time of that.

        Returns a number that grows with each loss of either, to be given as `after` the next time.
        """
        while not self._is_joined() or self._link.generation + self._times_fed <= after:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
        return self._link.generation + self._times_fed

    def _is_joined(self) -> bool:
        fed = [self._channels[channel] for channel in self._listened if channel in self._channels]
        return (
            self._link.state is LinkState.UP
            and len(fed) == len(self._listened)
            and all(wanted.line is not None and wanted.fed.done() for wanted in fed)
        )

    def health(self) -> tuple[bool, dict[str, object]]:
        """Whether everything is fed that should be, and what `/health` shows of it."""
        joined, servers = self._lines.joined, len(self._lines.by_server)
        complete = self.up and joined == servers and not self._left
        return complete, {
            "state": "up" if complete else "partial" if self.up else "down",
            "servers": servers,
            "servers_up": joined,
            "channels_waiting": self._left,
        }

    def statistics(self) -> dict[str, int]:
        """Counts since the start, and sizes now."""
        return {
            "messages": self._lines.messages,
            "restored": self._counts["restored"],  # times that a channel was without a feed and had it again
            "lines_lost": self._lines.lost,
            "probes_lost": self._prober.lost,
            "channels": len(self._channels),
            "channels_waiting": len(self._waiting),
            "lines": len(self._lines.by_server),
        }

    # The service

    async def run(self) -> None:
        """Keep the feed until this is cancelled. What is wanted stays so, for the next time this runs."""
        for channel in self._listened:
            self.subscribe(channel)
        try:
            await first_to_fail(self._tend_lines(), self._look_around())
        finally:
            self.up = False  # on purpose: nobody has to be told
            await self._lines.end()

    def _pause(self) -> float | None:
        """How many seconds there is nothing to do, unless something happens."""
        now = self._clock()
        due = self._lines.due(now)
        if self._waiting and self._ask_again_at > now:
            due.append(self._ask_again_at)
        return min(due) - now if due else None

    async def _tend_lines(self) -> None:
        while True:
            honour_cancellation()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._changed.wait()
            self._changed.clear()
            self._tend()
            self._left = len(self._waiting)

    def _tend(self) -> None:
        """Bring the lines in accordance with the channels wanted."""
        self._give_up()
        if self._link.state is not LinkState.UP:
            return
        topology = self._link.topology
        if self._generation != self._link.generation:
            self._generation = self._link.generation
            if topology.sharded:
                self._look.set()  # the new topology knows nothing yet
            else:
                self._lines.cancel(list(self._lines.by_server.values()))  # the master may be another one
        home = topology.server_of(self._prober.name)
        if home is not None:
            self._lines.line_to(home)  # although no channel is wanted: there is something to be probed
        if self._clock() >= self._ask_again_at:
            self._assign()

    def _give_up(self) -> None:
        """Tell the lines of channels that are no longer wanted."""
        given_up = collections.defaultdict[Line, list[bytes]](list)
        for channel, wanted in self._leaving.items():
            if wanted.line is not None:
                given_up[wanted.line].append(channel)
        self._leaving.clear()
        for line, channels in given_up.items():
            line.unsubscribe(channels)

    def _assign(self) -> None:
        """Ask the lines for the channels that wait."""
        asked = collections.defaultdict[Line, list[bytes]](list)
        server_of = self._link.topology.server_of
        for channel in self._waiting:
            server = server_of(channel)
            line = self._lines.line_to(server) if server is not None else None
            if line is not None and line.connected:
                asked[line].append(channel)
        for line, channels in asked.items():
            for channel in channels:
                del self._waiting[channel]
                self._channels[channel].line = line
            line.subscribe(channels)

    # Who owns what, in a cluster

    async def _look_around(self) -> None:
        """Keep up with the servers' owning other channels: now and then, and at once where there is a sign of it."""
        while True:
            honour_cancellation()
            topology = self._link.topology
            self._look.clear()
            if topology.sharded and self._link.state is LinkState.UP:
                try:
                    if await topology.look_again() or self._suspects:
                        self._rearrange()
                        self._changed.set()
                except Exception as error:
                    _log.debug("the nodes of the Redis cluster cannot be found out", reason=str(explain(error)))
                self._lines.cancel_idle(topology.server_of(self._prober.name))
                await asyncio.sleep(LOOK_MIN_SECS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECS):
                    await self._look.wait()

    def _rearrange(self) -> None:
        """Take from each line the channels that another server is said to own, if that has been said for a while.

        A server that loses a slot says so itself, unless it is cut off from the others; those may not know yet.
        """
        server_of, now, suspects = self._link.topology.server_of, self._clock(), self._suspects
        self._suspects = {}
        for line in list(self._lines.by_server.values()):
            moved = []
            for channel in line.channels:
                owner = server_of(channel)
                if owner is None or owner == line.server:
                    continue
                said, since = suspects.get(channel, (owner, now))
                if said == owner and now - since >= MOVED_SECS:
                    moved.append(channel)
                else:
                    self._suspects[channel] = owner, since if said == owner else now
            if moved:
                line.unsubscribe(moved)
                self._on_given_back(line, moved)

    # What the lines tell

    def _receive(self, channel: bytes, data: bytes) -> None:
        own = self._own.get(channel)
        if own is None:
            self.on_message(channel, data)
        else:
            own(data)

    def _on_link(self) -> None:
        self._changed.set()
        self._wake()

    def _wake(self) -> None:
        """Have those who wait in `joined` look again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _on_joined(self, line: Line) -> None:
        self._changed.set()
        if not self.up:
            self.up = True
            _log.info("Redis feed is up")

    def _on_confirmed(self, line: Line, channels: Sequence[bytes]) -> None:
        restored = []
        for channel in channels:
            wanted = self._channels.get(channel)
            if wanted is None or wanted.line is not line:
                continue
            if wanted.fed.done():
                restored.append(channel)
            else:
                wanted.fed.set_result(None)
            self._times_fed += channel in self._own
        self._wake()
        if restored:
            self._counts["restored"] += len(restored)
            _guarded(functools.partial(self.on_restored, restored))

    def _on_given_back(self, line: Line, channels: Sequence[bytes]) -> None:
        """The server has thrown out channels, because their slot moves; it may not know yet where to."""
        if self._prober.channels.get(line) in channels:
            self._prober.choose(line)
        self._wait_again(line, channels)
        self._look.set()

    def _on_refused(self, line: Line, channels: Sequence[bytes], refusals: Sequence[Refusal]) -> None:
        remedies = {MEANINGS[refusal.reply][0] for refusal in refusals}
        reply = refusals[-1].reply
        for refusal in refusals:
            host = line.server.rpartition(":")[0] if refusal.server.startswith(":") else ""
            self._link.topology.moved(refusal.slot, host + refusal.server)
        self._look.set()
        if self._prober.channels.get(line) in channels:
            raise RedisFailed(reply)  # it cannot be told whether such a line lives
        pause = REFUSED_SECS
        if remedies == {Remedy.GIVE_UP}:
            self._note_refusal(reply, len(channels))
            channels = [channel for channel in channels if not self._forget(channel, reply)]
            pause = RECONNECT_MAX_SECS
        if channels:
            self._ask_again_at = self._clock() + pause
            self._wait_again(line, channels)

    def _forget(self, channel: bytes, reply: str) -> bool:
        """Give up a channel that was refused for good, if somebody waits for it who can be told."""
        wanted = self._channels.get(channel)
        if wanted is None or wanted.fed.done() or channel in self._own:
            return False
        del self._channels[channel]
        wanted.fed.set_exception(RedisFailed(reply))
        return True

    def _wait_again(self, line: Line, channels: Iterable[bytes]) -> None:
        """Channels that a line has no longer wait for one, if they are wanted still."""
        for channel in channels:
            leaving = self._leaving.get(channel)
            if leaving is not None and leaving.line is line:
                del self._leaving[channel]
            wanted = self._channels.get(channel)
            if wanted is not None and wanted.line is line:
                wanted.line = None
                self._waiting[channel] = None
        self._changed.set()

    def _on_ended(self, line: Line, failed: RedisFailed | None) -> None:
        """A line is no more; `failed` is None when it was ended on purpose."""
        self._wait_again(line, line.channels)
        self._look.set()
        if self.up and self._lines.joined == 0:
            self.up = False
            _log.warning("Redis feed is down", reason=str(failed) if failed is not None else "the link is made anew")
            _guarded(self.on_lost)

    def _note_refusal(self, reply: str, count: int) -> None:
        self._counts[reply] += 1
        if self._counts[reply] == 1:
            _log.warning("Redis refuses channels; more for this reason are only counted", reason=reply, channels=count)


def _guarded(tell: Callable[[], None]) -> None:
    try:
        tell()
    except Exception:
        _log.exception("a change of the Redis feed could not be handled")
