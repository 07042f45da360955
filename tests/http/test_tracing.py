"""Spans of HTTP requests, and the trace id that an answer carries."""

import pytest

from realtime_communication.config.watching import Tracing
from realtime_communication.observability.otel import OtelTracer
from serving.collector import GrpcCollector

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


@pytest.fixture
def collector():
    with GrpcCollector() as started:
        yield started


@pytest.fixture
def tracer(collector):
    made = OtelTracer(Tracing(endpoint=collector.endpoint, sampling_rate=1.0), node_id="n", version="1")
    yield made
    made.shutdown()


def test_semantic_conventions(make_server, tracer, collector):
    server = make_server(tracer=tracer)
    server.request("GET", "/health/live?token=hush", headers={"User-Agent": "tests/1"} | CALLER)
    (span,) = collector.wait("GET /health/live")
    assert (span.kind, span.trace_id, span.parent_id) == ("server", TRACE, "00f067aa0ba902b7")
    assert span.attributes == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "url.path": "/health/live",
        "network.protocol.version": "1.1",
        "client.address": "127.0.0.1",
        "user_agent.original": "tests/1",
        "http.route": "/health/live",
        "http.response.status_code": 200,
    }


def test_names_are_few(make_server, tracer, collector):
    server = make_server(tracer=tracer)
    for number in range(3):
        assert server.request("GET", f"/nowhere/{number}").status == 404
    for span in collector.wait("GET", 3):
        assert "http.route" not in span.attributes
        assert span.attributes["http.response.status_code"] == 404
        assert not span.failed


def test_failures_of_the_server_are_marked(make_server, tracer, collector, bearer):
    server = make_server(tracer=tracer)
    server.hub.refusal = RuntimeError("hush")
    answer = server.request("POST", "/api/publish", b"{}", bearer() | {"Content-Type": "application/json"})
    assert answer.status == 500
    (span,) = collector.wait("POST /api/publish")
    assert span.failed
    assert span.attributes["error.type"] == "500"
    assert span.events == []
    assert b"hush" not in b"".join(collector.bodies)


@pytest.mark.parametrize("path", ["/health", "/nowhere", "/ws"])
def test_every_answer_names_its_trace(server, path):
    assert server.request("GET", path, headers=CALLER).headers["X-Trace-Id"] == TRACE
    first, second = (server.request("GET", path).headers["X-Trace-Id"] for _ in range(2))
    assert first != second
    assert len(first) == 32


def test_headers_that_break_the_rules_are_overlooked(server):
    for value in ("nonsense", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", "x" * 4000):
        answer = server.request("GET", "/health", headers={"traceparent": value})
        assert answer.status == 200
        assert len(answer.headers["X-Trace-Id"]) == 32
    twice = server.raw(
        f"GET /health HTTP/1.1\r\nHost: x\r\ntraceparent: {CALLER['traceparent']}\r\n"
        f"traceparent: {CALLER['traceparent']}\r\nConnection: close\r\n\r\n".encode()
    )
    assert b"X-Trace-Id: " in twice
    assert TRACE.encode() not in twice


def test_requests_of_one_connection_have_traces_of_their_own(server):
    request = b"GET /health HTTP/1.1\r\nHost: x\r\n"
    caller = f"traceparent: {CALLER['traceparent']}\r\n".encode()
    answers = server.raw(request + caller + b"\r\n" + request + b"Connection: close\r\n\r\n")
    ids = [line.split(b": ")[1] for line in answers.split(b"\r\n") if line.startswith(b"X-Trace-Id")]
    assert len(ids) == 2
    assert ids[0] == TRACE.encode() != ids[1]


def test_log_lines_carry_it(server, caplog):
    with caplog.at_level("DEBUG", logger="realtime_communication.http.security"):
        seen = []
        caplog.handler.addFilter(lambda record: seen.append(_trace()) or True)
        server.request("GET", "/health", headers=CALLER)
    assert seen == [TRACE]


def _trace():
    from realtime_communication.observability.logs import trace_id

    return trace_id.get()
