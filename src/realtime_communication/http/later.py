"""Answers of the hub that come later, as something to await: those that another worker or Redis gives."""

from __future__ import annotations

import asyncio
from typing import Any

from realtime_communication._core.hub.relay import Later


async def settled(answer: dict[str, Any] | Later) -> dict[str, Any]:
    """`answer`, once it is there. Raises what it failed with, a RequestError.

    The hub answers every request within its own time-out, so this needs none.
    """
    if not isinstance(answer, Later):
        return answer
    future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def done(value: dict[str, Any], error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    answer.then(done)
    return await future
