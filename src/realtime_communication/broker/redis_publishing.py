"""Publications: gathered, sent to Redis, answered; kept while it is away.

What waits and in which order is the business of `redis_outgoing.py`. A batch that failed for a reason that may pass is
sent again under its id, so nothing is published twice. The breaker is the one of the publish path: it counts all calls,
and decides about those that find out whether Redis takes writes again (`takes_writes`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from realtime_communication.broker.redis_calls import Calls
from realtime_communication.broker.redis_errors import RedisFailed, counts_against_redis
from realtime_communication.broker.redis_link import RedisLink, ScriptCall
from realtime_communication.broker.redis_outgoing import BATCH_MESSAGES, Batch, Outgoing, Queue
from realtime_communication.broker.upstream import UpstreamHub
from realtime_communication.errors import CircuitOpen
from realtime_communication.observability.logs import get_logger
from realtime_communication.resilience.breaker import CircuitBreaker
from realtime_communication.resilience.supervision import honour_cancellation

RETURNING_SECS: Final = 1.0  # after this, what comes in faster than it goes out no longer delays the return
RETRY_MS: Final = 1000  # told to a publisher that is refused

# A fault of one call: of a key that is of another kind, or of this program. Redis itself is well.
OF_THE_CALL: Final = frozenset({"ERR", "CROSSSLOT", "NOSCRIPT"})

_log = get_logger(__name__)


class RedisPublishing:
    """See the head of this module. `fail` is told that Redis failed. It begins as if Redis were away."""

    def __init__(
        self,
        hub: UpstreamHub,
        link: RedisLink,
        calls: Calls,
        breaker: CircuitBreaker,
        queue: Queue,
        fail: Callable[[RedisFailed], None],
    ) -> None:
        self.published = 0
        self.refused = 0
        self.queue = queue
        self._hub = hub
        self._link = link
        self._calls = calls
        self._breaker = breaker
        self._fail = fail
        self._here = False  # publishers are answered
        self._sends = False
        self._something = asyncio.Event()
        self._logged_drops = False
        queue.keep_only()

    # What the hub says

    def publish(self, topic: bytes, token: int, body: bytes, key: bytes) -> None:
        """Publish on a topic, now or when Redis is back."""
        if token and not self._here:  # handed over before the hub knew
            self._refuse(token, "unavailable", "Redis cannot be reached; try again later", RETRY_MS)
        elif self.queue.put(topic, token, body, key):
            self._something.set()
        elif token:
            self._refuse(token, "unavailable", "too many publications wait for Redis; try again later", RETRY_MS)
        if self.queue.dropped and not self._logged_drops:
            self._logged_drops = True
            _log.warning("publications kept for other nodes are dropped: the oldest give way", kept=self.queue.messages)

    # What the engine says

    def lose(self) -> None:
        """Redis is away: refuse whoever waits; from now on the oldest give way to what is new."""
        self._here = self._sends = self._logged_drops = False
        for token in self.queue.keep_only():
            self._refuse(token, "unavailable", "Redis cannot be reached; the message may have been published", RETRY_MS)

    def pause(self) -> None:
        """Calls fail: let everything wait."""
        self._sends = False

    def go_on(self) -> None:
        """Calls succeed."""
        self._sends = True
        self._something.set()

    async def send_kept(self) -> bool:
        """Send what was kept; False when that failed, and `pause` was called."""
        loop = asyncio.get_running_loop()
        patience = loop.time() + RETURNING_SECS
        self.go_on()
        while not self.queue.is_empty:
            await asyncio.sleep(0.005)
            if not self._sends:
                return False
            if loop.time() > patience and self.queue.messages <= BATCH_MESSAGES:
                break
        return self._sends

    def come_back(self) -> None:
        """Redis is back, and what was kept is there."""
        self.queue.keep_no_more()
        self._here = True

    async def takes_writes(self, write: ScriptCall, *, at_once: bool) -> Any:
        """The reply to a write, or RedisFailed; unless it is to be made `at_once` the breaker may keep it back.

        Raises CircuitOpen.
        """
        if at_once:
            return (await self._link.run_scripts([write]))[0]
        try:
            return (await self._breaker.call(lambda: self._attempt([write]), _counts))[0]
        except _AllFailed as failed:
            return failed.replies[0]

    async def run(self) -> None:
        """Send until this is cancelled. May run several times at once."""
        while True:
            honour_cancellation()
            await self._something.wait()
            if not self._sends or not (batches := self.queue.gather()):
                self._something.clear()
                continue
            sent = [(batch, batch.items) for batch in batches]
            calls = [self._calls.publish(batch) for batch in batches]
            try:
                replies = await self._send(calls)
            except BaseException:
                for batch in batches:
                    self.queue.back(batch)
                raise
            for (batch, items), reply in zip(sent, replies, strict=True):
                self._settle(batch, items, reply)
            if self.queue.has_ready:
                self._something.set()

    async def _send(self, calls: Sequence[ScriptCall]) -> list[Any]:
        try:
            return await self._breaker.call(lambda: self._attempt(calls), _counts)
        except CircuitOpen:  # a write has succeeded since
            return await self._link.run_scripts(calls)
        except _AllFailed as failed:
            return failed.replies

    async def _attempt(self, calls: Sequence[ScriptCall]) -> list[Any]:
        replies = await self._link.run_scripts(calls)
        if all(isinstance(reply, RedisFailed) for reply in replies):
            raise _AllFailed(replies)
        return replies

    def _settle(self, batch: Batch, items: list[Outgoing], reply: Any) -> None:
        """A batch has come back. Where the engine went away meanwhile, those who waited have been refused."""
        if isinstance(reply, RedisFailed):
            if reply.reply in OF_THE_CALL:
                self.queue.done(batch)
                self._refuse_all(batch.items, "internal", "the message could not be stored", None)
            else:
                self.queue.back(batch)
            self._fail(reply)
            return
        self.queue.done(batch)
        self.published += len(items)
        if batch.items is items:
            self._answer(items, reply)

    def _answer(self, items: list[Outgoing], reply: bytes) -> None:
        epoch_text, first, reached_text, *places = reply.split(b" ")
        epoch, offset, reached = int(epoch_text), int(first), reached_text != b"0"
        published = self._hub.published
        if places:
            for item, place in zip(items, places, strict=True):
                if item.token:
                    its_epoch, _, its_offset = place.partition(b"-")
                    published(item.token, int(its_epoch), int(its_offset), reached)
            return
        for item in items:
            if item.token:
                published(item.token, epoch, offset, reached)
            offset += 1

    def _refuse_all(self, items: Sequence[Outgoing], code: str, message: str, retry_ms: int | None) -> None:
        for item in items:
            if item.token:
                self._refuse(item.token, code, message, retry_ms)

    def _refuse(self, token: int, code: str, message: str, retry_ms: int | None) -> None:
        self.refused += 1
        self._hub.refuse_waiting(token, code, message, retry_ms)


class _AllFailed(Exception):
    """No call had success."""

    def __init__(self, replies: list[Any]) -> None:
        super().__init__("no call to Redis had success")
        self.replies = replies


def _counts(error: BaseException) -> bool:
    return not isinstance(error, _AllFailed) or any(counts_against_redis(reply) for reply in error.replies)
