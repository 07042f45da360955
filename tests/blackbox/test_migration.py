"""Connections that move between workers under load, and clients that notice nothing."""

import contextlib
import os
import signal
from typing import Any

import pytest

from serving.checker import Checker
from serving.continuity import acknowledged
from serving.deployments import started, two_workers, with_redis
from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess, merged
from serving.proxy import scenario
from serving.redis import RedisServer
from serving.swarm import Swarm
from serving.workers import all_ready, links_of, ready, until, worker_of

MOVED = "connections were handed to another worker"
IDLE = 200


@pytest.mark.parametrize("caching", [True, False], ids=["cached", "not cached"])
@scenario
async def test_a_rolling_restart_under_load(caching: bool) -> None:
    """The workers are replaced by new processes, twice, while everybody stays connected."""
    checker, topics = Checker(), [unique() for _ in range(6)]
    with two_workers({"message_routing": {"enable_caching": caching}}) as deployment:
        server = deployment.servers[0]
        all_ready(server)
        async with Swarm(deployment.urls, checker) as swarm:
            await swarm.subscribe(15, topics)
            await swarm.publish(3, topics, 600)
            await acknowledged(swarm, 150)
            for round_ in (1, 2):
                os.kill(server.pid, signal.SIGUSR2)
                done = await swarm.until(lambda n=round_: len(server.events("rolling restart done")) == n, 30)  # type: ignore[misc]
                assert done, server.log[-3000:]
                await acknowledged(swarm, 150)
            await swarm.settle()
            closes = {client.name: client.closes for client in swarm.clients if client.closes}
            assert closes == {}, server.log[-4000:]
    totals = checker.totals
    assert totals.refused == totals.recoveries == totals.resets == totals.epochs_changed == 0, checker.report()
    assert totals.deliveries == 15 * totals.acknowledged, checker.report()


def local_port(peer: Peer) -> int:
    port: int = peer.connection.socket.getsockname()[1]
    return port


def by_worker(server: ServerProcess, peers: list[Peer]) -> dict[int, list[Peer]]:
    """The clients of each worker."""
    pids = ready(server)
    links = {slot: links_of(pid) for slot, pid in pids.items()}
    sockets = {}
    with open("/proc/net/tcp") as table:
        for line in list(table)[1:]:
            fields = line.split()
            if fields[1].endswith(f":{server.port:04X}"):
                sockets[int(fields[2].rpartition(":")[2], 16)] = f"socket:[{fields[9]}]"
    found: dict[int, list[Peer]] = {slot: [] for slot in pids}
    for peer in peers:
        link = sockets[local_port(peer)]
        (slot,) = [slot for slot, held in links.items() if link in held]
        found[slot].append(peer)
    return found


@pytest.mark.parametrize("stored", [False, True], ids=["alone", "with Redis"])
@scenario
async def test_a_worker_with_far_more_connections_hands_some_over(stored: bool) -> None:
    """One worker's clients leave; the other one's go there, those with a load of messages among them."""
    checker, topics = Checker(), [unique() for _ in range(4)]
    with contextlib.ExitStack() as stack:
        settings: dict[str, Any] = {"server": {"workers": 2}}
        if stored:
            settings = with_redis(settings, url=stack.enter_context(RedisServer()).url)
        (server,) = stack.enter_context(started(1, settings))
        idle = [stack.enter_context(Peer(server.url, unique_user())) for _ in range(IDLE)]
        async with Swarm([server.url], checker) as swarm:
            await swarm.subscribe(15, topics)
            await swarm.publish(3, topics, 300)
            held = by_worker(server, idle)
            for peer in held[1]:
                peer.close()
            assert await swarm.until(lambda: bool(server.events(MOVED)))
            await acknowledged(swarm, 150)
            await swarm.settle()
            assert all(client.closes == [] for client in swarm.clients)
        after = by_worker(server, held[0])
        assert sum(line["connections"] for line in server.events(MOVED)) >= 16
        assert after[1]
        for peer in held[0]:
            assert peer.ok("Ping")["type"] == "Pong"
    totals = checker.totals
    assert totals.refused == totals.resets == 0, checker.report()
    assert totals.deliveries == 15 * totals.acknowledged, checker.report()


def test_without_it_clients_are_told_to_come_back() -> None:
    settings = merged({"server": {"workers": 2}}, {"performance": {"actors": {"use_work_stealing": False}}})
    with started(1, settings) as (server,):
        pids = all_ready(server)
        with Peer(server.url, unique_user()) as peer:
            assert worker_of(server.port, peer, pids) in pids
            os.kill(server.pid, signal.SIGUSR2)
            assert peer.close_code(20) == 1012
        until(lambda: server.events("rolling restart done"), "it is done", 20)
        assert server.events(MOVED) == server.events("connections were handed to the other workers") == []
