"""FAULTS.md: Rules, Redis, Cluster: the wall clock of a node jumps, or is not that of the other nodes.

What is measured (how long a token bucket takes to fill, when to ask whether a client is there) goes by the monotonic
clock, and what is shared (who is present, how old a message is) by that of Redis: only tokens and the times in messages
go by the node's own wall clock.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from serving.asking import until
from serving.checker import Checker
from serving.clocks import HOUR, YEAR, WallClock, wall_clock
from serving.continuity import acknowledged, cut_connections
from serving.deployments import Deployment, started, with_redis
from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess
from serving.proxy import scenario
from serving.redis import RedisServer
from serving.swarm import Swarm
from serving.tokens import token

JUMPS = {"an hour forward": HOUR, "an hour back": -HOUR, "a year forward": YEAR}
ALWAYS = {"iat": 1, "nbf": 1, "exp": int(time.time()) + 2 * YEAR, "refresh_threshold": None}
"""Claims of a token that is good before and after every jump."""


def lasting(user: str) -> str:
    return token(user, **ALWAYS)


@contextlib.contextmanager
def two_clocks(settings: dict[str, Any]) -> Iterator[tuple[Deployment, WallClock]]:
    """Two nodes with one Redis, and the wall clock of the first; the other's is that of Redis."""
    with wall_clock() as clock, RedisServer() as store:
        shared = with_redis(settings, url=store.url)
        with started(1, shared, environment=clock.environment) as ours, started(1, shared) as others:
            yield Deployment([*ours, *others], keeps_history=True, stores=[store]), clock


@pytest.fixture(scope="module")
def jumping() -> Iterator[tuple[ServerProcess, ServerProcess, WallClock]]:
    """A node whose clock jumps, another one, and the clock."""
    seldom = {"name": "seldom", "pattern": "Unsubscribe", "requests_per_second": 0.001, "burst_size": 2}
    with two_clocks({"rate_limiting": {"enabled": True, "custom_limits": [seldom]}}) as (deployment, clock):
        ours, other = deployment.servers
        yield ours, other, clock


@pytest.fixture(params=JUMPS)
def jump(request: pytest.FixtureRequest, jumping: tuple[ServerProcess, ServerProcess, WallClock]) -> Iterator[int]:
    """By how many seconds the clock of the first node jumps; afterwards it goes right again."""
    clock = jumping[2]
    yield JUMPS[request.param]
    clock.jump(-clock.ahead_secs)


Nodes = tuple[ServerProcess, ServerProcess, WallClock]


def lasting_peer(server: ServerProcess, user: str | None = None) -> Peer:
    name = user or unique_user()
    return Peer(server.url, name, token_text=lasting(name))


def present(peer: Peer, topic: str) -> list[str]:
    return sorted(member["user_id"] for member in peer.ok("Presence", topic=topic)["members"])


class TestJumps:
    def test_the_clock_is_the_servers(self, jumping: Nodes, jump: int) -> None:
        ours, _, clock = jumping
        with lasting_peer(ours) as peer:
            before = peer.ok("Ping")["ts"]
            clock.jump(jump)
            after = peer.ok("Ping")["ts"]
        assert abs(after - before - jump * 1000) < 60_000

    def test_tokens_go_by_the_new_time(self, jumping: Nodes, jump: int) -> None:
        ours, _, clock = jumping
        with lasting_peer(ours) as lasts, Peer(ours.url, unique_user()) as hourly:
            clock.jump(jump + (60 if jump > 0 else 0))
            if jump > 0:
                hourly.send({"type": "Ping", "id": 1})
                assert hourly.close_code() == 4401
            else:
                assert hourly.ok("Ping")["type"] == "Pong"
            with pytest.raises(InvalidStatus) as refusal:  # expired, or not yet made
                Peer(ours.url, unique_user())
            assert refusal.value.response.status_code == 401
            assert lasts.settle() == [], "it is asked nothing and told nothing"

    def test_what_was_published_before_is_there(self, jumping: Nodes, jump: int) -> None:
        """Its idempotency key too; for a client of each node, wherever it comes back."""
        ours, other, clock = jumping
        topic, user = unique(), unique_user()
        with lasting_peer(ours, user) as writer, lasting_peer(other) as reader:
            reader.ok("Subscribe", topic=topic)
            places = [
                writer.ok("Broadcast", topic=topic, payload=number, idempotency_key=str(number)) for number in (1, 2, 3)
            ]
            clock.jump(jump)
            again = writer.ok("Broadcast", topic=topic, payload=3, idempotency_key="3")
            assert (again["epoch"], again["offset"]) == (places[2]["epoch"], 3)
            assert writer.ok("Broadcast", topic=topic, payload=4)["offset"] == 4
            for server in (ours, other):
                with lasting_peer(server) as back:
                    found = back.ok("Subscribe", topic=topic, recover={"epoch": places[0]["epoch"], "offset": 1})
                    assert (found["recovered"], [each["payload"] for each in found["messages"]]) == (True, [2, 3, 4])
                    page = back.ok("History", topic=topic)
                    assert [each["payload"] for each in page["messages"]] == [1, 2, 3, 4]
            assert [each["payload"] for each in reader.settle()] == [1, 2, 3, 4]

    def test_what_is_published_afterwards_is_there_for_the_others(self, jumping: Nodes, jump: int) -> None:
        ours, other, clock = jumping
        topic = unique()
        clock.jump(jump)
        with lasting_peer(ours) as writer, lasting_peer(other) as late:
            places = [writer.ok("Broadcast", topic=topic, payload=number) for number in (1, 2, 3)]
            found = late.ok("Subscribe", topic=topic, recover={"epoch": places[0]["epoch"], "offset": 1})
            assert (found["recovered"], [each["payload"] for each in found["messages"]]) == (True, [2, 3])

    def test_a_bucket_that_is_empty_stays_so(self, jumping: Nodes, jump: int) -> None:
        ours, _, clock = jumping
        with lasting_peer(ours) as peer:
            for _ in range(2):
                peer.ok("Unsubscribe", topic=unique())
            assert peer.error("Unsubscribe", topic=unique())["code"] == "rate_limited"
            clock.jump(jump)
            told = peer.error("Unsubscribe", topic=unique())
            assert told["code"] == "rate_limited"
            assert 0 < told["retry_after_ms"] <= 1_000_000

    def test_who_is_present_stays_so(self, jumping: Nodes, jump: int) -> None:
        ours, other, clock = jumping
        topic, users = unique(), sorted(unique_user() for _ in range(3))
        with (
            lasting_peer(ours, users[0]) as here,
            lasting_peer(other, users[1]) as there,
            lasting_peer(ours, users[2]) as late,
        ):
            for peer in (here, there):
                peer.ok("Subscribe", topic=topic, presence=True)
            until(lambda: present(there, topic) == users[:2])
            there.settle()
            clock.jump(jump)
            late.ok("Subscribe", topic=topic)
            until(lambda: present(there, topic) == users)
            until(lambda: present(here, topic) == users)
            assert [(each["type"], each["user_id"]) for each in there.settle()] == [("Join", users[2])]


@scenario
async def test_jumps_while_messages_flow() -> None:
    """There and back: no connection ends, and nobody misses anything."""
    checker, topics = Checker(), [unique() for _ in range(3)]
    with two_clocks({"websocket": {"heartbeat_interval_secs": 20}}) as (deployment, clock):
        async with Swarm(deployment.urls, checker, sign=lasting) as swarm:
            await swarm.subscribe(10, topics)
            await swarm.publish(4, topics, 300)
            for secs in (HOUR, -2 * HOUR, HOUR, YEAR, -YEAR):
                await acknowledged(swarm, 50)
                clock.jump(secs)
            await acknowledged(swarm, 50)
            await swarm.settle()
            assert all(client.closes == [] for client in swarm.clients)
    totals = checker.totals
    assert totals.resets == totals.epochs_changed == totals.gaps_told == totals.refused == 0, checker.report()
    assert totals.deliveries == 10 * totals.acknowledged, checker.report()


@scenario
async def test_nodes_whose_clocks_differ() -> None:
    """Clients lose their connections and come back to either node: each recovers all."""

    @contextlib.contextmanager
    def start(settings: dict[str, Any]) -> Iterator[Deployment]:
        with two_clocks(settings) as (deployment, clock):
            clock.jump(HOUR // 2)  # the swarm's tokens are good for an hour
            yield deployment

    await cut_connections(start)
