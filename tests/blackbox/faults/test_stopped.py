"""FAULTS.md: Process, Cluster: a process that does nothing for a while (SIGSTOP) reads neither the bus nor Redis."""

import asyncio
import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

from realtime_communication._core.hub.peers import RingProbe
from serving.asking import until
from serving.checker import Checker
from serving.continuity import acknowledged
from serving.deployments import started, two_nodes
from serving.notices import total
from serving.peer import unique
from serving.processes import ServerProcess, assert_clean, free_port
from serving.proxy import scenario
from serving.redis import RedisServer
from serving.swarm import Swarm
from serving.workers import ImpatientServer, all_ready, links_of, ready, stopped

THREE = {"server": {"workers": 3}, "performance": {"actors": {"use_work_stealing": False}}}
FEED_BYTES = 64 * 1024
"""That Redis keeps for a node which does not read what is published."""
HUGE, LARGE = 500_000, 15_000
"""Bytes of messages of which some hundred are more than the bus keeps for a worker, or Redis for a node."""


STOPPED = 1
"""The slot of the worker that stops."""


def topics_elsewhere(slot: int) -> Iterator[str]:
    """Topics with another home: whoever publishes on them goes on while the worker in that slot has stopped."""
    ring = RingProbe([0, 1, 2])
    while True:
        if ring.home((topic := unique()).encode()) != slot:
            yield topic


def connections(port: int, pid: int) -> int:
    """How many clients of that port the process serves."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{fields[9]}]" for fields in lines if fields[1].endswith(f":{port:04X}") and fields[3] == "01"}
    return len(sockets & links_of(pid))


@contextlib.contextmanager
def impatient() -> Iterator[ServerProcess]:
    """A server of three workers whose supervisor soon gives up one that does not answer."""
    server = ImpatientServer("product", free_port(), THREE, None)
    try:
        server.start()
        all_ready(server, 3)
        yield server
        assert server.stop() == 0
        assert_clean(server)
    finally:
        server.dispose()


@scenario
async def test_a_worker_stops_for_a_while() -> None:
    """What it had to read waits for it: nobody loses a message, nor his connection."""
    checker, topics = Checker(), [unique() for _ in range(6)]
    with started(1, THREE) as (server,):
        pids = await asyncio.to_thread(all_ready, server, 3)
        async with Swarm([server.url], checker) as swarm:
            await swarm.subscribe(15, topics)
            await swarm.publish(6, topics, 600)
            await acknowledged(swarm, 150)
            with stopped(pids[1]):
                await asyncio.sleep(1)
            await acknowledged(swarm, 600)
            await swarm.settle()
            assert all(client.closes == [] for client in swarm.clients)
    totals = checker.totals
    assert totals.resets == totals.gaps_told == 0, checker.report()
    assert totals.acknowledged == totals.published, checker.report()
    assert totals.deliveries == 15 * totals.acknowledged, checker.report()


@scenario
async def test_a_worker_that_does_not_go_on_is_replaced() -> None:
    """Its clients connect again and recover, or are told; those of the others stay."""
    checker, topics = Checker(), [unique() for _ in range(6)]
    with impatient() as server:
        stuck = ready(server)[1]
        async with Swarm([server.url], checker) as swarm:
            await swarm.subscribe(15, topics)
            await swarm.publish(6, topics, 600)
            await acknowledged(swarm, 150)
            with stopped(stuck):
                await asyncio.to_thread(all_ready, server, 3, 4)
            assert await swarm.ready(), swarm.away()
            await acknowledged(swarm, 300)
            await swarm.settle()
            hurt = [client for client in swarm.clients if client.closes]
            assert len(hurt) < len(swarm.clients), "clients of the other workers stay"
            assert {code for client in hurt for code in client.closes} <= {1006}
        (report,) = server.events("a worker crashed")
        assert (report["worker"], report["pid"]) == (1, stuck)
        assert report["cause"] == "it did not answer for 0.7 s"
    assert checker.refusals.keys() <= {"unavailable"}, checker.refusals


@scenario
async def test_more_waits_for_a_stopped_worker_than_the_bus_keeps() -> None:
    """The link is cut and made anew; what could not be kept is made up for, or told."""
    checker, topics = Checker(ordered=False), list(itertools.islice(topics_elsewhere(STOPPED), 3))
    settings = {
        **THREE,
        "metrics": {"enabled": True, "port": free_port()},
        "websocket": {"max_frame_size": 1 << 20},
        "message_routing": {"max_cache_entries": 100},
    }
    with started(1, settings) as (server,):
        pids = await asyncio.to_thread(all_ready, server, 3)
        async with Swarm([server.url], checker) as swarm:
            while not connections(server.port, pids[STOPPED]):
                await swarm.subscribe(4, topics)
            await swarm.publish(6, topics, 60, padding_bytes=HUGE)
            await acknowledged(swarm, 20)
            with stopped(pids[STOPPED]):
                await asyncio.to_thread(until, lambda: total(server, "bus_overflows_total") > 0)
                await swarm.stop_publishing()
            await swarm.publish(2, topics, 200)
            await acknowledged(swarm, 100)
            await swarm.settle()
    assert checker.refusals.keys() <= {"unavailable"}, checker.refusals


@scenario
async def test_redis_cuts_a_node_that_does_not_read() -> None:
    """The node joins again, and reads from the streams what was published meanwhile: its clients miss nothing."""
    checker, topics = Checker(ordered=False), [unique() for _ in range(3)]
    with two_nodes({"message_routing": {"max_cache_entries": 50_000}}) as deployment:
        (store,), (ours, _) = deployment.stores, deployment.servers
        store.client.config_set("client-output-buffer-limit", f"pubsub {FEED_BYTES} 0 0")
        async with Swarm(deployment.urls, checker) as swarm:
            await swarm.subscribe(6, topics)
            await swarm.publish(4, topics, 1000, padding_bytes=LARGE)
            await acknowledged(swarm, 50)
            with stopped(ours.pid):
                await asyncio.to_thread(until, lambda: feeds(store) == 1)
            await swarm.stop_publishing()
            await swarm.publish(2, topics, 100)
            await acknowledged(swarm, 50)
            await swarm.settle()
            assert all(client.closes == [] for client in swarm.clients)
            assert feeds(store) == 2, "it has joined again"
    totals = checker.totals
    assert totals.epochs_changed == totals.gaps_told == 0, checker.report()
    assert totals.deliveries == 6 * totals.acknowledged, checker.report()


def feeds(store: RedisServer) -> int:
    """How many connections are open on which Redis sends what is published."""
    return len(store.client.client_list(_type="pubsub"))
