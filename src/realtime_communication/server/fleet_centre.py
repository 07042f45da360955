"""The middle of the fleet, in the supervisor: it passes the workers' questions and events on to the others.

Rules: it knows no method and keeps nothing but the small state that workers share without Redis (`node_state.py`). Each
worker has the time that comes with a question, all of them at once, and one that is not there, fails or is late is left
out of the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from realtime_communication.errors import ControlError
from realtime_communication.observability import recent_troubles
from realtime_communication.observability.logs import get_logger
from realtime_communication.server.control import ControlChannel
from realtime_communication.server.node_state import METHOD, StateKeeper

MAX_SECS: Final = 60.0  # for any question

_log = get_logger(__name__)


class Member(Protocol):
    """A worker process, as far as it is asked."""

    @property
    def slot(self) -> int: ...
    @property
    def channel(self) -> ControlChannel: ...


class FleetCentre:
    """Asks the workers that are `serving`; tells events to all that are `live`, those that start or drain too.

    `answerers` are the methods that workers may call: each gets the worker that calls and its params.
    """

    def __init__(self, serving: Callable[[], Sequence[Member]], live: Callable[[], Sequence[Member]]) -> None:
        self._serving = serving
        self._live = live
        self._keeper = StateKeeper()
        self._troubles = recent_troubles.attach()
        self.answerers: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
            "gather": self._gather,
            "broadcast": self._broadcast,
            "load": self._pass_load,
            "troubles": self._tell_troubles,
            METHOD: lambda member, params: self._keeper.answer(params),
        }

    async def ask(
        self, method: str, params: Mapping[str, Any], timeout_secs: float, *, but: Member | None = None
    ) -> dict[int, Any]:
        """What the workers answer, by slot; those are not there that did not in time or failed."""
        members = [member for member in self._serving() if member is not but]
        asked = {"method": method, "params": dict(params)}
        calls = (member.channel.call("ask", asked, timeout_secs) for member in members)
        answers: dict[int, Any] = {}
        for member, result in zip(members, await asyncio.gather(*calls, return_exceptions=True), strict=True):
            if isinstance(result, (ControlError, TimeoutError)):
                reason = str(result) or f"no answer within {timeout_secs:g} s"
                _log.warning("a worker did not answer", worker=member.slot, method=method, reason=reason)
            elif isinstance(result, BaseException):
                raise result
            else:
                answers[member.slot] = result
        return answers

    async def _gather(self, asker: Member, params: dict[str, Any]) -> dict[int, Any]:
        """{method, params, timeout_secs} → what the others answer."""
        timeout = min(MAX_SECS, float(params["timeout_secs"]))
        return await self.ask(params["method"], params["params"], timeout, but=asker)

    def _broadcast(self, sender: Member, params: dict[str, Any]) -> None:
        """{kind, payload} → nothing: the others are told."""
        for member in self._live():
            if member is not sender:
                member.channel.notify("event", params)

    def _tell_troubles(self, asker: Member, params: dict[str, Any]) -> list[dict[str, Any]]:
        """{limit} → the latest warnings of this process."""
        return self._troubles.newest(int(params["limit"]))

    def _pass_load(self, sender: Member, params: dict[str, Any]) -> None:
        """{seat, cpu} → nothing: the others that serve are told how busy this one is."""
        for member in self._serving():
            if member is not sender:
                member.channel.notify("load", params)
