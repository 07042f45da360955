"""Supervision: which services are started again after a crash, and when to stop trying.

Theory of operation. `RestartLedger` decides and touches nothing: told that service i crashed at time t, it answers with
the services to start again, or that too many crashes lie within the window. `Supervisor` does what it says with asyncio
tasks. A service is meant to run for ever, so returning is a crash too. Services start in the order given; those to
be restarted are stopped in the opposite order, all of them, before the first one starts again.

Nothing here logs or knows what a service does: crashes are reported to a callback.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Literal

import msgspec

from realtime_communication.errors import RestartLimitReached

Strategy = Literal["one_for_one", "all_for_one", "rest_for_one"]
"""After a crash restart: that service; all; that one and those started after it."""

STOP_SECS: Final = 5.0  # for a service to end after it was cancelled


class RestartPolicy(msgspec.Struct, frozen=True):
    """What `actor_system` says: at most `max_restarts` within any `window_secs` seconds."""

    strategy: Strategy
    max_restarts: int
    window_secs: float


class RestartLedger:
    """The decisions for `services` services, numbered from 0 in the order in which they start."""

    def __init__(self, policy: RestartPolicy, services: int) -> None:
        self._policy = policy
        self._services = services
        # One more than is allowed is all that is ever counted.
        self._crashes: collections.deque[float] = collections.deque(maxlen=policy.max_restarts + 1)

    def crashed(self, service: int, now: float) -> range | None:
        """The services to start again, in their order; None when this crash is one too many.

        `now` is in seconds of a clock that does not go back.
        """
        policy = self._policy
        self._crashes.append(now)
        if len(self._crashes) > policy.max_restarts and now - self._crashes[0] <= policy.window_secs:
            return None
        if policy.strategy == "one_for_one":
            return range(service, service + 1)
        if policy.strategy == "rest_for_one":
            return range(service, self._services)
        return range(self._services)


class Service(msgspec.Struct, frozen=True):
    """A task that runs until it is cancelled. `run` is called anew for each start."""

    name: str
    run: Callable[[], Coroutine[Any, Any, None]]


class Crash(msgspec.Struct, frozen=True):
    """A service ended that should not have.

    `error` is what it raised, None when it just returned or was cancelled by somebody else; `restarted` are the names
    of the services that are started again because of it, empty at the end of all trying.
    """

    service: str
    error: BaseException | None
    restarted: tuple[str, ...]


class ServiceState(msgspec.Struct, frozen=True):
    """A service as `/health` shows it. `restarts` counts its starts but the first."""

    name: str
    running: bool
    restarts: int


class Supervisor:
    """Runs services, and restarts them by a policy. `report` is told of each crash and must not raise."""

    def __init__(
        self,
        services: Sequence[Service],
        policy: RestartPolicy,
        report: Callable[[Crash], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._services = tuple(services)
        self._policy = policy
        self._ledger = RestartLedger(policy, len(self._services))
        self._report = report
        self._clock = clock
        self._tasks: list[asyncio.Task[None] | None] = [None] * len(self._services)
        self._starts = [0] * len(self._services)

    async def run(self) -> None:
        """Run the services until this is cancelled; they have all ended then.

        Raises RestartLimitReached when there were too many crashes, or when a service would not end.
        """
        try:
            self._start(range(len(self._services)))
            while True:
                running = [task for task in self._tasks if task is not None]
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                await self._restart(next(index for index, task in enumerate(self._tasks) if task and task.done()))
        finally:
            with contextlib.suppress(RestartLimitReached):
                await self._stop(range(len(self._services)))

    def states(self) -> list[ServiceState]:
        """Every service, in the order in which they start."""
        return [
            ServiceState(service.name, task is not None and not task.done(), max(starts - 1, 0))
            for service, task, starts in zip(self._services, self._tasks, self._starts, strict=True)
        ]

    async def _restart(self, crashed: int) -> None:
        name, error = self._services[crashed].name, self._error_of(crashed)
        again = self._ledger.crashed(crashed, self._clock())
        self._report(Crash(name, error, tuple(self._services[index].name for index in again or ())))
        if again is None:
            policy = self._policy
            raise RestartLimitReached(
                f"{name} crashed, and more than {policy.max_restarts} restarts within {policy.window_secs:g} s are not "
                f"allowed (actor_system.max_restarts, restart_window_secs): {_shown(error)}"
            )
        await self._stop(again)
        self._start(again)

    def _start(self, services: range) -> None:
        for index in services:
            service = self._services[index]
            self._tasks[index] = asyncio.get_running_loop().create_task(service.run(), name=service.name)
            self._starts[index] += 1

    async def _stop(self, services: range) -> None:
        for index in reversed(services):
            task, self._tasks[index] = self._tasks[index], None
            if task is None:
                continue
            task.cancel()
            await asyncio.wait([task], timeout=STOP_SECS)
            if not task.done():
                raise RestartLimitReached(f"{self._services[index].name} did not end within {STOP_SECS:g} s")
            if not task.cancelled():
                task.exception()  # asyncio complains about errors that nobody looked at

    def _error_of(self, index: int) -> BaseException | None:
        task = self._tasks[index]
        return None if task is None or task.cancelled() else task.exception()


def honour_cancellation() -> None:
    """Raise CancelledError in a task that was told to end and did not notice. For loops that only end by that.

    Before Python 3.12 `asyncio.wait_for`, which redis-py sends with, forgets a cancellation that comes together with
    its result.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _shown(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}" if error is not None else "it ended without an error"
