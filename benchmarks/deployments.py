"""This build as one worker, as several workers, and as nodes that share a Redis.

A deployment that this build does not serve raises `Unavailable`, which says what it lacks; nothing is measured of it.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from .candidates import CANDIDATES, PRODUCT, PRODUCT_CONFIGURATION, Candidate
from .servers import Running, free_port, running, stop

WORKERS_TIMEOUT_SECS = 5.0
REDIS_TIMEOUT_SECS = 10.0
CONFIGURATION: Mapping[str, Mapping[str, object]] = {
    "production": {"drain_timeout_secs": 1, "shutdown_timeout_secs": 2},
    "message_routing": {"max_cache_entries": 1_000_000},
    "testing": {"use_in_memory_storage": True},
}
"""Beside what `benchmarks/run` sets: a short end, and a message cache that holds all of a run."""


class Unavailable(Exception):
    """This build, or this machine, does not have that deployment."""


class Nodes(msgspec.Struct, frozen=True):
    """Servers that share one Redis."""

    servers: Sequence[Running]
    redis_pid: int
    redis_port: int


def product(configuration: str = "", **sections: Mapping[str, object]) -> Candidate:
    """This build. `sections` are tables of the configuration, `configuration` more of its text."""
    found = next(candidate for candidate in CANDIDATES if candidate.name == PRODUCT)
    tables = {**CONFIGURATION, **sections}
    lines = [PRODUCT_CONFIGURATION, configuration]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {msgspec.json.encode(value).decode()}" for key, value in table.items())]
    return msgspec.structs.replace(found, configuration="\n".join(lines) + "\n")


def sized(candidate: Candidate, *, connections: int, mailbox: int | None = None) -> Candidate:
    """With room for so many connections, and for so many messages that wait for one of them."""
    text = candidate.configuration.replace("max_connections = 15000", f"max_connections = {connections}")
    if mailbox is not None:
        text = text.replace("mailbox_capacity = 10000", f"mailbox_capacity = {mailbox}")
    return msgspec.structs.replace(candidate, configuration=text)


@contextmanager
def workers(count: int, cores: str) -> Iterator[Running]:
    """One server with so many workers. Raises Unavailable when it runs with fewer."""
    configured = product()
    text = configured.configuration.replace("workers = 1", f"workers = {count}")
    with running(msgspec.structs.replace(configured, configuration=text), cores) as server:
        wanted = count + 1 if count > 1 else 1  # several have a supervisor above them
        deadline = time.monotonic() + WORKERS_TIMEOUT_SECS
        while len(server.pids()) < wanted:
            if time.monotonic() > deadline:
                raise Unavailable(f"this build runs one process with workers = {count}")
            time.sleep(0.05)
        yield server


@contextmanager
def nodes(count: int, cores: str) -> Iterator[Nodes]:
    """So many servers with one Redis. Whether publications pass between them is the caller's to find out."""
    with ExitStack() as stack:
        pid, port = stack.enter_context(redis(cores))
        candidate = product(
            redis={"url": f"redis://127.0.0.1:{port}"},
            testing={"use_in_memory_storage": False},
        )
        servers = [stack.enter_context(running(candidate, cores)) for _ in range(count)]
        yield Nodes(servers, pid, port)


@contextmanager
def redis(cores: str) -> Iterator[tuple[int, int]]:
    """A Redis that keeps nothing on the disk: its process and its port. Raises Unavailable."""
    if shutil.which("redis-server") is None:
        raise Unavailable("there is no redis-server on this machine")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(
                ["taskset", "-c", cores, *command], cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            deadline = time.monotonic() + REDIS_TIMEOUT_SECS
            while ask_redis(port, "ping") != "PONG":
                if time.monotonic() > deadline or process.poll() is not None:
                    raise Unavailable("redis-server does not answer")
                time.sleep(0.05)
            yield process.pid, port
        finally:
            stop(process)


def ask_redis(port: int, *command: str) -> str:
    """The answer to one command, as redis-cli prints it."""
    asked = subprocess.run(["redis-cli", "-p", str(port), *command], capture_output=True, text=True, check=False)
    return asked.stdout.strip()


def peak_rss_bytes(pid: int) -> int:
    """The most memory that a process ever had resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
