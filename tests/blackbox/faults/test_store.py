"""FAULTS.md: Redis: two nodes whose Redis is locked, slow, emptied or given another's data."""

import asyncio
import contextlib

import pytest

from serving import continuity
from serving.asking import redis_of, until
from serving.checker import Checker
from serving.continuity import acknowledged, standing
from serving.deployments import Deployment, started, two_nodes, with_redis
from serving.peer import unique
from serving.proxy import scenario
from serving.redis import RedisServer
from serving.stalling_proxy import StallingProxy
from serving.swarm import Swarm
from serving.troubles import Trouble, adopt, flush, lock, restart

QUICK = {"redis": {"retry_delay_ms": 10, "response_timeout_ms": 500}}
SLOW_SECS = 0.3


@scenario
async def test_locked_then_overwritten() -> None:
    """A password that nobody was told; then the history of another Redis, which knows nothing of the topics."""
    await continuity.store_troubled(two_nodes, [lock, adopt], QUICK)


@pytest.mark.parametrize("trouble", [flush, restart])
@scenario
async def test_emptied_in_passing(trouble: Trouble) -> None:
    """Too short to be noticed by what fails: all are told of the new epochs by the next message, and lose no more."""
    checker, topics = Checker(ordered=False), [unique() for _ in range(3)]
    with two_nodes(QUICK) as deployment:
        async with Swarm(deployment.urls, checker) as swarm:
            await swarm.subscribe(12, topics)
            await swarm.publish(4, topics, 300)
            await acknowledged(swarm, 150)
            with contextlib.contextmanager(trouble)(deployment.stores[0]):
                await acknowledged(swarm, 150)
            away = swarm.subscribers[:4]
            for client in away:
                client.cut()
            assert await swarm.ready(), swarm.away()
            await standing(deployment, "here")
            await acknowledged(swarm, 150)
            await swarm.settle()
            assert all(client.closes == [] for client in swarm.clients if client not in away)
    assert checker.totals.epochs_changed >= 12 * len(topics), checker.report()


@scenario
async def test_slow() -> None:
    """One of two nodes waits 300 ms for whatever comes from Redis: all is late there, and nothing else."""
    checker, topics = Checker(ordered=False), [unique() for _ in range(3)]
    with RedisServer() as store, started(1, with_redis({}, url=store.url)) as others:
        async with StallingProxy(store.port) as proxy:
            manager = started(1, with_redis({}, url=f"redis://127.0.0.1:{proxy.port}"))
            ours = await asyncio.to_thread(manager.__enter__)
            deployment = Deployment([*ours, *others])
            async with Swarm(deployment.urls, checker) as swarm:
                await standing(deployment, "here")
                await swarm.subscribe(6, topics)
                proxy.down.delay(SLOW_SECS)
                await swarm.publish(2, topics, 40)
                await acknowledged(swarm, 50)
                await asyncio.to_thread(until, lambda: redis_of(ours[0])["latency_ms"] > SLOW_SECS * 500)
                assert {redis_of(server)["engine"]["state"] for server in deployment.servers} == {"here"}
                await swarm.settle()
                assert all(client.closes == [] for client in swarm.clients)
            proxy.flow()
            await asyncio.to_thread(manager.__exit__, None, None, None)
    totals = checker.totals
    assert totals.epochs_changed == totals.gaps_told == totals.refused == 0, checker.report()
    assert totals.deliveries == 6 * totals.acknowledged, checker.report()
