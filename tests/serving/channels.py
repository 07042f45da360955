"""Control channels between a supervisor and workers, all in one loop of the test."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from realtime_communication.server.control import ControlChannel
from realtime_communication.server.fleet_centre import FleetCentre


@dataclass(eq=False)
class Member:
    """A worker as the supervisor has it."""

    slot: int
    channel: ControlChannel


class Rig:
    """A centre with members, and the workers' ends of their channels."""

    def __init__(self, workers: int) -> None:
        pairs = [socket.socketpair() for _ in range(workers)]
        self.members = [Member(slot, ControlChannel(mine)) for slot, (mine, _) in enumerate(pairs)]
        self.workers = [ControlChannel(theirs) for _, theirs in pairs]
        self.serving = list(self.members)
        self.centre = FleetCentre(lambda: self.serving, lambda: self.members)
        for member in self.members:
            for method, answerer in self.centre.answerers.items():
                member.channel.on(method, lambda params, member=member, answerer=answerer: answerer(member, params))


@contextlib.asynccontextmanager
async def rig(workers: int = 2) -> AsyncIterator[Rig]:
    """A running one; nothing is left of it."""
    made = Rig(workers)
    ends = [*(member.channel for member in made.members), *made.workers]
    running = [asyncio.create_task(end.run()) for end in ends]
    try:
        yield made
    finally:
        for end in ends:
            end.close()
        await asyncio.gather(*running)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it in a loop of its own, for 30 s at most."""
    asyncio.run(asyncio.wait_for(test(), 30))
