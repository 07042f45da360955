"""One server or several that serve the same topics, for scenarios that must hold on each of them.

Every one is a `StartDeployment`: a context manager over settings that all its servers have. They end with it, and
their logs must show no failure of their own.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.asking import ask
from serving.processes import ServerProcess, assert_clean, free_port, merged
from serving.redis import RedisServer
from serving.redis_cluster import cluster
from serving.redis_sentinel import NAME, sentinel_trio
from serving.workers import until


@dataclass(frozen=True)
class Deployment:
    """Servers that serve the same topics. ``keeps_history``: a restarted one continues its epochs.

    ``stores`` are the Redis servers behind them, the master first.
    """

    servers: Sequence[ServerProcess]
    keeps_history: bool = False
    stores: Sequence[RedisServer] = ()

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.servers]


StartDeployment = Callable[[dict[str, Any]], AbstractContextManager[Deployment]]


@contextmanager
def one_worker(settings: dict[str, Any]) -> Iterator[Deployment]:
    """One server with one worker, everything in its memory."""
    with started(1, settings) as servers:
        yield Deployment(servers)


@contextmanager
def two_workers(settings: dict[str, Any]) -> Iterator[Deployment]:
    """One server with two workers, everything in their memory."""
    with started(1, merged({"server": {"workers": 2}}, settings)) as servers:
        yield Deployment(servers)


@contextmanager
def two_nodes(settings: dict[str, Any]) -> Iterator[Deployment]:
    """Two servers with one Redis."""
    with RedisServer() as store, started(2, with_redis(settings, url=store.url)) as servers:
        yield Deployment(servers, keeps_history=True, stores=[store])


@contextmanager
def two_nodes_of_two_workers(settings: dict[str, Any]) -> Iterator[Deployment]:
    """Two servers of two workers each, with one Redis."""
    with two_nodes(merged({"server": {"workers": 2}}, settings)) as deployment:
        yield deployment


@contextmanager
def two_nodes_with_sentinel(settings: dict[str, Any]) -> Iterator[Deployment]:
    """Two servers with a master and a replica that three Sentinels watch."""
    with sentinel_trio() as (master, replicas, sentinels):
        addresses = [sentinel.address for sentinel in sentinels]
        sentinel = {"enabled": True, "master_name": NAME, "sentinels": addresses}
        with started(2, with_redis(settings, url=master.url, sentinel=sentinel)) as servers:
            yield Deployment(servers, keeps_history=True, stores=[master, *replicas])


@contextmanager
def two_nodes_with_cluster(settings: dict[str, Any]) -> Iterator[Deployment]:
    """Two servers with a cluster of three masters, each with a replica."""
    with cluster() as made:
        nodes = {"enabled": True, "nodes": [store.url for store in made.nodes]}
        with started(2, with_redis(settings, cluster=nodes)) as servers:
            yield Deployment(servers, keeps_history=True, stores=made.nodes)


def with_redis(settings: dict[str, Any], **redis: Any) -> dict[str, Any]:
    """``settings`` and where Redis is."""
    return merged({"redis": redis, "testing": {"use_in_memory_storage": False}}, settings)


@contextmanager
def started(count: int, settings: dict[str, Any], **options: Any) -> Iterator[list[ServerProcess]]:
    """So many servers with the same settings, but for the port of their metrics; `options` as for ServerProcess."""
    with ExitStack() as stack:
        servers = []
        for _ in range(count):
            metrics = {"metrics": {"port": free_port()}} if settings.get("metrics", {}).get("enabled") else {}
            server = ServerProcess("product", free_port(), merged(settings, metrics), None, **options)
            stack.callback(server.dispose)
            servers.append(server)
        with ThreadPoolExecutor(count) as starting:
            list(starting.map(ServerProcess.start, servers))
        yield servers
        for server in servers:
            assert_clean(server)


@contextmanager
def listening(settings: dict[str, Any]) -> Iterator[ServerProcess]:
    """One server, whose handlers of signals are there."""
    with started(1, settings) as (server,):
        assert ask(server.port, "GET", "/health").status == 200
        yield server


def worker_pids(server: ServerProcess) -> list[int]:
    """The worker processes below a server's supervisor; none where it is the worker itself."""
    return [int(pid) for pid in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()]


def kill_worker(server: ServerProcess, index: int = 0) -> None:
    """SIGKILL one of them."""
    pids = worker_pids(server)
    assert len(pids) > 1, f"the server has no worker processes of its own: {pids}"
    os.kill(pids[index], signal.SIGKILL)


def replace_workers(server: ServerProcess) -> None:
    """A rolling restart, to its end."""
    done = len(server.events("rolling restart done"))
    os.kill(server.pid, signal.SIGUSR2)
    until(lambda: len(server.events("rolling restart done")) > done, "the rolling restart is done", 60)
