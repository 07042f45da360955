"""A worker that sends its clients elsewhere and goes on: `POST /admin/drain`, before an operator stops or moves it.

The listeners stay open, so that `/health/ready` can say that no new clients are welcome: upgrades and publications are
refused from the beginning. Every client is told to come back within a spread of time, as at a shutdown; who is still
here after `production.drain_timeout_secs` is closed. There is no way back but a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from realtime_communication.http.services import Services
from realtime_communication.observability.logs import get_logger
from realtime_communication.server.shutdown import GOING_AWAY, DrainingHub, spread_ms, until

_log = get_logger(__name__)


class Draining:
    """`run` is a service task; `begin` starts what it does. `drain_secs` is asked when it starts.

    `begun` is called then; among several workers it has this one's topics handed over to the others, whose clients
    publish on.
    """

    def __init__(self, hub: DrainingHub, services: Services, drain_secs: Callable[[], float]) -> None:
        self._hub = hub
        self._services = services
        self._drain_secs = drain_secs
        self._begun = asyncio.Event()
        self.begun: Callable[[], None] = lambda: None

    def begin(self, workers: int) -> int:
        """Tell every client; how many there are, 0 when they have been told before.

        `workers` do so at once: their clients all come back somewhere else.
        """
        if self._services.draining:
            return 0
        self._services.draining = True
        connections = self._hub.connection_count()
        tls = self._services.config.security.tls.enabled
        self._hub.begin_drain(spread_ms(connections * workers, tls=tls), GOING_AWAY.reason, GOING_AWAY.code)
        self.begun()
        self._begun.set()
        return connections

    async def run(self) -> None:
        """Close those that stay too long, once it has begun; until this is cancelled."""
        await self._begun.wait()
        hub = self._hub
        if not await until(lambda: hub.connection_count() == 0, self._drain_secs(), asyncio.Event()):
            _log.warning("clients that did not leave are closed", connections=hub.connection_count())
            hub.close_all(GOING_AWAY.code, GOING_AWAY.reason)
        _log.info("drained")
        await asyncio.get_running_loop().create_future()
