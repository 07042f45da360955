"""The workers of this server, asked as one.

A worker answers *questions*, methods with parameters, from what it holds itself (`worker_answers.py`). An endpoint that
speaks for the whole server puts its question to all workers by its `Fleet` and makes one answer of theirs. Where there
is one worker it is called at once; among several the question goes through the supervisor (`server/fleet.py`).

Rules: questions and answers are plain values that JSON can carry. A worker that does not answer in time is missing, and
the answer to the client says so under `workers_missing`: it is never waited for longer, and never passed over in
silence. Changes of the configuration are in force in all workers or in none.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

GATHER_SECS: Final = 2.0
"""How long the workers have for an answer."""

Answer = Callable[[Mapping[str, Any]], Any]
"""Answers a question; the result may have to be awaited. It raises nothing but for what is its own fault."""

Change = Callable[[Mapping[str, object], str], None]


class Gathered(msgspec.Struct, frozen=True):
    """What the workers answered, by slot in rising order; `missing` are those that failed or did not in time."""

    answers: Mapping[int, Any]
    missing: tuple[int, ...] = ()

    @property
    def several(self) -> bool:
        """Whether more than one worker was asked."""
        return len(self.answers) + len(self.missing) > 1

    def told(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """`answer` for the client, which names the workers that are missing in it."""
        return {**answer, "workers_missing": list(self.missing)} if self.missing else dict(answer)


class Fleet(Protocol):
    """How an endpoint reaches the workers."""

    async def gather(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout_secs: float = GATHER_SECS
    ) -> Gathered:
        """Ask every worker, this one too. Never raises for a worker that does not answer."""

    async def supervisor_troubles(self, limit: int) -> list[dict[str, Any]]:
        """The latest warnings of the process that looks after the workers, as `RecentTroubles.newest`; none where there
        is no such process, or no answer."""

    async def change(self, changes: Mapping[str, object], origin: str) -> None:
        """Put values of keys, by dotted path, into force in all workers, or in none.

        Raises ConfigurationError, whose problems name the keys at fault, and RequestRefused (`unavailable`) where a
        worker could not be asked.
        """


class Alone:
    """The fleet of a server with one worker. `change` puts values into force here."""

    def __init__(self, answers: Mapping[str, Answer], change: Change) -> None:
        self._answers = answers
        self._change = change

    async def gather(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout_secs: float = GATHER_SECS
    ) -> Gathered:
        """As `Fleet.gather`; what fails here is nobody else's fault, and raises."""
        answer = self._answers[method](params or {})
        return Gathered({0: await answer if inspect.isawaitable(answer) else answer})

    async def supervisor_troubles(self, limit: int) -> list[dict[str, Any]]:
        """None: there is no supervisor."""
        return []

    async def change(self, changes: Mapping[str, object], origin: str) -> None:
        """As `Fleet.change`."""
        self._change(changes, origin)
