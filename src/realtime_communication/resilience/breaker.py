"""Circuit breakers: a service that keeps failing is left alone for a while, so that its callers fail at once.

Theory of operation. A breaker is *closed* while all is well. `failure_threshold` failures in a row *open* it: calls
are refused without being made. Once `timeout_secs` have passed, the next call finds it *half-open* and is a trial, one
of at most `half_open_requests` at once. `success_threshold` successes in a row close it, one failure opens it again.
Whoever learns by other means that the service is back makes it half-open at once::

    CLOSED ──failures──▶ OPEN ──time, and a call, or `half_open`──▶ HALF_OPEN ──successes──▶ CLOSED
                           ◀──────────────────failure──────────────────┘

Each change of state begins a new *generation*, and a call belongs to the one that let it in. What ends after its
generation is over says nothing about the service as it is now, and counts for nothing: a slow failure of the time
before does not reopen a breaker that has just closed. Trials are counted per generation too, so one that hangs since
an earlier trial period does not block the present one. Within its own period it does: every call needs a time-out.

A call that is cancelled is neither a success nor a failure; it only gives its place back. This module makes no calls
of its own, starts no tasks, logs nothing and knows no particular service: changes are told to a callback. Not for
several threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import Final, Literal, Self, TypeVar

import msgspec

from realtime_communication.config.services import BREAKER_NAMES, BreakerService
from realtime_communication.config.services import CircuitBreaker as BreakerConfig
from realtime_communication.errors import CircuitOpen

TRIAL_WAIT_SECS: Final = 1.0
"""What a caller is told to wait, at most, while all trial places are taken: nobody knows when one gets free."""

T = TypeVar("T")


class BreakerState(enum.Enum):
    """What a breaker does with a call: make it, refuse it, or make it as a trial."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerSettings(msgspec.Struct, frozen=True):
    """The thresholds of one breaker: see the head of this module. `enabled` false: every call is made."""

    enabled: bool
    failure_threshold: int
    success_threshold: int
    timeout_secs: float
    half_open_requests: int


class Change(msgspec.Struct, frozen=True):
    """A breaker changed its state.

    `reason` is for people and holds no secret; `at` is Unix time in seconds; `failures` are those in a row until now.
    """

    service: str
    before: BreakerState
    after: BreakerState
    reason: str
    at: float
    failures: int


class BreakerStatus(msgspec.Struct, frozen=True):
    """A breaker as `/health` shows it.

    `failures` and `successes` are those in a row, the latter of trials; `rejected` are the calls refused so far.
    `opened_secs_ago` is None while closed. `retry_in_secs` is 0 when the next call will be a trial, None unless open.
    """

    name: str
    state: BreakerState
    failures: int
    successes: int
    rejected: int
    opened_secs_ago: float | None
    retry_in_secs: float | None


def every_exception(error: BaseException) -> bool:
    """The default of what counts as a failure of the service."""
    return True


class CircuitBreaker:
    """The breaker of one service.

    `on_change` is told of each change once it has happened; it must not raise. `clock` is in seconds and never goes
    back, `now` is Unix time.
    """

    def __init__(
        self,
        name: str,
        settings: BreakerSettings,
        on_change: Callable[[Change], None],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.state = BreakerState.CLOSED
        self._settings = settings
        self._on_change = on_change
        self._clock = clock
        self._now = now
        self._generation = 0  # goes up whenever what calls in progress bring no longer counts
        self._failures = 0  # in a row
        self._successes = 0  # in a row, of trials of this generation
        self._trials = 0  # in progress, of this generation
        self._rejected = 0  # ever
        self._opened_at = 0.0

    async def call(
        self,
        operation: Callable[[], Awaitable[T]],
        is_failure: Callable[[BaseException], bool] = every_exception,
    ) -> T:
        """What `operation` returns or raises; `is_failure` as for `guard`.

        Raises CircuitOpen, and does not call `operation`, while the breaker is open or no trial is free.
        """
        with self.guard(is_failure):
            return await operation()

    def guard(self, is_failure: Callable[[BaseException], bool] = every_exception) -> Guard:
        """A context for code that is not one call: entering it may raise CircuitOpen, leaving it tells the result.

        An exception that leaves it is a failure of the service when `is_failure` says so, else a success: the service
        did answer. What is no `Exception`, such as CancelledError, is neither, and `is_failure` is not asked.
        """
        return Guard(self, is_failure)

    def status(self) -> BreakerStatus:
        """How it is now."""
        since = None if self.state is BreakerState.CLOSED else self._clock() - self._opened_at
        retry_in = None
        if since is not None and self.state is BreakerState.OPEN:
            retry_in = max(0.0, self._settings.timeout_secs - since)
        return BreakerStatus(self.name, self.state, self._failures, self._successes, self._rejected, since, retry_in)

    def half_open(self, reason: str) -> None:
        """The service was found to be back: an open breaker waits no longer for calls to try it."""
        if self.state is BreakerState.OPEN:
            self._change(BreakerState.HALF_OPEN, reason)

    def configure(self, settings: BreakerSettings) -> None:
        """Go on under other thresholds, in the same state; an open breaker's time is measured by the new one.

        Switched off it closes, and switched on again it begins anew.
        """
        switched = settings.enabled != self._settings.enabled
        self._settings = settings
        if not switched:
            return
        self._failures = 0
        if self.state is BreakerState.CLOSED:
            self._generation += 1
        else:
            self._change(BreakerState.CLOSED, "circuit_breaker.enabled is false")

    def _admit(self) -> int:
        """Let a call in: the generation it belongs to. Raises CircuitOpen."""
        if self.state is BreakerState.OPEN:
            wait = self._opened_at + self._settings.timeout_secs - self._clock()
            if wait > 0:
                self._rejected += 1
                raise CircuitOpen(self.name, wait)
            self._change(BreakerState.HALF_OPEN, f"{self._settings.timeout_secs:g} s have passed")
        # Not "else": the listener of the change may have switched the breaker off.
        if self.state is BreakerState.HALF_OPEN:
            if self._trials >= self._settings.half_open_requests:
                self._rejected += 1
                raise CircuitOpen(self.name, min(TRIAL_WAIT_SECS, self._settings.timeout_secs))
            self._trials += 1
        return self._generation

    def _settle(self, generation: int, error: BaseException | None, failed: bool | None) -> None:
        """A call of `generation` ended: `failed` is None when that says nothing of the service."""
        if generation != self._generation or not self._settings.enabled:
            return
        if self.state is BreakerState.HALF_OPEN:
            self._trials -= 1
        if failed:
            self._count_failure(type(error).__name__)
        elif failed is not None:
            self._count_success()

    def _count_failure(self, what: str) -> None:
        self._failures += 1
        if self.state is BreakerState.HALF_OPEN:
            self._open(f"a trial failed: {what}")
        elif self._failures >= self._settings.failure_threshold:
            self._open(f"failures in a row: {self._failures}, the last one {what}")

    def _count_success(self) -> None:
        self._failures = 0
        if self.state is BreakerState.HALF_OPEN:
            self._successes += 1
            if self._successes >= self._settings.success_threshold:
                self._change(BreakerState.CLOSED, f"successful trials in a row: {self._successes}")

    def _open(self, reason: str) -> None:
        self._opened_at = self._clock()
        self._change(BreakerState.OPEN, reason)

    def _change(self, after: BreakerState, reason: str) -> None:
        before, self.state = self.state, after
        self._generation += 1
        self._successes = self._trials = 0
        self._on_change(Change(self.name, before, after, reason, self._now(), self._failures))


class Guard:
    """A call in progress: see `CircuitBreaker.guard`. For one use at a time."""

    __slots__ = ("_breaker", "_generation", "_is_failure")

    def __init__(self, breaker: CircuitBreaker, is_failure: Callable[[BaseException], bool]) -> None:
        self._breaker = breaker
        self._is_failure = is_failure

    def __enter__(self) -> Self:
        self._generation = self._breaker._admit()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        failed: bool | None = None
        try:
            if error is None:
                failed = False
            elif isinstance(error, Exception):
                failed = self._is_failure(error)
        finally:  # a judge that raises leaves the place free and the question open
            self._breaker._settle(self._generation, error, failed)
        return False


class Breakers(Mapping[str, CircuitBreaker]):
    """The breakers of a process, one for each of BREAKER_NAMES.

    `listeners` are told of every change, in their order; more may be added at any time. One that raises is reported to
    the exception handler of the running loop, and the others are told all the same.
    """

    def __init__(
        self,
        config: BreakerConfig,
        on_change: Callable[[Change], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.listeners: list[Callable[[Change], None]] = [] if on_change is None else [on_change]
        self._breakers = {
            name: CircuitBreaker(name, settings_of(config, name), self._tell, clock) for name in BREAKER_NAMES
        }

    def __getitem__(self, name: str) -> CircuitBreaker:
        return self._breakers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._breakers)

    def __len__(self) -> int:
        return len(self._breakers)

    def statuses(self) -> list[BreakerStatus]:
        """Every breaker as it is now, in the order of BREAKER_NAMES."""
        return [breaker.status() for breaker in self._breakers.values()]

    def configure(self, config: BreakerConfig) -> None:
        """Go on under another `[circuit_breaker]`."""
        for name, breaker in self._breakers.items():
            breaker.configure(settings_of(config, name))

    def _tell(self, change: Change) -> None:
        for listener in tuple(self.listeners):
            try:
                listener(change)
            except Exception as error:
                with contextlib.suppress(RuntimeError):  # without a loop there is nobody to tell
                    asyncio.get_running_loop().call_exception_handler(
                        {
                            "message": "a listener of the circuit breakers failed",
                            "exception": error,
                        }
                    )


def settings_of(config: BreakerConfig, name: str) -> BreakerSettings:
    """The thresholds of one service: its own of `services[]` where given, else the general ones."""
    own = next((service for service in config.services if service.name == name), BreakerService(name=name))

    def pick(general: T, special: T | None) -> T:
        return general if special is None else special

    return BreakerSettings(
        enabled=config.enabled,
        failure_threshold=pick(config.failure_threshold, own.failure_threshold),
        success_threshold=pick(config.success_threshold, own.success_threshold),
        timeout_secs=pick(config.timeout_secs, own.timeout_secs),
        half_open_requests=pick(config.half_open_max_requests, own.half_open_requests),
    )
