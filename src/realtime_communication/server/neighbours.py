"""A worker among the others of its node: the bus between them, and who is at home where.

Theory of operation. A new worker says `linking` and learns which others are there. Once it is linked with all of them
it says `linked`; from the next change of the members on it is a home of topics, and is handed those that are its own
now. Only then does it take connections, so that no client of it ever finds a topic on its way. A worker that is to end
is taken out of the homes first, while it is still linked: it hands its topics over and goes on feeding its clients.
What it has sent may still wait at its end of the bus, so it ends when the others have answered that all has arrived.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from realtime_communication._core.hub.hub import Hub
from realtime_communication._core.io.bus import Bus
from realtime_communication._core.io.reactor import Reactor
from realtime_communication.observability.logs import get_logger
from realtime_communication.server.control import ControlChannel
from realtime_communication.server.place import Place
from realtime_communication.server.shutdown import until

LINK_SECS: Final = 5.0  # for all links to stand; a neighbour may be starting, ending or stuck
HOME_SECS: Final = 5.0  # for the supervisor to make this worker a home
ARRIVAL_SECS: Final = 3.0  # for the others to have what a worker that ends has handed over
POLL_SECS: Final = 0.01

_log = get_logger(__name__)


class Neighbours:
    """See the head of this module. `seat` is the worker's number on the bus, which no other live worker has."""

    def __init__(self, place: Place, hub: Hub, reactor: Reactor, channel: ControlChannel) -> None:
        self.seat = place.seat
        self._hub = hub
        self._channel = channel
        self._bus = Bus(hub, place.seat, place.incarnation, place.bus_dir)
        reactor.attach_bus(self._bus)
        self._links: set[int] = set()
        self._told = asyncio.Event()
        self._is_home = asyncio.Event()

    def follow(self, members: dict[str, Any]) -> None:
        """Take over who is there: {"version", "links": {seat: incarnation}, "homes": [seat]}."""
        links = {int(seat): int(incarnation) for seat, incarnation in members["links"].items()}
        self._links = links.keys() - {self.seat}
        self._bus.set_members(links)
        self._hub.set_members(self.seat, members["homes"], members["version"])
        self._told.set()
        if self.seat in members["homes"]:
            self._is_home.set()

    async def join(self, *, home: bool = True) -> None:
        """Get linked with everybody, and become a `home`, which one that is drained does not.

        What does not happen in time is logged, and not waited for.
        """
        self._channel.notify("linking")
        try:
            async with asyncio.timeout(LINK_SECS):
                await self._told.wait()
                await self._linked_with_all()
        except TimeoutError:
            missing = sorted(self._links - self._bus.links_up().keys())
            _log.warning("not linked with every worker of this node in time", missing=missing)
        self._channel.notify("linked")
        if not home:
            return
        try:
            async with asyncio.timeout(HOME_SECS):
                await self._is_home.wait()
                while self._hub.holding:  # noqa: ASYNC110 - the hub tells nobody in Python
                    await asyncio.sleep(POLL_SECS)
        except TimeoutError:
            _log.warning("this worker is not the home of any topic yet")

    async def all_arrive(self, at_once: asyncio.Event) -> bool:
        """Wait until the others have all that was handed over to them, or until `at_once`; whether they have."""
        called = False

        def arrived() -> bool:
            nonlocal called
            if not called and not self._hub.holding:
                self._hub.call_others()
                called = True
            return called and self._hub.all_arrived()

        done = await until(arrived, ARRIVAL_SECS, at_once)
        if not done:
            _log.warning("not everything had arrived at the other workers before the end")
        return done

    async def _linked_with_all(self) -> None:
        while not self._links <= self._bus.links_up().keys():  # noqa: ASYNC110 - the bus tells nobody in Python
            await asyncio.sleep(POLL_SECS)

    def statistics(self) -> dict[str, int]:
        """Counters of the bus, and how many links stand."""
        return self._bus.stats()
