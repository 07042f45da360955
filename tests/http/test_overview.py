"""The server at a glance, once and as a stream."""

import contextlib
import http.client
import json

import pytest

from realtime_communication.http import overview
from realtime_communication.http.fleet import Gathered
from realtime_communication.http.overview import merged_overview
from realtime_communication.observability.publication_window import BOUNDS, PublicationWindow


@contextlib.contextmanager
def stream(server, headers):
    """The open answer of `/admin/events`."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/admin/events", headers=headers)
        yield connection.getresponse()


def event(answer):
    """The next event: its name and data."""
    name, data, end = (answer.readline().decode().rstrip("\n") for _ in range(3))
    assert end == ""
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


@pytest.fixture
def quick(monkeypatch):
    for name in ("INTERVAL_SECS", "FRESH_SECS", "CHECK_SECS"):
        monkeypatch.setattr(overview, name, 0.001)


def worker(connections=1, at=1, latency_at=20, draining=False, **changes):
    """What one worker answers."""
    latency = [0] * (len(BOUNDS) + 1)
    latency[latency_at] = 10
    row = {"session_id": f"s{connections}", "queued": connections, "replies_queued": 0}
    return {
        "draining": draining,
        "uptime_secs": 5.0,
        "connections": connections,
        "rss_bytes": 1000,
        "hub": {"publications": connections, "deliveries": 2},
        "circuit_breakers": {"redis": {"state": "closed", "rejected": 1}},
        "dependencies": {"log": {"status": "ok", "required": False, "detail": {}}},
        "cpu_secs": 1.5,
        "queued": 4,
        "depths": [connections, 0, 3],
        "slowest": [row],
        "latency": latency,
        "topics": [["t", connections, at], [f"only {connections}", 1, 1]],
        "nodes": [{"node_id": "other"}],
        "troubles": [{"at": at, "event": f"event {at}"}],
    } | changes


class TestMerged:
    def test_workers_as_one(self, make_server):
        services = make_server(workers=2).services
        found = Gathered({0: worker(3, at=5), 1: worker(4, at=7, latency_at=40)})
        made = merged_overview(found, services, [{"at": 6, "event": "a worker crashed"}])
        assert (made["connections"], made["rss_bytes"], made["cpu_secs"], made["queued"]) == (7, 2000, 3.0, 8)
        assert made["hub"] == {"publications": 7, "deliveries": 4}
        assert made["depths"] == [
            {"from": 0, "connections": 7},
            {"from": 1, "connections": 0},
            {"from": 2, "connections": 6},
        ]
        assert [(row["session_id"], row["worker"]) for row in made["slowest"]] == [("s4", 1), ("s3", 0)]
        assert made["topics"][0] == {"topic": "t", "subscribers": 7, "offset": 7}
        assert {row["topic"] for row in made["topics"]} == {"t", "only 3", "only 4"}
        assert [row["at"] for row in made["troubles"]] == [7, 6, 5]
        assert made["latency"]["samples"] == 20
        assert BOUNDS[39] <= made["latency"]["p99"] <= BOUNDS[40]
        assert [row["worker"] for row in made["per_worker"]] == [0, 1]
        assert [(row["node_id"], row.get("here")) for row in made["nodes"]] == [("node-1", True), ("other", None)]
        assert made["status"] == "ok"

    @pytest.mark.parametrize(
        ("rows", "missing", "status"),
        [
            ({0: worker()}, (1,), "degraded"),
            ({0: worker(draining=True), 1: worker(draining=True)}, (), "draining"),
            ({0: worker(draining=True), 1: worker()}, (), "ok"),
            ({0: worker(circuit_breakers={"redis": {"state": "open", "rejected": 0}})}, (), "degraded"),
            ({0: worker(dependencies={"log": {"status": "failed", "detail": {}}})}, (), "degraded"),
            ({}, (0, 1), "degraded"),
        ],
    )
    def test_how_it_is(self, server, rows, missing, status):
        assert merged_overview(Gathered(rows, missing), server.services)["status"] == status


def test_once(server, admin_key):
    server.services.window = PublicationWindow()
    server.services.window.add([("Broadcast", "busy", 0, 2_000_000), ("Broadcast", "gone", 0, 2_000_000)])
    made = server.request("GET", "/admin/overview", headers=admin_key).json
    assert (made["connections"], made["queued"], made["node_id"]) == (3, 7, "node-1")
    assert [row["user_id"] for row in made["slowest"]] == ["slow"]
    assert {row["topic"]: row["offset"] for row in made["topics"]} == {"room:1": 5, "busy": 9}
    assert made["latency"]["p50"] == pytest.approx(0.002, rel=0.2)
    assert server.services.window.watched


def test_credentials_in_the_url_are_refused(server, bearer):
    token = bearer(roles=["admin"])["Authorization"].removeprefix("Bearer ")
    for path in ("/admin/overview", "/admin/events", "/admin/connections/1"):
        assert server.request("GET", f"{path}?token={token}").status == 401


def test_a_stream(server, admin_key, quick):
    with stream(server, admin_key) as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        assert answer.headers["Cache-Control"] == "no-store"
        first, second = event(answer), event(answer)
    assert first[0] == second[0] == "overview"
    assert first[1]["connections"] == 3
    assert server.request("HEAD", "/admin/events", headers=admin_key).status == 200


def test_a_stream_ends_with_its_credentials(server, bearer, quick):
    server.services.clock = lambda: 0
    with stream(server, bearer("root", roles=["admin"])) as answer:
        assert event(answer)[0] == "overview"
        server.services.chain = type("Nobody", (), {"identify": lambda *_: None})()
        while (found := event(answer))[0] == "overview":
            pass
        assert found == ("refused", {"code": "unauthorized", "message": "this needs a token or an API key"})
        assert answer.read() == b""


def test_a_stream_is_for_administrators(server, bearer, api_key):
    assert server.request("GET", "/admin/events").status == 401
    for headers in (bearer(), api_key):
        assert server.request("GET", "/admin/events", headers=headers).status == 403


def test_streams_have_a_bound(server, admin_key, monkeypatch):
    monkeypatch.setattr(overview, "MAX_WATCHERS", 1)
    with stream(server, admin_key) as answer:
        event(answer)
        refused = server.request("GET", "/admin/events", headers=admin_key)
    assert (refused.status, refused.json["error"]["code"]) == (503, "unavailable")


class TestConnection:
    def test_one(self, server, admin_key):
        found = server.request("GET", "/admin/connections/1", headers=admin_key).json
        assert (found["session_id"], found["permissions"], found["topics"]) == ("1", ["read"], [])
        assert "worker" not in found

    @pytest.mark.parametrize(("path", "status"), [("7", 404), ("x" * 65, 400), ("%00", 400)])
    def test_none(self, server, admin_key, path, status):
        assert server.request("GET", f"/admin/connections/{path}", headers=admin_key).status == status

    @pytest.mark.parametrize(("missing", "status"), [((), 404), ((1,), 503)])
    def test_of_several_workers(self, make_server, admin_key, missing, status):
        class Several:
            def __init__(self):
                self.answers = {0: None, 2: {"session_id": "1"}}

            async def gather(self, method, params=None, *, timeout_secs=2.0):
                return Gathered(self.answers, missing)

        several = Several()
        server = make_server(fleet=several, workers=3)
        found = server.request("GET", "/admin/connections/1", headers=admin_key)
        assert found.json == {"session_id": "1", "worker": 2}
        several.answers = {0: None, 2: None}
        assert server.request("GET", "/admin/connections/1", headers=admin_key).status == status
