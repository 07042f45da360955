"""One worker process: the compiled data plane and the HTTP application on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import resource
import signal
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

from realtime_communication import __version__
from realtime_communication._core.hub.hub import Hub
from realtime_communication._core.io.reactor import Reactor
from realtime_communication.auth.chain import chain_of, issuer_of
from realtime_communication.broker.broker import broker_of
from realtime_communication.config import LoadedConfig
from realtime_communication.http.app import make_application, max_body
from realtime_communication.http.connection import HttpServer
from realtime_communication.http.debug import resident_bytes
from realtime_communication.http.services import Check, Services
from realtime_communication.observability.logs import dropped_lines, get_logger
from realtime_communication.resilience.breaker import Breakers
from realtime_communication.resilience.supervision import Crash, RestartPolicy, Service, Supervisor
from realtime_communication.server.affinity import pin_to_core
from realtime_communication.server.collector import Collector
from realtime_communication.server.core_settings import core_settings
from realtime_communication.server.listening import Listener, open_listeners
from realtime_communication.server.shutdown import shut_down

DEMO_USER: Final = "demo"
HTTP_SHUTDOWN_SECS: Final = 1.0
SPARE_FILES: Final = 64  # descriptors beside those of connections: logs, epoll, listeners, HTTP

_log = get_logger(__name__)


def run(loaded: LoadedConfig) -> int:
    """Serve until SIGTERM or SIGINT; the exit status of the process.

    Raises EnvironmentFault when the machine refuses what is configured, such as the address, and RestartLimitReached
    when the server ended because its services kept crashing.
    """
    server = loaded.config.server
    listeners = open_listeners(server.host, server.port)
    try:
        _raise_file_limit(loaded.config.websocket.max_connections)
        if loaded.config.performance.actors.pin_actors_to_cores:
            _log.info("bound to a core", core=pin_to_core(0))
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            status = runner.run(Worker(loaded, listeners).serve())
            # The closing loop takes its handlers away: a signal from here on would kill a process that ends well.
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
            return status
    finally:
        for listener in listeners:
            listener.close()


class Worker:
    """The parts of a worker, and their life from the first connection to the last."""

    def __init__(self, loaded: LoadedConfig, listeners: list[Listener]) -> None:
        config = loaded.config
        self._listeners = listeners
        self._production = config.production
        node_id = "node-1" if config.testing.deterministic_ids else uuid.uuid4().hex[:16]
        self._hub = Hub(node_id)
        self._hub.configure(core_settings(config))
        breakers = Breakers(config.circuit_breaker)
        self._broker = broker_of(config, node_id, breakers)
        chain = chain_of(config.auth, bypass=config.testing.bypass_auth)
        self._services = Services(
            hub=self._hub,
            chain=chain,
            config=config,
            profile=loaded.profile,
            node_id=node_id,
            issuer=issuer_of(config.auth) if loaded.profile == "dev" else None,
            port=listeners[0].port,
            breakers=breakers,
            checks={"services": self._check_services, "log": _check_log}
            | ({"redis": self._check_redis} if self._broker.link is not None else {}),
        )
        self._http = HttpServer(make_application(self._services), functools.partial(max_body, self._services))
        memory = config.performance.memory
        self._collector = Collector(memory.gc_interval_secs, memory.gc_threshold_mb, resident_bytes)
        actors = config.actor_system
        self._supervisor = Supervisor(
            [
                Service("HTTP", self._serve_http),
                Service("garbage collector", self._collector.run),
                *self._broker.services,
            ],
            RestartPolicy(actors.supervision_strategy, actors.max_restarts, actors.restart_window_secs),
            _report_crash,
        )
        self._http_ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._at_once = asyncio.Event()

    async def serve(self) -> int:
        """Run from the first connection to the last; the exit status. Raises RestartLimitReached, when all is over."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_isolate)
        supervising = loop.create_task(self._supervisor.run(), name="supervisor")
        supervising.add_done_callback(self._on_services_ended)
        await self._http_ready.wait()
        if supervising.done():
            await supervising
        chain = self._services.chain
        reactor = Reactor(self._hub, loop, chain.authenticate_upgrade, chain.authenticate_message, self._http.adopt)
        for listener in self._listeners:
            reactor.listen(listener.sock)
        self._install_signals(loop)
        reactor.start()
        try:
            self._announce()
            await self._stopping.wait()
            await self._shut_down(reactor, supervising)
        finally:
            reactor.stop()
        _log.info("stopped", uptime_secs=round(self._services.uptime_secs, 1))
        with contextlib.suppress(asyncio.CancelledError):
            await supervising
        return 0

    async def _serve_http(self) -> None:
        """The HTTP application; connections that come while it is not running are answered 503."""
        await self._http.start()
        self._http_ready.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self._http.shutdown(HTTP_SHUTDOWN_SECS)

    def _on_services_ended(self, supervising: asyncio.Task[None]) -> None:
        if not supervising.cancelled():
            _log.error("giving up: the server shuts down", reason=str(supervising.exception()))
        self._http_ready.set()
        self._stopping.set()

    async def _check_services(self) -> Check:
        states = self._supervisor.states()
        return Check(
            ok=all(state.running for state in states),
            detail={state.name: {"running": state.running, "restarts": state.restarts} for state in states},
        )

    async def _check_redis(self) -> Check:
        link = self._broker.link
        assert link is not None, "without Redis it is not asked"
        ok, detail = link.health()
        return Check(ok=ok, detail=detail, required=self._services.config.redis.required)

    async def _shut_down(self, reactor: Reactor, supervising: asyncio.Task[None]) -> None:
        self._services.draining = True
        if not self._production.enable_graceful_shutdown:
            self._at_once.set()
        supervising.cancel()
        await shut_down(
            self._hub,
            reactor.stop_accepting,
            drain_secs=self._production.drain_timeout_secs,
            close_secs=self._production.shutdown_timeout_secs,
            at_once=self._at_once,
        )
        await asyncio.wait([supervising])

    def _install_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, number.name)
        # Without a handler a hang-up would end the process. Nothing can be reloaded yet.
        loop.add_signal_handler(signal.SIGHUP, _log.warning, "SIGHUP: this version cannot reload its configuration")

    def _on_stop(self, name: str) -> None:
        if self._stopping.is_set():
            _log.warning("second signal: closing at once", signal=name)
            self._at_once.set()
        self._stopping.set()

    def _announce(self) -> None:
        for listener in self._listeners:
            _log.info("listening", url=listener.url, port=listener.port, version=__version__)
        url = self._listeners[0].url
        lines = [f"realtime_communication {__version__} listening on {url}"]
        issuer = self._services.issuer
        if issuer is not None:
            lines.append(f"demo page: {url}/")
            lines.append(f"token of {DEMO_USER!r}: {issuer.access_token(DEMO_USER, time.time())}")
        with contextlib.suppress(OSError, ValueError):  # a closed standard output is no reason to stop
            # One write: where the log goes to the same file, its lines must not come between a text and its line end.
            print("\n".join(lines) + "\n", end="", flush=True)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where there is one; it does not exist for every platform."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _raise_file_limit(connections: int) -> None:
    """Use as many file descriptors as the system allows this process; say so when that is too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    if soft != resource.RLIM_INFINITY and soft < connections + SPARE_FILES:
        _log.warning("fewer file descriptors than connections are allowed", files=soft, max_connections=connections)


async def _check_log() -> Check:
    dropped = dropped_lines()
    return Check(ok=dropped == 0, detail={"dropped_lines": dropped})


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
