"""FAULTS.md: Network, Process: all clients lose their connections at once and come back at once, with Redis behind."""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest
from websockets.exceptions import InvalidStatus

from serving.checker import Checker
from serving.continuity import acknowledged
from serving.deployments import started, with_redis
from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess
from serving.proxy import scenario
from serving.redis import RedisServer
from serving.swarm import Swarm

CLIENTS = 1500
"""As many as this swarm, which is written in Python, brings back within some seconds."""
PUBLISHERS = 2
SPARE = 1
LEAST_KIB = 32 * CLIENTS
"""Memory that so many more clients may take at most: 32 KiB each."""
BACK_SECS = 25.0


@contextlib.contextmanager
def one_node() -> Iterator[ServerProcess]:
    """A server that has room for the clients of the test and one more, and its history in Redis."""
    settings = {"websocket": {"max_connections": CLIENTS + PUBLISHERS + SPARE}}
    with RedisServer() as store, started(1, with_redis(settings, url=store.url)) as (server,):
        yield server


def restart(server: ServerProcess, swarm: Swarm) -> None:
    """Its process is killed and started again."""
    server.kill()
    server.start()


def cut_all(server: ServerProcess, swarm: Swarm) -> None:
    """Every connection is reset."""
    for client in swarm.clients:
        client.cut()


def assert_full(server: ServerProcess) -> None:
    """Exactly `SPARE` places are left: what was lost takes none, and the limit holds."""
    with Peer(server.url, unique_user()), pytest.raises(InvalidStatus) as refusal:
        Peer(server.url, unique_user())
    assert refusal.value.response.status_code == 503


@pytest.mark.parametrize("happens", [restart, cut_all])
@scenario
async def test_all_come_back_at_once(happens: object) -> None:
    checker, topic = Checker(), unique()
    with one_node() as server:
        async with Swarm([server.url], checker, reconnect_secs=(0.0, 0.05)) as swarm:
            await swarm.subscribe(CLIENTS, [topic])
            await swarm.publish(PUBLISHERS, [topic], 4)
            await acknowledged(swarm, 4)
            swarm.opening = asyncio.Semaphore(CLIENTS)
            before_kib = server.resident_kib()
            if happens is restart:
                await asyncio.to_thread(restart, server, swarm)
            else:
                cut_all(server, swarm)
            assert await swarm.until(lambda: all(client.opened > 1 for client in swarm.clients), BACK_SECS)
            assert await swarm.ready(BACK_SECS), swarm.away()
            await acknowledged(swarm, 4)
            await swarm.settle()
            await asyncio.to_thread(assert_full, server)
            assert server.resident_kib() - before_kib < LEAST_KIB
    totals = checker.totals
    assert totals.resets == totals.gaps_told == 0, checker.report()
    assert totals.recoveries >= CLIENTS
    assert totals.acknowledged == totals.published, checker.report()
    assert totals.deliveries == CLIENTS * totals.acknowledged, checker.report()
