"""A worker as a process of its own, under a supervisor: `python -m realtime_communication.server.worker_process`.

Theory of operation. The supervisor starts it with the descriptors of its sockets and one end of a control channel; the
command line names those two that are needed to begin, and nothing secret. It says `hello`, gets its Assignment,
serves, and says `ready`. The terminal's and the operator's signals are for the supervisor, which tells it what to do;
SIGTERM to the process itself ends it well too.

It never outlives its supervisor: when the channel ends it shuts down as after SIGTERM, and a thread sees to it that a
loop that is stuck does not stand in the way. SIGUSR1 writes the stacks of all threads to standard error.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import functools
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from realtime_communication import __version__
from realtime_communication._core.io.reactor import Reactor
from realtime_communication.errors import ConfigurationError, ConfigurationProblem, ControlError, RealtimeError
from realtime_communication.observability import logs
from realtime_communication.server.affinity import pin_to_core
from realtime_communication.server.control import ControlChannel
from realtime_communication.server.neighbours import Neighbours
from realtime_communication.server.place import Assignment, Fault, unpacked_assignment, unpacked_configuration
from realtime_communication.server.shutdown import RESTARTING
from realtime_communication.server.worker import Worker, loop_factory

SUPERVISORS_SIGNALS: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGUSR2)
"""A terminal sends some of them to the whole group; the supervisor acts on them for all."""

LED: Final = ("prepare", "commit", "abort", "note_reload", "tell_members", "load", "stop")
"""Methods of SupervisedWorker that the supervisor calls."""

HELLO_SECS: Final = 60.0
ORPHAN_SPARE_SECS: Final = 5.0  # beyond its own time-outs, for a worker to end without its supervisor

_log = logs.get_logger(__name__)


class SupervisedWorker(Worker):
    """A worker that a supervisor leads over `channel`.

    `members` is what it was told last of the live workers of its node.
    """

    def __init__(self, assignment: Assignment, channel: ControlChannel) -> None:
        listeners = [each.listener() for each in assignment.listeners]
        metrics_listeners = [each.listener() for each in assignment.metrics_listeners]
        super().__init__(assignment.loaded, listeners, metrics_listeners, assignment.place, channel)
        self.channel = channel
        self.members: dict[str, Any] | None = None
        self._neighbours: Neighbours | None = None
        self._prepared: tuple[int, Callable[[], None]] | None = None

    def stop(self, params: dict[str, Any]) -> None:
        """Begin to shut down: `at_once`, or because of a `restart`, when another process takes the connections.

        More calls are no harm.
        """
        if params.get("restart") and not self._stopping.is_set():
            self._farewell = RESTARTING
        if params.get("at_once"):
            self._at_once.set()
        self._stopping.set()

    # A configuration that changes in all workers or in none

    def prepare(self, params: dict[str, Any]) -> list[tuple[str, str, str, str]]:
        """Get ready for another configuration; the problems with it, none when `commit` may follow."""
        try:
            loaded = unpacked_configuration(params["loaded"])
            commit = self.parts.live.prepare(loaded, reload=params["reload"])
        except ConfigurationError as error:
            return as_rows(error)
        self._prepared = params["version"], commit
        return []

    def commit(self, params: dict[str, Any]) -> None:
        """Put into force what was prepared. Raises ControlError when that was something else."""
        prepared, self._prepared = self._prepared, None
        if prepared is None or prepared[0] != params["version"]:
            raise ControlError("nothing of that version is prepared")
        prepared[1]()

    def abort(self, params: dict[str, Any]) -> None:
        """Forget what was prepared."""
        self._prepared = None

    def note_reload(self, params: dict[str, Any]) -> None:
        """Note how the last reload of the server went."""
        self.parts.live.last_reload = params["worked"], params["at"]

    def tell_members(self, params: dict[str, Any]) -> None:
        """Note which workers are live."""
        self.members = params
        if self.parts.rebalancing is not None:
            self.parts.rebalancing.follow(params)
        if self._neighbours is not None:
            self._neighbours.follow(params)

    def load(self, params: dict[str, Any]) -> None:
        """Note how busy another worker is."""
        if self.parts.rebalancing is not None:
            self.parts.rebalancing.take_load(params["seat"], params["cpu"])

    # What a worker alone does otherwise

    async def _join(self, reactor: Reactor) -> None:
        await super()._join(reactor)
        place = self.parts.place
        self._neighbours = Neighbours(place, self.parts.hub, reactor, self.channel)
        self.parts.neighbours = self._neighbours
        self.parts.draining.begun = functools.partial(self.channel.notify, "draining")
        if place.drained:
            self.parts.draining.begin(place.workers)  # before it takes connections: it refuses those that come
        await self._neighbours.join(home=not place.drained)

    async def _shut_down(self, reactor: Reactor, supervising: asyncio.Task[None]) -> None:
        rebalancing = self.parts.rebalancing
        if self._farewell is RESTARTING and not self._at_once.is_set():
            reactor.stop_accepting()
            if rebalancing is not None:
                await rebalancing.hand_all_over()
            if self._neighbours is not None:
                await self._neighbours.all_arrive(self._at_once)
        await super()._shut_down(reactor, supervising)

    def _install_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.add_signal_handler(signal.SIGTERM, self._on_stop, "SIGTERM")

    def _announce(self) -> None:
        self.channel.notify("ready")


def as_rows(error: ConfigurationError) -> list[tuple[str, str, str, str]]:
    """The problems of a configuration as they travel."""
    return [msgspec.structs.astuple(problem) for problem in error.problems]


def as_error(rows: list[tuple[str, str, str, str]]) -> ConfigurationError:
    """What `as_rows` made rows of."""
    return ConfigurationError([ConfigurationProblem(*row) for row in rows])


def main() -> None:
    """The process: arguments are the descriptors of its control channel and of its log."""
    control, log = (int(word) for word in sys.argv[1:3])
    faulthandler.enable(all_threads=True)
    faulthandler.register(signal.SIGUSR1, all_threads=True, chain=False)
    for number in SUPERVISORS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SUPERVISORS_SIGNALS)
    for descriptor in (control, log):
        os.set_inheritable(descriptor, False)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        status = runner.run(_serve(socket.socket(fileno=control), log))
        # The closing loop takes its handler away: a signal from here on would kill a process that ends well.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    logs.shutdown()
    sys.exit(status)


async def _serve(control: socket.socket, log: int) -> int:
    guard = OrphanGuard(control)
    channel = ControlChannel(control)
    channel.on("ping", lambda params: None)
    loop = asyncio.get_running_loop()
    made: asyncio.Future[SupervisedWorker] = loop.create_future()
    for method in LED:
        channel.on(method, functools.partial(_led, made, method))
    running = loop.create_task(channel.run(), name="control channel")
    hello = {"pid": os.getpid(), "version": __version__}
    assignment = unpacked_assignment(await channel.call("hello", hello, HELLO_SECS))
    config, place = assignment.loaded.config, assignment.place
    logs.configure(config.logging.level, config.logging.format, log)
    logs.set_fields(worker=place.slot)
    production = config.production
    guard.most_secs = production.drain_timeout_secs + production.shutdown_timeout_secs + ORPHAN_SPARE_SECS
    try:
        if config.performance.actors.pin_actors_to_cores:
            _log.info("bound to a core", core=pin_to_core(place.slot))
        worker = SupervisedWorker(assignment, channel)
        made.set_result(worker)

        def orphaned(ended: asyncio.Task[None]) -> None:
            _log.error("the supervisor is gone: shutting down")
            worker.stop({})

        running.add_done_callback(orphaned)
        status = await worker.serve()
        running.remove_done_callback(orphaned)
    except RealtimeError as error:
        rows = as_rows(error) if isinstance(error, ConfigurationError) else []
        fault = Fault(error.exit_status, (str(error),), tuple(rows))
        with contextlib.suppress(ControlError, TimeoutError):
            await channel.call("failed", {"fault": msgspec.to_builtins(fault)})
        status = error.exit_status
    if channel.closed and place.bus_dir:
        _remove_bus(place.bus_dir, place.seat)
    return status


async def _led(made: asyncio.Future[SupervisedWorker], method: str, params: dict[str, Any]) -> Any:
    """What the supervisor asks of the worker, which may still be in the making."""
    return getattr(await asyncio.shield(made), method)(params)


def _remove_bus(folder: str, seat: int) -> None:
    """Without a supervisor each worker removes its own socket, and the last one the folder."""
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(folder, f"{seat}.sock"))
    with contextlib.suppress(OSError):
        os.rmdir(folder)


class OrphanGuard:
    """Kills this process `most_secs` after its supervisor went, from a thread: the loop may be stuck by then."""

    def __init__(self, control: socket.socket) -> None:
        self.most_secs = ORPHAN_SPARE_SECS
        self._descriptor = os.dup(control.fileno())  # the channel closes its own
        threading.Thread(target=self._watch, name="orphan-guard", daemon=True).start()

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLRDHUP)
        poll.poll()
        time.sleep(self.most_secs)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
