"""The metrics on a port of their own: `GET` of one path, and nothing else.

Rules: nothing here touches the main port, and nobody who is slow or many can hold up the loop or take memory. A
connection carries one scrape and lives at most MAX_SCRAPE_SECS, there are at most MAX_SCRAPERS of them, and the answer
is made from what is in memory, its text in a thread.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
from collections.abc import Awaitable, Sequence
from typing import Any, Final, Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from realtime_communication.config import LoadedConfig
from realtime_communication.errors import EnvironmentFault
from realtime_communication.http.answers import SERVER_NAME, response_of
from realtime_communication.http.connection import HttpConnection
from realtime_communication.http.services import Services
from realtime_communication.observability.logs import get_logger
from realtime_communication.observability.metrics import OPENMETRICS, TEXT, Snapshot
from realtime_communication.server.listening import UNIX_PREFIX, Listener, open_listeners

LOCAL_HOST: Final = "127.0.0.1"  # where the metrics are when the server itself has no network address
MAX_SCRAPE_SECS: Final = 10.0
MAX_SCRAPERS: Final = 32
STOP_SECS: Final = 0.5  # for scrapes to be answered at the end
LAG_PROBE_SECS: Final = 0.5  # how often the delay of the loop is measured
GZIP_LEVEL: Final = 1  # text this uniform hardly gets smaller above it

_LINGER_NOT: Final = struct.pack("ii", 1, 0)  # struct linger of socket(7)

_log = get_logger(__name__)


def open_metrics_listeners(loaded: LoadedConfig) -> list[Listener]:
    """The sockets of the metrics' port, to be opened before anything is served; none when metrics are off.

    Raises EnvironmentFault that names the key when the port cannot be had; in the dev profile, where servers come and
    go beside each other, that is a warning and there are no metrics.
    """
    config = loaded.config
    prometheus = config.monitoring.prometheus
    if not (prometheus.enabled and config.logging.enable_metrics):
        return []
    host = LOCAL_HOST if config.server.host.startswith(UNIX_PREFIX) else config.server.host
    try:
        return open_listeners(host, prometheus.port)
    except EnvironmentFault as fault:
        if loaded.profile != "dev":
            raise EnvironmentFault(f"{fault} (monitoring.prometheus.port)") from None
        _log.warning("no metrics: their port cannot be had", key="monitoring.prometheus.port", reason=str(fault))
        return []


class Served(Protocol):
    """What is served: the metrics of this process, or those of several."""

    def update(self) -> None:
        """Take what costs something."""

    def note_lag(self, seconds: float) -> None:
        """Hear how much later than asked for the loop called somebody."""

    def snapshot(self) -> Snapshot | Awaitable[Snapshot]:
        """All metrics as they are now."""


class MetricsServer:
    """Serves `metrics` and keeps them up to date, in `run`, until that task is cancelled.

    The interval is that of the configuration in `services` at each time. The listeners stay open for another `run`.
    """

    def __init__(self, metrics: Served, listeners: Sequence[Listener], services: Services) -> None:
        self._metrics = metrics
        self._listeners = tuple(listeners)
        self._services = services

    async def run(self) -> None:
        """Answer scrapes, and take what costs something once in an interval."""
        self._update()
        runner = web.AppRunner(
            self._application(),
            handle_signals=False,
            access_log=None,
            auto_decompress=False,
            shutdown_timeout=STOP_SECS,
        )
        await runner.setup()
        servers = []
        try:
            for listener in self._listeners:
                servers.append(await self._listen(runner, listener))
            await self._keep_up_to_date()
        finally:
            for server in servers:
                server.close()
            await runner.cleanup()

    async def _listen(self, runner: web.AppRunner, listener: Listener) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        manager = runner.server
        assert manager is not None, "the runner is set up"

        def connection() -> asyncio.Protocol:
            return ScrapeConnection(manager, self._services, b"", 0, loop=loop, **manager._kwargs)

        # The loop closes its socket at the end; a copy of it, so that the service can start again.
        return await loop.create_server(connection, sock=listener.sock.dup())

    async def _keep_up_to_date(self) -> None:
        loop = asyncio.get_running_loop()
        updated = loop.time()
        while True:
            due = loop.time() + min(LAG_PROBE_SECS, self._interval())
            await asyncio.sleep(due - loop.time())
            now = loop.time()
            self._metrics.note_lag(now - due)
            if now - updated >= self._interval():
                self._update()
                updated = now

    def _interval(self) -> float:
        return self._services.config.monitoring.prometheus.update_interval_secs

    def _update(self) -> None:
        """A figure that cannot be had is no reason to stop serving messages: the service does not crash for it."""
        try:
            self._metrics.update()
        except Exception:
            _log.exception("the metrics could not be brought up to date")

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[_close_behind])
        application.on_response_prepare.append(_on_prepare)
        application.router.add_get(self._services.config.monitoring.prometheus.path, self._scrape)
        return application

    async def _scrape(self, request: web.Request) -> web.Response:
        openmetrics = "application/openmetrics-text" in request.headers.get("Accept", "").lower()
        packed = accepts_gzip(request.headers.get("Accept-Encoding", ""))
        headers = {"Content-Type": OPENMETRICS if openmetrics else TEXT, "Vary": "Accept, Accept-Encoding"}
        if packed:
            headers["Content-Encoding"] = "gzip"
        # With every label there can be, the text is half a megabyte, which no message should wait for.
        taken = self._metrics.snapshot()
        snapshot = taken if isinstance(taken, Snapshot) else await taken
        body = await asyncio.to_thread(_encode, snapshot, openmetrics=openmetrics, packed=packed)
        return web.Response(body=body, headers=headers)


class ScrapeConnection(HttpConnection):
    """A connection of the metrics' port: one request, a bounded time, a bounded number of its kind."""

    __slots__ = ("_deadline",)

    def __init__(self, manager: web.Server, services: Services, first: bytes, max_body: int, **options: Any) -> None:
        super().__init__(manager, services, first, max_body, **options)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve it, or close it at once when there are too many."""
        super().connection_made(transport)
        if self._manager is not None and len(self._manager.connections) > MAX_SCRAPERS:
            self._cut_off()
        else:
            self._deadline = asyncio.get_running_loop().call_later(MAX_SCRAPE_SECS, self._cut_off)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _cut_off(self) -> None:
        if self.transport is None:
            return
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            # A reset: the kernel too lets go of what nobody reads.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self.transport.abort()


def accepts_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding header allows gzip (RFC 9110 section 12.5.3)."""
    for part in accepted.lower().split(","):
        coding, _, parameters = part.partition(";")
        if coding.strip() in ("gzip", "x-gzip"):
            return parameters.strip().removeprefix("q=").strip("0. ") != "" or not parameters.strip()
    return False


def _encode(snapshot: Snapshot, *, openmetrics: bool, packed: bool) -> bytes:
    text = snapshot.text(openmetrics=openmetrics)
    return gzip.compress(text, GZIP_LEVEL, mtime=0) if packed else text


@web.middleware
async def _close_behind(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every answer is the last one of its connection, and says so."""
    try:
        response = await handler(request)
    except web.HTTPException as answer:
        response = response_of(answer)
    response.force_close()
    return response


async def _on_prepare(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = SERVER_NAME
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
