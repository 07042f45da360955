"""Connections that move between workers under load, and clients that notice nothing."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from serving.checker import Checker
from serving.continuity import acknowledged
from serving.deployments import replace_workers, started, two_workers, with_redis
from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess, assert_clean, free_port, merged
from serving.proxy import scenario
from serving.raw import PING, PONG, RawSocket, frame
from serving.redis import RedisServer
from serving.swarm import Swarm
from serving.workers import all_ready, links_of, ready, until, worker_of

MOVED = "connections were handed to another worker"
IDLE = 200
LARGE = 20_000
LARGE_MESSAGES = 50
BUSY = 12
PINGS = 50
ROUNDS = 100
"""Of pings between two looks whether connections have moved: the test rests meanwhile, and the server with it."""


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


def test_a_rolling_restart_without_clients_keeps_what_topics_hold() -> None:
    """More of it than the sockets between the workers take at once."""
    topics = [unique() for _ in range(8)]
    with started(1, {"server": {"workers": 2}}) as (server,):
        all_ready(server)
        with Peer(server.url, unique_user()) as peer:
            for topic in topics:
                for _ in range(LARGE_MESSAGES):
                    peer.ok("Broadcast", topic=topic, payload="x" * LARGE)
            before = [peer.ok("History", topic=topic, limit=1) for topic in topics]
        replace_workers(server)
        with Peer(server.url, unique_user()) as peer:
            assert [peer.ok("History", topic=topic, limit=1)["epoch"] for topic in topics] == [
                page["epoch"] for page in before
            ]
            for topic in topics:
                page = peer.ok("History", topic=topic, limit=LARGE_MESSAGES)
                assert [each["offset"] for each in page["messages"]] == list(range(1, LARGE_MESSAGES + 1))


@scenario
async def test_a_rolling_restart_over_tls() -> None:
    """Nothing moves: all are told to come back, and recover."""
    checker, topics = Checker(), [unique() for _ in range(6)]
    server = ServerProcess("tls", free_port(), {"server": {"workers": 2}}, None)
    with contextlib.ExitStack() as stack:
        stack.callback(server.dispose)
        await asyncio.to_thread(server.start)
        all_ready(server)
        witness = stack.enter_context(Peer(server.url, unique_user()))
        async with Swarm([server.url], checker) as swarm:
            await swarm.subscribe(15, topics)
            await swarm.publish(3, topics, 600)
            await acknowledged(swarm, 150)
            await asyncio.to_thread(replace_workers, server)
            assert await swarm.ready(), swarm.away()
            await acknowledged(swarm, 150)
            await swarm.settle()
            assert {code for client in swarm.clients for code in client.closes} == {1012}
            assert all(client.closes for client in swarm.clients)
        assert await asyncio.to_thread(witness.close_code, 20) == 1012
        assert [envelope["type"] for envelope in witness.unasked] == ["Closing"]
        assert server.events("connections were handed to the other workers") == []
        assert_clean(server)
    totals = checker.totals
    assert totals.resets == totals.epochs_changed == totals.gaps_told == 0, checker.report()
    assert totals.deliveries == 15 * totals.acknowledged, checker.report()


Client = TypeVar("Client", Peer, RawSocket)


def local_port(client: Peer | RawSocket) -> int:
    sock = client.socket if isinstance(client, RawSocket) else client.connection.socket
    port: int = sock.getsockname()[1]
    return port


def by_worker(server: ServerProcess, peers: Sequence[Client]) -> dict[int, list[Client]]:
    """The clients of each worker."""
    pids = ready(server)
    links = {slot: links_of(pid) for slot, pid in pids.items()}
    sockets = {}
    with open("/proc/net/tcp") as table:
        for line in list(table)[1:]:
            fields = line.split()
            if fields[1].endswith(f":{server.port:04X}"):
                sockets[int(fields[2].rpartition(":")[2], 16)] = f"socket:[{fields[9]}]"
    found: dict[int, list[Client]] = {slot: [] for slot in pids}
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


EAGER_WORKER = """
from realtime_communication.server import balance
from realtime_communication.server.worker_process import main

balance.BUSY = balance.LEAST_GAP = 0.01
main()
"""
"""A worker that takes a hundredth of a core for busy, however little of a core there is to be had."""

EAGER = """
from realtime_communication.cli.main import main
from realtime_communication.server import worker_handle

worker_handle.MODULE = "eager_worker"
main()
"""


class EagerServer(ServerProcess):
    """A server of two such workers."""

    def __init__(self, folder: Path) -> None:
        (folder / "eager_worker.py").write_text(EAGER_WORKER)
        environment = {"PYTHONPATH": str(folder)}
        super().__init__("product", free_port(), {"server": {"workers": 2}}, None, environment=environment)

    def _command(self, environment: dict[str, str]) -> list[str]:
        _, *words = super()._command(environment)
        return [sys.executable, "-c", EAGER, *words]


BODIES = [number.to_bytes(8) for number in range(PINGS)]
ASKED = b"".join(frame(PING, body) for body in BODIES)
ANSWERED = b"".join(bytes((0x80 | PONG, len(body))) + body for body in BODIES)


def keep_busy(clients: list[RawSocket]) -> None:
    """Each sends pings and gets one answer to each, in order. Bytes made once leave most of the work to the server."""
    for client in clients:
        client.send(ASKED)
    for client in clients:
        while len(client.data) < len(ANSWERED):
            assert client.read_more()
        assert client.data == ANSWERED
        client.data = b""


def test_busy_connections_move_to_a_worker_that_is_less_busy(tmp_path: Path) -> None:
    """About as many on both workers, but only some of one do something; each does less than an eighth of that."""
    server = EagerServer(tmp_path)
    with contextlib.ExitStack() as stack:
        stack.callback(server.dispose)
        server.start()
        all_ready(server)
        clients = [stack.enter_context(RawSocket.upgraded(server.port, f"u{n}")) for n in range(4 * BUSY)]
        busy = by_worker(server, clients)[0][:BUSY]

        def moved() -> bool:
            for _ in range(ROUNDS):
                keep_busy(busy)
            return bool(server.events(MOVED))

        until(moved, "connections move")
        keep_busy(busy)
        assert {line["by"] for line in server.events(MOVED)} == {"load"}
        after = by_worker(server, busy)
        assert after[1]
        assert after[0]
        keep_busy(busy)
        assert_clean(server)


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
