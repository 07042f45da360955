"""FAULTS.md: Process, Cluster: SIGKILL at any moment of a worker's life, and signals in storms, while messages flow.

What happens when is drawn from a seed, which cannot say what the machine does meanwhile: every run hits others.
With Redis behind nothing acknowledged is lost. Without it the topics of a killed worker begin a new epoch, and who had
them is told; the account of all else stays the same.
"""

import asyncio
import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from serving.asking import ask, until
from serving.checker import Checker
from serving.continuity import acknowledged
from serving.deployments import Deployment, StartDeployment, started, with_redis, worker_pids
from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess, assert_clean, free_port
from serving.proxy import scenario
from serving.raw import RawSocket, upgrade
from serving.redis import RedisServer
from serving.swarm import Swarm
from serving.workers import all_ready, is_alive, ready

WORKERS = 3
SETTINGS = {"server": {"workers": WORKERS}, "actor_system": {"max_restarts": 1000, "restart_window_secs": 10}}
SUBSCRIBERS = 12


@contextlib.contextmanager
def alone(settings: dict[str, object]) -> Iterator[Deployment]:
    with started(1, settings) as servers:
        yield Deployment(servers)


@contextlib.contextmanager
def with_a_store(settings: dict[str, object]) -> Iterator[Deployment]:
    with RedisServer() as store, started(1, with_redis(settings, url=store.url)) as servers:
        yield Deployment(servers, keeps_history=True, stores=[store])


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def at_rest(server: ServerProcess, chance: random.Random) -> None:
    kill(chance.choice(worker_pids(server)))


def while_it_starts(server: ServerProcess, chance: random.Random) -> None:
    """The successor of one that died is killed too: before it says anything, while it joins, or just behind that."""
    before = worker_pids(server)
    kill(chance.choice(before))
    fresh = until(lambda: set(worker_pids(server)) - set(before), lambda: server.log[-2000:])
    time.sleep(chance.uniform(0, 0.6))
    kill(fresh.pop())


def while_it_hands_over(server: ServerProcess, chance: random.Random) -> None:
    """In a rolling restart: an old one, a new one, or one that has nothing to do with it."""
    os.kill(server.pid, signal.SIGUSR2)
    time.sleep(chance.uniform(0, 1.2))
    at_rest(server, chance)


def while_it_ends(server: ServerProcess, chance: random.Random) -> None:
    pid = chance.choice(worker_pids(server))
    os.kill(pid, signal.SIGTERM)
    time.sleep(chance.uniform(0, 0.05))
    kill(pid)


def while_it_reads_its_configuration(server: ServerProcess, chance: random.Random) -> None:
    for _ in range(5):
        server.hang_up()
    time.sleep(chance.uniform(0, 0.1))
    at_rest(server, chance)


MOMENTS: list[Callable[[ServerProcess, random.Random], None]] = [
    at_rest,
    while_it_starts,
    while_it_hands_over,
    while_it_ends,
    while_it_reads_its_configuration,
]


def whole(server: ServerProcess) -> bool:
    """All workers are there, and ready."""
    pids = worker_pids(server)
    return len(pids) == WORKERS and set(pids) <= set(ready(server).values())


@contextlib.contextmanager
def handshakes(server: ServerProcess) -> Iterator[None]:
    """Somebody begins a request all the time, and does not end it."""
    over = threading.Event()

    def knock() -> None:
        held: list[RawSocket] = []
        while not over.wait(0.02):
            with contextlib.suppress(OSError):
                held.append(RawSocket(server.port))
                held[-1].send(upgrade()[:60])
            if len(held) > 20:
                held.pop(0).socket.close()
        for raw in held:
            raw.socket.close()

    thread = threading.Thread(target=knock)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(("start", "seed"), [(with_a_store, 1), (alone, 2)])
@scenario
async def test_workers_are_killed_at_any_moment(start: StartDeployment, seed: int) -> None:
    chance = random.Random(seed)
    moments = chance.sample(MOMENTS, len(MOMENTS))
    checker, topics = Checker(), [unique() for _ in range(6)]
    with start(SETTINGS) as deployment:
        (server,) = deployment.servers
        await asyncio.to_thread(all_ready, server, WORKERS)
        async with Swarm(deployment.urls, checker) as swarm:
            await swarm.subscribe(SUBSCRIBERS, topics)
            await swarm.publish(3, topics, 300)
            await acknowledged(swarm, 60)
            with handshakes(server):
                for moment in moments:
                    await asyncio.to_thread(moment, server, chance)
                    await asyncio.to_thread(until, lambda: whole(server), lambda: server.log[-3000:])
                    await acknowledged(swarm, 60)
            assert await swarm.ready(), swarm.away()
            await acknowledged(swarm, 120)
            await swarm.settle()
    totals = checker.totals
    assert totals.acknowledged == totals.published, checker.report()
    assert checker.refusals.keys() <= {"unavailable"}, checker.refusals
    if deployment.keeps_history:
        assert totals.resets == totals.gaps_told == 0, checker.report()
        assert totals.deliveries == SUBSCRIBERS * totals.acknowledged, checker.report()
    else:
        assert totals.epochs_changed > 0


@pytest.mark.parametrize("seed", [3, 4])
def test_it_ends_in_a_storm_of_signals(seed: int) -> None:
    """All signals at once, and a worker that is killed meanwhile: it ends well, and leaves no process."""
    chance = random.Random(seed)
    server = ServerProcess("product", free_port(), SETTINGS, None)
    try:
        server.start()
        all_ready(server, WORKERS)
        peers = [Peer(server.url, unique_user()) for _ in range(20)]
        pids = worker_pids(server)
        for number in chance.choices([signal.SIGHUP, signal.SIGUSR2], k=10):
            os.kill(server.pid, number)
        time.sleep(chance.uniform(0, 0.5))
        pids += worker_pids(server)
        server.terminate()
        kill(chance.choice(pids))
        for number in chance.choices([signal.SIGHUP, signal.SIGUSR2, signal.SIGTERM], k=10):
            with contextlib.suppress(ProcessLookupError):
                os.kill(server.pid, number)
        assert server.wait() == 0, server.log[-3000:]
        until(lambda: not any(map(is_alive, pids)))
        for peer in peers:
            assert peer.close_code(10) in (1001, 1012, 1006)
            peer.close()
        assert_clean(server)
    finally:
        server.dispose()


def test_the_server_serves_on_after_a_storm() -> None:
    """SIGHUP and SIGUSR2 by the dozen, workers that are killed with it: in the end all serve."""
    chance = random.Random(5)
    server = ServerProcess("product", free_port(), SETTINGS, None)
    try:
        server.start()
        all_ready(server, WORKERS)
        for _ in range(4):
            for number in chance.choices([signal.SIGHUP, signal.SIGUSR2], k=6):
                os.kill(server.pid, number)
            time.sleep(chance.uniform(0, 0.3))
            at_rest(server, chance)
        until(lambda: whole(server), lambda: server.log[-3000:])
        topic = unique()
        with Peer(server.url, unique_user()) as reader, Peer(server.url, unique_user()) as writer:
            reader.ok("Subscribe", topic=topic)
            writer.ok("Broadcast", topic=topic, payload=1)
            assert reader.event()["payload"] == 1
        assert ask(server.port, "GET", "/health").status == 200
        assert server.stop() == 0
        assert_clean(server)
    finally:
        server.dispose()
