"""The small shared state (`broker/shared_state.py`) of a node without Redis whose workers are several.

It is kept by the supervisor, so that a revocation or a used refresh token holds in all workers, and outlives each of
them. A call that fails raises CircuitOpen, as with a Redis that is left alone: the caller decides what holds meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from realtime_communication.broker.broker import Broker
from realtime_communication.broker.memory import MemoryState
from realtime_communication.broker.shared_state import Rotation, SharedState
from realtime_communication.errors import CircuitOpen, ControlError
from realtime_communication.server.control import ControlChannel
from realtime_communication.server.node_events import NodeEvents

METHOD: Final = "state"
RETRY_SECS: Final = 1.0


def between_workers(broker: Broker, channel: ControlChannel) -> Broker:
    """`broker` for a worker with siblings: they hear its events, and share its state where there is no Redis."""
    if broker.link is not None:
        return msgspec.structs.replace(broker, events=NodeEvents(channel, broker.events))
    return msgspec.structs.replace(broker, events=NodeEvents(channel, None), state=NodeState(channel), shared=True)


class NodeState:
    """A worker's end: as SharedState says."""

    def __init__(self, channel: ControlChannel) -> None:
        self._channel = channel

    async def put(self, name: str, value: bytes, ttl_secs: float) -> None:
        await self._call("put", name, value, ttl_secs)

    async def get(self, name: str) -> bytes | None:
        found: bytes | None = await self._call("get", name)
        return found

    async def delete(self, name: str) -> None:
        await self._call("delete", name)

    async def compare_and_rotate(self, family: str, presented: int, attempt: str, ttl_secs: float) -> Rotation:
        return Rotation(await self._call("compare_and_rotate", family, presented, attempt, ttl_secs))

    async def revoke_family(self, family: str, ttl_secs: float) -> None:
        await self._call("revoke_family", family, ttl_secs)

    async def add_members(self, name: str, members: Sequence[tuple[bytes, float]]) -> None:
        for start in range(0, len(members), _BATCH):
            await self._call("add_members", name, [list(member) for member in members[start : start + _BATCH]])

    async def members(self, name: str) -> list[tuple[bytes, float]]:
        return [(member, until) for member, until in await self._call("members", name)]

    async def _call(self, operation: str, *arguments: object) -> Any:
        try:
            return await self._channel.call(METHOD, {"operation": operation, "arguments": arguments})
        except (ControlError, TimeoutError):
            raise CircuitOpen("the state of the workers", RETRY_SECS) from None


_BATCH: Final = 10_000  # members in one frame


class StateKeeper:
    """The supervisor's end."""

    def __init__(self, state: SharedState | None = None) -> None:
        self._state = state or MemoryState()

    async def answer(self, params: dict[str, Any]) -> Any:
        """Do {operation, arguments} of SharedState. Raises ValueError for one that there is not."""
        operation, arguments = params["operation"], params["arguments"]
        if operation not in _OPERATIONS:
            raise ValueError(f"no operation {operation}")
        found = await getattr(self._state, operation)(*arguments)
        return found.value if isinstance(found, Rotation) else found


_OPERATIONS: Final = frozenset(
    {"put", "get", "delete", "compare_and_rotate", "revoke_family", "add_members", "members"}
)
