"""Health in its three forms."""

import asyncio

from realtime_communication import __version__
from realtime_communication.http.services import Check


def test_the_report(server):
    answer = server.request("GET", "/health")
    assert answer.status == 200
    report = answer.json
    assert report.pop("uptime_secs") >= 0
    assert report == {
        "status": "ok",
        "version": __version__,
        "profile": "test",
        "node_id": "node-1",
        "port": server.port,
        "metrics_port": None,
        "connections": 3,
        "workers": 1,
        "dependencies": {},
    }


def test_the_short_forms(server):
    assert server.request("GET", "/health/live").json == {"status": "ok"}
    assert server.request("GET", "/health/ready").status == 200


def test_draining_is_not_ready_but_alive(server):
    server.services.draining = True
    assert server.request("GET", "/health").json["status"] == "draining"
    assert server.request("GET", "/health/live").status == 200
    answer = server.request("GET", "/health/ready")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


def test_the_configuration_moves_and_removes_it(make_server):
    moved = make_server(changes={"monitoring.health_check.path": "/up", "monitoring.health_check.detailed": False})
    assert moved.request("GET", "/up").json == {"status": "ok"}
    assert moved.request("GET", "/health").status == 404
    assert make_server(changes={"monitoring.health_check.enabled": False}).request("GET", "/health").status == 404


async def well():
    return Check(ok=True, detail={"queued": 1})


async def unwell():
    return Check(ok=False, detail={})


async def broken():
    raise RuntimeError("secret")


async def stuck():
    await asyncio.sleep(60)


def test_dependencies_make_the_server_degraded_but_ready(make_server):
    server = make_server(
        changes={"monitoring.health_check.timeout_secs": 0.05},
        checks={"well": well, "unwell": unwell, "broken": broken, "stuck": stuck},
    )
    answer = server.request("GET", "/health")
    assert (answer.status, answer.json["status"]) == (200, "degraded")
    assert answer.json["dependencies"] == {
        "well": {"status": "ok", "queued": 1},
        "unwell": {"status": "degraded"},
        "broken": {"status": "failed"},
        "stuck": {"status": "timeout"},
    }
    assert server.request("GET", "/health/ready").status == 200


def test_dependencies_are_only_asked_when_configured(make_server):
    server = make_server(changes={"monitoring.health_check.check_dependencies": False}, checks={"unwell": unwell})
    answer = server.request("GET", "/health").json
    assert answer["status"] == "ok"
    assert "dependencies" not in answer
    short = make_server(changes={"monitoring.health_check.detailed": False}, checks={"unwell": unwell})
    assert short.request("GET", "/health").json == {"status": "degraded"}
