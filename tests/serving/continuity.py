"""What every deployment must stand without losing, doubling or reordering a message unsaid.

Each scenario starts a deployment of its own by the ``start`` it is given (`serving.deployments`), so that one worker,
several, or nodes that share a Redis run through the same faults.
"""

import asyncio
import collections
import contextlib
import random
from collections.abc import Sequence
from typing import Any

from serving.asking import health, until
from serving.checker import Checker, Totals
from serving.deployments import Deployment, StartDeployment, kill_worker, replace_workers, worker_pids
from serving.peer import unique
from serving.swarm import Swarm
from serving.troubles import Trouble

CUTS = 12
CUT_SECS = 0.15
KILLED_SECS = 1.0
"""For a node to notice that its Redis is gone."""
SLOW_PAYLOAD = 8000
SLOW_MESSAGES = 1500
"""Of that size: more than the kernel's buffers and a mailbox of `SLOW_CAPACITY` take."""
SLOW_CAPACITY = 50
HELD_BACK = 200
"""Publications without an answer that show that a publisher is being held."""


async def restart_under_load(start: StartDeployment, *, graceful: bool) -> Totals:
    """The first server ends, by SIGTERM or SIGKILL, and starts again while others publish and listen."""
    checker, topics = Checker(), [unique() for _ in range(3)]
    with start({}) as deployment:
        async with Swarm(deployment.urls, checker) as swarm:
            await swarm.subscribe(15, topics)
            await swarm.publish(3, topics, 600)
            await acknowledged(swarm, 150)
            server = deployment.servers[0]
            ends_well = graceful or bool(worker_pids(server))  # workers that lose their supervisor say goodbye
            await asyncio.to_thread(server.stop if graceful else server.kill)
            await asyncio.to_thread(server.start)
            assert await swarm.ready(), swarm.away()
            await acknowledged(swarm, 150)
            await swarm.settle()
            codes = collections.Counter(code for client in swarm.clients for code in client.closes)
            assert codes.keys() == ({1001} if ends_well else {1006}), (codes, server.log[-3000:])
    totals = checker.totals
    assert checker.refusals.keys() <= {"unavailable"}, checker.refusals  # to a publisher while the server ends
    assert totals.acknowledged == totals.published, checker.report()
    if deployment.keeps_history:
        assert totals.resets == 0
        assert totals.deliveries == 15 * totals.acknowledged, checker.report()
    else:
        assert totals.resets == totals.epochs_changed == 15 * len(topics), checker.report()
    return totals


async def cut_connections(start: StartDeployment) -> Totals:
    """Some subscribers and a publisher lose their connection by RST, again and again; others never do."""
    checker, topics = Checker(), [unique() for _ in range(2)]
    chosen = random.Random(20260101)
    with start({}) as deployment:
        async with Swarm(deployment.urls, checker) as swarm:
            await swarm.subscribe(8, topics)
            unlucky = await swarm.subscribe(12, topics)
            first, _ = await swarm.publish(2, topics, 600)
            for _ in range(CUTS):
                await asyncio.sleep(CUT_SECS)
                for client in chosen.sample(unlucky, 6):
                    client.cut()
                first.cut()
            assert await swarm.ready(), swarm.away()
            await swarm.settle()
    totals = checker.totals
    assert totals.recoveries >= CUTS * len(topics)
    assert totals.resets == 0, "what was missed is in the cache"
    assert totals.refused == 0, checker.refusals
    assert totals.deliveries == 20 * totals.acknowledged, checker.report()
    return totals


async def worker_killed(start: StartDeployment) -> Totals:
    """A worker of the first server dies and is started again; the others' clients may lose epochs, told, and no more.

    For deployments whose servers have worker processes of their own.
    """
    checker, topics = Checker(), [unique() for _ in range(6)]
    with start({}) as deployment:
        async with Swarm(deployment.urls, checker) as swarm:
            await swarm.subscribe(15, topics)
            await swarm.publish(3, topics, 600)
            await acknowledged(swarm, 150)
            await asyncio.to_thread(kill_worker, deployment.servers[0])
            assert await swarm.until(lambda: any(client.closes for client in swarm.clients)), "nobody noticed"
            assert await swarm.ready(), swarm.away()
            await acknowledged(swarm, 300)
            await swarm.settle()
            assert {code for client in swarm.clients for code in client.closes} == {1006}
    if deployment.keeps_history:
        assert checker.totals.resets == 0
    return checker.totals


async def rolling_restart(start: StartDeployment) -> Totals:
    """All workers of the first server are replaced, one by one: nothing is lost, and no epoch ends.

    Connections are not handed over: all clients are sent away, and recover. For deployments whose servers have worker
    processes of their own.
    """
    checker, topics = Checker(), [unique() for _ in range(6)]
    with start({"performance": {"actors": {"use_work_stealing": False}}}) as deployment:
        async with Swarm(deployment.urls, checker) as swarm:
            await swarm.subscribe(15, topics)
            await swarm.publish(3, topics, 600)
            await acknowledged(swarm, 150)
            await asyncio.to_thread(replace_workers, deployment.servers[0])
            assert await swarm.ready(), swarm.away()
            await acknowledged(swarm, 150)
            await swarm.settle()
            codes = {code for client in swarm.clients for code in client.closes}
            assert codes == {1012}, codes
    totals = checker.totals
    assert totals.resets == totals.epochs_changed == totals.gaps_told == 0, checker.report()
    assert totals.acknowledged == totals.published, checker.report()
    assert totals.deliveries == 15 * totals.acknowledged, checker.report()
    return totals


async def store_troubled(start: StartDeployment, troubles: Sequence[Trouble], settings: dict[str, Any]) -> Totals:
    """One trouble of the store after the other: each server serves alone in each of them, and is joined afterwards.

    Everybody is told of the epochs that come and go. What is published without the store is acknowledged locally and
    sent on when it is back, so that the order of a publisher over that time is not checked.
    """
    checker, topics = Checker(ordered=False), [unique() for _ in range(3)]
    with start(settings) as deployment:
        async with Swarm(deployment.urls, checker) as swarm:
            await swarm.subscribe(15, topics)
            await swarm.publish(3, topics, 300)
            await acknowledged(swarm, 150)
            for trouble in troubles:
                manager = contextlib.contextmanager(trouble)(deployment.stores[0])
                await asyncio.to_thread(manager.__enter__)
                await standing(deployment, "away")
                await acknowledged(swarm, 150)
                await asyncio.to_thread(manager.__exit__, None, None, None)
                await standing(deployment, "here")
                await acknowledged(swarm, 150)
            await swarm.settle()
            assert all(client.closes == [] for client in swarm.clients), "nobody's connection depends on the store"
    assert checker.totals.epochs_changed >= len(troubles) * 15 * len(topics), checker.report()
    return checker.totals


async def master_killed(start: StartDeployment, settings: dict[str, Any]) -> Totals:
    """The master of the store dies, and a replica takes its place.

    What the replica did not have is lost; who had seen it is told. Then everybody is in the same epoch again.
    """
    checker, topics = Checker(ordered=False), [unique() for _ in range(6)]
    with start(settings) as deployment:
        async with Swarm(deployment.urls, checker) as swarm:
            await swarm.subscribe(10, topics)
            await swarm.publish(3, topics, 300)
            await acknowledged(swarm, 150)
            await asyncio.to_thread(deployment.stores[0].kill)
            await acknowledged(swarm, 150)
            await asyncio.sleep(KILLED_SECS)
            await standing(deployment, "here")
            await acknowledged(swarm, 150)
            await swarm.settle()
            assert all(client.closes == [] for client in swarm.clients), "nobody's connection depends on the store"
    return checker.totals


async def standing(deployment: Deployment, state: str) -> None:
    """Wait until every server is joined to the others by its store ("here"), or serves alone ("away")."""

    def reached() -> bool:
        found = (health(server.port)["dependencies"]["redis"] for server in deployment.servers)
        return all(each["engine"]["state"] == state for each in found)

    await asyncio.to_thread(until, reached)


async def slow_readers(start: StartDeployment, strategy: str) -> Totals:
    """Subscribers stop reading until their mailboxes have overflown, and read on while others publish."""
    checker, topic = Checker(), unique()
    settings = {
        "actor_system": {"mailbox_capacity": SLOW_CAPACITY, "overflow_strategy": strategy},
        "message_routing": {"max_cache_entries": 20_000},
        "performance": {"messages": {"compression_algorithm": "none"}},
    }
    with start(settings) as deployment:
        async with Swarm(deployment.urls, checker) as swarm:
            await swarm.subscribe(2, [topic])
            slow = await swarm.subscribe(3, [topic], receive_buffer=2048)
            for client in slow:
                client.stop_reading()
            (publisher,) = await swarm.publish(1, [topic], 3000, padding_bytes=SLOW_PAYLOAD)
            if strategy == "block":
                assert await swarm.until(lambda: len(publisher.unanswered) > HELD_BACK)
            else:
                await acknowledged(swarm, SLOW_MESSAGES)
            for client in slow:
                client.read_on()
            await acknowledged(swarm, 100)
            await swarm.settle()
            assert all(client.closes == [] for client in swarm.clients)
    totals = checker.totals
    assert totals.refused == totals.resets == 0, checker.report()
    assert totals.deliveries == 5 * totals.acknowledged - totals.missed_told, checker.report()
    if strategy == "block":
        assert totals.gaps_told == totals.catch_ups == 0
    elif strategy == "backpressure":
        assert totals.catch_ups > 0
        assert totals.gaps_told == 0
    else:
        assert totals.gaps_told > 0
        assert totals.catch_ups == 0
    return totals


async def acknowledged(swarm: Swarm, more: int) -> None:
    """Wait until so many more publications are acknowledged."""
    count = swarm.checker.totals.acknowledged + more
    assert await swarm.until(lambda: swarm.checker.totals.acknowledged >= count), swarm.checker.report()
