"""Webhooks that tell of many small events, several in one POST. The receiver's side is in `docs/webhooks.md`.

Theory of operation. `post` only puts events into a queue; the task `run` sends them in their order, one batch after the
other, as `webhooks.py` sends a single event: signed, tried again, behind a circuit breaker. A batch goes when it is
full or when its first event has waited long enough. A queue that is full loses its oldest events, which are counted.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import uuid
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from realtime_communication.config.webhooks import Webhooks as WebhooksConfig
from realtime_communication.resilience.breaker import CircuitBreaker
from realtime_communication.resilience.retry import RetryPolicy
from realtime_communication.resilience.webhooks import RETRIES, Delivery, Log, Webhooks, open_session, origin_of

MAX_EVENTS: Final = 10_000
"""Events that wait; one more, and the oldest is dropped and counted."""


class EventWebhooks:
    """Sends batches of events to one URL; an empty one means that nothing is sent.

    `delivered`, `failed` (given up) and `dropped` (of a full queue) count events since the start. `secret` is the key
    of the signature.
    """

    def __init__(
        self,
        config: WebhooksConfig,
        secret: bytes,
        breaker: CircuitBreaker,
        log: Log,
        node_id: str,
        *,
        retries: RetryPolicy = RETRIES,
    ) -> None:
        self.delivered = self.failed = self.dropped = 0
        self._config = config
        self._log = log
        self._node_id = node_id
        self._sender = Webhooks(config.url, secret, breaker, log, retries=retries)
        self._waiting: collections.deque[Mapping[str, object]] = collections.deque()
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()  # a batch need not wait any longer
        self._idle = asyncio.Event()
        self._idle.set()
        self._ending = False
        self._overflowing = False  # so that a full queue is one line in the log, not one for each event

    def configure(self, config: WebhooksConfig, secret: bytes) -> None:
        """Go on under another `[webhooks]` from the next attempt on; without a URL what waits is forgotten."""
        self._config = config
        self._sender.configure(config.url, secret)
        if not config.url:
            self._waiting.clear()

    def numbers(self) -> dict[str, float]:
        """The counts by the names of the catalogue of metrics; none where nothing was ever to be sent."""
        if not (self._config.url or self.delivered or self.failed or self.dropped):
            return {}
        return {
            "webhook_events_delivered": self.delivered,
            "webhook_events_failed": self.failed,
            "webhook_events_dropped": self.dropped,
        }

    def post(self, events: Iterable[Mapping[str, object]], lost: int = 0) -> None:
        """Put events, which JSON can hold, into the queue; `lost` more found no room before. Never blocks."""
        if not self._config.url:
            return
        self._waiting.extend(events)
        beyond = max(0, len(self._waiting) - MAX_EVENTS)
        for _ in range(beyond):
            self._waiting.popleft()
        self.dropped += beyond + lost
        if beyond + lost and not self._overflowing:
            self._overflowing = True
            self._log.warning(
                "events for a webhook are dropped: too many wait",
                receiver=origin_of(self._config.url),
                limit=MAX_EVENTS,
            )
        if self._waiting:
            self._idle.clear()
            self._arrived.set()
        if len(self._waiting) >= self._config.max_batch:
            self._full.set()

    async def run(self) -> None:
        """Send what is in the queue, until this is cancelled. Events that were being sent then stay in the queue."""
        async with open_session() as session:
            while True:
                while not self._waiting:
                    self._overflowing = False
                    self._idle.set()
                    self._arrived.clear()
                    await self._arrived.wait()
                await self._gather()
                size = min(self._config.max_batch, len(self._waiting))
                batch = [self._waiting.popleft() for _ in range(size)]
                if not batch:
                    continue  # a reload took the URL away
                body = msgspec.json.encode({"node_id": self._node_id, "events": batch})
                try:
                    arrived = await self._sender.deliver(session, Delivery(str(uuid.uuid4()), body))
                except asyncio.CancelledError:
                    self._waiting.extendleft(reversed(batch))
                    raise
                if arrived:
                    self.delivered += len(batch)
                else:
                    self.failed += len(batch)

    async def drain(self, seconds: float) -> None:
        """Send what waits without waiting for more, for up to so many seconds."""
        self._ending = True
        self._full.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()

    async def _gather(self) -> None:
        """Wait until a batch is full or its time is over."""
        self._full.clear()
        if self._ending or len(self._waiting) >= self._config.max_batch:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.batch_wait_ms / 1000):
                await self._full.wait()
