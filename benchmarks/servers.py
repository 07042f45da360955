"""Starting the servers that are measured, stopping them, and what their processes use."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import prepare
from .candidates import SECRET, Candidate

START_TIMEOUT_SECS = 20.0
STOP_TIMEOUT_SECS = 10.0
SUFFIXES = {"centrifugo": "json", "nats": "conf"}
"""Of configuration files that are not TOML, by protocol."""


class StartError(Exception):
    """A server did not start; the message ends with what it printed."""


class Running:
    """A started server, pinned to one core."""

    def __init__(self, candidate: Candidate, port: int, process: subprocess.Popen[bytes]) -> None:
        self.candidate = candidate
        self.port = port
        self._process = process

    def pids(self) -> list[int]:
        """The server's process and all below it."""
        found = [self._process.pid]
        for pid in found:
            try:
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            except FileNotFoundError:
                continue
            found += [int(child) for child in children]
        return found

    def rss_bytes(self) -> int:
        return sum(rss_bytes(pid) for pid in self.pids())

    def settle(self, limit_secs: float = 10.0) -> None:
        """Waits until the server does nothing any more, such as freeing the connections of the run before."""
        deadline = time.monotonic() + limit_secs
        used = -1
        while (now_used := sum(map(run_time_ns, self.pids()))) - used > 1_000_000 and time.monotonic() < deadline:
            used = now_used
            time.sleep(0.05)


def rss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    return 0


def run_time_ns(pid: int) -> int:
    """The CPU time a process has had, nanoseconds (proc(5), schedstat)."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    except FileNotFoundError:
        return 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(candidate: Candidate, core: int | str, port: int = 0) -> Iterator[Running]:
    """Starts a server on a core of its own and stops it afterwards. Raises StartError.

    `core` may be a list of them, as taskset(1) has it; port 0 is a free one.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        configuration = Path(folder) / f"config.{SUFFIXES.get(candidate.protocol, 'toml')}"
        output = Path(folder) / "output"
        port = port or free_port()
        configuration.write_text(candidate.configuration.replace("@PORT@", str(port)))
        command = [part.format(port=port, config=configuration) for part in candidate.command]
        with output.open("wb") as out:
            process = subprocess.Popen(
                ["taskset", "-c", str(core), *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=prepare.ROOT,
                env={**os.environ, "JWT_SECRET": SECRET, **dict(candidate.environment)},
            )
        try:
            wait_until_listening(candidate, process, port, output)
            yield Running(candidate, port, process)
        finally:
            stop(process)


def wait_until_listening(candidate: Candidate, process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise StartError(f"{candidate.name} did not start:\n{output.read_text(errors='replace')[-2000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a server: asked first, killed when it takes too long."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_SECS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
