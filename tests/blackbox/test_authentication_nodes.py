"""Logins over two servers that share one Redis: what one issues, refreshes and revokes counts on the other."""

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from serving.asking import ask, health, until
from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess, StartServer, assert_clean, merged
from serving.raw import Answer, exchange, upgrade
from serving.redis import RedisServer

from .conftest import running

ROBOT, CHIEF = "a robot's key", "an admin's key"
KEYS = [
    {"key": "sha256:" + hashlib.sha256(key.encode()).hexdigest(), "user": user, "roles": roles}
    for key, user, roles in ((ROBOT, "robot", []), (CHIEF, "chief", ["admin"]))
]
OTHER_SECRET = "the secret after a rotation, of more than thirty-two bytes"


def joined(shared: RedisServer, **settings: Any) -> dict[str, Any]:
    base = {
        "auth": {"providers": [{"type": "jwt", "priority": 1}, {"type": "api_key", "priority": 2, "keys": KEYS}]},
        "redis": {"url": shared.url, "retry_delay_ms": 10},
        "circuit_breaker": {"timeout_secs": 1},
        "testing": {"use_in_memory_storage": False},
    }
    return merged(base, settings)


def redis_is(state: str, *servers: ServerProcess) -> None:
    """Wait until all of them say so."""
    for server in servers:
        until(lambda each=server: health(each.port)["dependencies"]["redis"]["state"] == state)


class Nodes:
    """Two servers and their Redis."""

    def __init__(self, redis: RedisServer, one: ServerProcess, other: ServerProcess) -> None:
        self.redis, self.one, self.other = redis, one, other
        redis_is("up", one, other)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """For tests that leave Redis alone."""
    with RedisServer() as redis, contextlib.ExitStack() as stack:
        servers = []
        for _ in range(2):
            servers.append(running("product", joined(redis)))
            stack.callback(servers[-1].dispose)
        yield Nodes(redis, *servers)
        for server in servers:
            assert_clean(server)


@pytest.fixture
def pair(start_server: StartServer) -> Iterator[Nodes]:
    """For tests that take Redis away."""
    with RedisServer() as redis:
        yield Nodes(redis, start_server(joined(redis)), start_server(joined(redis)))


def issue(server: ServerProcess, user: str) -> Any:
    reply = ask(server.port, "POST", "/auth/token", {"X-API-Key": ROBOT}, {"user_id": user})
    assert reply.status == 200, reply
    return reply.json


def refresh(server: ServerProcess, refresh_token: str) -> Answer:
    return ask(server.port, "POST", "/auth/refresh", body={"refresh_token": refresh_token})


def revoke(server: ServerProcess, **what: str) -> int:
    reply = ask(server.port, "POST", "/auth/revoke", {"X-API-Key": CHIEF}, what)
    assert reply.status == 200, reply
    closed: int = reply.json["revoked"]
    return closed


def order(server: ServerProcess, path: str, **what: str) -> Any:
    reply = ask(server.port, "POST", path, {"X-API-Key": CHIEF}, what)
    assert reply.status == 200, reply
    return reply.json


def status(server: ServerProcess, access_token: str) -> int:
    """Of an upgrade with this token."""
    return exchange(server.port, upgrade(authorization=f"Bearer {access_token}")).status


class TestRevoking:
    @pytest.mark.parametrize("kind", ["login", "user"])
    def test_closes_and_refuses_on_the_other_node(self, nodes: Nodes, kind: str) -> None:
        user = unique_user()
        login = issue(nodes.one, user)
        named = {"session_id": login["session_id"]} if kind == "login" else {"user_id": user}
        with Peer(nodes.other.url, token_text=login["access_token"]) as peer:
            assert revoke(nodes.one, **named) == 0  # none of its own connections
            assert peer.close_code() == 4401
        for server in (nodes.one, nodes.other):
            assert status(server, login["access_token"]) == 401
            assert refresh(server, login["refresh_token"]).status == 401

    def test_a_node_that_starts_later_learns_of_it(self, nodes: Nodes, start_server: StartServer) -> None:
        login = issue(nodes.one, unique_user())
        revoke(nodes.one, session_id=login["session_id"])
        late = start_server(joined(nodes.redis))
        until(lambda: status(late, login["access_token"]) == 401)

    def test_goes_on_after_a_secret_was_rotated(self, pair: Nodes) -> None:
        """Both read the new secret; one is restarted, and knows nothing but that."""
        rotated = joined(pair.redis, auth={"jwt_secret": OTHER_SECRET})
        pair.one.reload_and_wait(rotated)
        pair.other.reload_and_wait(rotated)
        assert pair.one.stop() == 0
        pair.one.start()
        redis_is("up", pair.one)
        for here, there in ((pair.one, pair.other), (pair.other, pair.one)):
            login = issue(here, unique_user())
            with Peer(there.url, token_text=login["access_token"]) as peer:
                revoke(here, session_id=login["session_id"])
                assert peer.close_code() == 4401


class TestRefreshing:
    def test_the_next_pair_works_on_the_other_node(self, nodes: Nodes) -> None:
        first = issue(nodes.one, unique_user())
        second = refresh(nodes.one, first["refresh_token"]).json
        third = refresh(nodes.other, second["refresh_token"])
        assert third.status == 200
        assert refresh(nodes.one, third.json["refresh_token"]).status == 200

    def test_a_token_used_on_one_node_is_used_on_the_other(self, nodes: Nodes) -> None:
        first = issue(nodes.one, unique_user())
        second = refresh(nodes.one, first["refresh_token"]).json
        with (
            Peer(nodes.one.url, token_text=second["access_token"]) as here,
            Peer(nodes.other.url, token_text=first["access_token"]) as there,
        ):
            assert refresh(nodes.other, first["refresh_token"]).status == 401
            assert (here.close_code(), there.close_code()) == (4401, 4401)
        for server in (nodes.one, nodes.other):
            assert status(server, second["access_token"]) == 401
            assert refresh(server, second["refresh_token"]).status == 401


class TestWithoutRedis:
    def test_each_node_serves_on_and_they_agree_again(self, pair: Nodes) -> None:
        kept, ended = issue(pair.one, unique_user()), issue(pair.one, unique_user())
        with (
            Peer(pair.other.url, token_text=ended["access_token"]) as victim,
            Peer(pair.other.url, token_text=kept["access_token"]) as bystander,
        ):
            pair.redis.kill()
            redis_is("down", pair.one, pair.other)
            for server in (pair.one, pair.other):
                assert health(server.port)["status"] == "degraded"
                assert ask(server.port, "GET", "/health/ready").status == 200
                assert status(server, kept["access_token"]) == 101
            renewed = refresh(pair.one, kept["refresh_token"])
            assert renewed.status == 200
            assert revoke(pair.one, session_id=ended["session_id"]) == 0
            assert status(pair.one, ended["access_token"]) == 401
            assert victim.ok("Ping")["type"] == bystander.ok("Ping")["type"] == "Pong"  # nobody can have told them

            pair.redis.start()
            assert victim.close_code(20) == 4401
            assert bystander.ok("Ping")["type"] == "Pong"
            assert status(pair.other, ended["access_token"]) == 401

            redis_is("up", pair.one, pair.other)
            again = refresh(pair.other, renewed.json["refresh_token"])
            assert again.status == 200
            # Used while Redis was away, which therefore does not know.
            assert refresh(pair.one, kept["refresh_token"]).status == 401
            assert bystander.close_code() == 4401

    def test_where_it_is_required(self, start_server: StartServer) -> None:
        with RedisServer() as redis:
            server = start_server(joined(redis, redis={"required": True}))
            redis_is("up", server)
            login = issue(server, unique_user())
            redis.kill()
            redis_is("down", server)
            assert ask(server.port, "GET", "/health/ready").status == 503
            refused = refresh(server, login["refresh_token"])
            assert (refused.status, refused.error_code) == (503, "unavailable")
            assert int(refused.headers["retry-after"]) >= 1
            with Peer(server.url, token_text=login["access_token"]) as peer:
                assert peer.ok("Ping")["type"] == "Pong"
            redis.start()
            redis_is("up", server)
            until(lambda: ask(server.port, "GET", "/health/ready").status == 200)
            until(lambda: (reply := refresh(server, login["refresh_token"])).status != 503 and reply.status == 200)


class TestAnAdministrator:
    def test_disconnects_on_all_nodes(self, nodes: Nodes) -> None:
        user, login = unique_user(), unique_user("login")
        with Peer(nodes.one.url, user) as here, Peer(nodes.other.url, user, session_id=login) as there:
            assert order(nodes.one, "/api/disconnect", session_id=login) == {"disconnected": 0}
            assert there.close_code() == 4403
            with Peer(nodes.other.url, user) as again:
                assert order(nodes.one, "/api/disconnect", user_id=user, reason="spam") == {"disconnected": 1}
                assert [here.close_code(), again.close_code()] == [4403, 4403]

    def test_subscribes_on_all_nodes(self, nodes: Nodes) -> None:
        user, topic = unique_user(), unique()
        with Peer(nodes.one.url, user) as here, Peer(nodes.other.url, user) as there:
            assert order(nodes.one, "/api/subscribe", user_id=user, topic=topic) == {"subscribed": 1}
            assert [peer.event()["topic"] for peer in (here, there)] == [topic, topic]
            assert order(nodes.other, "/api/unsubscribe", user_id=user, topic=topic) == {"unsubscribed": 1}
            assert [peer.event()["topic"] for peer in (here, there)] == [topic, topic]
