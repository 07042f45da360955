"""The stand-ins for Redis inside this process: with them nothing ever looks for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from realtime_communication.broker.events import MAX_EVENT_BYTES, Handler
from realtime_communication.broker.shared_state import MAX_MEMBERS, Rotation
from realtime_communication.errors import MisuseError
from realtime_communication.observability.logs import get_logger
from realtime_communication.resilience.expiring import ExpiringTable

MAX_ENTRIES: Final = 1_000_000
MAX_SETS: Final = 1000

_log = get_logger(__name__)


class MemoryEvents:
    """A bus whose nodes are in one process. Alone it has nobody to tell; `node` gives another one on the same bus."""

    def __init__(self) -> None:
        self._handlers: dict[str, list[Handler]] = {}
        self._nodes: list[MemoryEvents] = [self]

    def node(self) -> MemoryEvents:
        """Another node of the bus."""
        other = MemoryEvents()
        other._nodes = self._nodes
        self._nodes.append(other)
        return other

    def publish(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Have the others handle it, before this returns. Raises MisuseError when it is too large or no JSON."""
        try:
            encoded = msgspec.json.encode(payload)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise MisuseError(f"the payload of an event {kind!r} cannot be JSON: {type(error).__name__}") from None
        if len(encoded) > MAX_EVENT_BYTES:
            raise MisuseError(f"an event {kind!r} takes {len(encoded)} bytes, more than {MAX_EVENT_BYTES}")
        for node in self._nodes:
            if node is not self:
                node._handle(kind, msgspec.json.decode(encoded))

    def subscribe(self, kind: str, handler: Handler) -> None:
        """Have `handler` called with the payload of each event of this kind from another node."""
        self._handlers.setdefault(kind, []).append(handler)

    def _handle(self, kind: str, payload: Mapping[str, Any]) -> None:
        for handler in self._handlers.get(kind, ()):
            try:
                handler(payload)
            except Exception:
                _log.exception("an event of another node could not be handled", kind=kind)


class MemoryState:
    """The shared state of one process: as SharedState says, and nothing ever fails."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._values: ExpiringTable[str, bytes] = ExpiringTable(MAX_ENTRIES)
        # The newest generation and the attempt that made it; None where the family is revoked.
        self._families: ExpiringTable[str, tuple[int, str] | tuple[()]] = ExpiringTable(MAX_ENTRIES)
        self._sets: dict[str, ExpiringTable[bytes, float]] = {}

    async def put(self, name: str, value: bytes, ttl_secs: float) -> None:
        now = self._now()
        self._values.put(name, value, now + ttl_secs, now)

    async def get(self, name: str) -> bytes | None:
        return self._values.get(name, self._now())

    async def delete(self, name: str) -> None:
        self._values.pop(name)

    async def compare_and_rotate(self, family: str, presented: int, attempt: str, ttl_secs: float) -> Rotation:
        now = self._now()
        held = self._families.get(family, now)
        if held == ():
            return Rotation.REVOKED
        newest, last_attempt = held or (0, "")
        if presented == newest - 1 and attempt == last_attempt:
            return Rotation.ROTATED
        if presented < newest:
            self._families.put(family, (), now + ttl_secs, now)
            return Rotation.REUSED
        self._families.put(family, (presented + 1, attempt), now + ttl_secs, now)
        return Rotation.ROTATED

    async def revoke_family(self, family: str, ttl_secs: float) -> None:
        now = self._now()
        self._families.put(family, (), now + ttl_secs, now)

    async def add_members(self, name: str, members: Sequence[tuple[bytes, float]]) -> None:
        now = self._now()
        table = self._sets.get(name)
        if table is None:
            if len(self._sets) >= MAX_SETS:
                raise MisuseError(f"more than {MAX_SETS} sets")
            table = self._sets[name] = ExpiringTable(MAX_MEMBERS)
        for member, until in members:
            latest = max(until, table.get(member, now) or 0.0)
            table.put(member, latest, latest, now)

    async def members(self, name: str) -> list[tuple[bytes, float]]:
        table = self._sets.get(name)
        return [] if table is None else [(member, expires) for member, _, expires in table.items(self._now())]
