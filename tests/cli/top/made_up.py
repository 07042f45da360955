"""A server's words as its endpoints have them, without a server."""

from __future__ import annotations

from typing import Any

from realtime_communication.cli.top.sample import Histogram, Sample

COUNTERS = ("requests", "publications", "deliveries", "bytes_received", "bytes_sent", "upgraded", "closed")


def worker(count: int, connections: int = 3) -> dict[str, Any]:
    hub = dict.fromkeys((*COUNTERS, "rate_limited", "backpressure", "dropped", "lagged"), count)
    return {
        "draining": False,
        "uptime_secs": 3700.0,
        "connections": connections,
        "rss_bytes": 50 << 20,
        "hub": hub | {"users": 2, "topics": 4, "subscriptions": 5, "cached_messages": 6},
    }


def sample(at: float, count: int, **changes: Any) -> Sample:
    """One moment, at which every counter stands at `count`."""
    breakers = {
        "redis": {"state": "open", "failures": 5, "successes": 0, "rejected": 7},
        "webhooks": {"state": "closed", "failures": 0, "successes": 0, "rejected": 0},
    }
    fields: dict[str, Any] = {
        "stats": {
            "node_id": "node-1",
            "profile": "prod",
            "versions": {"realtime_communication": "0.1.0"},
            "circuit_breakers": breakers,
            "workers_missing": [2],
            "per_worker": {"0": worker(count), "1": worker(count * 2, 9)},
            **worker(count * 3, 12),
        },
        "health": {"status": "degraded", "dependencies": {"redis": {"status": "degraded", "address": "r:6379"}}},
        "topics": [
            {"topic": "quiet", "epoch": "e", "offset": 5, "subscribers": 9, "cached": 5},
            {"topic": "busy", "epoch": "e", "offset": count, "subscribers": 1, "cached": 5},
            {"topic": "new", "epoch": f"e{count}", "offset": 1, "subscribers": 0, "cached": 1},
        ],
        "connections": [
            connection("fine", 0, blocked=False),
            connection("slow", 10, blocked=True),
            connection("slower", 90, blocked=True),
        ],
        "latency": Histogram("message_latency", {0.001: count * 1.0, 0.01: count * 2.0, float("inf"): count * 2.0}),
    }
    return Sample(at, **fields | changes)


def connection(user: str, queued: int, *, blocked: bool) -> dict[str, Any]:
    return {
        "user_id": user,
        "session_id": f"session-of-{user}",
        "queued": queued,
        "blocked": blocked,
        "silent_ms": 61_000,
        "subscriptions": 1,
        "worker": 0,
    }
