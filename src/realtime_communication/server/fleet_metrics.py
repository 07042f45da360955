"""The metrics of all workers of a node, served by their supervisor: each scrape asks every worker once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from realtime_communication._core.hub.hub import Hub
from realtime_communication.auth.chain import AuthenticationChain
from realtime_communication.config import LoadedConfig
from realtime_communication.http.fleet import GATHER_SECS
from realtime_communication.http.services import Services
from realtime_communication.observability.families import Families
from realtime_communication.observability.fleet_metrics import FleetMetrics
from realtime_communication.observability.logs import get_logger
from realtime_communication.observability.metrics import Metrics, Snapshot
from realtime_communication.observability.sources import Sources
from realtime_communication.server.fleet_centre import FleetCentre
from realtime_communication.server.listening import Listener
from realtime_communication.server.metrics_server import MetricsServer

RESTART_SECS: Final = 1.0  # after a failure of the service

_OF_PROCESSES: Final = ("process_", "python_")
_log = get_logger(__name__)


class SupervisedMetrics:
    """What a MetricsServer in the supervisor serves: the metrics of all workers, and its own as a process.

    `configuration` is the one in force at each time, `restarts` tells those of each slot. Scrapes that come at the same
    time share one answer. `services` is what the server of a port works with.
    """

    def __init__(
        self,
        configuration: Callable[[], LoadedConfig],
        fleet: FleetCentre,
        restarts: Callable[[], Sequence[int]],
    ) -> None:
        loaded = configuration()
        monitoring = loaded.config.monitoring
        prometheus = monitoring.prometheus
        workers = len(restarts())
        self._merged = FleetMetrics(Families(prometheus.namespace, prometheus.subsystem), workers)
        self._own = Metrics(msgspec.structs.replace(monitoring, custom_metrics=()), Sources(stats=dict))
        self._configuration = configuration
        self.services = Services(
            hub=Hub("supervisor"),
            chain=AuthenticationChain([]),
            config=loaded.config,
            profile=loaded.profile,
            node_id="",
        )
        self._fleet = fleet
        self._restarts = restarts
        self._asking: asyncio.Task[Snapshot] | None = None

    def update(self) -> None:
        """Take what costs something of this process."""
        self._own.update()

    def note_lag(self, seconds: float) -> None:
        """As `Metrics.note_lag`; called often, so that a changed configuration is seen soon."""
        self.services.config = self._configuration().config
        self._own.note_lag(seconds)

    async def snapshot(self) -> Snapshot:
        """All metrics as they are now."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask(), name="metrics of the workers")
        return await asyncio.shield(self._asking)

    async def _ask(self) -> Snapshot:
        answers = await self._fleet.ask("metrics", {}, GATHER_SECS)
        own = [family for family in self._own.collect() if family.name.startswith(_OF_PROCESSES)]
        told = {slot: answer for slot, answer in answers.items() if answer is not None}
        self._merged.take(told, self._restarts(), own)
        return Snapshot(list(self._merged.collect()))


async def serve_metrics(metrics: SupervisedMetrics, listeners: Sequence[Listener]) -> None:
    """Answer scrapes until this is cancelled; a failure is logged, and it starts anew."""
    while True:
        try:
            await MetricsServer(metrics, listeners, metrics.services).run()
        except Exception:
            _log.exception("the metrics are served no more, and will be again")
        await asyncio.sleep(RESTART_SECS)
