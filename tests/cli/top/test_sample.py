"""What `top` asks a server for."""

from __future__ import annotations

import pytest

from realtime_communication.cli.top.sample import Histogram, Sampler, histogram_in
from realtime_communication.client import RequestError
from realtime_communication.client.http import Publisher
from serving.processes import ServerProcess, free_port
from serving.tokens import token

TEXT = """
# TYPE x_http_request_duration_seconds histogram
x_http_request_duration_seconds_bucket{le="0.1",route="/health"} 2
x_http_request_duration_seconds_bucket{route="/a",le="0.1"} 1.0
x_http_request_duration_seconds_bucket{route="/a",le="+Inf"} 4 1700000000
x_http_request_duration_seconds_bucket{le="+Inf",route="/health"} 2
x_http_request_duration_seconds_count 6
x_other_bucket{le="1"} 9
"""
LATENCY = (
    'rtc_message_latency_bucket{le="0.5"} 3\nrtc_message_latency_bucket{le="broken"} 3\nrtc_message_latency_bucket{'
)


def test_histograms() -> None:
    found = histogram_in(TEXT)
    assert found == Histogram("http_request_duration_seconds", {0.1: 3.0, float("inf"): 6.0})
    assert histogram_in(TEXT + LATENCY) == Histogram("message_latency", {0.5: 3.0})
    assert histogram_in("") is None


def test_a_server(live_server: ServerProcess) -> None:
    with Publisher(live_server.http_url, token=token("root", roles=["admin"])) as publisher:
        publisher.publish("of-top", 1)
        sampler = Sampler(publisher, "127.0.0.1", None)
        sample = sampler.take()
        sampler.close()
    assert sample.missing == ()
    assert sample.stats["hub"]["publications"] >= 1 and sample.health["status"] == "ok"
    assert any(row["topic"] == "of-top" for row in sample.topics)
    assert sample.latency is not None and sample.latency.name == "http_request_duration_seconds"


def test_what_cannot_be_reached_is_missing(live_server: ServerProcess) -> None:
    with Publisher(live_server.http_url, token=token("root", roles=["admin"]), retries=0) as publisher:
        for url in (f"http://127.0.0.1:{free_port()}/metrics", f"http://127.0.0.1:{live_server.port}/metrics"):
            sampler = Sampler(publisher, "127.0.0.1", url)
            (missing,) = sampler.take().missing
            sampler.close()
            assert missing.startswith("metrics: ")


def test_only_for_administrators(live_server: ServerProcess) -> None:
    with Publisher(live_server.http_url, token=token("alice")) as publisher:
        with pytest.raises(RequestError, match="admin"):
            Sampler(publisher, "127.0.0.1", None).take()
