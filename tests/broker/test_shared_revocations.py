"""Revocations on all nodes: at once, after having been cut off, and after Redis lost all."""

import time

import pytest

from broker.links import down, running, until
from realtime_communication.broker import shared_revocations
from realtime_communication.broker.events import EventCodec
from realtime_communication.broker.redis_events import RedisEvents
from realtime_communication.broker.redis_feed import Feed
from realtime_communication.broker.redis_state import RedisState
from realtime_communication.broker.sealing import Seal
from realtime_communication.broker.shared_revocations import Revocation, SharedRevocations
from realtime_communication.config.services import CircuitBreaker
from realtime_communication.resilience.breaker import Breakers
from serving.processes import free_port
from serving.proxy import scenario
from serving.redis import RedisServer
from serving.tokens import SECRET

NOW = time.time()


def revocation(name="alice", kind="user", at=NOW, until=NOW + 3600):
    return Revocation(kind, name, at, until)


class Node:
    """Link, bus and revocations of one node; `applied` came from others."""

    def __init__(self, name, link, breakers, **options):
        self.link, self.applied = link, []
        self.feed = Feed(link)
        self.events = RedisEvents(
            link, self.feed, EventCodec(name, Seal([SECRET], "events")), breakers["message_queue"]
        )
        self.seal = Seal([SECRET], "shared state")
        self.shared = SharedRevocations(
            RedisState(link), self.events, self.seal, self.feed.joined, self.applied.append, **options
        )
        self.parts = (link, self.feed, self.events, self.shared)


@pytest.fixture
def node_of(link_to, monkeypatch):
    monkeypatch.setattr(shared_revocations, "RETRY_SECS", 0.01)

    def make(name, *, options=None, **redis):
        breakers = Breakers(CircuitBreaker(enabled=False))
        return Node(name, link_to(breakers=breakers, **redis), breakers, **(options or {}))

    return make


def saved(server):
    return server.client.zcard("rtc:set:revocations")


@scenario
async def test_other_nodes_know_at_once_and_later_ones_from_the_set(redis_server, node_of):
    redis_server.client.flushall()
    one, two, late = (node_of(name, url=redis_server.url) for name in ("one", "two", "late"))
    async with running(*one.parts, *two.parts):
        await one.feed.joined()
        await two.feed.joined()
        one.shared.revoke(revocation())
        one.shared.revoke(revocation("login 1", "login"))
        await until(lambda: len(two.applied) == 2 and saved(redis_server) == 2)
        assert set(two.applied) == {revocation(), revocation("login 1", "login")}
        assert one.applied == []
        async with running(*late.parts):
            await until(lambda: len(late.applied) == 2)
            assert set(late.applied) == set(two.applied)


@scenario
async def test_what_was_revoked_while_redis_was_away_reaches_all_and_outlives_its_loss(node_of):
    port = free_port()
    one, two = (node_of(name, url=f"redis://127.0.0.1:{port}") for name in ("one", "two"))
    async with running(*one.parts, *two.parts):
        await down(one.link)
        one.shared.revoke(revocation())
        with RedisServer(port=port) as server:
            await until(lambda: two.applied == [revocation()] and saved(server) == 1)
            server.kill()
            await down(one.link)
            await down(two.link)
            server.start(ready=False)  # with nothing in it
            await until(lambda: one.link.generation == 2 and two.link.generation == 2)
            await until(lambda: saved(server) == 1)  # the feed, which they wait for, comes after the link
            late = node_of("late", url=server.url)
            async with running(*late.parts):
                await until(lambda: late.applied == [revocation()])


@scenario
async def test_an_event_that_was_lost_is_made_good_by_the_next_reading(redis_server, node_of):
    redis_server.client.flushall()
    one, two = (node_of(name, url=redis_server.url, options={"resync_secs": 0.05}) for name in ("one", "two"))
    two.events._handlers.clear()  # nothing arrives there
    async with running(*one.parts, *two.parts):
        await two.feed.joined()
        one.shared.revoke(revocation())
        await until(lambda: two.applied == [revocation()])


@scenario
async def test_what_no_node_put_into_the_set_is_not_believed(redis_server, node_of):
    redis_server.client.flushall()
    node = node_of("one", url=redis_server.url)
    good = node.shared._sealed(revocation("good"))
    members = [b"", b"[]", b"\xff", good.replace(b"good", b"evil"), b'["",["user","evil",1,9e9]]', good]
    redis_server.client.zadd("rtc:set:revocations", dict.fromkeys(members, NOW + 3600))
    async with running(*node.parts):
        await until(lambda: node.shared.skipped == 5)
        assert node.applied == [revocation("good")]


def test_repeated_and_older_ones_say_nothing_new(node_of):
    node = node_of("one", url="redis://127.0.0.1:1")
    for each in (revocation(), revocation(), revocation(at=NOW - 5), revocation(until=NOW - 1), revocation(at=NOW + 1)):
        node.shared._take(each)
    assert node.applied == [revocation(), revocation(at=NOW + 1)]
    assert node.shared.known() == [revocation(at=NOW + 1)]


def test_a_malformed_event_is_the_senders_fault(node_of, caplog):
    one, two = node_of("one", url="redis://127.0.0.1:1"), node_of("two", url="redis://127.0.0.1:1")
    for payload in ({}, {"revocation": None}, {"revocation": {"kind": "planet", "name": "a", "at": 1, "until": 2}}):
        two.events.receive(one.events._codec.seal(one.events._codec.number("revocation", payload), time.time()))
    assert two.applied == []
    assert sum(two.events.skipped.values()) == 3
