"""Health in its three forms."""

import asyncio
import contextlib

import pytest

from realtime_communication import __version__
from realtime_communication.config.services import BREAKER_NAMES, CircuitBreaker
from realtime_communication.http.services import Check
from realtime_communication.resilience.breaker import Breakers


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


async def needed():
    return Check(ok=False, detail={}, required=True)


QUICK = {"monitoring.health_check.timeout_secs": 0.05}


class TestRequiredParts:
    def not_ready(self, server, *names):
        answer = server.request("GET", "/health/ready")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert answer.json == {"status": "unavailable", "dependencies": list(names)}

    def test_without_one_the_server_is_not_ready_but_serves(self, make_server):
        server = make_server(checks={"well": well, "needed": needed, "unwell": unwell})
        self.not_ready(server, "needed")
        answer = server.request("GET", "/health")
        assert (answer.status, answer.json["status"]) == (200, "degraded")
        assert answer.json["dependencies"]["needed"] == {"status": "degraded"}
        assert server.request("GET", "/health/live").status == 200

    @pytest.mark.parametrize("silent", [stuck, broken])
    def test_one_that_does_not_answer_counts_as_it_did_before(self, make_server, silent):
        answers = [well, needed, silent, unwell, silent]

        async def part():
            return await answers.pop(0)()

        server = make_server(changes=QUICK, checks={"part": part})
        assert server.request("GET", "/health/ready").status == 200
        self.not_ready(server, "part")
        self.not_ready(server, "part")
        assert server.request("GET", "/health/ready").status == 200
        assert server.request("GET", "/health/ready").status == 200

    @pytest.mark.parametrize("silent", [stuck, broken])
    def test_redis_is_required_when_the_configuration_says_so(self, make_server, silent):
        server = make_server(changes=QUICK | {"redis.required": True}, checks={"redis": silent, "other": silent})
        self.not_ready(server, "redis")
        assert make_server(changes=QUICK, checks={"redis": silent}).request("GET", "/health/ready").status == 200

    def test_a_draining_server_asks_nobody(self, make_server):
        server = make_server(checks={"needed": needed})
        server.services.draining = True
        assert server.request("GET", "/health/ready").json == {"status": "draining"}


def test_redis_is_only_asked_when_configured(make_server):
    changes = {"monitoring.health_check.check_redis": False}
    server = make_server(changes=changes, checks={"redis": needed, "well": well})
    answer = server.request("GET", "/health").json
    assert (answer["status"], list(answer["dependencies"])) == ("ok", ["well"])
    assert server.request("GET", "/health/ready").status == 200
    asked = make_server(checks={"redis": needed, "well": well})
    assert list(asked.request("GET", "/health").json["dependencies"]) == ["redis", "well"]
    assert asked.request("GET", "/health/ready").status == 503


def test_readiness_asks_nobody_when_dependencies_are_not_asked(make_server):
    server = make_server(changes={"monitoring.health_check.check_dependencies": False}, checks={"needed": needed})
    assert server.request("GET", "/health/ready").status == 200


def test_late_checks_are_cancelled(make_server):
    ended = []

    async def late():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("late")

    async def cancelled_by_somebody_else():
        raise asyncio.CancelledError

    server = make_server(
        changes={"monitoring.health_check.timeout_secs": 0.05},
        checks={"late": late, "cancelled": cancelled_by_somebody_else},
    )
    parts = server.request("GET", "/health").json["dependencies"]
    assert parts == {"late": {"status": "timeout"}, "cancelled": {"status": "failed"}}
    server.request("GET", "/health/live")  # the loop has turned since
    assert ended == ["late"]


class TestBreakers:
    time = 0.0

    @pytest.fixture
    def breakers(self):
        return Breakers(CircuitBreaker(failure_threshold=1, success_threshold=2), clock=lambda: self.time)

    def fail(self, breaker):
        with contextlib.suppress(OSError), breaker.guard():
            raise OSError

    def test_an_open_one_makes_the_server_degraded_but_ready(self, make_server, breakers):
        server = make_server(breakers=breakers)
        well = {"state": "closed", "failures": 0, "successes": 0, "rejected": 0}
        answer = server.request("GET", "/health").json
        assert (answer["status"], answer["circuit_breakers"]) == ("ok", dict.fromkeys(BREAKER_NAMES, well))

        self.fail(breakers["redis"])
        self.time = 12.5
        answer = server.request("GET", "/health").json
        assert answer["status"] == "degraded"
        assert answer["circuit_breakers"]["redis"] == {
            "state": "open",
            "failures": 1,
            "successes": 0,
            "rejected": 0,
            "opened_secs_ago": 12.5,
            "retry_in_secs": 47.5,
        }
        assert answer["circuit_breakers"]["webhooks"] == well
        assert server.request("GET", "/health/ready").status == 200

        self.time = 60.0
        with breakers["redis"].guard():
            pass
        answer = server.request("GET", "/health").json
        assert (answer["status"], answer["circuit_breakers"]["redis"]["state"]) == ("ok", "half_open")

    def test_they_are_not_shown_without_detail(self, make_server, breakers):
        changes = {"monitoring.health_check.detailed": False, "monitoring.health_check.check_dependencies": False}
        server = make_server(changes=changes, breakers=breakers)
        assert server.request("GET", "/health").json == {"status": "ok"}
        self.fail(breakers["redis"])
        assert server.request("GET", "/health").json == {"status": "degraded"}
