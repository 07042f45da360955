"""The link to Redis: made, probed, lost and made again, for as long as the server runs.

Theory of operation. `run` is the one service task. It makes a topology, subscribes to the channels asked for and then
does two things at once until one of them fails: it hands on what is published, and it probes. A probe is a PING (and a
look at the node's role) whose answer must come within the response timeout, and a message on a channel of this link's
own that must come back within PROBE_BACK_SECS: a link that only looks alive, or that ended at a demoted master, is
found out. Then everything is thrown away and made anew, after a pause that doubles up to RECONNECT_MAX_SECS. ::

    CONNECTING ──joined──▶ UP ──any failure──▶ DOWN ──joined──▶ UP …        (CONNECTING ──failure──▶ DOWN)

Redis being away never ends `run` and never holds anybody up. Commands do not wait for the link: each is tried over the
topology of the moment, through the circuit breaker, and repeated where that is safe (see `redis_errors.py`). The
link's own attempts count for the breaker too, but are made while it is open as well: how long Redis is left alone is a
promise to it about commands, and the link comes back when Redis does.

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
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

import msgspec
from redis.asyncio.connection import AbstractConnection

from realtime_communication.broker.redis_errors import RedisFailed, Remedy, counts_against_redis, explain
from realtime_communication.broker.redis_topology import Topology, topology_of
from realtime_communication.config.services import Redis
from realtime_communication.errors import CircuitOpen
from realtime_communication.observability.logs import get_logger
from realtime_communication.resilience.breaker import CircuitBreaker
from realtime_communication.resilience.retry import RetryPolicy, retry

PROBE_SECS: Final = 1.0
PROBE_BACK_SECS: Final = 5.0
RECONNECT_MAX_SECS: Final = 2.0
RECONNECT_MIN_SECS: Final = 0.05
SAME_ERROR_LOG_SECS: Final = 60.0
_TURN_MESSAGES: Final = 64  # handed on before others have their turn

T = TypeVar("T")
_log = get_logger(__name__)


class LinkState(enum.Enum):
    """How the link is."""

    CONNECTING = "connecting"  # has not been up yet, and has not failed either
    UP = "up"
    DOWN = "down"


class Script(msgspec.Struct, frozen=True):
    """A Lua script that Redis runs in one piece. All its keys must have the same hash tag, or there is only one."""

    text: str

    @property
    def digest(self) -> str:
        """The name Redis knows it by."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class RedisLink:
    """See the head of this module. `probe_secs` and `probe_back_secs` are the times above, shorter in tests."""

    def __init__(
        self,
        config: Redis,
        breaker: CircuitBreaker,
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
        probe_secs: float = PROBE_SECS,
        probe_back_secs: float = PROBE_BACK_SECS,
    ) -> None:
        self.state = LinkState.CONNECTING
        self.generation = 0  # how often it has come up
        self.returned = False  # it had been down before it came up last
        self.latency_ms: float | None = None  # of the last probe
        self.last_error: str | None = None  # a key of redis_errors.MEANINGS
        self.errors: collections.Counter[str] = collections.Counter()  # failures by such a key
        self.buffered: Callable[[], int] = lambda: 0  # events that wait for the link
        self._config = config
        self._breaker = breaker
        self._clock = clock
        self._uniform = uniform
        self._probe_secs = probe_secs
        self._probe_back_secs = probe_back_secs
        self._policy = RetryPolicy(1 + config.retry_attempts, config.retry_delay_ms / 1000)
        self._topology: Topology = topology_of(config)
        if not self._topology.verified:
            _log.warning("the certificate of Redis is not verified (ssl_cert_reqs): anybody on the way can be Redis")
        self._listeners: dict[bytes, Callable[[bytes], None]] = {}
        self._stale = asyncio.Event()  # a command found out that the topology is
        self._waiters: set[asyncio.Future[None]] = set()
        self._logged: dict[str, float] = {}
        # Of this link and no other: two nodes may have one id by mistake, and must not take each other's probes.
        self._probe_channel = self.key(f"probe:{uuid.uuid4().hex}")
        self._probe_back_at = 0.0
        self.listen(self._probe_channel, self._on_probe)

    def key(self, name: str) -> str:
        """The name of a key or a channel in Redis: every one has `redis.key_prefix`."""
        return f"{self._config.key_prefix}{name}"

    def listen(self, channel: str, receive: Callable[[bytes], None]) -> None:
        """Have `receive` called with each message on `channel` (a result of `key`). Before `run`; must not raise."""
        self._listeners[channel.encode()] = receive

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

    def health(self) -> tuple[bool, dict[str, object]]:
        """Whether the link is up, and what `/health` shows of it."""
        return self.state is LinkState.UP, {
            "state": self.state.value,
            "topology": self._topology.kind,
            "latency_ms": None if self.latency_ms is None else round(self.latency_ms, 3),
            "last_error": self.last_error,
            "buffered_events": self.buffered(),
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
        return await retry(guarded, self._policy, may_repeat, uniform=self._uniform)

    async def run_script(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Any], *, idempotent: bool = False
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

    async def publish_once(self, channel: str, message: bytes) -> None:
        """One attempt to publish, past the breaker of commands. Raises RedisFailed."""
        await self._once(("PUBLISH", channel, message))

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
            await self._close(self._topology)

    async def _hold(self) -> None:
        """Join, and keep the link up. Only ever ends by raising."""
        topology, subscription = self._topology, None
        try:
            subscription = await self._attempt(functools.partial(self._join, topology))
            honour_cancellation()
            self._went_up(topology)
            await _first_to_fail(self._hand_on(subscription), self._probe(topology), self._watch())
        finally:
            if subscription is not None:
                await _close_connection(subscription)

    async def _join(self, topology: Topology) -> AbstractConnection:
        """Check the node, and subscribe. The connection on which the messages come."""
        try:
            async with asyncio.timeout(self._config.timeout_secs + self._config.response_timeout_ms / 1000):
                await topology.check()
                subscription = topology.subscription()
                try:
                    await subscription.connect()
                    await subscription.send_command("SUBSCRIBE", *self._listeners)
                    for _ in self._listeners:
                        await subscription.read_response()
                except BaseException:
                    await _close_connection(subscription)
                    raise
                return subscription
        except Exception as error:
            raise explain(error) from error

    async def _hand_on(self, subscription: AbstractConnection) -> None:
        count = 0
        while True:
            try:
                reply = await subscription.read_response(timeout=math.inf)
            except Exception as error:
                raise explain(error) from error
            if isinstance(reply, list) and len(reply) == 3 and reply[0] == b"message":
                receive = self._listeners.get(reply[1])
                if receive is not None:
                    receive(reply[2])
            count += 1
            if count % _TURN_MESSAGES == 0:
                await asyncio.sleep(0)

    async def _probe(self, topology: Topology) -> None:
        self._probe_back_at = self._clock()
        while True:
            honour_cancellation()
            await asyncio.sleep(self._probe_secs)
            await self._attempt(functools.partial(self._probe_once, topology))
            await self.publish_once(self._probe_channel, b"probe")
            if self._clock() - self._probe_back_at > self._probe_back_secs:
                raise RedisFailed("TIMEOUT")

    async def _probe_once(self, topology: Topology) -> None:
        began = self._clock()
        try:
            await topology.check()
            self.latency_ms = (self._clock() - began) * 1000
            await topology.maintain()
        except Exception as error:
            raise explain(error) from error

    def _on_probe(self, message: bytes) -> None:
        self._probe_back_at = self._clock()

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
            failed = explain(error)
            self._note(failed)
            if failed.remedy is Remedy.REBUILD:
                self._stale.set()
            raise failed from error

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


def honour_cancellation() -> None:
    """Raise CancelledError in a task that was told to end and did not notice. For loops that only end by that.

    Before Python 3.12 `asyncio.wait_for`, which redis-py sends with, forgets a cancellation that comes together with
    its result.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _first_to_fail(*parts: Coroutine[Any, Any, None]) -> None:
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


async def _close_connection(connection: AbstractConnection) -> None:
    try:
        await connection.disconnect(nowait=True)
    except Exception as error:
        _log.debug("closing a connection to Redis failed", reason=str(explain(error)))
