"""FAULTS.md: Redis, half-open link: the network is cut between Redis and a node with the settings it comes with."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from serving.asking import health, redis_of, until
from serving.checker import Checker
from serving.continuity import acknowledged, standing
from serving.deployments import Deployment, started, with_redis
from serving.networks import Link, Network
from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess
from serving.proxy import scenario
from serving.swarm import Swarm

CUTS = {"unplugged": (Link.unplug, Link.plug), "lost": (Link.lose, Link.deliver)}


@contextlib.contextmanager
def two_links() -> Iterator[tuple[Deployment, Link]]:
    """Two nodes that have a link each to one Redis, and the link of the first."""
    with Network() as network, network.redis() as store:
        links = [network.link(), network.link()]
        with (
            started(1, with_redis({}, url=store.url_by(links[0]))) as ours,
            started(1, with_redis({}, url=store.url_by(links[1]))) as others,
        ):
            yield Deployment([*ours, *others], stores=[store]), links[0]


def recovered(server: ServerProcess, topic: str, place: dict[str, Any]) -> tuple[bool, list[int]]:
    """What a client is told that comes back to the server with its last place."""
    with Peer(server.url, unique_user()) as peer:
        found = peer.ok("Subscribe", topic=topic, recover={"epoch": place["epoch"], "offset": place["offset"]})
        return found["recovered"], [each["payload"] for each in found["messages"]]


def alone(server: ServerProcess, topic: str, place: dict[str, Any]) -> None:
    """A node without Redis serves its own clients, and tells who comes back that it cannot say what was missed."""
    assert health(server.port)["status"] == "degraded"
    with Peer(server.url, unique_user()) as writer, Peer(server.url, unique_user()) as reader:
        local = unique()
        reader.ok("Subscribe", topic=local)
        writer.ok("Broadcast", topic=local, payload="here")
        assert reader.event()["payload"] == "here"
        assert recovered(server, topic, place) == (False, [])
        assert writer.ok("Broadcast", topic=topic, payload=2)["epoch"] != place["epoch"]


@pytest.mark.parametrize("cut", CUTS)
@scenario
async def test_the_network_between_a_node_and_redis_is_cut(cut: str) -> None:
    checker, topics, lone = Checker(ordered=False), [unique() for _ in range(3)], unique()
    sever, mend = CUTS[cut]
    with two_links() as (deployment, link):
        ours, other = deployment.servers
        async with Swarm(deployment.urls, checker) as swarm:
            await swarm.subscribe(12, topics)
            await swarm.publish(4, topics, 200)
            await acknowledged(swarm, 100)
            with Peer(ours.url, unique_user()) as writer:
                place = writer.ok("Broadcast", topic=lone, payload=1)
            await asyncio.to_thread(sever, link)
            await asyncio.to_thread(until, lambda: redis_of(ours)["engine"]["state"] == "away")
            await asyncio.to_thread(alone, ours, lone, place)
            assert health(other.port)["status"] != "degraded", "the other has a link of its own"
            await acknowledged(swarm, 100)
            await asyncio.to_thread(mend, link)
            await standing(deployment, "here")
            await acknowledged(swarm, 100)
            await swarm.settle()
            assert all(client.closes == [] for client in swarm.clients), "nobody's connection depends on Redis"
        for server in deployment.servers:
            await asyncio.to_thread(until, lambda each=server: redis_of(each)["status"] == "ok")
            assert recovered(server, lone, place) == (True, [2]), "what it took alone went on to the others"
    # Only the clients of the node that was alone, away and back.
    assert checker.totals.epochs_changed == 2 * 6 * len(topics), checker.report()
    assert checker.totals.resets == 0, checker.report()
