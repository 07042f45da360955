"""When a token is replaced, without a network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

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
        self.pauses: list[float] = []
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
        return self._provided() if callable(self._provided) else str(self._provided)

    def count_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Keep the pauses, and make none."""

        def call_in(secs: float) -> None:
            self.pauses.append(secs)
            asyncio.get_running_loop().call_soon(self.renewal._begin)

        monkeypatch.setattr(self.renewal, "_call_in", call_in)

    async def _refresh(self, token: str) -> None:
        self.sent.append(token)
        if self._outcome is not None:
            raise self._outcome

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(work))

    def _give_up(self) -> None:
        self.given_up += 1


@scenario
async def test_when_the_server_says_so_whatever_the_clock_says() -> None:
    harness = Harness()
    harness.renewal.due(int(time.time()) + 100_000)
    await harness.settle()
    assert harness.sent == ["fresh"]


@scenario
async def test_another_reminder_meanwhile_does_nothing() -> None:
    harness = Harness()
    harness.renewal.due(99)
    harness.renewal.due(99)
    await harness.settle()
    await asyncio.sleep(0)
    assert harness.sent == ["fresh"] and len(harness.tasks) == 1


@scenario
async def test_tokens_that_are_always_due_are_asked_for_in_ever_longer_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(100))
    harness = Harness(provided=lambda: f"token {next(numbers)}")
    harness.count_pauses(monkeypatch)
    for _ in range(10):
        harness.renewal.due(99)
        await harness.settle()
        harness.tasks.clear()
    assert [round(pause) for pause in harness.pauses] == [0, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert len(harness.sent) == 10


@scenario
async def test_they_do_not_end_in_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(100))
    harness = Harness(provided=lambda: f"token {next(numbers)}")
    monkeypatch.setattr(type(harness.credentials), "remaining", property(lambda _: 10.0))
    harness.count_pauses(monkeypatch)
    for _ in range(6):
        harness.renewal.due(99)
        await harness.settle()
        harness.tasks.clear()
    assert [round(pause) for pause in harness.pauses] == [0, 2, 4, 5, 5, 5]


@scenario
async def test_the_same_token_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = iter(["fresh", "fresh", "fresh", "fresher"])
    harness = Harness(provided=lambda: next(tokens))
    await harness.credentials.headers()
    harness.count_pauses(monkeypatch)
    harness.renewal.due(99)
    while not harness.sent:
        await harness.settle()
    assert harness.sent == ["fresher"]
    assert [round(pause) for pause in harness.pauses] == [0, 2, 4]


@scenario
async def test_a_new_connection_has_its_own_time() -> None:
    harness = Harness()
    harness.renewal.due(99)
    harness.renewal.reset()
    await asyncio.sleep(0.01)
    assert harness.tasks == []


@scenario
async def test_without_a_provider_the_application_is_reminded() -> None:
    harness = Harness(renewable=False)
    harness.renewal.due(200)
    assert harness.reminded == [TokenExpiring(200)]


@scenario
async def test_no_token_any_more() -> None:
    harness = Harness(provided=AuthenticationFailed("over"))
    harness.renewal.due(99)
    await harness.settle()
    assert (harness.sent, harness.given_up) == ([], 1)


@scenario
async def test_a_refused_token_counts_as_refused() -> None:
    harness = Harness(outcome=RequestError("unauthorized", "no"))
    harness.renewal.due(99)
    await harness.settle()
    assert harness.credentials.refused() and not harness.credentials.refused()  # the second and the third in a row


@scenario
async def test_nothing_after_the_stop() -> None:
    harness = Harness()
    harness.renewal.due(99)
    harness.renewal.stop()
    harness.renewal.due(99)
    await asyncio.sleep(0.01)
    assert harness.tasks == []
