"""The supervisor of a node: it holds the sockets, starts the workers, and decides what happens when one ends.

Theory of operation. Each slot has a worker process (`WorkerHandle`), which a task follows from its start to its end. An
end that nobody asked for goes into a queue, and one task takes from it, so that crashes are judged one after the other
by the RestartLedger that also judges the services within a worker. The listening sockets stay open here: while a slot
has no worker, connections to it wait.

SIGTERM and SIGINT end all workers, each in its own grace; a second one ends them at once. SIGHUP reads the
configuration again, for all workers or none. SIGUSR2 replaces the workers one after the other by new processes.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from realtime_communication import __version__
from realtime_communication._core.base.shared import Shared
from realtime_communication.auth.authority import issuer_of
from realtime_communication.auth.chain import mock_issuer_of
from realtime_communication.config import LoadedConfig
from realtime_communication.errors import (
    EXIT_CONFIG,
    EXIT_OS,
    ConfigurationError,
    ConfigurationProblem,
    EnvironmentFault,
    RealtimeError,
    RestartLimitReached,
)
from realtime_communication.observability.logs import get_logger
from realtime_communication.resilience.retry import RetryPolicy
from realtime_communication.resilience.supervision import RestartLedger, RestartPolicy
from realtime_communication.server.crash_report import CrashReport, cause_of, tell
from realtime_communication.server.fleet_centre import FleetCentre
from realtime_communication.server.fleet_metrics import SupervisedMetrics, serve_metrics
from realtime_communication.server.hang_up import take_hang_up
from realtime_communication.server.listening import Listener, open_shared_listeners
from realtime_communication.server.metrics_server import open_metrics_listeners
from realtime_communication.server.neighbours import ARRIVAL_SECS
from realtime_communication.server.node_configuration import NodeConfiguration
from realtime_communication.server.place import SEATS, Assignment, Fault, Place, handed, made_node_id, packed
from realtime_communication.server.rebalancing import HAND_OVER_SECS
from realtime_communication.server.startup import announce, raise_file_limit
from realtime_communication.server.worker_handle import Answerer, WorkerHandle

SPARE_SECS: Final = 5.0  # for a worker to end, beyond its own time-outs
AT_ONCE_SECS: Final = 5.0  # for a worker to end after a second signal
QUICK_SECS: Final = 5.0  # a worker that ends sooner waits before it is started again
BACKOFF: Final = RetryPolicy(attempts=1, delay_secs=0.1, max_delay_secs=5.0)
MAX_BUS_PATH: Final = 80  # of the 107 characters that the path of a Unix socket may have

_log = get_logger(__name__)


def run(loaded: LoadedConfig, workers: int) -> int:
    """Serve with so many worker processes until SIGTERM or SIGINT; the exit status of the process.

    Raises ConfigurationError and EnvironmentFault as a worker alone would, and RestartLimitReached when the workers
    kept crashing.
    """
    server = loaded.config.server
    listeners = open_shared_listeners(server.host, server.port, workers)
    metrics_listeners: list[Listener] = []
    bus_dir = ""
    try:
        metrics_listeners = open_metrics_listeners(loaded)
        raise_file_limit(loaded.config.websocket.max_connections)
        bus_dir = make_bus_dir()
        with asyncio.Runner() as runner:
            status = runner.run(Supervisor(loaded, listeners, metrics_listeners, bus_dir).run())
            # The closing loop takes its handlers away: a signal from here on would kill a process that ends well.
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2))
            return status
    finally:
        for listener in (*itertools.chain(*listeners), *metrics_listeners):
            listener.close()
        if bus_dir:
            shutil.rmtree(bus_dir, ignore_errors=True)


def make_bus_dir() -> str:
    """A new folder for the sockets between the workers, for this user alone. Raises EnvironmentFault."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    for base in (runtime, tempfile.gettempdir(), "/tmp"):  # noqa: S108 - mkdtemp makes a private folder in it
        if base and len(base) < MAX_BUS_PATH:
            try:
                return tempfile.mkdtemp(prefix="rtc-", dir=base)
            except OSError as error:
                reason = f"{base}: {error.strerror}"
    raise EnvironmentFault(f"no folder can be made for the sockets between the workers ({reason})")


class Supervisor:
    """See the head of this module. `listeners` has a list for each slot; the metrics are served here.

    `answerers` are the methods that workers may call here; `configuration` is that of all workers.
    """

    def __init__(
        self,
        loaded: LoadedConfig,
        listeners: Sequence[Sequence[Listener]],
        metrics_listeners: Sequence[Listener],
        bus_dir: str,
    ) -> None:
        config = loaded.config
        self._listeners = listeners
        self._metrics_listeners = metrics_listeners
        for listener in itertools.chain(*listeners):
            listener.secure = config.security.tls.enabled
        self._bus_dir = bus_dir
        self._shared_memory = Shared.create(SEATS)
        self._shared = Shared(self._shared_memory)
        self.workers = len(listeners)
        self.node_id = made_node_id(config)
        self._run = uuid.uuid4().hex
        mock = mock_issuer_of(config.auth) if config.development.mock_external_services else None
        self._mock_keys = mock.private_keys() if mock is not None else ()
        self.fleet = FleetCentre(self.serving, lambda: list(self._live))
        self.answerers: dict[str, Answerer] = {
            "hello": self._hello,
            "linking": self._linking,
            "linked": self._linked,
            "draining": self._draining,
            "change": self._change,
            **self.fleet.answerers,
        }
        self.configuration = NodeConfiguration(loaded, self._configured)
        actors = config.actor_system
        self._policy = RestartPolicy(actors.supervision_strategy, actors.max_restarts, actors.restart_window_secs)
        self._ledger = RestartLedger(self._policy, self.workers)
        self._slots: list[WorkerHandle | None] = [None] * self.workers
        self._live: set[WorkerHandle] = set()  # every process that has not ended, one that drains too
        self._assigned: set[WorkerHandle] = set()  # those that got a configuration
        self._restarts = [0] * self.workers
        self._quick_ends = [0] * self.workers  # in a row
        self._incarnations = itertools.count(1)
        self._crashed: asyncio.Queue[WorkerHandle] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._rolling: asyncio.Task[None] | None = None
        self._announced = False
        self._version = 0
        self._stopping = asyncio.Event()
        self._at_once = asyncio.Event()
        self._started_at = time.monotonic()

    async def run(self) -> int:
        """Lead the workers until a signal ends them all; the exit status. Raises what `run` of this module does."""
        loop = asyncio.get_running_loop()
        self._install_signals(loop)
        if self._metrics_listeners:
            self._serve_metrics()
        leading = loop.create_task(self._lead(), name="supervisor")
        stopping = loop.create_task(self._stopping.wait())
        try:
            await asyncio.wait([leading, stopping], return_when=asyncio.FIRST_COMPLETED)
            if leading.done():
                if isinstance(leading.exception(), RestartLimitReached):
                    _log.error("giving up: the server shuts down", reason=str(leading.exception()))
                leading.result()
        finally:
            for task in (leading, stopping):
                task.cancel()
            await self._shut_down()
            _log.info("stopped", uptime_secs=round(time.monotonic() - self._started_at, 1))
        return 0

    def serving(self) -> list[WorkerHandle]:
        """The workers that serve, by slot."""
        return [handle for handle in self._slots if handle is not None and handle.serving]

    def restarts(self) -> list[int]:
        """How often each slot was started again after a crash."""
        return list(self._restarts)

    def _serve_metrics(self) -> None:
        metrics = SupervisedMetrics(lambda: self.configuration.loaded, self.fleet, self.restarts)
        self._spawn(serve_metrics(metrics, self._metrics_listeners), "metrics")

    # Lives of workers

    async def _lead(self) -> None:
        """Start the workers and start them again. Raises when that is no use."""
        for slot in range(self.workers):
            self._slots[slot] = self._started(slot)
        while True:
            await self._restart(await self._crashed.get())

    def _started(self, slot: int, *, drained: bool = False) -> WorkerHandle:
        """A new process, which a task follows; not yet the one of its slot. It is `drained` as the one before was."""
        taken = {handle.seat for handle in self._live}
        seat = next(seat for seat in itertools.count() if seat not in taken)
        handle = WorkerHandle(slot, next(self._incarnations), self.answerers, seat)
        handle.draining = drained
        self._live.add(handle)
        inherited = [self._shared_memory] + [listener.sock.fileno() for listener in self._listeners[slot]]
        handle.start(inherited)
        self._spawn(self._follow(handle), f"worker {slot}")
        return handle

    async def _follow(self, handle: WorkerHandle) -> None:
        if await handle.wait_ready():
            _log.info("a worker is ready", worker=handle.slot, pid=handle.pid, incarnation=handle.incarnation)
            self._announce()
        await handle.ended.wait()
        self._live.discard(handle)
        self._assigned.discard(handle)
        self._shared.forget_slot(handle.seat)
        self._tell_members()
        if handle is self._slots[handle.slot] and not handle.stopping:
            self._crashed.put_nowait(handle)

    async def _restart(self, crashed: WorkerHandle) -> None:
        """Do as the policy says. Raises RestartLimitReached, and what the first start of a worker failed with."""
        slot, fault = crashed.slot, crashed.fault
        if fault is not None and not self._announced and fault.status in (EXIT_CONFIG, EXIT_OS):
            raise _error_of(fault)
        again = self._ledger.crashed(slot, time.monotonic())
        cause = self._tell_crash(crashed, again or ())
        if again is None:
            raise RestartLimitReached(
                f"worker {slot} crashed, and more than {self._policy.max_restarts} restarts within "
                f"{self._policy.window_secs:g} s are not allowed (actor_system.max_restarts, restart_window_secs): "
                f"{cause}"
            )
        former = {other: self._slots[other] for other in again}
        await self._end([handle for handle in former.values() if handle is not None and handle is not crashed])
        self._quick_ends[slot] = self._quick_ends[slot] + 1 if _uptime(crashed) < QUICK_SECS else 0
        if self._quick_ends[slot]:
            await asyncio.sleep(BACKOFF.ceiling(self._quick_ends[slot] - 1))
        for other in again:
            before = former[other]
            if self._slots[other] is before:  # a rolling restart may have been quicker
                self._slots[other] = self._started(other, drained=before is not None and before.draining)
                self._restarts[other] += 1

    async def _end(self, handles: Sequence[WorkerHandle]) -> None:
        """End workers whose successors take their connections."""
        for handle in handles:
            handle.stopping = True
        self._tell_members()  # first, so that they hand their topics over
        for handle in handles:
            handle.stop(restart=True)
        secs = self._grace_secs() + HAND_OVER_SECS + ARRIVAL_SECS
        await asyncio.gather(*(handle.end_within(secs, "it did not drain") for handle in handles))

    def _tell_crash(self, crashed: WorkerHandle, again: Sequence[int]) -> str:
        said = crashed.fault.lines if crashed.fault is not None else ()
        cause, hint = cause_of(crashed.status, said, crashed.put_down)
        report = CrashReport(
            slot=crashed.slot,
            pid=crashed.pid,
            incarnation=crashed.incarnation,
            cause=cause,
            hint=hint,
            uptime_secs=_uptime(crashed),
            restarts=self._restarts[crashed.slot],
            output=tuple(crashed.output),
        )
        tell(report, again)
        return cause

    def _tell_members(self) -> None:
        """Tell every worker which ones are there to be linked with, and which are homes of topics."""
        if self._stopping.is_set():
            return  # all of them end: nothing is to move any more
        self._version += 1
        there = [handle for handle in self._live if handle.linking and not handle.ended.is_set()]
        homes = [handle for handle in there if handle.linked and not handle.stopping]
        staying = [handle for handle in homes if not handle.draining]
        members = {
            "version": self._version,
            "links": {handle.seat: handle.incarnation for handle in there},
            "homes": sorted(handle.seat for handle in staying or homes),
        }
        for handle in there:
            handle.channel.notify("tell_members", members)

    def _linking(self, handle: WorkerHandle, params: dict[str, Any]) -> None:
        handle.linking = True
        self._tell_members()

    def _linked(self, handle: WorkerHandle, params: dict[str, Any]) -> None:
        handle.linked = True
        self._tell_members()

    def _draining(self, handle: WorkerHandle, params: dict[str, Any]) -> None:
        handle.draining = True
        self._tell_members()

    def _announce(self) -> None:
        """Say where the server is, once all workers are ready for the first time."""
        if self._announced or len(self.serving()) < self.workers:
            return
        self._announced = True
        loaded = self.configuration.loaded
        issuer = issuer_of(loaded.config.auth) if loaded.profile == "dev" else None
        announce(loaded.config, self._listeners[0], self._metrics_listeners, issuer)

    async def _roll(self) -> None:
        """Replace the workers, one after the other; the old one goes on until the new one serves."""
        _log.info("rolling restart", workers=self.workers)
        for slot in range(self.workers):
            successor = self._started(slot)
            if not await successor.wait_ready():
                said = successor.fault.lines if successor.fault is not None else ()
                cause, _ = cause_of(successor.status, said, successor.put_down)
                output = "\n".join(successor.output)[-500:]
                _log.error(
                    "the rolling restart ends: a new worker did not start, the old ones go on",
                    worker=slot,
                    cause=cause,
                    output=output,
                )
                return
            former, self._slots[slot] = self._slots[slot], successor
            if former is not None:
                await self._end([former])
        _log.info("rolling restart done", workers=self.workers)

    # The end

    async def _shut_down(self) -> None:
        for task in self._tasks:
            if task is self._rolling:
                task.cancel()
        for listener in itertools.chain(*self._listeners):
            listener.close()  # from here on connections are refused
        for handle in self._live:
            handle.stop(at_once=self._at_once.is_set())
        ended = asyncio.ensure_future(self._all_ended())
        hurry = asyncio.ensure_future(self._at_once.wait())
        await asyncio.wait([ended, hurry], timeout=self._grace_secs(), return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not ended.done() and self._at_once.is_set():
            for handle in self._live:
                handle.stop(at_once=True)
            await asyncio.wait([ended], timeout=AT_ONCE_SECS)
        for handle in self._live:
            if not handle.ended.is_set():
                _log.error("a worker did not end in time and is killed", worker=handle.slot, pid=handle.pid)
                handle.kill("it did not end in time")
        await ended
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _all_ended(self) -> None:
        for handle in list(self._live):
            await handle.ended.wait()

    def _grace_secs(self) -> float:
        production = self.configuration.loaded.config.production
        return production.drain_timeout_secs + production.shutdown_timeout_secs + SPARE_SECS

    # Signals

    def _install_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, number.name)
        loop.add_signal_handler(signal.SIGHUP, self._on_hang_up)
        loop.add_signal_handler(signal.SIGUSR2, self._on_roll)
        if take_hang_up():
            self._on_hang_up()

    def _on_stop(self, name: str) -> None:
        if self._stopping.is_set():
            _log.warning("second signal: closing at once", signal=name)
            self._at_once.set()
        else:
            _log.info("shutting down all workers", signal=name)
        self._stopping.set()

    def _on_hang_up(self) -> None:
        self._spawn(self.configuration.reload(), "reload")

    def _on_roll(self) -> None:
        if self._rolling is not None and not self._rolling.done():
            _log.warning("a rolling restart is under way already")
        elif not self._stopping.is_set():
            self._rolling = self._spawn(self._roll(), "rolling restart")

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            try:
                task.result()
            except Exception:
                _log.exception("a task of the supervisor failed", task=task.get_name())

    # What workers ask

    async def _hello(self, handle: WorkerHandle, params: dict[str, Any]) -> bytes:
        if params["version"] != __version__:
            _log.warning("a worker of another version", worker=handle.slot, version=params["version"])
        async with self.configuration.lock:  # what it begins with must not be out of date at once
            self._assigned.add(handle)
            metrics = self._metrics_listeners
            place = Place(
                slot=handle.slot,
                seat=handle.seat,
                shared_memory=self._shared_memory,
                workers=self.workers,
                incarnation=handle.incarnation,
                node_id=self.node_id,
                run=self._run,
                bus_dir=self._bus_dir,
                metrics_port=metrics[0].port if metrics else None,
                mock_keys=self._mock_keys,
                drained=handle.draining,
            )
            assignment = Assignment(
                place=place,
                loaded=self.configuration.loaded,
                listeners=handed(self._listeners[handle.slot]),
            )
            return packed(assignment)

    async def _change(self, handle: WorkerHandle, params: dict[str, Any]) -> list[tuple[str, str, str, str]]:
        """Change some keys in all workers: `changes` by path, `who`; the problems, none when it is in force."""
        try:
            await self.configuration.change(params["changes"], params["who"])
        except ConfigurationError as error:
            return [(each.key, each.value, each.origin, each.message) for each in error.problems]
        return []

    def _configured(self) -> list[WorkerHandle]:
        return [handle for handle in self._assigned if not handle.stopping and not handle.ended.is_set()]


def _uptime(handle: WorkerHandle) -> float:
    return time.monotonic() - handle.started_at


def _error_of(fault: Fault) -> RealtimeError:
    """The error that a worker ended by, as it would have been raised here."""
    if fault.problems:
        return ConfigurationError([ConfigurationProblem(*row) for row in fault.problems])
    return EnvironmentFault("; ".join(fault.lines))
