"""When a token is replaced, without a network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from realtime_communication.client.credentials import Credentials
from realtime_communication.client.errors import AuthenticationFailed, RequestError
from realtime_communication.client.events import TokenExpiring
from realtime_communication.client.renewal import TokenRenewal
from serving.proxy import scenario


class Harness:
    """A renewal, and what it did. ``outcome`` is raised by the server, ``provided`` by the provider."""

    def __init__(self, *, renewable: bool = True, outcome: Exception | None = None, provided: Any = "fresh") -> None:
        self.sent: list[str] = []
        self.reminded: list[TokenExpiring] = []
        self.given_up = 0
        self.tasks: list[asyncio.Task[None]] = []
        self._outcome = outcome
        self._provided = provided
        self.credentials = Credentials(None if renewable else "t", self._provide if renewable else None, None, 1)
        self.renewal = TokenRenewal(
            self.credentials,
            refresh=self._refresh,
            start=self._start,
            remind=self.reminded.append,
            give_up=self._give_up,
        )

    async def settle(self) -> None:
        """Let the timer fire and what it started end."""
        while not self.tasks:
            await asyncio.sleep(0)
        await asyncio.gather(*self.tasks)

    async def _provide(self) -> str:
        if isinstance(self._provided, Exception):
            raise self._provided
        return str(self._provided)

    async def _refresh(self, token: str) -> None:
        self.sent.append(token)
        if self._outcome is not None:
            raise self._outcome

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(work))

    def _give_up(self) -> None:
        self.given_up += 1


@scenario
async def test_at_the_time_that_the_server_names() -> None:
    harness = Harness()
    harness.renewal.due(int(time.time()) - 5, 99)
    await harness.settle()
    assert harness.sent == ["fresh"]
    assert harness.credentials.expires_at == 99


@scenario
async def test_a_reminder_that_crossed_the_renewal_does_nothing() -> None:
    harness = Harness()
    harness.renewal.due(None, 99)
    await harness.settle()
    harness.renewal.due(None, 99)
    await asyncio.sleep(0)
    assert harness.sent == ["fresh"] and len(harness.tasks) == 1


@scenario
async def test_without_a_provider_the_application_is_reminded() -> None:
    harness = Harness(renewable=False)
    harness.renewal.due(int(time.time()) + 100, 200)
    assert harness.reminded == []
    harness.renewal.due(None, 200)
    assert harness.reminded == [TokenExpiring(200)]


@scenario
async def test_no_token_any_more() -> None:
    harness = Harness(provided=AuthenticationFailed("over"))
    harness.renewal.due(None, 99)
    await harness.settle()
    assert (harness.sent, harness.given_up) == ([], 1)


@scenario
async def test_a_refused_token_counts_as_refused() -> None:
    harness = Harness(outcome=RequestError("unauthorized", "no"))
    harness.renewal.due(None, 99)
    await harness.settle()
    assert harness.credentials.refused() and not harness.credentials.refused()  # the second and the third in a row


@scenario
async def test_nothing_after_the_stop() -> None:
    harness = Harness()
    harness.renewal.due(int(time.time()) + 1, 99)
    harness.renewal.stop()
    harness.renewal.due(None, 99)
    await asyncio.sleep(0.01)
    assert harness.tasks == []
