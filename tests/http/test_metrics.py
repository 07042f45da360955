"""Durations of HTTP requests, by what the peer asked and got."""

import asyncio
import socket
import time

import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from realtime_communication.config.watching import Monitoring, Prometheus
from realtime_communication.http.metrics import measuring
from realtime_communication.http.services import BEGUN
from realtime_communication.observability.metrics import Metrics
from serving.scrapes import full_sources


@pytest.fixture
def metrics():
    return Metrics(Monitoring(prometheus=Prometheus(namespace="", subsystem="")), full_sources())


def counts(metrics):
    return {
        (each.labels["method"], each.labels["route"], each.labels["status"]): each.value
        for family in text_string_to_metric_families(metrics.snapshot().text().decode())
        for each in family.samples
        if each.name == "http_request_duration_seconds_count"
    }


def test_each_answer_is_counted_under_its_route(make_server, metrics):
    server = make_server(metrics=metrics)
    for _ in range(3):
        server.request("GET", "/health")
    server.request("HEAD", "/health")
    server.request("POST", "/health")
    server.request("GET", "/health/ready?token=secret")
    assert counts(metrics) == {
        ("GET", "/health", "2xx"): 3,
        ("HEAD", "/health", "2xx"): 1,
        ("POST", "unmatched", "4xx"): 1,
        ("GET", "/health/ready", "2xx"): 1,
    }
    assert b"secret" not in metrics.snapshot().text()


def test_paths_and_methods_without_number_make_one_series(make_server, metrics):
    server = make_server(metrics=metrics)
    for method in ("PROPFIND", "LOCK", "SEARCH", "TRACE"):
        for number in range(5):
            server.request(method, f"/nothing/{number}")
    assert counts(metrics) == {("other", "unmatched", "4xx"): 20}


def test_errors_of_handlers(make_server, metrics, bearer):
    server = make_server(metrics=metrics)
    server.hub.publish_request = lambda body, identity: 1 / 0
    headers = {**bearer(), "Content-Type": "application/json"}
    assert server.request("POST", "/api/publish", b"{}", headers).status == 500
    assert server.request("POST", "/api/publish", b"{}").status == 401
    assert counts(metrics) == {("POST", "/api/publish", "5xx"): 1, ("POST", "/api/publish", "4xx"): 1}


def test_a_client_that_leaves(make_server, metrics):
    server = make_server(metrics=metrics)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(b"POST /api/publish HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
    deadline = time.monotonic() + 10
    while not counts(metrics) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [key[:2] for key in counts(metrics)] == [("POST", "/api/publish")]


class Request(dict):
    """What the middleware looks at of a request that no route matches."""

    method = "GET"

    class match_info:  # noqa: N801
        class route:  # noqa: N801
            resource = None


@pytest.mark.parametrize(
    ("raised", "status"), [(web.HTTPForbidden(), "4xx"), (asyncio.CancelledError(), "4xx"), (ValueError(), "5xx")]
)
def test_what_a_handler_raises_goes_on(metrics, raised, status):
    async def handler(request):
        raise raised

    with pytest.raises(type(raised)):
        asyncio.run(measuring(metrics)(Request(), handler))
    assert counts(metrics) == {("GET", "unmatched", status): 1}


def test_a_stream_counts_until_it_begins():
    observed = []

    class Noting:
        def observe_http(self, method, route, status, seconds):
            observed.append((method, route, status, seconds))

    async def handler(request):
        request[BEGUN] = asyncio.get_running_loop().time() - 3600
        return web.Response()

    asyncio.run(measuring(Noting())(Request(), handler))
    assert observed == [("GET", "unmatched", 200, 0.0)]


def test_without_metrics_there_is_no_middleware(server):
    assert server.request("GET", "/health").json["metrics_port"] is None
    assert server.request("GET", "/metrics").status == 404
