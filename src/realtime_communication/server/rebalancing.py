"""Connections that move to other workers of the node: from one that has far more to do, and from one that is to end.

Theory of operation. Every second each worker measures how busy it is, tells the others when that has changed, and looks
whether it should hand connections over, and which (`balance.py`). They move live (`_core/hub/migration.pxd`). A
connection that is busy just then stays, and may go the next time. A worker that has told nothing of late gets none.

A worker that is replaced hands all it can to the others before it tells the rest to come back. Connections over TLS
cannot move, and are not waited for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from realtime_communication.observability.logs import get_logger
from realtime_communication.server.balance import LOOKS, Load, Memory, Move, decide
from realtime_communication.server.load import LoadMeter

LOOK_SECS: Final = 1.0
BATCH: Final = 64  # connections handed over in one go, before the loop has its turn
HAND_OVER_SECS: Final = 3.0  # for a worker that ends to find its connections at rest
PAUSE_SECS: Final = 0.02  # for what they wait for
TOLD_CHANGE: Final = 0.03  # of a core: less is not told at once
TOLD_EACH_SECS: Final = 4.0  # it is told even if nothing changed
STALE_SECS: Final = 10.0  # after which what a worker told is not believed any more

_log = get_logger(__name__)


class GivingHub(Protocol):
    """The part of the compiled hub that moves connections."""

    def connection_count(self) -> int: ...
    def movable_count(self) -> int: ...
    def work(self) -> int: ...
    def give_sessions(self, slot: int, most: int, share: float | None = None) -> int: ...


class Rebalancing:
    """See the head of this module.

    `counted` says how many connections the worker in a seat has, `tell` tells the other workers how busy this one is,
    and `measure` how busy that is. `run` is a service task; `follow` is told of the members of the node, `take_load`
    what the others tell.
    """

    def __init__(
        self,
        hub: GivingHub,
        seat: int,
        counted: Callable[[int], int],
        tell: Callable[[float], None],
        measure: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hub = hub
        self._seat = seat
        self._counted = counted
        self._tell = tell
        self._measure = measure or LoadMeter().measure
        self._clock = clock
        self._homes: frozenset[int] = frozenset()
        self._heard: dict[int, tuple[float, float]] = {}  # by seat: share of a core, when
        self._told: tuple[float, float] | None = None
        self._memory = Memory()

    def follow(self, members: Mapping[str, Any]) -> None:
        """Take over which workers serve: {"homes": [seat]}, as all workers are told."""
        self._homes = frozenset(members.get("homes", ()))
        self._heard = {seat: heard for seat, heard in self._heard.items() if seat in self._homes}

    def take_load(self, seat: int, cpu: float) -> None:
        """Note what another worker told of itself."""
        self._heard[seat] = cpu, self._clock()

    async def run(self) -> None:
        """Look every second, until this is cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECS)
            await self.look()

    async def look(self) -> int:
        """Hand some connections over if others have far less to do; how many."""
        cpu = self._measure()
        self._tell_others(cpu)
        self._hub.work()
        loads = {seat: Load(heard, self._counted(seat)) for seat, heard in self._heard_of_late().items()}
        if self._seat not in self._homes or not loads:
            self._memory = Memory()
            return 0
        loads[self._seat] = Load(cpu, self._hub.connection_count())
        move, self._memory = decide(self._seat, loads, self._memory)
        if move is None:
            return 0
        given = await self._carry_out(move)
        if given:
            criterion = "load" if move.share else "number"
            _log.info("connections were handed to another worker", to=move.taker, connections=given, by=criterion)
        elif move.share:
            self._memory = Memory(LOOKS - 1)  # none was at rest: tried again with the next look
        return given

    async def _carry_out(self, move: Move) -> int:
        given = 0
        while given < move.most:
            some = self._hub.give_sessions(move.taker, min(BATCH, move.most - given), move.share)
            given += some
            if not some or move.share:  # a share is one of all the work, to be given once
                break
            await asyncio.sleep(0)
        return given

    async def hand_all_over(self) -> int:
        """Hand over what the others can take, evenly; how many connections. Those that do not come to rest stay."""
        given = 0
        deadline = time.monotonic() + HAND_OVER_SECS
        while self._hub.movable_count() and time.monotonic() < deadline:
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

    def _tell_others(self, cpu: float) -> None:
        now = self._clock()
        if self._told is None or abs(cpu - self._told[0]) >= TOLD_CHANGE or now - self._told[1] >= TOLD_EACH_SECS:
            self._told = cpu, now
            self._tell(cpu)

    def _heard_of_late(self) -> dict[int, float]:
        since = self._clock() - STALE_SECS
        return {seat: cpu for seat in self._others() for cpu, at in [self._heard.get(seat, (0.0, since))] if at > since}
