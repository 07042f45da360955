"""Keys of breakers, logs, metrics, health and the end that change while the server runs."""

import asyncio
import contextlib

import pytest

from realtime_communication.errors import CircuitOpen
from serving.asking import ask, until
from serving.processes import ServerProcess, free_port
from serving.raw import envelope
from serving.receiver import Receiver, documented_check
from serving.scrapes import scrape, scrape_until

ELSEWHERE = {"testing": {"use_in_memory_storage": False}, "redis": {"url": "redis://127.0.0.1:9"}}
"""A Redis that nobody reaches."""


def health(running):
    return ask(running.port, "GET", "/health").json


class Guarded:
    """A breaker of a server that runs, for calls that fail and calls that do not."""

    def __init__(self, running, name="webhooks"):
        self.running = running
        self.name = name

    def call(self, times=1, *, fails=True):
        def one():
            breaker = self.running.worker.parts.breakers[self.name]
            for _ in range(times):
                with contextlib.suppress(OSError, CircuitOpen), breaker.guard():
                    if fails:
                        raise OSError

        self.running.ask(one)

    def at_once(self):
        """How many calls are let in together."""

        def many():
            with contextlib.ExitStack() as calls:
                for number in range(100):
                    try:
                        calls.enter_context(self.running.worker.parts.breakers[self.name].guard())
                    except CircuitOpen:
                        return number
            return None

        return self.running.ask(many)

    @property
    def shown(self):
        return health(self.running)["circuit_breakers"][self.name]

    @property
    def state(self):
        return self.shown["state"]


def breaker(**section):
    return {"circuit_breaker": section}


@pytest.fixture(params=["general", "own"])
def wrap(request):
    """The thresholds for all services, or for one."""
    if request.param == "general":
        return breaker

    def own(**keys):
        if "half_open_max_requests" in keys:
            keys["half_open_requests"] = keys.pop("half_open_max_requests")
        return breaker(services=[{"name": "webhooks", **keys}])

    return own


def _samples(running):
    lines = scrape(running.metrics_port).text.splitlines()
    return "\n".join(line for line in lines if not line.startswith("#"))


class TestBreakers:
    def test_enabled(self, serve):
        running = serve(breaker(failure_threshold=1))
        guarded = Guarded(running)
        guarded.call()
        assert guarded.state == "open"
        assert running.reload(breaker(failure_threshold=1, enabled=False))
        guarded.call(9)
        assert guarded.state == "closed"

    def test_failure_threshold(self, serve, wrap):
        running = serve()
        guarded = Guarded(running)
        guarded.call()
        assert running.reload(wrap(failure_threshold=2))
        guarded.call()
        assert guarded.state == "open", "failures before count"

    def test_timeout(self, serve, wrap):
        running = serve(breaker(failure_threshold=1))
        guarded = Guarded(running)
        guarded.call()
        assert guarded.shown["retry_in_secs"] > 50
        assert running.reload(wrap(failure_threshold=1, timeout_secs=0.01))
        until(lambda: guarded.call(fails=False) or guarded.state == "half_open")

    def test_success_threshold(self, serve, wrap):
        open_at_once = {"failure_threshold": 1, "timeout_secs": 0.01, "success_threshold": 100}
        running = serve(wrap(**open_at_once))
        guarded = Guarded(running)
        guarded.call()
        until(lambda: guarded.call(fails=False) or guarded.state == "half_open")
        assert running.reload(wrap(**open_at_once | {"success_threshold": 1}))
        guarded.call(fails=False)
        assert guarded.state == "closed"

    def test_half_open_requests(self, serve, wrap):
        open_at_once = {"failure_threshold": 1, "timeout_secs": 0.01, "success_threshold": 1000}
        running = serve(wrap(**open_at_once))
        guarded = Guarded(running)
        guarded.call()
        until(lambda: guarded.call(fails=False) or guarded.state == "half_open")
        assert guarded.at_once() == 3
        assert running.reload(wrap(**open_at_once, half_open_max_requests=7))
        assert guarded.at_once() == 7

    def test_log_state_changes(self, serve, caplog):
        running = serve(breaker(failure_threshold=1))
        assert running.reload(breaker(failure_threshold=1, events={"log_state_changes": False}))
        Guarded(running).call()
        assert "a circuit breaker changed its state" not in caplog.text
        assert running.reload(breaker(failure_threshold=1))
        Guarded(running, "auth_service").call()
        assert "a circuit breaker changed its state" in caplog.text

    def test_emit_metrics(self, serve):
        running = serve(breaker(failure_threshold=1, events={"emit_metrics": False}))
        Guarded(running).call()
        assert "circuit_breaker" not in _samples(running)
        assert running.reload(breaker(failure_threshold=1))
        Guarded(running, "auth_service").call()
        assert "circuit_breaker" in _samples(running)

    def test_webhook_url_and_secret(self, serve):
        receiver = Receiver().start()
        try:
            running = serve(breaker(failure_threshold=1))
            events = {"webhook_url": receiver.url, "webhook_secret": "the first"}
            assert running.reload(breaker(failure_threshold=1, events=events))
            Guarded(running, "auth_service").call()
            (first,) = until(lambda: list(receiver.requests))
            assert running.reload(breaker(failure_threshold=1, events=events | {"webhook_secret": "the second"}))
            Guarded(running, "message_queue").call()
            second = until(lambda: receiver.requests[1:])[0]
        finally:
            receiver.close()
        assert (first.event["service"], second.event["service"]) == ("auth_service", "message_queue")
        check = documented_check()
        for secret, request in (("the first", first), ("the second", second)):
            assert check(secret, request.headers, request.body)
        assert not check("the first", second.headers, second.body)


def test_redis_required(serve):
    running = serve(ELSEWHERE)
    assert ask(running.port, "GET", "/health/ready").status == 200
    assert running.reload(ELSEWHERE | {"redis": ELSEWHERE["redis"] | {"required": True}})
    answer = ask(running.port, "GET", "/health/ready")
    assert (answer.status, answer.json["dependencies"]) == (503, ["redis"])
    assert running.reload(ELSEWHERE)
    assert ask(running.port, "GET", "/health/ready").status == 200


class TestHealth:
    def changed(self, **keys):
        return ELSEWHERE | {"monitoring": {"health_check": keys}}

    def test_detailed(self, serve):
        running = serve()
        assert "version" in health(running)
        assert running.reload({"monitoring": {"health_check": {"detailed": False}}})
        assert health(running).keys() == {"status"}

    def test_check_redis(self, serve):
        running = serve(ELSEWHERE)
        assert "redis" in health(running)["dependencies"]
        assert running.reload(self.changed(check_redis=False))
        assert "redis" not in health(running)["dependencies"]

    def test_check_dependencies(self, serve):
        running = serve(ELSEWHERE)
        assert running.reload(self.changed(check_dependencies=False))
        assert "dependencies" not in health(running)

    def test_timeout(self, serve):
        running = serve()

        async def never():
            await asyncio.get_running_loop().create_future()

        checks = running.worker.parts.services.checks
        running.worker.parts.services.checks = {**checks, "slow": never}
        assert running.reload({"monitoring": {"health_check": {"timeout_secs": 0.05}}})
        assert health(running)["dependencies"]["slow"]["status"] == "timeout"


def test_update_interval(serve):
    def settings(seconds):
        return {"monitoring": {"prometheus": {"update_interval_secs": seconds}}}

    running = serve(settings(3600))
    first = scrape(running.metrics_port).value("process_cpu_seconds_total")
    assert scrape(running.metrics_port).value("process_cpu_seconds_total") == first
    assert running.reload(settings(0.05))
    assert scrape_until(running.metrics_port, lambda found: found.value("process_cpu_seconds_total") > first)


def test_timeouts_of_the_end(serve, caplog):
    running = serve({"production": {"drain_timeout_secs": 3600, "shutdown_timeout_secs": 3600}})
    with running.raw("stuck", receive_buffer=4096) as reader, running.peer() as publisher:
        reader.send(envelope(type="Subscribe", id=1, topic="t"))
        reader.frame()
        for _ in range(150):
            publisher.ok("Broadcast", topic="t", payload="x" * 60_000)
        assert running.reload({"production": {"drain_timeout_secs": 0.1, "shutdown_timeout_secs": 0.1}})
        running.stop(at_once=False)
    assert running.status == 0
    assert "not everything was delivered before the end" in caplog.text
    assert "clients that did not answer the close are cut off" in caplog.text


class TestLog:
    @pytest.fixture
    def process(self):
        server = ServerProcess("product", free_port(), None, None)
        try:
            server.start()
            assert health(server)["status"] == "ok"  # its handlers of signals are there
            yield server
        finally:
            server.dispose()

    def test_level(self, process):
        process.reload({"logging": {"level": "debug"}})
        until(lambda: process.events("setting changed"))
        until(lambda: health(process) and process.events("HTTP request"))
        process.reload({"logging": {"level": "warn"}})
        until(lambda: len(process.events("setting changed")) == 2)
        before = len(process.events("HTTP request"))
        health(process)
        assert process.stop() == 0
        assert len(process.events("HTTP request")) == before
        assert process.events("shutting down") == []

    def test_format(self, process):
        process.reload({"logging": {"format": "pretty"}})
        until(lambda: process.events("setting changed"))
        assert process.stop() == 0
        (line,) = [line for line in process.log.splitlines() if "shutting down" in line]
        assert not line.startswith("{")
