"""A sender of webhooks in the loop of a test, and its task."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Self

from realtime_communication.resilience.breaker import BreakerSettings, CircuitBreaker

SECRET = b"the secret of the receiver"


class Lines(list[tuple[str, str, dict[str, Any]]]):
    """A log: level, event and fields of each line."""

    def info(self, event: str, /, **fields: Any) -> None:
        self.append(("info", event, fields))

    def warning(self, event: str, /, **fields: Any) -> None:
        self.append(("warning", event, fields))


class Sending:
    """Runs `webhooks`, which a subclass makes of `log` and `breaker`, while it is entered."""

    webhooks: Any

    def __init__(self, name: str, *, enabled: bool, failures: int, timeout: float) -> None:
        self.log = Lines()
        self.breaker = CircuitBreaker(name, BreakerSettings(enabled, failures, 1, timeout, 1), lambda change: None)

    @property
    def told(self) -> list[str]:
        """The events of the log's lines."""
        return [event for _, event, _ in self.log]

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.webhooks.run())
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def settled(self, events: int) -> None:
        """So many events are delivered or given up."""
        await until(lambda: self.webhooks.delivered + self.webhooks.failed >= events)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)
