"""The link to Redis: made, probed, lost and made again, for as long as the server runs.

Theory of operation. `run` is the one service task. It makes a topology, checks it, and then probes it until that fails:
a PING, and a look at the node's role, whose answers must come within the response timeout. Then everything is thrown
away and made anew, after a pause that doubles up to RECONNECT_MAX_SECS. Whether what is published comes back is found
out by the feed (`redis_feed.py`), which has `rebuild` called when it does not. ::

    CONNECTING ──joined──▶ UP ──any failure──▶ DOWN ──joined──▶ UP …        (CONNECTING ──failure──▶ DOWN)

Redis being away never ends `run` and never holds anybody up. Commands do not wait for the link: each is tried over the
topology of the moment, through the circuit breaker, and repeated where that is safe (see `redis_errors.py`). The
link's own attempts count for the breaker too, but are made while it is open as well, so the link comes back when Redis
does. The breaker is half-open from then on, and probes follow each other quickly until their successes have closed it;
a failure opens it for its whole time, unless the link is made anew once more.

The state changes are logged, each once. No URL is: it may hold a password.
"""

from __future__ import annotations

import asyncio
import collections
import enum
import functools
import hashlib
import math
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeVar

import msgspec

from realtime_communication.broker.redis_errors import RedisFailed, Remedy, counts_against_redis
from realtime_communication.broker.redis_replies import explain
from realtime_communication.broker.redis_topology import Topology, topology_of
from realtime_communication.config.services import Redis
from realtime_communication.errors import CircuitOpen
from realtime_communication.observability.logs import get_logger
from realtime_communication.observability.spans import NO_TRACER, Tracer, Value
from realtime_communication.resilience.breaker import BreakerState, CircuitBreaker
from realtime_communication.resilience.retry import RetryPolicy, retry
from realtime_communication.resilience.supervision import honour_cancellation

PROBE_SECS: Final = 1.0
TRIAL_SECS: Final = 0.05  # between probes while they are trials of the breaker
RECONNECT_MAX_SECS: Final = 2.0
RECONNECT_MIN_SECS: Final = 0.05
SAME_ERROR_LOG_SECS: Final = 60.0
TRACED: Final[Mapping[str, Value]] = MappingProxyType({"db.system": "redis"})

T = TypeVar("T")
_log = get_logger(__name__)


class LinkState(enum.Enum):
    """How the link is."""

    CONNECTING = "connecting"  # has not been up yet, and has not failed either
    UP = "up"
    DOWN = "down"


class Script(msgspec.Struct, frozen=True, dict=True):
    """A Lua script that Redis runs in one piece. All its keys must have the same hash tag, or there is only one."""

    text: str

    @functools.cached_property
    def digest(self) -> str:
        """The name Redis knows it by."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class ScriptCall(msgspec.Struct, frozen=True):
    """A script with its keys and arguments, for `RedisLink.run_scripts`."""

    script: Script
    keys: Sequence[bytes]
    arguments: Sequence[Any]

    @property
    def operands(self) -> tuple[Any, ...]:
        """What follows the script in the command."""
        return (len(self.keys), *self.keys, *self.arguments)


class RedisLink:
    """See the head of this module. `probe_secs` is the time above, shorter in tests."""

    def __init__(
        self,
        config: Redis,
        breaker: CircuitBreaker,
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
        probe_secs: float = PROBE_SECS,
    ) -> None:
        self.state = LinkState.CONNECTING
        self.generation = 0  # how often it has come up
        self.returned = False  # it had been down before it came up last
        self.latency_ms: float | None = None  # of the last probe
        self.last_error: str | None = None  # a key of redis_errors.MEANINGS
        self.errors: collections.Counter[str] = collections.Counter()  # failures by such a key
        self.tracer: Tracer = NO_TRACER
        self.buffered: Callable[[], int] = lambda: 0  # events that wait for the link
        self.feed_health: Callable[[], tuple[bool, dict[str, object]]] | None = None  # of what is subscribed
        self.observers: list[Callable[[], None]] = []  # called when the link came up or went down; must not raise
        self._config = config
        self._breaker = breaker
        self._clock = clock
        self._uniform = uniform
        self._probe_secs = probe_secs
        self._policy = RetryPolicy(1 + config.retry_attempts, config.retry_delay_ms / 1000)
        self._topology: Topology = topology_of(config)
        if not self._topology.verified:
            _log.warning("the certificate of Redis is not verified (ssl_cert_reqs): anybody on the way can be Redis")
        self._stale = asyncio.Event()  # a command found out that the topology is
        self._waiters: set[asyncio.Future[None]] = set()
        self._logged: dict[str, float] = {}

    def key(self, name: str) -> str:
        """The name of a key or a channel in Redis: every one has `redis.key_prefix`."""
        return f"{self._config.key_prefix}{name}"

    async def joined(self, after: int = 0) -> int:
        """Wait until the link is up, and has come up more than `after` times; how often it has."""
        while self.state is not LinkState.UP or self.generation <= after:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
        return self.generation

    @property
    def is_up(self) -> bool:
        """Whether commands have somewhere to go."""
        return self.state is LinkState.UP

    def health(self) -> tuple[bool, dict[str, object]]:
        """Whether the link is up, its feed included, and what `/health` shows of it."""
        fed, feed = (True, {}) if self.feed_health is None else self.feed_health()
        return self.state is LinkState.UP and fed, {
            "state": self.state.value,
            "topology": self._topology.kind,
            "latency_ms": None if self.latency_ms is None else round(self.latency_ms, 3),
            "last_error": self.last_error,
            "buffered_events": self.buffered(),
            **({"feed": feed} if feed else {}),
        }

    async def execute(self, *command: Any, idempotent: bool = False) -> Any:
        """The reply to a command, as redis-py parses it; keys in it are results of `key`.

        What failed before anything was done is repeated `redis.retry_attempts` times; what may have been done only
        where the command is `idempotent`. Raises RedisFailed, and CircuitOpen when Redis is being left alone.
        """

        def may_repeat(error: Exception) -> bool:
            return isinstance(error, RedisFailed) and error.may_repeat(idempotent)

        attempt = functools.partial(self._once, command)
        guarded = functools.partial(self._breaker.call, attempt, counts_against_redis)
        with self.tracer.span(f"redis {command[0]}", kind="client", attributes=TRACED):
            return await retry(guarded, self._policy, may_repeat, uniform=self._uniform)

    async def run_script(
        self, script: Script, keys: Sequence[str | bytes], arguments: Sequence[Any], *, idempotent: bool = False
    ) -> Any:
        """The reply of a script. `keys` are results of `key`. Otherwise as `execute`."""
        operands = (len(keys), *keys, *arguments)
        try:
            return await self.execute("EVALSHA", script.digest, *operands, idempotent=idempotent)
        except RedisFailed as failed:
            if failed.reply != "NOSCRIPT":
                raise
        # A Redis that was restarted has forgotten it; in full it is run and remembered.
        return await self.execute("EVAL", script.text, *operands, idempotent=idempotent)

    async def run_scripts(self, calls: Sequence[ScriptCall]) -> list[Any]:
        """The replies of many scripts, or the RedisFailed of each that had no success, in their order.

        They go out together, and all of them must be idempotent. What may be repeated is, as in `execute`. Unlike
        commands, these are tried while the breaker is open too, and count for it: whoever calls this leaves Redis alone
        by itself after a failure. Never raises RedisFailed nor CircuitOpen.
        """
        with self.tracer.span("redis scripts", kind="client", attributes={**TRACED, "scripts": len(calls)}):
            return await self._run_scripts(calls)

    async def _run_scripts(self, calls: Sequence[ScriptCall]) -> list[Any]:
        replies: list[Any] = [None] * len(calls)
        left = list(range(len(calls)))
        for number in range(self._policy.attempts):
            if number:
                await asyncio.sleep(self._uniform(0.0, self._policy.ceiling(number - 1)))
            for index, reply in zip(left, await self._run_together([calls[index] for index in left]), strict=True):
                replies[index] = reply
            left = [
                index for index in left if isinstance(replies[index], RedisFailed) and replies[index].may_repeat(True)
            ]
            if not left:
                break
        return replies

    async def _run_together(self, calls: Sequence[ScriptCall]) -> list[Any]:
        """One attempt at each of them; a script that Redis has forgotten is sent in full."""
        replies = await self._try_together([("EVALSHA", call.script.digest, *call.operands) for call in calls])
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, RedisFailed) and reply.reply == "NOSCRIPT"]
        if unknown:
            texts = [("EVAL", calls[index].script.text, *calls[index].operands) for index in unknown]
            for index, reply in zip(unknown, await self._try_together(texts), strict=True):
                replies[index] = reply
        return replies

    async def _try_together(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        try:
            replies = await self._attempt(functools.partial(self._once_together, commands))
        except RedisFailed as failed:
            return [failed] * len(commands)
        return replies

    async def _once_together(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Raises RedisFailed when there was no answer at all, or none but refusals that say how Redis is."""
        try:
            found = await self._topology.execute_together(commands)
        except Exception as error:
            raise self._failed(error) from error
        replies = [self._failed(reply) if isinstance(reply, Exception) else reply for reply in found]
        if replies and all(isinstance(reply, RedisFailed) and counts_against_redis(reply) for reply in replies):
            raise replies[0]
        return replies

    @property
    def topology(self) -> Topology:
        """The one of the moment; another each time the link is made anew."""
        return self._topology

    @property
    def join_secs(self) -> float:
        """How long it may take to open a connection that is of use."""
        return self._config.timeout_secs + self._config.response_timeout_ms / 1000

    def rebuild(self) -> None:
        """Make the link anew, because somebody found out that it leads astray."""
        self._stale.set()

    async def publish_once(self, channel: str | bytes, message: bytes) -> None:
        """One attempt to publish, past the breaker of commands. Raises RedisFailed."""
        await self._once(("SPUBLISH" if self._topology.sharded else "PUBLISH", channel, message))

    async def run(self) -> None:
        """Keep the link until this is cancelled."""
        failures = 0
        try:
            while True:
                generation = self.generation
                try:
                    await self._hold()
                except Exception as error:
                    self._went_down(error)
                honour_cancellation()
                failures = 0 if self.generation > generation else failures + 1
                # At least half of it, unlike for commands: nobody waits, and a node that is down must not be hammered.
                pause = min(RECONNECT_MAX_SECS, max(RECONNECT_MIN_SECS, self._policy.ceiling(failures)))
                await asyncio.sleep(self._uniform(pause / 2, pause))
                await self._renew()
        finally:
            self.state = LinkState.DOWN  # on purpose: nobody has to be told
            await self._close(self._topology)

    async def _hold(self) -> None:
        """Join, and keep the link up. Only ever ends by raising."""
        topology = self._topology
        await self._attempt(functools.partial(self._join, topology))
        honour_cancellation()
        self._breaker.half_open("the link is up")
        self._went_up(topology)
        await first_to_fail(self._probe(topology), self._watch())

    async def _join(self, topology: Topology) -> None:
        try:
            async with asyncio.timeout(self.join_secs):
                await topology.check()
        except Exception as error:
            raise explain(error) from error

    async def _probe(self, topology: Topology) -> None:
        while True:
            honour_cancellation()
            is_trial = self._breaker.state is BreakerState.HALF_OPEN
            await asyncio.sleep(min(self._probe_secs, TRIAL_SECS) if is_trial else self._probe_secs)
            await self._attempt(functools.partial(self._probe_once, topology))

    async def _probe_once(self, topology: Topology) -> None:
        began = self._clock()
        try:
            await topology.check()
            self.latency_ms = (self._clock() - began) * 1000
            await topology.maintain()
        except Exception as error:
            raise explain(error) from error

    async def _watch(self) -> None:
        await self._stale.wait()
        raise RedisFailed("READONLY")

    async def _attempt(self, operation: Callable[[], Awaitable[T]]) -> T:
        """An attempt of the link itself: it counts for the breaker, and is made although that is open."""
        try:
            return await self._breaker.call(operation, counts_against_redis)
        except CircuitOpen:
            return await operation()

    async def _once(self, command: tuple[Any, ...]) -> Any:
        try:
            return await self._topology.execute(*command)
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> RedisFailed:
        """What a failed command means; noted."""
        failed = explain(error)
        if failed.reply != "NOSCRIPT":  # it is sent in full then
            self._note(failed)
        if failed.remedy is Remedy.REBUILD:
            self._stale.set()
        return failed

    def _note(self, failed: RedisFailed) -> None:
        """Count a failed command, and log it unless the same was logged within the last minute."""
        self.last_error = failed.reply
        self.errors[failed.reply] += 1
        now = self._clock()
        if now - self._logged.get(failed.reply, -math.inf) >= SAME_ERROR_LOG_SECS and self.state is LinkState.UP:
            self._logged[failed.reply] = now
            _log.warning("a Redis command failed", reason=str(failed))

    def _went_up(self, topology: Topology) -> None:
        self.returned = self.state is LinkState.DOWN
        self.state = LinkState.UP
        self.generation += 1
        _log.info("Redis link is up", topology=topology.kind, address=topology.address)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        for observe in self.observers:
            observe()

    def _went_down(self, error: BaseException) -> None:
        failed = explain(error)
        self.last_error = failed.reply
        self.errors[failed.reply] += 1
        if self.state is LinkState.DOWN:
            return
        self.state = LinkState.DOWN
        self.latency_ms = None
        cause = type(failed.__cause__ or error).__name__
        topology = self._topology
        _log.warning(
            "Redis link is down", topology=topology.kind, address=topology.address, reason=str(failed), cause=cause
        )
        for observe in self.observers:
            observe()

    async def _renew(self) -> None:
        """A new topology in place of the one that failed."""
        old, self._topology = self._topology, topology_of(self._config)
        self._stale.clear()
        await self._close(old)

    async def _close(self, topology: Topology) -> None:
        try:
            await topology.close()
        except Exception as error:
            _log.debug("closing connections to Redis failed", reason=str(explain(error)))


async def first_to_fail(*parts: Coroutine[Any, Any, None]) -> None:
    """Run the parts together until one of them fails; they have all ended then. Raises what that one did.

    A task group would do, but for one that fails while it is waited for: Python 3.11 leaves the task that owns the
    group marked as cancelled then, and `honour_cancellation` could not tell.
    """
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # asyncio complains about errors that nobody looked at
