"""The middle of the fleet, in the supervisor: it passes the workers' questions, changes and events on to the others.

Rules: it holds no configuration and knows no method. Each worker has the time the question brings, all at once, and one
that is not there, fails or is late is left out of the answer. A change is committed only when every worker has prepared
it; while it is under way no other one begins, and nobody may start a worker with a configuration that is about to
change: hold `changing` from taking the configuration until `attach`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from realtime_communication.errors import ControlError
from realtime_communication.observability.logs import get_logger
from realtime_communication.server.control import ControlChannel

PREPARE_SECS: Final = 2.0
MAX_SECS: Final = 60.0  # for any question

_log = get_logger(__name__)


class FleetCentre:
    """`attach` each worker's channel when it is there and `detach` it when it is gone.

    `changed(values, origin)` is called after a change that is in force in all workers, for those that start later.
    """

    def __init__(self, changed: Callable[[Mapping[str, object], str], None] = lambda values, origin: None) -> None:
        self._channels: dict[int, ControlChannel] = {}
        self._changed = changed
        self._numbers = 0
        self.changing = asyncio.Lock()

    def attach(self, slot: int, channel: ControlChannel) -> None:
        """A worker can be asked from now on, and ask. It takes the place of an earlier one of the slot."""
        self._channels[slot] = channel

        async def gather(params: dict[str, Any]) -> dict[int, Any]:
            timeout = min(MAX_SECS, float(params["timeout_secs"]))
            return await self.ask(params["method"], params["params"], timeout, but=channel)

        channel.on("gather", gather)
        channel.on("change", lambda params: self._change(params["changes"], params["origin"]))
        channel.on("broadcast", lambda params: self._broadcast(channel, params))

    def detach(self, slot: int, channel: ControlChannel) -> None:
        """A worker is gone; nothing happens when another one has its slot already."""
        if self._channels.get(slot) is channel:
            del self._channels[slot]

    async def ask(
        self, method: str, params: Mapping[str, Any], timeout_secs: float, *, but: ControlChannel | None = None
    ) -> dict[int, Any]:
        """What the workers answer, by slot; those are not there that did not in time or failed."""
        asked = {"method": method, "params": dict(params)}
        return (await self._call("ask", asked, timeout_secs, but=but))[0]

    async def _call(
        self, method: str, params: dict[str, Any], timeout_secs: float, *, but: ControlChannel | None = None
    ) -> tuple[dict[int, Any], dict[int, str]]:
        """The answers, and why there is none, by slot."""
        channels = {slot: channel for slot, channel in sorted(self._channels.items()) if channel is not but}
        calls = (channel.call(method, params, timeout_secs) for channel in channels.values())
        results = await asyncio.gather(*calls, return_exceptions=True)
        answers: dict[int, Any] = {}
        failures: dict[int, str] = {}
        for slot, result in zip(channels, results, strict=True):
            if isinstance(result, (ControlError, TimeoutError)):
                failures[slot] = str(result) or f"no answer within {timeout_secs:g} s"
                _log.warning("a worker did not answer", worker=slot, method=method, reason=failures[slot])
            elif isinstance(result, BaseException):
                raise result
            else:
                answers[slot] = result
        return answers, failures

    async def _change(self, changes: dict[str, object], origin: str) -> list[Any]:
        """The problems of a change; none when it is in force. Raises ControlError when a worker cannot prepare it."""
        async with self.changing:
            self._numbers += 1
            number = self._numbers
            asked = {"number": number, "changes": changes, "origin": origin}
            answers, failures = await self._call("prepare_change", asked, PREPARE_SECS)
            problems: list[Any] = next((found for found in answers.values() if found), [])
            if problems or failures:
                for channel in self._channels.values():
                    channel.notify("abort_change", {"number": number})
                if failures and not problems:
                    raise ControlError(f"workers {sorted(failures)} could not prepare the change")
                return list(problems)
            # From here on it holds: a worker that dies meanwhile has a successor with the changed configuration.
            self._changed(changes, origin)
            await self._call("commit_change", {"number": number}, PREPARE_SECS)
            return []

    def _broadcast(self, sender: ControlChannel, params: dict[str, Any]) -> None:
        for channel in list(self._channels.values()):
            if channel is not sender:
                channel.notify("event", params)
