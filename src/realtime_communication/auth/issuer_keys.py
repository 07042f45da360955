"""The keys of one issuer, kept fresh: which are known now, when they are fetched again, and who waits for that.

Whoever verifies a token asks `find`, which never waits, and `lookup` only for a key that is not there. Nobody but the
service `run` fetches; a lookup asks it to, and waits for the end of that fetch together with everybody else who came
meanwhile. Who came when the fetch had begun may ask for one more: the issuer may have answered before it had the key.
A lookup may start a fetch once in `interval_secs`; without that right, and with no fetch under way, it is refused at
once. Tokens with made-up key ids can so neither load the issuer nor pile up here. As long as there are no
keys at all the service tries again by itself, and lookups wait only for an attempt that is due.

When a fetch fails the keys that are known go on serving, however old: an issuer that is down must not lock everybody
out. A fetch that succeeds replaces all of them, so that a key the issuer has withdrawn is gone.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from realtime_communication.auth.jwks import KeySet, VerificationKey
from realtime_communication.errors import AuthenticationFailed, AuthenticationUnavailable, CircuitOpen
from realtime_communication.observability.logs import get_logger
from realtime_communication.resilience.breaker import CircuitBreaker

FETCH_INTERVAL_SECS: Final = 10.0
MIN_AGE_SECS: Final = 300.0
MAX_AGE_SECS: Final = 86_400.0
REFRESH_AFTER: Final = 0.8  # of the keys' age; the rest is left for retries
MAX_WAITING: Final = 1000  # tokens that wait for a fetch
WAIT_SECS: Final = 5.0
MAX_UNKNOWN: Final = 1024  # key ids remembered as unknown
UNKNOWN_SECS: Final = 60.0

_FIRST_RETRY_SECS: Final = 1.0
_MOST_RETRY_SECS: Final = 300.0

_log = get_logger(__name__)


class FetchFailed(Exception):
    """The keys could not be had. The text is for the log and repeats nothing the issuer sent."""


class Fetched(msgspec.Struct, frozen=True):
    """What a fetch brought, and how long it is good for."""

    keys: KeySet
    max_age_secs: float


class IssuerKeys:
    """The keys of `issuer`. `fetch` gets them, and raises FetchFailed; `clock` counts seconds."""

    def __init__(
        self,
        issuer: str,
        fetch: Callable[[], Awaitable[Fetched]],
        *,
        breaker: CircuitBreaker | None = None,
        interval_secs: float = FETCH_INTERVAL_SECS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.issuer = issuer
        self._fetch = fetch
        self._breaker = breaker
        self._interval = interval_secs
        self._clock = clock
        self._keys: dict[str, VerificationKey] | None = None
        self._unknown: dict[str, float] = {}  # key id -> until when it counts as unknown; oldest first
        self._asked_at = -math.inf  # when a lookup last started a fetch
        self._due_at = -math.inf
        self._failures = 0  # in a row
        self._wanted = asyncio.Event()
        self._round: asyncio.Event | None = None  # set when the fetch that is wanted or under way has ended
        self._waiting = 0

    @property
    def loaded(self) -> bool:
        """Whether there are any keys."""
        return self._keys is not None

    def find(self, key_id: str) -> VerificationKey | None:
        """The key, when it is known."""
        return None if self._keys is None else self._keys.get(key_id)

    async def lookup(self, key_id: str) -> VerificationKey:
        """The key, which `find` did not know, after a fetch.

        Raises AuthenticationFailed when the issuer has no such key, AuthenticationUnavailable when that cannot be told.
        """
        key = self.find(key_id)  # a fetch may have ended since the caller looked
        if key is not None:
            return key
        ended, had_begun = self._join_round(key_id)
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_SECS):
                await ended.wait()
                if had_begun and self.find(key_id) is None and not self._failures:
                    ended, _ = self._join_round(key_id)
                    await ended.wait()
        except TimeoutError:
            raise self._unavailable() from None
        finally:
            self._waiting -= 1
        key = self.find(key_id)
        if key is None:
            raise self._refusal(key_id)
        return key

    def _join_round(self, key_id: str) -> tuple[asyncio.Event, bool]:
        """The end of a fetch that is wanted now or under way, and whether it had begun already.

        Raises as `lookup`, at once, when there will be none.
        """
        now = self._clock()
        if self.loaded and self._unknown.get(key_id, -math.inf) > now:
            raise _unknown_key()
        if self._round is not None:
            if self._waiting >= MAX_WAITING:
                raise self._unavailable()
            return self._round, not self._wanted.is_set()
        if not self.loaded:
            if now < self._due_at:
                raise self._unavailable()
        elif now < self._asked_at + self._interval:
            raise self._unavailable() if self._failures else _unknown_key()
        else:
            self._asked_at = now
        self._round = asyncio.Event()
        self._wanted.set()
        return self._round, False

    def _refusal(self, key_id: str) -> AuthenticationFailed:
        if self._failures or not self.loaded:
            return self._unavailable()
        while len(self._unknown) >= MAX_UNKNOWN:
            del self._unknown[next(iter(self._unknown))]
        self._unknown.pop(key_id, None)
        self._unknown[key_id] = self._clock() + UNKNOWN_SECS
        return _unknown_key()

    def _unavailable(self) -> AuthenticationUnavailable:
        wait = (self._asked_at + self._interval if self.loaded else self._due_at) - self._clock()
        wait_ms = math.ceil(1000 * min(max(wait, 1.0), _MOST_RETRY_SECS))
        return AuthenticationUnavailable(
            "the token cannot be checked: the keys of its issuer are out of reach", retry_after_ms=wait_ms
        )

    async def run(self) -> None:
        """Fetch at once, whenever it is wanted, and before the keys get too old; until cancelled."""
        while True:
            wait = max(self._due_at - self._clock(), 0.0)
            if not self._wanted.is_set() and wait:
                try:
                    async with asyncio.timeout(wait):
                        await self._wanted.wait()
                except TimeoutError:
                    pass
            await self._refresh()

    async def _refresh(self) -> None:
        self._wanted.clear()
        ended = self._round = self._round or asyncio.Event()
        failures, fetched = self._failures + 1, None
        try:
            fetched = await (self._fetch() if self._breaker is None else self._breaker.call(self._fetch))
            self.install(fetched)
        except Exception as error:
            # Whatever it was, the next attempt may succeed; an issuer's answer must not end the service.
            self._retry_later(error, failures)
        finally:
            if fetched is None:
                self._failures = failures
            self._round = None
            ended.set()

    def _retry_later(self, error: Exception, failures: int) -> None:
        wait = _FIRST_RETRY_SECS * 2.0 ** min(failures - 1, 20)
        wait = min(wait, _MOST_RETRY_SECS if self.loaded else self._interval)
        if isinstance(error, CircuitOpen):
            wait = max(error.retry_after_secs, wait)
        self._due_at = self._clock() + wait
        if isinstance(error, (FetchFailed, CircuitOpen)):
            known = len(self._keys or ())
            _log.warning("the keys of an issuer cannot be fetched", issuer=self.issuer, reason=str(error), known=known)
        else:
            _log.exception("fetching the keys of an issuer failed by an error of its own", issuer=self.issuer)

    def install(self, fetched: Fetched) -> None:
        """Replace the keys."""
        age = min(max(fetched.max_age_secs, MIN_AGE_SECS), MAX_AGE_SECS)
        self._due_at = self._clock() + REFRESH_AFTER * age
        known, self._keys = self._keys, fetched.keys.keys
        self._failures = 0
        for key_id in self._keys.keys() & self._unknown.keys():
            del self._unknown[key_id]
        if known is None or known.keys() != self._keys.keys():
            _log.info("keys of an issuer", issuer=self.issuer, keys=len(self._keys))
            for reason in fetched.keys.left_out:
                _log.warning("a key of an issuer is left out", issuer=self.issuer, reason=reason)


def _unknown_key() -> AuthenticationFailed:
    return AuthenticationFailed("the token's key (`kid`) is not one of its issuer's")
