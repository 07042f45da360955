"""The workers of a server that has several, as one of them reaches the others: through the supervisor.

A question goes to this worker itself and, as a call `gather`, to the supervisor, which passes it on as a call `ask` to
every other worker and comes back with what they said (`fleet_centre.py`). A change of the configuration is a call
`change`, which the supervisor has every worker prepare first (`node_configuration.py`).
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Mapping
from typing import Any, Final

from realtime_communication.errors import ConfigurationError, ConfigurationProblem, ControlError, RequestRefused
from realtime_communication.http.fleet import GATHER_SECS, Answer, Gathered
from realtime_communication.observability.logs import get_logger
from realtime_communication.server.control import ControlChannel

CHANGE_SECS: Final = 25.0  # the supervisor gives the workers less
RETRY_MS: Final = 1000

_log = get_logger(__name__)


class ChannelFleet:
    """The workers 0 to `workers` - 1, seen from `slot`, which gives `answers` itself."""

    def __init__(self, channel: ControlChannel, slot: int, workers: int, answers: Mapping[str, Answer]) -> None:
        self._channel = channel
        self._others = tuple(other for other in range(workers) if other != slot)
        self._slot = slot
        self._answers = answers
        channel.on("ask", self._on_ask)

    async def gather(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout_secs: float = GATHER_SECS
    ) -> Gathered:
        """As `Fleet.gather`. What fails in this worker raises."""
        asked = dict(params or {})
        others, own = await asyncio.gather(self._ask_others(method, asked, timeout_secs), self._own(method, asked))
        answers = {self._slot: own, **others}
        missing = tuple(slot for slot in self._others if slot not in others)
        return Gathered(dict(sorted(answers.items())), missing)

    async def supervisor_troubles(self, limit: int) -> list[dict[str, Any]]:
        """As `Fleet.supervisor_troubles`."""
        try:
            found: list[dict[str, Any]] = await self._channel.call("troubles", {"limit": limit}, GATHER_SECS)
        except (ControlError, TimeoutError) as error:
            _log.debug("the supervisor does not tell its warnings", reason=str(error) or "too late")
            return []
        return found

    async def change(self, changes: Mapping[str, object], origin: str) -> None:
        """As `Fleet.change`."""
        try:
            problems = await self._channel.call("change", {"changes": dict(changes), "who": origin}, CHANGE_SECS)
        except (ControlError, TimeoutError) as error:
            _log.warning("not all workers could be asked to change the configuration", reason=str(error) or "too late")
            raise RequestRefused(
                "unavailable", "not all workers could be asked: nothing was changed; try again", retry_after_ms=RETRY_MS
            ) from None
        if problems:
            raise ConfigurationError([ConfigurationProblem(*problem) for problem in problems])

    async def _own(self, method: str, params: Mapping[str, Any]) -> Any:
        answer = self._answers[method](params)
        return await answer if inspect.isawaitable(answer) else answer

    async def _ask_others(self, method: str, params: dict[str, Any], timeout_secs: float) -> dict[int, Any]:
        asked = {"method": method, "params": params, "timeout_secs": timeout_secs * _SUPERVISORS_SHARE}
        try:
            answers = await self._channel.call("gather", asked, timeout_secs)
        except (ControlError, TimeoutError) as error:
            _log.warning("the other workers could not be asked", method=method, reason=str(error) or "too late")
            return {}
        return {int(slot): answer for slot, answer in answers.items()}

    # What the supervisor asks

    def _on_ask(self, params: dict[str, Any]) -> Awaitable[Any] | Any:
        return self._answers[params["method"]](params["params"])


_SUPERVISORS_SHARE: Final = 0.9  # of the time for an answer, for the others to give theirs
