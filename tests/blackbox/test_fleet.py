"""A server of two workers answers as one: whichever of them is asked speaks for both."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from serving.asking import admin, ask, bearer, until
from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess, StartServer, ended_cleanly, free_port, merged
from serving.redis import RedisServer
from serving.scrapes import scrape, scrape_until

from .conftest import running

WORKERS = 2
ASKED = 12  # connections of their own: that all of them go to one worker happens once in 2,000 times


def settings(**further: Any) -> dict[str, Any]:
    """Two workers; `further` settings laid over them."""
    return merged({"server": {"workers": WORKERS}, "production": {"drain_timeout_secs": 1}}, further)


class Spread:
    """Connections of one user on all workers of `server`, at least one on each."""

    def __init__(self, server: ServerProcess, user: str, stack: contextlib.ExitStack) -> None:
        self.server, self.user = server, user
        self.peers: list[Peer] = []
        while len(set(self.by_worker().values())) < WORKERS:
            self.peers.append(stack.enter_context(Peer(server.url, user)))
            assert len(self.peers) < 40, "the kernel gives all connections to one worker"

    def by_worker(self) -> dict[str, int]:
        """The worker of each session."""
        rows = get(self.server, f"/api/connections?user_id={self.user}")["connections"]
        return {row["session_id"]: row["worker"] for row in rows}


def get(server: ServerProcess, path: str) -> Any:
    answer = ask(server.port, "GET", path, admin())
    assert answer.status == 200, answer
    return answer.json


def post(server: ServerProcess, path: str, body: Any) -> Any:
    answer = ask(server.port, "POST", path, admin(), body)
    assert answer.status == 200, answer
    return answer.json


@pytest.fixture(scope="module")
def fleet() -> Iterator[ServerProcess]:
    """For tests that leave the workers alone."""
    server = running("product", settings(metrics={"enabled": True, "port": free_port()}))
    with ended_cleanly(server):
        yield server


@pytest.fixture
def spread(fleet: ServerProcess) -> Iterator[Spread]:
    with contextlib.ExitStack() as stack:
        yield Spread(fleet, unique_user(), stack)


class TestLooking:
    def test_health_counts_the_connections_of_all(self, fleet: ServerProcess, spread: Spread) -> None:
        for _ in range(ASKED):
            health = get(fleet, "/health")
            assert (health["status"], health["workers"], health["connections"]) == ("ok", WORKERS, len(spread.peers))
            assert health["dependencies"]["services"]["workers"] == {"0": "ok", "1": "ok"}
            assert "workers_missing" not in health

    def test_connections_of_all(self, fleet: ServerProcess, spread: Spread) -> None:
        for _ in range(ASKED):
            shown = get(fleet, f"/api/connections?user_id={spread.user}")
            count = len(spread.peers)
            assert (shown["count"], len(shown["connections"]), shown["complete"]) == (count, count, True)
        ages = [row["connected_ms"] for row in shown["connections"]]
        assert ages == sorted(ages)
        assert len(get(fleet, f"/api/connections?user_id={spread.user}&limit=1")["connections"]) == 1

    def test_topics_of_all(self, fleet: ServerProcess, spread: Spread) -> None:
        topic = unique()
        for peer in spread.peers:
            peer.ok("Subscribe", topic=topic)
        for _ in range(ASKED):
            rows = [row for row in get(fleet, "/api/topics")["topics"] if row["topic"] == topic]
            assert [row["subscribers"] for row in rows] == [len(spread.peers)]

    def test_stats_are_sums(self, fleet: ServerProcess, spread: Spread) -> None:
        stats = get(fleet, "/admin/stats")
        assert stats["connections"] == stats["hub"]["connections"] == len(spread.peers)
        assert set(stats["per_worker"]) == {"0", "1"}
        assert sum(row["connections"] for row in stats["per_worker"].values()) == len(spread.peers)

    def test_inside(self, fleet: ServerProcess, spread: Spread) -> None:
        assert get(fleet, "/debug/connections")["count"] == len(spread.peers)
        assert {row["worker"] for row in get(fleet, "/debug/tasks")["tasks"]} == {0, 1}
        assert set(get(fleet, "/debug/memory")["per_worker"]) == {"0", "1"}

    def test_presence_of_all(self, fleet: ServerProcess, spread: Spread) -> None:
        topic = unique()
        for peer in spread.peers:
            peer.ok("Subscribe", topic=topic)
        for _ in range(ASKED):
            found = get(fleet, f"/api/topics/{topic}/presence")
            assert {row["session_id"] for row in found["members"]} == set(spread.by_worker())
            assert (found["topic"], found["count"]) == (topic, len(spread.peers))


class TestActing:
    def test_disconnect(self, fleet: ServerProcess, spread: Spread) -> None:
        answer = post(fleet, "/api/disconnect", {"user_id": spread.user, "reason": "spam"})
        assert answer == {"disconnected": len(spread.peers)}
        assert {peer.close_code() for peer in spread.peers} == {4403}

    def test_a_session_is_found_wherever_it_is(self, fleet: ServerProcess, spread: Spread) -> None:
        for session in spread.by_worker():
            assert post(fleet, "/api/disconnect", {"session_id": session}) == {"disconnected": 1}

    def test_the_session_id_of_a_login_ends_its_connections_wherever_they_are(self, fleet: ServerProcess) -> None:
        user, login = unique_user(), unique("phone")
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(Peer(fleet.url, user, session_id=login)) for _ in range(6)]
            other = stack.enter_context(Peer(fleet.url, user, session_id=unique("laptop")))
            assert post(fleet, "/api/disconnect", {"session_id": login}) == {"disconnected": len(peers)}
            assert {peer.close_code() for peer in peers} == {4403}
            assert other.ok("Ping")

    def test_a_revocation_closes_everywhere_and_is_refused_everywhere(
        self, fleet: ServerProcess, spread: Spread
    ) -> None:
        key = bearer(spread.user)
        assert post(fleet, "/auth/revoke", {"user_id": spread.user}) == {"revoked": len(spread.peers)}
        assert {peer.close_code() for peer in spread.peers} == {4401}
        answers = [ask(fleet.port, "GET", "/api/topics", key).status for _ in range(ASKED)]
        assert answers == [401] * ASKED

    def test_a_refresh_token_is_good_once_on_any_worker(self, fleet: ServerProcess) -> None:
        pair = post(fleet, "/auth/token", {"user_id": unique_user()})
        for _ in range(ASKED):
            answer = ask(fleet.port, "POST", "/auth/refresh", {}, {"refresh_token": pair["refresh_token"]})
            assert answer.status == 200
            used, pair = pair, answer.json
        answers = {
            ask(fleet.port, "POST", "/auth/refresh", {}, {"refresh_token": used["refresh_token"]}).status
            for _ in range(ASKED)
        }
        assert answers == {401}
        assert ask(fleet.port, "POST", "/auth/refresh", {}, {"refresh_token": pair["refresh_token"]}).status == 401

    def test_subscriptions_of_all_sessions(self, fleet: ServerProcess, spread: Spread) -> None:
        topic = unique()
        body = {"user_id": spread.user, "topic": topic}
        assert post(fleet, "/api/subscribe", body) == {"subscribed": len(spread.peers)}
        told = [peer.event() for peer in spread.peers]
        assert {(envelope["type"], envelope["topic"]) for envelope in told} == {("Subscribed", topic)}
        assert post(fleet, "/api/unsubscribe", body) == {"unsubscribed": len(spread.peers)}
        assert [peer.event() for peer in spread.peers] == [{"type": "Unsubscribed", "topic": topic}] * len(spread.peers)
        assert post(fleet, "/api/unsubscribe", body) == {"unsubscribed": 0}


class TestChanging:
    def test_limits_and_log_level_are_those_of_all(self, fleet: ServerProcess) -> None:
        answer = ask(fleet.port, "PUT", "/admin/config/rate-limits", admin(), {"connection_rps": 7})
        assert (answer.status, answer.json["connection_rps"], answer.json["connection_burst"]) == (200, 7, 14)
        assert ask(fleet.port, "PUT", "/admin/config/log-level", admin(), {"level": "warn"}).status == 200
        for _ in range(ASKED):
            keys = get(fleet, "/admin/config")["keys"]
            shown = keys["rate_limiting.connection.requests_per_second"]
            assert (shown["value"], shown["origin"]) == (7, "changed by PUT /admin/config/rate-limits by root")
            assert keys["logging.level"]["value"] == "warn"
        assert ask(fleet.port, "PUT", "/admin/config/log-level", admin(), {"level": "info"}).status == 200

    def test_what_cannot_be_names_the_field(self, fleet: ServerProcess) -> None:
        answer = ask(fleet.port, "PUT", "/admin/config/rate-limits", admin(), {"connection_rps": 0})
        assert answer.status == 422
        assert answer.json["error"]["message"].startswith("connection_rps: ")


class TestMetrics:
    def test_one_port_speaks_for_all(self, fleet: ServerProcess, spread: Spread) -> None:
        port = get(fleet, "/health")["metrics_port"]
        for _ in range(ASKED):
            ask(fleet.port, "GET", "/api/topics", admin())
        found = scrape_until(port, lambda scrape: scrape.value("connections") == len(spread.peers))
        assert found.values("worker_up", "worker") == {"0": 1, "1": 1}
        by_worker = found.values("worker_connections", "worker")
        placed = list(spread.by_worker().values())
        assert by_worker == {str(slot): placed.count(slot) for slot in range(WORKERS)}
        assert found.value("http_request_duration_seconds_count", route="/api/topics", status="2xx") >= ASKED
        assert found.values("worker_restarts_total", "worker") == {"0": 0, "1": 0}
        assert found.value("process_resident_memory_bytes") > sum(
            found.values("worker_resident_memory_bytes", "worker").values()
        )


class TestEnds:
    """Of workers, one after the other, on a server of its own."""

    def test_a_worker_dies_and_all_are_drained(self, start_server: StartServer) -> None:
        server = start_server(settings(metrics={"enabled": True, "port": free_port()}))
        port = get(server, "/health")["metrics_port"]
        with contextlib.ExitStack() as stack:
            spread = Spread(server, "alice", stack)
            of_first = [session for session, worker in spread.by_worker().items() if worker == 0]
            before = scrape(port).value("sockets_accepted_total")
            answer = post(server, "/admin/drain", {"worker": 0})
            assert answer == {"draining": [0], "connections": len(of_first)}
            told = [peer for peer in spread.peers if peer.connected["session_id"] in of_first]
            assert {peer.event()["type"] for peer in told} == {"Closing"}
            assert all(peer.settle() == [] for peer in spread.peers if peer not in told)
            for _ in range(ASKED):
                assert ask(server.port, "GET", "/health/ready").status == 200

            (pid,) = {line["pid"] for line in server.events("a worker is ready") if line["worker"] == 0}
            os.kill(pid, signal.SIGKILL)
            scrape_until(port, lambda found: found.value("worker_restarts_total", worker="0") == 1)
            found = scrape_until(port, lambda found: found.value("worker_up", worker="0") == 1)
            assert found.value("sockets_accepted_total") >= before, "no sum falls when a worker dies"
            rows = get(server, "/admin/stats")["per_worker"]
            assert {slot: row["draining"] for slot, row in rows.items()} == {"0": True, "1": False}

            kept = [peer for peer in spread.peers if peer not in told]
            answer = post(server, "/admin/drain", {})
            assert answer == {"draining": [0, 1], "connections": len(kept)}
            for _ in range(ASKED):
                ready = ask(server.port, "GET", "/health/ready")
                assert (ready.status, ready.json["status"]) == (503, "draining")
            assert ask(server.port, "GET", "/health").status == 200
            closing = [peer.event() for peer in kept]
            assert {(each["type"], each["code"], each["reconnect"]) for each in closing} == {("Closing", 1001, True)}
            assert {peer.close_code() for peer in kept} == {1001}
        until(lambda: get(server, "/health")["connections"] == 0)
        assert post(server, "/admin/drain", {})["connections"] == 0
        assert server.stop() == 0


class TestRedis:
    def test_an_event_reaches_every_worker_of_every_node(self, start_server: StartServer) -> None:
        with RedisServer() as redis, contextlib.ExitStack() as stack:
            shared = {"redis": {"url": redis.url}, "testing": {"use_in_memory_storage": False}}
            fleet = start_server(settings(**shared))
            alone = start_server(shared)
            for server in (fleet, alone):
                until(lambda server=server: get(server, "/health")["dependencies"]["redis"]["status"] == "ok")
            spread = Spread(fleet, "alice", stack)
            other = stack.enter_context(Peer(alone.url, "alice"))
            assert post(alone, "/auth/revoke", {"user_id": "alice"}) == {"revoked": 1}
            assert {peer.close_code() for peer in (*spread.peers, other)} == {4401}

            spread = Spread(fleet, "bob", stack)
            other = stack.enter_context(Peer(alone.url, "bob"))
            assert post(fleet, "/auth/revoke", {"user_id": "bob"}) == {"revoked": len(spread.peers)}
            assert {peer.close_code() for peer in (*spread.peers, other)} == {4401}

            def told_by() -> list[int]:
                return sorted(line["worker"] for line in fleet.events("tokens revoked") if line["name"] == "bob")

            until(lambda: len(told_by()) >= 2)
            assert told_by() == [0, 1], "once by each worker"
