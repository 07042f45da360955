"""Connections that move to other workers of the node: from one that has far more, and from one that is to end.

Theory of operation. The shared memory says how many connections each worker has. Every second each worker looks: when
it has far more than the one with the fewest, it hands some of them over, live (`_core/hub/migration.pxd`), at most half
of the difference and no more than it has above the mean, so that workers that look at the same moment do not overdo it
together. A connection that is busy just then stays, and may go the next time.

A worker that is replaced hands all it can to the others before it tells the rest to come back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from realtime_communication.observability.logs import get_logger

LOOK_SECS: Final = 1.0
LEAST_DIFFERENCE: Final = 64  # connections
LEAST_SHARE: Final = 0.2  # of what the fuller worker has
MOST_AT_ONCE: Final = 200  # connections in one look: a turn of the loop each side can spare
BATCH: Final = 64  # connections handed over in one go, before the loop has its turn
HAND_OVER_SECS: Final = 3.0  # for a worker that ends to find its connections at rest
PAUSE_SECS: Final = 0.02  # for what they wait for

_log = get_logger(__name__)


class GivingHub(Protocol):
    """The part of the compiled hub that moves connections."""

    def connection_count(self) -> int: ...
    def give_sessions(self, slot: int, most: int) -> int: ...


class Rebalancing:
    """See the head of this module. `counted` says how many connections the worker in a seat has.

    `run` is a service task; `follow` is told of the members of the node.
    """

    def __init__(self, hub: GivingHub, seat: int, counted: Callable[[int], int]) -> None:
        self._hub = hub
        self._seat = seat
        self._counted = counted
        self._homes: frozenset[int] = frozenset()

    def follow(self, members: Mapping[str, Any]) -> None:
        """Take over which workers serve: {"homes": [seat]}, as all workers are told."""
        self._homes = frozenset(members.get("homes", ()))

    async def run(self) -> None:
        """Look every second, until this is cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECS)
            await self.look()

    async def look(self) -> int:
        """Hand some connections over if there are far more here than elsewhere; how many."""
        taker, wanted = self._surplus()
        if not wanted:
            return 0
        given = 0
        while given < wanted:
            some = self._hub.give_sessions(taker, min(BATCH, wanted - given))
            if not some:
                break
            given += some
            await asyncio.sleep(0)
        if given:
            _log.info("connections were handed to another worker", to=taker, connections=given)
        return given

    async def hand_all_over(self) -> int:
        """Hand over what the others can take, evenly; how many connections. Those that do not come to rest stay."""
        given = 0
        deadline = time.monotonic() + HAND_OVER_SECS
        while self._hub.connection_count() and time.monotonic() < deadline:
            others = self._others()
            if not others:
                break
            taker = min(others, key=self._counted)
            some = self._hub.give_sessions(taker, BATCH)
            given += some
            await asyncio.sleep(0 if some else PAUSE_SECS)
        if given:
            _log.info("connections were handed to the other workers", connections=given)
        return given

    def _others(self) -> list[int]:
        return sorted(self._homes - {self._seat})

    def _surplus(self) -> tuple[int, int]:
        """The worker that should have more, and how many."""
        others = self._others()
        if not others or self._seat not in self._homes:
            return 0, 0
        counts = {seat: self._counted(seat) for seat in others}
        own = self._hub.connection_count()
        taker = min(others, key=lambda seat: counts[seat])
        difference = own - counts[taker]
        if difference <= max(LEAST_DIFFERENCE, LEAST_SHARE * own):
            return taker, 0
        above_mean = own - (own + sum(counts.values())) // (len(others) + 1)
        return taker, max(0, min(difference // 2, above_mean, MOST_AT_ONCE))
