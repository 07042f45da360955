"""`[tracing]` and `logging.enable_telemetry`: what a collector receives from a whole server."""

import asyncio
import contextlib
import http.client
import json
import os
import time

import pytest

from realtime_communication import __version__
from serving.collector import GrpcCollector, HttpCollector
from serving.processes import ServerProcess, free_port
from serving.raw import exchange, upgrade
from serving.tokens import token

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
FAILING = "traces do not reach the collector, and are dropped"
AGAIN = "traces reach the collector again"


def traced(endpoint, **tracing):
    return {"tracing": {"enabled": True, "sampling_rate": 1.0, "endpoint": endpoint} | tracing}


def get(port, path="/health", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        response.read()
        return response


@pytest.fixture
def collector():
    with GrpcCollector() as started:
        yield started


@contextlib.contextmanager
def process(settings):
    server = ServerProcess("product", free_port(), settings, None)
    try:
        server.start()
        yield server
    finally:
        server.dispose()


class TestEnabled:
    def test_requests_and_connections_are_traced(self, serve, collector):
        running = serve(traced(collector.endpoint))
        assert get(running.port).status == 200
        with running.peer("alice"):
            pass
        running.stop()
        (request,) = collector.named("GET /health")
        assert (request.kind, request.parent_id, request.failed) == ("server", "", False)
        assert request.attributes["http.response.status_code"] == 200
        (connect,) = collector.named("websocket.connect")
        assert (connect.kind, connect.failed) == ("server", False)
        assert connect.attributes == {
            "client.address": "127.0.0.1",
            "rtc.protocol": "rtc.v1.json",
            "rtc.outcome": "accepted",
            "user.id": "alice",
            "http.response.status_code": 101,
        }
        assert connect.start_ns <= connect.end_ns

    @pytest.mark.parametrize(
        "settings",
        [
            {"tracing": {"enabled": False}},
            {"logging": {"enable_telemetry": False}},
        ],
    )
    def test_off(self, serve, collector, settings):
        running = serve(traced(collector.endpoint) | settings)
        assert get(running.port, traceparent=f"00-{TRACE}-{PARENT}-01").status == 200
        with running.peer("alice"):
            pass
        running.stop()
        assert not running.worker.parts.tracer.enabled
        assert collector.spans == []


def test_enable_telemetry(serve, collector):
    for enabled in (True, False):
        running = serve(traced(collector.endpoint) | {"logging": {"enable_telemetry": enabled}})
        get(running.port)
        running.stop()
    assert len(collector.named("GET /health")) == 1


def test_service_name(serve, collector):
    running = serve(traced(collector.endpoint, service_name="chat of the tests"))
    get(running.port)
    running.stop()
    (span,) = collector.named("GET /health")
    assert span.resource["service.name"] == "chat of the tests"
    assert span.resource["service.version"] == __version__
    assert span.resource["service.instance.id"] == running.worker.parts.services.node_id


class TestSamplingRate:
    def test_none_begins_here_at_0_and_every_one_at_1(self, serve, collector):
        for rate in (0.0, 1.0):
            running = serve(traced(collector.endpoint, sampling_rate=rate))
            for _ in range(20):
                get(running.port)
            running.stop()
            assert len(collector.named("GET /health")) == 20 * rate

    def test_the_decision_of_a_caller_is_kept(self, serve, collector):
        for rate in (0.0, 1.0):
            running = serve(traced(collector.endpoint, sampling_rate=rate))
            get(running.port, traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="vendor=1,other=2")
            get(running.port, traceparent=f"00-{TRACE}-{PARENT}-00")
            running.raw(extra=(f"traceparent: 00-{TRACE}-{PARENT}-01",)).socket.close()
            running.raw(extra=(f"traceparent: 00-{TRACE}-{PARENT}-00",)).socket.close()
            running.stop()
        requests, connects = collector.named("GET /health"), collector.named("websocket.connect")
        assert [(span.trace_id, span.parent_id, span.state) for span in requests] == [
            (TRACE, PARENT, "vendor=1,other=2")
        ] * 2
        assert [(span.trace_id, span.parent_id) for span in connects] == [(TRACE, PARENT)] * 2

    def test_publications_are_thinned_to_it(self, serve, collector):
        running = serve(traced(collector.endpoint, sampling_rate=0.5))
        now = time.time_ns()
        samples = [("Broadcast", "room:42", now, 1_000_000)] * 400
        running.ask(lambda: running.worker.parts.tracer.record_samples(samples, 1.0))
        running.ask(lambda: running.worker.parts.tracer.record_samples([("DirectMessage", "@bob", now, 5)], 0.5))
        running.stop()
        published = collector.named("publish")
        direct = [span for span in published if span.attributes["rtc.message.type"] == "DirectMessage"]
        assert [span.attributes["messaging.destination.name"] for span in direct] == ["@bob"]
        assert 100 < len(published) < 300
        assert (published[0].start_ns, published[0].end_ns - published[0].start_ns) == (now, 1_000_000)
        assert {span.parent_id for span in published} == {""}
        assert len({span.trace_id for span in published}) == len(published)


@pytest.mark.parametrize("exporter", ["otlp", "jaeger"])
def test_exporter(serve, collector, exporter):
    running = serve(traced(collector.endpoint, exporter=exporter))
    get(running.port)
    running.stop()
    assert len(collector.named("GET /health")) == 1


def test_exporter_jaeger_warns_of_ports_that_speak_another_language(serve, caplog):
    warning = "this port of a Jaeger does not take OTLP, which is what is sent to it"
    serve(traced("http://127.0.0.1:14250", exporter="jaeger", sampling_rate=0.0)).stop()
    assert [record.message for record in caplog.records].count(warning) == 1
    serve(traced("http://127.0.0.1:14250", sampling_rate=0.0)).stop()
    assert [record.message for record in caplog.records].count(warning) == 1


class TestEndpoint:
    def test_a_path_speaks_http(self, serve):
        with HttpCollector() as collector:
            running = serve(traced(f"http://127.0.0.1:{collector.port}/custom/v1/traces"))
            get(running.port)
            running.stop()
            assert len(collector.named("GET /health")) == 1
            assert collector.paths == ["/custom/v1/traces"]

    def test_port_4318_speaks_http(self, serve):
        # An address of this test's own, since the port is given.
        host = f"127.18.{os.getpid() >> 8 & 0xFF}.{os.getpid() & 0xFF}"
        with HttpCollector(host, 4318) as collector:
            running = serve(traced(f"http://{host}:4318"))
            get(running.port)
            running.stop()
            assert len(collector.named("GET /health")) == 1
            assert collector.paths == ["/v1/traces"]

    def test_anything_else_speaks_grpc(self, serve, collector):
        running = serve(traced(collector.endpoint + "/"))
        get(running.port)
        assert collector.wait("GET /health")


class TestCollectorAway:
    def test_the_server_serves_and_says_so_once(self):
        port = free_port()
        with process(traced(f"http://127.0.0.1:{port}")) as server:
            lines = []
            while FAILING not in lines:
                assert get(server.port).status == 200
                lines = [entry["event"] for entry in entries(server)]
            for _ in range(3):
                assert get(server.port).status == 200
            with GrpcCollector(port) as collector:
                while AGAIN not in [entry["event"] for entry in entries(server)]:
                    assert get(server.port).status == 200
                assert collector.wait("GET /health")
                assert server.stop() == 0
            events = entries(server)
            assert [entry["event"] for entry in events if "collector" in entry["event"]] == [FAILING, AGAIN]
            (again,) = (entry for entry in events if entry["event"] == AGAIN)
            assert again["lost"] > 0
            assert "Traceback" not in server.log
            assert "opentelemetry" not in server.log
            assert all(line.startswith("{") for line in server.log.splitlines() if " listening on http" not in line)

    def test_one_that_never_answers_does_not_hold_up_the_end(self, serve, collector):
        collector.stuck.clear()
        running = serve(traced(collector.endpoint))
        get(running.port)
        running.stop()
        assert running.status == 0
        assert collector.spans == []

    def test_the_queue_is_bounded(self, serve, collector):
        collector.stuck.clear()
        running = serve(traced(collector.endpoint))
        now = time.time_ns()
        running.ask(lambda: running.worker.parts.tracer.record_samples([("Broadcast", "t", now, 1)] * 10_000, 1.0))
        assert get(running.port).status == 200
        collector.stuck.set()
        running.stop()
        assert 0 < len(collector.spans) < 5_000


def entries(server):
    return [json.loads(line) for line in server.log.splitlines() if line.startswith("{") and line.endswith("}")]


def test_no_secret_and_no_query_leaves_in_a_span(serve, collector):
    secret = "hush-hush"
    running = serve(traced(collector.endpoint))
    get(
        running.port, f"/health?token={secret}&api_key={secret}&room=marker", Cookie=f"a={secret}", Authorization=secret
    )
    get(running.port, f"/nowhere/token={secret}/%0a%1b[31m/" + "x" * 5000, **{"User-Agent": f"token={secret}"})
    exchange(running.port, upgrade(target=f"/ws?token={secret}", user=None))
    exchange(
        running.port,
        upgrade(user=None, authorization=f"Bearer {secret}", sec_websocket_protocol=f"{secret}, rtc.v1.json"),
    )
    good = token("alice")
    with contextlib.closing(running.raw(user=None, target=f"/ws?token={good}&room=marker").socket):
        pass
    running.stop()
    everything = b"".join(collector.bodies)
    assert len(collector.spans) == 5
    for text in (secret, "marker", good, good.split(".")[2]):
        assert text.encode() not in everything
    for span in collector.spans:
        for value in span.attributes.values():
            assert not isinstance(value, str) or (len(value.encode()) <= 128 and value.isprintable())
    refused = [span for span in collector.named("websocket.connect") if span.attributes["rtc.outcome"] == "refused"]
    assert [span.attributes["http.response.status_code"] for span in refused] == [401, 401]
    assert [span.attributes["rtc.error_code"] for span in refused] == ["unauthorized"] * 2


def test_log_lines_carry_the_trace_and_so_does_the_answer():
    with GrpcCollector() as collector:
        for enabled in (True, False):
            settings = traced(collector.endpoint, enabled=enabled) | {"logging": {"level": "debug"}}
            with process(settings) as server:
                named = get(server.port, traceparent=f"00-{TRACE}-{PARENT}-00")
                own = get(server.port, "/nowhere", traceparent="nonsense")
                assert server.stop() == 0
                lines = {entry["path"]: entry for entry in entries(server) if entry["event"] == "HTTP request"}
            assert named.headers["X-Trace-Id"] == lines["/health"]["trace_id"] == TRACE
            assert own.headers["X-Trace-Id"] == lines["/nowhere"]["trace_id"] != TRACE
            if enabled:
                assert collector.named("GET")[0].trace_id == own.headers["X-Trace-Id"]


def test_work_within_a_request_joins_its_trace(serve, collector):
    running = serve(traced(collector.endpoint))
    tracer = running.worker.parts.tracer

    async def work():
        with tracer.request_span("outer", None):
            with tracer.span("redis GET", kind="client", attributes={"db.operation.name": "GET", "n": 1}):
                await asyncio.sleep(0)
            with contextlib.suppress(ConnectionError), tracer.span("redis SET", kind="client"):
                raise ConnectionError("redis://:hush@host is away")

    asyncio.run_coroutine_threadsafe(work(), running._loop).result(10)
    running.stop()
    (outer,), (inner,), (failed,) = (collector.named(name) for name in ("outer", "redis GET", "redis SET"))
    assert inner.parent_id == failed.parent_id == outer.span_id
    assert (inner.kind, inner.attributes, inner.failed) == ("client", {"db.operation.name": "GET", "n": 1}, False)
    assert (failed.failed, failed.attributes, failed.events) == (True, {"error.type": "ConnectionError"}, [])
    assert b"hush" not in b"".join(collector.bodies)
