"""FAULTS.md: Redis, the rows of the link: what a server does while Redis is away, broken, or somebody else."""

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from serving.asking import until
from serving.notices import noticed, total
from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess, StartServer, free_port, merged
from serving.raw import exchange, upgrade
from serving.redis import RedisServer
from serving.tokens import ADMIN_KEY, ADMIN_KEYS, token
from serving.troubles import Trouble, busy, demote, kill, lock, stop_and_go
from serving.witness import Witness

UP, DOWN = "Redis link is up", "Redis link is down"
SKIPPED_EVENT = "an event of another node is skipped; more for this reason are only counted"


def settings(url: str, **redis_keys: Any) -> dict[str, Any]:
    return {
        "redis": {"url": url, "retry_delay_ms": 10, "response_timeout_ms": 500, **redis_keys},
        "circuit_breaker": {"timeout_secs": 0.5},
        "testing": {"use_in_memory_storage": False},
        "metrics": {"enabled": True, "port": free_port()},
        "auth": {"providers": [{"type": "jwt"}, {"type": "api_key", "priority": 2, "keys": ADMIN_KEYS}]},
    }


def health(server: ServerProcess, path: str = "/health") -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(server.http_url + path, timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def is_up(server: ServerProcess) -> bool:
    return total(server, "redis_up") == 1


def wait_up(server: ServerProcess) -> None:
    until(lambda: is_up(server), lambda: server.log[-3000:])


@pytest.fixture
def store() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


def test_down_at_the_start(start_server: StartServer) -> None:
    port = free_port()
    server = start_server(settings(f"redis://:hush-hush@127.0.0.1:{port}"))
    with Witness(server.url, store_fails=True) as witness:
        until(lambda: health(server)[1]["status"] == "degraded", lambda: server.log)
        assert health(server, "/health/ready")[0] == 200
        assert total(server, "redis_up") == 0
        until(lambda: total(server, "circuit_breaker_state", service="redis") == 2, lambda: server.log)
        with noticed(server, UP), RedisServer(port=port, requirepass="hush-hush"):
            wait_up(server)
        witness.check()
    assert "hush-hush" not in server.log


def test_required_and_down_is_not_ready_but_serves(start_server: StartServer) -> None:
    server = start_server(settings(f"redis://127.0.0.1:{free_port()}", required=True))
    with Witness(server.url) as witness:
        assert health(server, "/health/ready")[0] == 503
        assert health(server, "/health/live")[0] == 200
        witness.check()


@pytest.mark.parametrize("trouble", [kill, stop_and_go, demote, lock, busy], ids=lambda each: each.__name__)
def test_trouble_while_it_runs(start_server: StartServer, store: RedisServer, trouble: Trouble) -> None:
    server = start_server(settings(store.url))
    with Witness(server.url, store_fails=True) as witness:
        wait_up(server)
        begin = len(server.log)
        with noticed(server, UP), contextlib.contextmanager(trouble)(store):
            until(lambda: not is_up(server), lambda: server.log[begin:])
            until(lambda: DOWN in server.log[begin:], lambda: server.log[begin:])
            with Peer(server.url, unique_user()) as peer:
                topic = unique()
                until(lambda: peer.request("Broadcast", topic=topic, payload=1)["type"] == "Ack")
                assert peer.ok("Broadcast", topic=topic, payload=2)["offset"] == 2
            witness.check()
            assert health(server)[1]["status"] == "degraded"
        wait_up(server)
        until(lambda: health(server)[1]["status"] == "ok", lambda: json.dumps(health(server)[1]))
        assert server.log[begin:].count(DOWN) <= 3, "one clear line, not one for each attempt"
        witness.check()


def test_no_memory_in_redis_hurts_nobody_here(start_server: StartServer, store: RedisServer) -> None:
    server = start_server(settings(store.url))
    with Witness(server.url, store_fails=True) as witness:
        wait_up(server)
        store.client.config_set("maxmemory", 1)
        user = unique_user()
        with Peer(server.url, user) as peer:
            assert revoke(server, user).status == 200
            assert peer.close_code() in (4401, 4403)
        store.client.config_set("maxmemory", 0)
        wait_up(server)
        witness.check()


def revoke(server: ServerProcess, user: str) -> Any:
    body = json.dumps({"user_id": user}).encode()
    head = f"POST /auth/revoke HTTP/1.1\r\nHost: x\r\nX-API-Key: {ADMIN_KEY}\r\nContent-Type: application/json\r\n"
    return exchange(server.port, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


def channel_of(store: RedisServer) -> str:
    """Where the nodes tell each other."""
    (name,) = [name.decode() for name in store.client.pubsub_channels() if name.endswith(b"events")]
    return name


class TestEvents:
    def test_what_is_no_event_is_skipped_and_counted(self, start_server: StartServer, store: RedisServer) -> None:
        server = start_server(settings(store.url))
        with Witness(server.url) as witness:
            wait_up(server)
            channel = channel_of(store)
            for why, payload in {
                "garbage": b"\x00\xff",
                "too_large": b"[" * 100_000,
                "newer_version": b'{"version":99,"body":{}}',
                "forged": b'{"version":1,"mark":"AAAA","body":{"node":"n","run":"r","seq":1,"at":1,"kind":"revoked",'
                b'"payload":{}}}',
            }.items():
                with noticed(server, SKIPPED_EVENT, "redis_skipped_events_total", {"reason": why}, why=why):
                    store.client.publish(channel, payload)
            size = len(server.log)
            before = total(server, "redis_skipped_events_total", reason="garbage")
            for number in range(2000):
                store.client.publish(channel, b"[" * 50 + str(number).encode())
            until(
                lambda: total(server, "redis_skipped_events_total", reason="garbage") == before + 2000,
                lambda: server.log[size:],
            )
            assert len(server.log) - size < 2000, "a line for each"
            witness.check()

    def test_a_revocation_reaches_every_node_and_its_echo_nobody(
        self, start_server: StartServer, store: RedisServer
    ) -> None:
        nodes = [start_server(settings(store.url)) for _ in range(2)]
        for node in nodes:
            wait_up(node)
        heard = store.client.pubsub()
        heard.subscribe(channel_of(store))
        user = unique_user()
        login = token(user)
        with Peer(nodes[1].url, token_text=login) as there:
            assert revoke(nodes[0], user).status == 200
            assert there.close_code() in (4401, 4403)
        for node in nodes:
            answer = exchange(node.port, upgrade(user=None, extra=(f"Authorization: Bearer {login}",)))
            assert answer.status == 401
        messages = [message["data"] for message in iter(lambda: heard.get_message(timeout=1), None)]
        events = [data for data in messages if isinstance(data, bytes)]
        assert events
        repeated = total(nodes[1], "redis_skipped_events_total", reason="repeated")
        for data in events:
            store.client.publish(channel_of(store), data)
        until(
            lambda: total(nodes[1], "redis_skipped_events_total", reason="repeated") > repeated,
            lambda: nodes[1].log,
        )
        heard.close()

    def test_an_event_of_another_secret_is_forged(self, start_server: StartServer, store: RedisServer) -> None:
        ours = start_server(settings(store.url))
        foreign = start_server(merged(settings(store.url), {"auth": {"jwt_secret": "x" * 40}}))
        for node in (ours, foreign):
            wait_up(node)
        user = unique_user()
        with Peer(ours.url, user) as peer:
            with noticed(ours, SKIPPED_EVENT, "redis_skipped_events_total", {"reason": "forged"}, why="forged"):
                assert revoke(foreign, user).status == 200
            peer.ok("Ping")
