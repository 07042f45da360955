"""One worker process: the compiled data plane and the HTTP application on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
from collections.abc import Callable, Sequence
from typing import Any, Final

from realtime_communication._core.io.reactor import Reactor
from realtime_communication.config import LoadedConfig
from realtime_communication.http.app import make_application, max_body
from realtime_communication.http.connection import HttpServer
from realtime_communication.observability.logs import get_logger
from realtime_communication.resilience.supervision import Crash, RestartPolicy, Service, ServiceState, Supervisor
from realtime_communication.server.affinity import pin_to_core
from realtime_communication.server.control import ControlChannel
from realtime_communication.server.hang_up import take_hang_up
from realtime_communication.server.listening import Listener, open_listeners
from realtime_communication.server.metrics_server import open_metrics_listeners
from realtime_communication.server.parts import Parts
from realtime_communication.server.place import ALONE, Place
from realtime_communication.server.shutdown import GOING_AWAY, shut_down
from realtime_communication.server.startup import announce, raise_file_limit, reserve_files

HTTP_SHUTDOWN_SECS: Final = 1.0
FORGET_SECRETS_SECS: Final = 60.0  # how often earlier signing secrets are looked through

_log = get_logger(__name__)


def run(loaded: LoadedConfig) -> int:
    """Serve until SIGTERM or SIGINT; the exit status of the process.

    Raises ConfigurationError for what only shows when it is used, EnvironmentFault when the machine refuses what is
    configured, such as the address, and RestartLimitReached when the server ended because its services kept crashing.
    """
    server = loaded.config.server
    listeners = open_listeners(server.host, server.port, listening=False)
    metrics_listeners: list[Listener] = []
    try:
        metrics_listeners = open_metrics_listeners(loaded)
        raise_file_limit(loaded.config.websocket.max_connections)
        if loaded.config.performance.actors.pin_actors_to_cores:
            _log.info("bound to a core", core=pin_to_core(0))
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            status = runner.run(Worker(loaded, listeners, metrics_listeners).serve())
            # The closing loop takes its handlers away: a signal from here on would kill a process that ends well.
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
            return status
    finally:
        for listener in (*listeners, *metrics_listeners):
            listener.close()


class Worker:
    """The life of a worker, from the first connection to the last. `parts` is what it is made of."""

    def __init__(
        self,
        loaded: LoadedConfig,
        listeners: list[Listener],
        metrics_listeners: Sequence[Listener] = (),
        place: Place = ALONE,
        channel: ControlChannel | None = None,
    ) -> None:
        config = loaded.config
        reserve_files(config.websocket.max_connections)
        self._listeners = listeners
        self._metrics_listeners = metrics_listeners
        self.parts = parts = Parts(loaded, listeners, metrics_listeners, self._states, place, channel)
        for listener in listeners:
            listener.secure = parts.tls_context is not None
        services = parts.services
        self._http = HttpServer(make_application(services), functools.partial(max_body, services))
        actors = config.actor_system
        self._supervisor = Supervisor(
            [Service("HTTP", self._serve_http), *parts.tasks, Service("key rotation", self._forget_secrets)],
            RestartPolicy(actors.supervision_strategy, actors.max_restarts, actors.restart_window_secs),
            _report_crash,
        )
        self._http_ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._at_once = asyncio.Event()
        self._farewell = GOING_AWAY
        self._reloads: set[asyncio.Task[bool]] = set()

    async def serve(self) -> int:
        """Run from the first connection to the last; the exit status. Raises RestartLimitReached, when all is over."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_isolate)
        supervising = loop.create_task(self._supervisor.run(), name="supervisor")
        supervising.add_done_callback(self._on_services_ended)
        await self._http_ready.wait()
        if supervising.done():
            await supervising
        parts = self.parts
        reactor = Reactor(
            parts.hub,
            loop,
            parts.admission.upgrade,
            parts.admission.message,
            self._http.adopt,
            parts.tls_failures.failed,
        )
        self._http.give_back = reactor.take_back
        parts.follow(reactor)
        self._install_signals(loop)
        reactor.start()
        try:
            await self._join(reactor)
            for listener in self._listeners:
                listener.listen()
                reactor.listen(listener.sock, parts.tls_context)
            self._announce()
            await self._stopping.wait()
            await self._shut_down(reactor, supervising)
        finally:
            reactor.stop()
            parts.admission.close()
            if parts.tracer.enabled:
                await asyncio.to_thread(parts.tracer.shutdown)
        _log.info("stopped", uptime_secs=round(parts.services.uptime_secs, 1))
        with contextlib.suppress(asyncio.CancelledError):
            await supervising
        return 0

    async def _join(self, reactor: Reactor) -> None:
        """Take this worker's place among those of its node, before it takes connections."""
        await self.parts.join()

    async def _serve_http(self) -> None:
        """The HTTP application; connections that come while it is not running are answered 503."""
        await self._http.start()
        self._http_ready.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self._http.shutdown(HTTP_SHUTDOWN_SECS)

    async def _forget_secrets(self) -> None:
        """Stop accepting tokens signed with an earlier secret once the last of them would have expired."""
        while True:
            await asyncio.sleep(FORGET_SECRETS_SECS)
            self.parts.forget_secrets()

    def _states(self) -> list[ServiceState]:
        return self._supervisor.states()

    def _on_services_ended(self, supervising: asyncio.Task[None]) -> None:
        if not supervising.cancelled():
            _log.error("giving up: the server shuts down", reason=str(supervising.exception()))
        self._http_ready.set()
        self._stopping.set()

    async def _shut_down(self, reactor: Reactor, supervising: asyncio.Task[None]) -> None:
        self.parts.services.draining = True
        production = self.parts.live.config.production
        if not production.enable_graceful_shutdown:
            self._at_once.set()
        await shut_down(
            self.parts.hub,
            reactor.stop_accepting,
            drain_secs=production.drain_timeout_secs,
            close_secs=production.shutdown_timeout_secs,
            at_once=self._at_once,
            farewell=self._farewell,
            tls=self.parts.tls_context is not None,
        )
        await self.parts.leave()
        supervising.cancel()
        await asyncio.wait([supervising])

    def _install_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, number.name)
        loop.add_signal_handler(signal.SIGHUP, self._on_hang_up)
        if take_hang_up():
            self._on_hang_up()

    def _on_stop(self, name: str) -> None:
        if self._stopping.is_set():
            _log.warning("second signal: closing at once", signal=name)
            self._at_once.set()
        self._stopping.set()

    def _on_hang_up(self) -> None:
        task = asyncio.get_running_loop().create_task(self.parts.live.reload(), name="reload")
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    def _announce(self) -> None:
        services = self.parts.services
        announce(services.config, self._listeners, self._metrics_listeners, services.issuer)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where there is one; it does not exist for every platform."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _report_crash(crash: Crash) -> None:
    restarted = ", ".join(crash.restarted) or "none"
    try:
        if crash.error is not None:
            raise crash.error
        _log.error("a service ended by itself", service=crash.service, restarted=restarted)
    except Exception:
        _log.exception("a service crashed", service=crash.service, restarted=restarted)


def _isolate(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An exception nobody caught: one line in the log, and the loop goes on."""
    where = str(context.get("message", ""))
    try:
        if context.get("exception") is not None:
            raise context["exception"]
        _log.error("an error in a callback was isolated", where=where)
    except Exception:
        _log.exception("an error in a callback was isolated", where=where)
