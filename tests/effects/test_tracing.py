"""`[tracing]` and `logging.enable_telemetry`: what a collector receives from a whole server."""

import contextlib
import http.client

import pytest

from serving.collector import GrpcCollector, HttpCollector
from serving.processes import ServerProcess, free_port
from serving.raw import exchange, upgrade
from serving.tokens import token

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


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

    @pytest.mark.parametrize("settings", [{"tracing": {"enabled": False}}, {"logging": {"enable_telemetry": False}}])
    def test_off(self, serve, collector, settings):
        running = serve(traced(collector.endpoint) | {"logging": {}} | {})
        running.stop()
        running = serve(
            {
                "tracing": traced(collector.endpoint)["tracing"] | settings.get("tracing", {}),
                "logging": settings.get("logging", {}),
            }
        )
        get(running.port)
        running.stop()
        assert collector.spans == []
        assert not running.worker._tracer.enabled
