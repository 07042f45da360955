"""Webhooks: signed HTTP POSTs that tell a receiver what happened. The receiver's side is in `docs/webhooks.md`.

Theory of operation. `post` only puts an event into a queue, so it never blocks and never fails; the task `run` sends
one event after the other, in their order. An event is given up after `RETRIES.attempts` attempts, or at once when the
receiver refuses it for good. All attempts go through a circuit breaker. One that the breaker refuses is not made and
not counted: it waits until the breaker lets it through, while the queue fills and, when full, loses its oldest events.

The receiver is not trusted: no redirect is followed, no cookie kept, no answer's body read. Its URL may hold
credentials, and errors of the HTTP client may quote it: only scheme, host and kinds of errors get into the log.
"""

from __future__ import annotations

import asyncio
import collections
import hashlib
import hmac
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol
from urllib.parse import urlsplit

import aiohttp
import msgspec

from realtime_communication.config.services import BreakerEvents
from realtime_communication.errors import CircuitOpen
from realtime_communication.resilience.breaker import CircuitBreaker
from realtime_communication.resilience.retry import RetryPolicy, retry

MAX_WAITING: Final = 256
"""Events in the queue; one more, and the oldest is dropped and counted."""

TIMEOUT_SECS: Final = 5.0
"""For one attempt, from the look-up of the name to the head of the answer."""

RETRIES: Final = RetryPolicy(attempts=5, delay_secs=1.0, max_delay_secs=30.0)

_KEY_LABEL: Final = b"realtime_communication webhook"
_TRY_LATER: Final = frozenset({408, 425, 429})  # besides 500 and above
_READ_BUFFER: Final = 1 << 15  # aiohttp stops reading the socket at twice as much: 64 KiB of an answer nobody reads
_SHORTEST_WAIT_SECS: Final = 0.01  # a loop's timer may end a moment before the breaker's


class Log(Protocol):
    """The part of `EventLogger` that is used here; resilience and observability do not know each other."""

    def info(self, event: str, /, **fields: object) -> None: ...
    def warning(self, event: str, /, **fields: object) -> None: ...


class Delivery(msgspec.Struct, frozen=True):
    """An event on its way. `id` is the same in all attempts."""

    id: str
    body: bytes


class RefusedDelivery(Exception):
    """The receiver answered, with a `status` other than 2xx."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


class Webhooks:
    """Sends events to one URL; an empty one means that nothing is sent.

    `delivered`, `failed` (given up) and `dropped` (of a full queue) count events since the start. `secret` is the key
    of the signature. `now` is Unix time; `sleep` and `uniform` as for `retry`.
    """

    def __init__(
        self,
        url: str,
        secret: bytes,
        breaker: CircuitBreaker,
        log: Log,
        *,
        retries: RetryPolicy = RETRIES,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.delivered = self.failed = self.dropped = 0
        self._url = url
        self._secret = secret
        self._breaker = breaker
        self._log = log
        self._retries = retries
        self._now = now
        self._sleep = sleep
        self._uniform = uniform
        self._waiting: collections.deque[Delivery] = collections.deque()
        self._arrived = asyncio.Event()
        self._overflowing = False  # so that a full queue is one line in the log, not one for each event

    def configure(self, url: str, secret: bytes) -> None:
        """Send to another URL from the next attempt on; with an empty one what waits is forgotten."""
        self._url = url
        self._secret = secret
        if not url:
            self._waiting.clear()

    def post(self, event: Mapping[str, object]) -> None:
        """Put an event, which JSON can hold, into the queue. Never blocks."""
        if not self._url:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self.dropped += 1
            if not self._overflowing:
                self._overflowing = True
                self._log.warning(
                    "webhooks are dropped: too many wait", receiver=origin_of(self._url), limit=MAX_WAITING
                )
        self._waiting.append(Delivery(str(uuid.uuid4()), msgspec.json.encode(event)))
        self._arrived.set()

    async def run(self) -> None:
        """Send what is in the queue, until this is cancelled. An event that was being sent then stays in the queue."""
        async with open_session() as session:
            while True:
                while not self._waiting:
                    self._overflowing = False
                    self._arrived.clear()
                    await self._arrived.wait()
                delivery = self._waiting.popleft()
                try:
                    await self.deliver(session, delivery)
                except asyncio.CancelledError:
                    if len(self._waiting) < MAX_WAITING:
                        self._waiting.appendleft(delivery)
                    raise

    async def deliver(self, session: aiohttp.ClientSession, delivery: Delivery) -> bool:
        """Send it now, with all its attempts; whether it arrived. Never raises."""
        try:
            await retry(
                lambda: self._attempt(session, delivery),
                self._retries,
                is_temporary,
                uniform=self._uniform,
                sleep=self._sleep,
            )
        except Exception as error:  # whatever it is, the next event may fare better
            self.failed += 1
            reason = str(error) if isinstance(error, RefusedDelivery) else type(error).__name__
            self._log.warning(
                "a webhook was not delivered", receiver=origin_of(self._url), delivery=delivery.id, reason=reason
            )
            return False
        return True

    async def _attempt(self, session: aiohttp.ClientSession, delivery: Delivery) -> None:
        """One attempt, as soon as the breaker allows it."""
        while True:
            try:
                return await self._breaker.call(lambda: self._send(session, delivery), is_temporary)
            except CircuitOpen as refused:
                await self._sleep(max(refused.retry_after_secs, _SHORTEST_WAIT_SECS))

    async def _send(self, session: aiohttp.ClientSession, delivery: Delivery) -> None:
        if not self._url:
            return  # a reload took the URL away while this event waited for its turn
        timestamp = str(int(self._now()))
        headers = {
            "Content-Type": "application/json",
            "X-RTC-Timestamp": timestamp,
            "X-RTC-Signature": signature(self._secret, timestamp, delivery.body),
            "X-RTC-Delivery": delivery.id,
        }
        async with session.post(self._url, data=delivery.body, headers=headers, allow_redirects=False) as answer:
            if not 200 <= answer.status < 300:
                raise RefusedDelivery(answer.status)
        self.delivered += 1


def open_session() -> aiohttp.ClientSession:
    """For all deliveries to one receiver, one at a time."""
    return aiohttp.ClientSession(
        # Events are rare: a connection kept open would mostly be found closed by the other end.
        connector=aiohttp.TCPConnector(limit=1, force_close=True),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECS),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "realtime_communication"},
        auto_decompress=False,
        read_bufsize=_READ_BUFFER,
    )


def is_temporary(error: BaseException) -> bool:
    """Whether another attempt may succeed; the rest is the receiver's last word, or our bug."""
    if isinstance(error, RefusedDelivery):
        return error.status >= 500 or error.status in _TRY_LATER
    return isinstance(error, (aiohttp.ClientError, OSError)) and not isinstance(error, aiohttp.InvalidURL)


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """Value of `X-RTC-Signature`: HMAC-SHA256 of the timestamp, a dot and the body."""
    return "sha256=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def secret_of(events: BreakerEvents, jwt_secret: str) -> bytes:
    """Key of the signature of what a breaker does: `webhook_secret`, or as `key_of`."""
    return key_of(events.webhook_secret, jwt_secret)


def key_of(secret: str, jwt_secret: str) -> bytes:
    """Key of the signature: `secret`, or the hexadecimal digits derived from `auth.jwt_secret` when that is empty.

    Derived, so that a receiver can be given it without being able to sign tokens.
    """
    if secret:
        return secret.encode("utf-8", "surrogateescape")
    key = jwt_secret.encode("utf-8", "surrogateescape")
    return hmac.new(key, _KEY_LABEL, hashlib.sha256).hexdigest().encode()


def origin_of(url: str) -> str:
    """Scheme and host of a URL: all of it that may be logged."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}"
