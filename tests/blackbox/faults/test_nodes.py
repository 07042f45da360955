"""FAULTS.md: Redis and Cluster: nodes that share their topics, while Redis, the network and the nodes come and go."""

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from serving import continuity
from serving.asking import health, redis_of, until
from serving.checker import Checker
from serving.continuity import acknowledged, standing
from serving.deployments import (
    Deployment,
    StartDeployment,
    started,
    two_nodes,
    two_nodes_of_two_workers,
    two_nodes_with_cluster,
    two_nodes_with_sentinel,
    with_redis,
)
from serving.notices import total
from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess, free_port
from serving.proxy import scenario
from serving.redis import RedisServer
from serving.stalling_proxy import StallingProxy
from serving.swarm import Swarm
from serving.troubles import demote, fill_up, kill

QUICK = {"redis": {"retry_delay_ms": 10, "response_timeout_ms": 500}}
SHORTLY_SECS = 0.4


def engine_of(server: ServerProcess) -> str:
    """The state of its engine."""
    state: str = redis_of(server)["engine"]["state"]
    return state


def last_error(server: ServerProcess) -> str | None:
    """Of its link."""
    error: str | None = redis_of(server)["last_error"]
    return error


@scenario
async def test_a_node_is_restarted() -> None:
    await continuity.restart_under_load(two_nodes, graceful=True)


@scenario
async def test_connections_are_cut() -> None:
    await continuity.cut_connections(two_nodes)


@scenario
async def test_a_worker_of_a_node_is_killed() -> None:
    await continuity.worker_killed(two_nodes_of_two_workers)


class TestStore:
    @scenario
    async def test_full_then_demoted_then_dead_and_empty(self) -> None:
        await continuity.store_troubled(two_nodes, [fill_up, demote, kill], QUICK)

    @pytest.mark.parametrize("start", [two_nodes_with_sentinel, two_nodes_with_cluster], ids=["sentinel", "cluster"])
    @scenario
    async def test_a_master_is_killed(self, start: StartDeployment) -> None:
        await continuity.master_killed(start, QUICK)

    @scenario
    async def test_away_at_the_start_and_with_another_password(self) -> None:
        port, checker, topic = free_port(), Checker(ordered=False), unique()
        with started(2, with_redis(QUICK, url=f"redis://:right@127.0.0.1:{port}")) as servers:
            deployment = Deployment(servers)
            async with Swarm(deployment.urls, checker) as swarm:
                await swarm.subscribe(4, [topic])
                await swarm.publish(2, [topic], 200)
                await acknowledged(swarm, 50)
                with RedisServer(port=port, requirepass="wrong") as store:
                    await asyncio.to_thread(until, lambda: all(last_error(each) == "WRONGPASS" for each in servers))
                    await acknowledged(swarm, 50)
                    assert all(health(each.port)["status"] == "degraded" for each in servers)
                    await asyncio.to_thread(store.client.config_set, "requirepass", "right")
                    await standing(deployment, "here")
                    await acknowledged(swarm, 50)
                    await swarm.settle()
            assert "right" not in "".join(server.log.replace("rights", "") for server in servers)


class TestNetwork:
    """Between one of the nodes and Redis nothing passes for a while."""

    @scenario
    async def test_stalls(self) -> None:
        checker, topics = Checker(ordered=False), [unique() for _ in range(3)]
        with RedisServer() as store, started(1, with_redis(QUICK, url=store.url)) as others:
            async with StallingProxy(store.port) as proxy:
                settings = with_redis(QUICK, url=f"redis://127.0.0.1:{proxy.port}")
                manager = started(1, settings)
                servers = await asyncio.to_thread(manager.__enter__)
                deployment = Deployment([*servers, *others])
                async with Swarm(deployment.urls, checker) as swarm:
                    await swarm.subscribe(12, topics)
                    await swarm.publish(4, topics, 300)
                    await acknowledged(swarm, 150)
                    proxy.stall()
                    await asyncio.sleep(SHORTLY_SECS)
                    proxy.flow()
                    await acknowledged(swarm, 150)
                    told = checker.totals
                    assert told.epochs_changed == told.gaps_told == told.refused == 0, checker.report()
                    proxy.stall()
                    await asyncio.to_thread(until, lambda: engine_of(servers[0]) == "away")
                    await acknowledged(swarm, 150)
                    proxy.flow()
                    await standing(deployment, "here")
                    await acknowledged(swarm, 150)
                    await swarm.settle()
                await asyncio.to_thread(manager.__exit__, None, None, None)
        # Only the clients of the node that was alone, away and back.
        assert checker.totals.epochs_changed == 2 * 6 * len(topics), checker.report()


@pytest.fixture(scope="module")
def pair() -> Iterator[Deployment]:
    """Two nodes and a Redis for tests that do them no harm."""
    with two_nodes({"metrics": {"enabled": True, "port": 0}}) as deployment:
        yield deployment


@pytest.fixture
def connect(pair: Deployment) -> Iterator[Callable[..., Peer]]:
    """A user on one of the nodes: ``connect(0, "bob")``."""
    peers: list[Peer] = []

    def make(node: int, user: str | None = None) -> Peer:
        peers.append(Peer(pair.urls[node], user or unique_user()))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()


class TestOneServer:
    """Two nodes are as one."""

    def test_an_idempotency_key_holds_on_both(self, connect: Callable[..., Peer]) -> None:
        user, topic = unique_user(), unique()
        reader = connect(1)
        reader.ok("Subscribe", topic=topic)
        places = [
            connect(node, user).ok("Broadcast", topic=topic, payload=node, idempotency_key="k") for node in (0, 1)
        ]
        assert [(each["epoch"], each["offset"]) for each in places] == [(places[0]["epoch"], 1)] * 2
        other = connect(0).ok("Broadcast", topic=topic, payload=2, idempotency_key="k")
        assert other["offset"] == 2
        assert [each["payload"] for each in reader.events(2)] == [0, 2]
        assert reader.settle() == []

    def test_direct_messages_reach_their_users_on_both(self, connect: Callable[..., Peer]) -> None:
        sender, users = connect(0), [unique_user() for _ in range(3)]
        here, there = (connect(node, users[node]) for node in (0, 1))
        told = until(
            lambda: (reply := sender.ok("DirectMessage", to=users, payload=1))["delivered"] == users[:2] and reply
        )
        assert told["offline"] == [users[2]]
        for peer in (here, there):
            assert peer.event()["payload"] == 1
        there.close()
        until(lambda: users[1] in sender.ok("DirectMessage", to=users, payload=2)["offline"])

    def test_a_direct_message_is_repeated_by_nobody(self, connect: Callable[..., Peer]) -> None:
        user, target = unique_user(), unique_user()
        there = connect(1, target)  # its inbox is fed by now
        for node in (0, 1):
            connect(node, user).ok("DirectMessage", to=target, payload=node, idempotency_key="k")
        assert [each["payload"] for each in there.settle()] == [0]

    def test_history_and_recovery_are_those_of_both(self, connect: Callable[..., Peer]) -> None:
        topic, writer = unique(), connect(0)
        place = writer.ok("Broadcast", topic=topic, payload=1)
        for number in (2, 3):
            writer.ok("Broadcast", topic=topic, payload=number)
        reader = connect(1)
        history = reader.ok("History", topic=topic)
        assert [each["payload"] for each in history["messages"]] == [1, 2, 3]
        found = reader.ok("Subscribe", topic=topic, recover={"epoch": place["epoch"], "offset": 1})
        assert (found["recovered"], [each["payload"] for each in found["messages"]]) == (True, [2, 3])

    def test_health_and_metrics_tell_of_it(self, pair: Deployment, connect: Callable[..., Peer]) -> None:
        topic = unique()
        connect(0).ok("Subscribe", topic=topic)
        connect(1).ok("Broadcast", topic=topic, payload=1)
        for server in pair.servers:
            redis = redis_of(server)
            assert redis["status"] == "ok"
            assert redis["engine"]["state"] == "here"
            assert redis["engine"]["kept_publications"] == 0
            assert total(server, "redis_joined") == 1
        assert total(pair.servers[1], "redis_publications_total") > 0
        assert total(pair.servers[0], "redis_topics") > 0
        assert total(pair.servers[0], "redis_feed_channels") > 0


def test_a_killed_node_has_no_users_any_more() -> None:
    """What it vouched for ends within a minute: Redis is asked for when, and told that it is past."""
    with two_nodes(QUICK) as deployment:
        (store,), (one, two) = deployment.stores, deployment.servers
        user = unique_user()
        with Peer(one.url, unique_user()) as sender, Peer(two.url, user):
            until(lambda: sender.ok("DirectMessage", to=user, payload=1)["delivered"] == [user])
            two.kill()
            (key,) = store.client.keys(f"*{user}*:r")
            ((node, end_ms),) = store.client.zrange(key, 0, -1, withscores=True)
            assert 0 < end_ms / 1000 - time.time() <= 60
            store.client.zadd(key, {node: (time.time() - 1) * 1000})
            assert sender.ok("DirectMessage", to=user, payload=2)["offline"] == [user]
