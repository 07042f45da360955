"""A worker process as its supervisor sees it: started, asked, watched, and reaped.

Theory of operation. The child gets one end of a control channel, its sockets, and two pipes: one for its log, whose
lines are written out whole as they are, and its standard error, whose lines are logged and the last of them kept for a
report of its end. The end itself is told by a pidfd. A worker that has not answered for some time is asked for the
stacks of its threads and killed.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from realtime_communication.errors import ControlError
from realtime_communication.observability import logs
from realtime_communication.server.control import ControlChannel
from realtime_communication.server.crash_report import MAX_OUTPUT_LINES
from realtime_communication.server.place import Fault

MODULE: Final = "realtime_communication.server.worker_process"
HELD_SIGNALS: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGUSR2)  # until the child has its own rules for them

START_SECS: Final = 60.0  # for a worker to be ready
PING_SECS: Final = 2.0  # between two questions whether it still turns
ANSWER_SECS: Final = 8.0
LAST_CHANCE_SECS: Final = 2.0  # for one more question: this process may have been the one that was stopped
CLOSED_SECS: Final = 10.0  # for its process to end after its channel
DUMP_SECS: Final = 1.0  # for the stacks of its threads to arrive

READ_BYTES: Final = 1 << 16
MAX_LINE_BYTES: Final = 1 << 16  # of a pipe; what is longer is cut into lines of this length

_log = logs.get_logger(__name__)

Answerer = Callable[["WorkerHandle", dict[str, Any]], Any]


class WorkerHandle:
    """See the head of this module.

    - `ready`: set when it serves; `ended`: when it is gone, with `status` as `subprocess` gives it, None when it could
      not even be started
    - `seat`: its number on the bus; `linking`, `linked`: whether it begins to be, and is, linked with the others there
    - `draining`: it sends its clients elsewhere and goes on
    - `stopping`: it was asked to end; `put_down`: why it was killed, when it was
    - `fault`: why it ended, as it says itself
    """

    def __init__(self, slot: int, incarnation: int, answerers: Mapping[str, Answerer], seat: int = 0) -> None:
        self.slot = slot
        self.seat = seat
        self.incarnation = incarnation
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()
        self.status: int | None = None
        self.linking = False
        self.linked = False
        self.draining = False
        self.stopping = False
        self.put_down = ""
        self.fault: Fault | None = None
        self.output: collections.deque[str] = collections.deque(maxlen=MAX_OUTPUT_LINES)
        self.started_at = time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._pipes: list[_Pipe] = []
        self._tasks: list[asyncio.Task[None]] = []
        mine, self._theirs = socket.socketpair()
        self.channel = ControlChannel(mine)
        for method, answerer in answerers.items():
            self._answer(method, answerer)
        self.channel.on("ready", lambda params: self.ready.set())
        self.channel.on("failed", self._on_failed)

    @property
    def pid(self) -> int | None:
        """The process, None when it could not be started."""
        return None if self._process is None else self._process.pid

    @property
    def serving(self) -> bool:
        """Whether it is ready and has neither ended nor been asked to."""
        return self.ready.is_set() and not self.stopping and not self.ended.is_set()

    def start(self, inherited: Sequence[int]) -> None:
        """Start the process with those descriptors. A failure is an end like any other: `ended` is set."""
        log, log_writer = os.pipe()
        errors, errors_writer = os.pipe()
        loop = asyncio.get_running_loop()
        self._pipes = [_Pipe(loop, log, logs.put_line), _Pipe(loop, errors, self._on_output)]
        control = self._theirs.fileno()
        command = [sys.executable, "-P", "-m", MODULE, str(control), str(log_writer), f"--slot={self.slot}"]
        # It finds the modules that this process finds, its own as well as an operator's transforms.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path)}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this program again
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stderr=errors_writer,
                pass_fds=(control, log_writer, *inherited),
            )
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError as error:
            self.fault = Fault(0, (str(error),))
            self.kill("")
            loop.call_soon(self._on_end)
        else:
            loop.add_reader(self._pidfd, self._on_end)
            self._tasks = [
                loop.create_task(self.channel.run(), name=f"channel of worker {self.slot}"),
                loop.create_task(self._watch(), name=f"watch over worker {self.slot}"),
            ]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._theirs.close()
            os.close(log_writer)
            os.close(errors_writer)

    def stop(self, *, at_once: bool = False, restart: bool = False) -> None:
        """Ask it to end; one that does not serve yet is killed."""
        self.stopping = True
        if self.ready.is_set():
            self.channel.notify("stop", {"at_once": at_once, "restart": restart})
        else:
            self.kill("")

    def kill(self, reason: str) -> None:
        """End it now."""
        self.put_down = self.put_down or reason
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    async def wait_ready(self) -> bool:
        """Wait until it serves; False when it ended instead."""
        loop = asyncio.get_running_loop()
        waiting = [loop.create_task(event.wait()) for event in (self.ready, self.ended)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        return self.ready.is_set() and not self.ended.is_set()

    async def end_within(self, secs: float, reason: str) -> None:
        """Wait until it is gone, killed after that many seconds."""
        try:
            async with asyncio.timeout(secs):
                await self.ended.wait()
        except TimeoutError:
            _log.error("a worker did not end in time and is killed", worker=self.slot, pid=self.pid, reason=reason)
            self.kill(reason)
            await self.ended.wait()

    # What it tells

    def _answer(self, method: str, answerer: Answerer) -> None:
        self.channel.on(method, lambda params: answerer(self, params))

    def _on_failed(self, params: dict[str, Any]) -> None:
        self.fault = msgspec.convert(params["fault"], Fault)

    def _on_output(self, line: str) -> None:
        if not line:
            return
        self.output.append(line)
        _log.warning("a worker wrote to standard error", worker=self.slot, line=line)

    def _on_end(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
        if self._process is not None:
            self.status = self._process.wait()
        for pipe in self._pipes:
            pipe.finish()
        self.channel.close()
        for task in self._tasks:
            task.cancel()
        self.ended.set()

    # Whether it is well

    async def _watch(self) -> None:
        try:
            async with asyncio.timeout(START_SECS):
                await self.ready.wait()
        except TimeoutError:
            await self._put_down(f"it was not ready within {START_SECS:g} s")
            return
        while True:
            if not (await self._turns(ANSWER_SECS) or await self._turns(LAST_CHANCE_SECS)):
                break
            await asyncio.sleep(PING_SECS)
        if not self.channel.closed:
            await self._put_down(f"it did not answer for {ANSWER_SECS + LAST_CHANCE_SECS:g} s")
            return
        # Its loop is over: it ends by itself, unless something keeps it.
        await asyncio.sleep(CLOSED_SECS)
        await self._put_down(f"it did not end {CLOSED_SECS:g} s after its event loop")

    async def _turns(self, secs: float) -> bool:
        try:
            await self.channel.call("ping", timeout_secs=secs)
        except (TimeoutError, ControlError):
            return False
        return True

    async def _put_down(self, reason: str) -> None:
        _log.error("a worker is stuck and will be killed", worker=self.slot, pid=self.pid, reason=reason)
        self.put_down = reason  # before the signal: one that has no handler for it yet ends by it
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGUSR1)
        await asyncio.sleep(DUMP_SECS)
        self.kill(reason)


class _Pipe:
    """Cuts what comes through a pipe into lines, each of bounded length, until `finish` or its end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptor: int, take: Callable[[str], None]) -> None:
        os.set_blocking(descriptor, False)
        self._loop = loop
        self._descriptor = descriptor
        self._take = take
        self._rest = b""
        self._open = True
        loop.add_reader(descriptor, self._read)

    def finish(self) -> None:
        """Take what is there, and no more."""
        while self._read():
            pass
        self._close()

    def _read(self) -> bool:
        """Take a piece; False when there is nothing more now."""
        if not self._open:
            return False
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._close()
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._take(line.decode("utf-8", "backslashreplace"))
        return True

    def _close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        if self._rest:
            self._take(self._rest.decode("utf-8", "backslashreplace"))
