"""Looks at the processes of a server with many workers."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from serving.peer import Peer, unique_user
from serving.processes import ServerProcess

WAIT_SECS = 60.0


def until(reached: Callable[[], Any], what: str, seconds: float = WAIT_SECS) -> Any:
    """What ``reached`` returns once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := reached()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return found


def ready(server: ServerProcess) -> dict[int, int]:
    """Slot and process of the workers that were ready last."""
    return {line["worker"]: line["pid"] for line in server.events("a worker is ready")}


def all_ready(server: ServerProcess, count: int = 2, times: int | None = None) -> dict[int, int]:
    """As ``ready``, once ``count`` slots are there, and workers became ready ``times`` times in all."""
    wanted = count if times is None else times
    told = f"{wanted} workers ready"
    found: dict[int, int] = until(lambda: len(server.events("a worker is ready")) >= wanted and ready(server), told)
    return found


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def worker_of(port: int, peer: Peer, pids: dict[int, int]) -> int:
    """The slot of the worker that holds a client's connection to ``port``."""
    local = peer.connection.socket.getsockname()[1]
    wanted = (f":{port:04X}", f":{local:04X}")
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(wanted[0]) and fields[2].endswith(wanted[1]):
            link = f"socket:[{fields[9]}]"
            for slot, pid in pids.items():
                if link in links_of(pid):
                    return slot
    raise AssertionError("no worker holds the connection")


def links_of(pid: int) -> set[str]:
    """What the descriptors of a process point to."""
    links = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    return links


def on_each(server: ServerProcess, pids: dict[int, int], peers: list[Peer]) -> dict[int, Peer]:
    """A client on each worker; all that are made go to ``peers``."""
    found: dict[int, Peer] = {}
    for _ in range(200):
        peer = Peer(server.url, unique_user())
        peers.append(peer)
        found.setdefault(worker_of(server.port, peer, pids), peer)
        if len(found) == len(pids):
            return found
    raise AssertionError(f"200 connections, and all to the workers {sorted(found)}")


IMPATIENT = """
import sys

from realtime_communication.cli.main import main
from realtime_communication.server import worker_handle

worker_handle.PING_SECS = 0.2
worker_handle.ANSWER_SECS = 0.5
worker_handle.LAST_CHANCE_SECS = 0.2
worker_handle.DUMP_SECS = 0.3
main()
"""
"""A program as the server's, whose supervisor gives up a worker that does not answer after 0.7 s."""


class ImpatientServer(ServerProcess):
    """The server of that program."""

    def _command(self, environment: dict[str, str]) -> list[str]:
        _, *words = super()._command(environment)
        return [sys.executable, "-c", IMPATIENT, *words]


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process does nothing for a while: SIGSTOP, and SIGCONT at the end where it is still there."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
