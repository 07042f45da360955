"""Control events over Redis: one channel, `{prefix}events`, that all nodes publish to and listen on.

What is published waits in a bounded buffer for the service task `run`, which sends in order, one at a time, through
the breaker `message_queue`. While Redis is away events stay in the buffer, the oldest give way to new ones and are
counted, and all go out in order when the link is up again: a little later, because the other nodes come back at about
the same time, and what is published before they listen is lost to them. An event whose sending had no clear outcome is
sent again under its number; the receivers know it by that.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from realtime_communication.broker.events import Event, EventCodec, Handler, Skipped
from realtime_communication.broker.redis_errors import RedisFailed, counts_against_redis
from realtime_communication.broker.redis_feed import Feed
from realtime_communication.broker.redis_link import RECONNECT_MAX_SECS, LinkState, RedisLink
from realtime_communication.errors import CircuitOpen
from realtime_communication.observability.logs import get_logger
from realtime_communication.resilience.breaker import CircuitBreaker
from realtime_communication.resilience.supervision import honour_cancellation

MAX_BUFFERED: Final = 1000
RETRY_SECS: Final = 0.2  # after a failure, while the link is up all the same
MAX_BREAKER_WAIT_SECS: Final = 1.0
SETTLE_SECS: Final = RECONNECT_MAX_SECS + 0.5  # from the link's return to the first event, for the others to be back

_log = get_logger(__name__)


class RedisEvents:
    """The bus. Made before the feed runs; `run` is its service task."""

    def __init__(
        self,
        link: RedisLink,
        feed: Feed,
        codec: EventCodec,
        breaker: CircuitBreaker,
        *,
        now: Callable[[], float] = time.time,
        settle_secs: float = SETTLE_SECS,
    ) -> None:
        self.dropped = 0  # events that gave way to newer ones
        self.sent = 0
        self.skipped: collections.Counter[Skipped] = collections.Counter()  # incoming ones that were not handled
        self.handled = 0
        self._link = link
        self._codec = codec
        self._breaker = breaker
        self._now = now
        self._settle_secs = settle_secs
        self._channel = link.key("events").encode()
        self._handlers: dict[str, list[Handler]] = {}
        self._waiting: collections.deque[Event] = collections.deque()
        self._something = asyncio.Event()
        feed.listen(self._channel, self.receive)
        link.buffered = lambda: len(self._waiting)

    def publish(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Tell the other nodes, when Redis is there. Raises MisuseError when the event is too large or no JSON."""
        self._waiting.append(self._codec.number(kind, payload))
        if len(self._waiting) > MAX_BUFFERED:
            self._waiting.popleft()
            if self.dropped == 0:
                _log.warning("events for other nodes are dropped: the oldest give way", bound=MAX_BUFFERED)
            self.dropped += 1
        self._something.set()

    def subscribe(self, kind: str, handler: Handler) -> None:
        """Have `handler` called with the payload of each event of this kind from another node."""
        self._handlers.setdefault(kind, []).append(handler)

    async def run(self) -> None:
        """Send what is published until this is cancelled."""
        generation = 0
        while True:
            honour_cancellation()
            await self._something.wait()
            if not self._waiting:
                self._something.clear()
                continue
            if generation != (current := await self._link.joined()):
                generation = current
                if self._link.returned:
                    await asyncio.sleep(self._settle_secs)
                    continue
            event = self._waiting[0]
            try:
                await self._breaker.call(functools.partial(self._send, event), counts_against_redis)
            except CircuitOpen as refused:
                await asyncio.sleep(min(MAX_BREAKER_WAIT_SECS, refused.retry_after_secs))
            except RedisFailed:
                # Mostly the link is about to notice; where it is not, somebody else is at fault.
                await asyncio.sleep(RETRY_SECS if self._link.state is LinkState.UP else 0)
            else:
                self.sent += 1
                if self._waiting and self._waiting[0] is event:  # it may have given way meanwhile
                    self._waiting.popleft()

    def receive(self, message: bytes) -> None:
        """Handle what came on the channel: from anybody who can write there. Never raises."""
        namesakes = self._codec.namesakes
        body = self._codec.open(message, self._now())
        if namesakes == 0 and self._codec.namesakes:
            _log.warning("another run has this node's id: each node must have its own, and a restart ends the old one")
        if isinstance(body, Skipped):
            self._skip(body)
            return
        handlers = self._handlers.get(body.kind, ())
        if not handlers:
            self._skip(Skipped.UNKNOWN)
            return
        self.handled += 1
        for handler in handlers:
            try:
                handler(body.payload)
            except Exception:
                self.skipped[Skipped.FAILED] += 1
                _log.exception("an event of another node could not be handled", kind=body.kind, node=body.node)

    async def _send(self, event: Event) -> None:
        await self._link.publish_once(self._channel, self._codec.seal(event, self._now()))

    def _skip(self, why: Skipped) -> None:
        self.skipped[why] += 1
        # One line for each kind of trouble: whoever writes to the channel must not fill the log as well.
        if why not in (Skipped.OWN, Skipped.REPEATED) and self.skipped[why] == 1:
            _log.warning("an event of another node is skipped; more for this reason are only counted", why=why.value)
