"""What a running server tells of itself at one moment, gathered from its endpoints.

`/admin/stats` has to answer. What else is missing, because the credentials do not reach so far or the metrics are on a
port that cannot be reached, is named in `missing` and left out.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from realtime_communication.client.errors import ClientError, RequestError
from realtime_communication.client.http import Publisher
from realtime_communication.client.http_pool import Endpoint, HttpPool

ROWS: Final = 1000
METRICS_SECS: Final = 3.0
LATENCIES: Final = ("message_latency", "http_request_duration_seconds")
"""Histograms to take percentiles from, by what their names end with; the first one there is."""


class Histogram(msgspec.Struct, frozen=True):
    """How many observations were at most so many seconds, by bound; they grow from bound to bound."""

    name: str
    buckets: Mapping[float, float]


class Sample(msgspec.Struct, frozen=True):
    """One moment; `at` is in seconds of the monotonic clock."""

    at: float
    stats: dict[str, Any]
    health: dict[str, Any]
    topics: list[dict[str, Any]]
    connections: list[dict[str, Any]]
    latency: Histogram | None
    missing: tuple[str, ...] = ()


class Sampler:
    """Takes samples of one server; `metrics_url` is where its metrics are, None: where `/health` says."""

    def __init__(self, publisher: Publisher, host: str, metrics_url: str | None) -> None:
        self._publisher = publisher
        self._host = host
        self._metrics_url = metrics_url
        self._pools: dict[str, HttpPool] = {}

    def take(self) -> Sample:
        """Ask the server. Raises ClientError when `/admin/stats` does not answer."""
        missing: list[str] = []
        stats = self._publisher.request("GET", "/admin/stats")
        at = time.monotonic()
        health = self._try(missing, "/health", lambda: self._publisher.request("GET", "/health"), {})
        topics = self._try(missing, "/api/topics", lambda: self._rows("topics"), [])
        connections = self._try(missing, "/api/connections", lambda: self._rows("connections"), [])
        latency = self._try(missing, "metrics", lambda: self._latency(health), None)
        return Sample(at, stats, health, topics, connections, latency, tuple(missing))

    def close(self) -> None:
        """Close the connections for metrics; the publisher is its maker's."""
        for pool in self._pools.values():
            pool.close()

    def _rows(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._publisher.request("GET", f"/api/{name}", query={"limit": ROWS})[name]
        return found

    def _latency(self, health: Mapping[str, Any]) -> Histogram | None:
        """From the metrics. Raises ClientError."""
        url = self._metrics_url
        if url is None:
            port = health.get("metrics_port")
            if not port:
                return None
            host = f"[{self._host}]" if ":" in self._host else self._host
            url = f"http://{host}:{port}/metrics"
        endpoint = Endpoint.of(url)
        pool = self._pools.get(url)
        if pool is None:
            pool = self._pools[url] = HttpPool(endpoint._replace(prefix=""), max_idle=1, ssl_context=None)
        answer = pool.exchange("GET", endpoint.prefix or "/metrics", {}, None, time.monotonic() + METRICS_SECS)
        if answer.status != 200:
            raise RequestError("unavailable", f"the metrics answered with status {answer.status}")
        return histogram_in(answer.body.decode("utf-8", "replace"))

    @staticmethod
    def _try(missing: list[str], name: str, ask: Callable[[], Any], instead: Any) -> Any:
        try:
            return ask()
        except (ClientError, KeyError, ValueError) as error:
            missing.append(f"{name}: {error}")
            return instead


def histogram_in(text: str) -> Histogram | None:
    """The histogram of latencies in an exposition of Prometheus, summed over its labels."""
    found: dict[str, dict[float, float]] = {}
    for line in text.splitlines():
        name, _, rest = line.partition("{")
        wanted = next((wanted for wanted in LATENCIES if name.endswith(f"{wanted}_bucket")), None)
        labels, brace, value = rest.rpartition("} ")
        if wanted is None or not brace:
            continue
        bound = next((part[4:-1] for part in labels.split(",") if part.startswith('le="')), None)
        if bound is not None:
            with contextlib.suppress(ValueError):
                buckets = found.setdefault(wanted, {})
                buckets[float(bound)] = buckets.get(float(bound), 0.0) + float(value.split()[0])
    for name in LATENCIES:
        if name in found:
            return Histogram(name, dict(sorted(found[name].items())))
    return None
