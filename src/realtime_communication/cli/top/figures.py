"""Two samples of a server as figures: rates, percentiles, the busiest topics, the slowest consumers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from realtime_communication.cli.top.sample import Histogram, Sample

ROWS: Final = 50
SHARES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
RATES: Final = {
    "requests": "requests",
    "publications": "publications",
    "deliveries": "deliveries",
    "bytes_in": "bytes_received",
    "bytes_out": "bytes_sent",
    "opened": "upgraded",
    "closed": "closed",
    "rate_limited": "rate_limited",
    "backpressure": "backpressure",
    "dropped": "dropped",
    "lagged": "lagged",
}
"""What is shown per second, and the counter of `/admin/stats` it comes from."""

TOPIC_ORDERS: Final = ("rate", "subscribers", "offset")
"""What topics can be sorted by, first what is preset."""


def figures(before: Sample | None, now: Sample, order: str = TOPIC_ORDERS[0]) -> dict[str, Any]:
    """Plain values, fit for JSON. Rates are None without a sample `before`."""
    stats, hub = now.stats, now.stats.get("hub", {})
    return {
        "status": now.health.get("status", "unknown"),
        "version": stats.get("versions", {}).get("realtime_communication"),
        "node_id": stats.get("node_id"),
        "profile": stats.get("profile"),
        "draining": stats.get("draining", False),
        "uptime_secs": stats.get("uptime_secs", 0.0),
        "rss_bytes": stats.get("rss_bytes", 0),
        "connections": stats.get("connections", 0),
        "users": hub.get("users", 0),
        "subscriptions": hub.get("subscriptions", 0),
        "topics": hub.get("topics", 0),
        "cached_messages": hub.get("cached_messages", 0),
        "rates": {name: _rate(before, now, counter) for name, counter in RATES.items()},
        "latency": latency(before.latency if before is not None else None, now.latency),
        "busiest_topics": _topics(before, now, order),
        "slowest": _slowest(now),
        "workers": _workers(before, now),
        "nodes": [],
        "workers_missing": stats.get("workers_missing", []),
        "dependencies": now.health.get("dependencies", {}),
        "circuit_breakers": stats.get("circuit_breakers", {}),
        "missing": list(now.missing),
    }


def node_row(url: str, before: Sample | None, now: Sample | None, problem: str | None) -> dict[str, Any]:
    """One node among several; `now` is None as long as it has not answered, and `problem` why it does not."""
    if now is None:
        return {"url": url, "status": "unreachable", "problem": problem}
    return {
        "url": url,
        "status": now.health.get("status", "unknown") if problem is None else "unreachable",
        "problem": problem,
        "node_id": now.stats.get("node_id"),
        "connections": now.stats.get("connections", 0),
        "deliveries": _rate(before, now, RATES["deliveries"]),
        "rss_bytes": now.stats.get("rss_bytes", 0),
        "uptime_secs": now.stats.get("uptime_secs", 0.0),
    }


def latency(before: Histogram | None, now: Histogram | None) -> dict[str, Any] | None:
    """Percentiles in seconds of what was observed between the two, or since the start when that is nothing."""
    if now is None:
        return None
    since = before.buckets if before is not None and before.name == now.name else {}
    counts = {bound: count - since.get(bound, 0.0) for bound, count in now.buckets.items()}
    recent = bool(counts) and max(counts.values()) > 0 and bool(since)
    if not recent:
        counts = dict(now.buckets)
    values = {name: percentile(counts, share) for name, share in SHARES.items()}
    return {"of": now.name, "recent": recent, **values}


def percentile(buckets: Mapping[float, float], share: float) -> float | None:
    """As Prometheus estimates it: evenly within a bucket; of the last one, its lower bound. None without any."""
    total = max(buckets.values(), default=0.0)
    if total <= 0:
        return None
    wanted, below, low = share * total, 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if count >= wanted:
            if math.isinf(bound):
                return low
            return low + (bound - low) * ((wanted - below) / (count - below) if count > below else 1.0)
        below, low = count, bound
    return low


def _rate(before: Sample | None, now: Sample, counter: str) -> float | None:
    if before is None or now.at <= before.at:
        return None
    change: int = now.stats.get("hub", {}).get(counter, 0) - before.stats.get("hub", {}).get(counter, 0)
    return max(0.0, change / (now.at - before.at))  # a worker that was replaced takes its counts with it


def _topics(before: Sample | None, now: Sample, order: str) -> list[dict[str, Any]]:
    earlier = {(row["topic"], row["epoch"]): row["offset"] for row in before.topics} if before is not None else {}
    rows = []
    for row in now.topics:
        start = earlier.get((row["topic"], row["epoch"]))
        secs = now.at - before.at if before is not None else 0.0
        rate = (row["offset"] - start) / secs if start is not None and secs > 0 else None
        rows.append({"topic": row["topic"], "rate": rate, "subscribers": row["subscribers"], "offset": row["offset"]})
    rows.sort(key=lambda row: (-(row[order] or 0.0), -(row["subscribers"]), row["topic"]))
    return rows[:ROWS]


def _slowest(now: Sample) -> list[dict[str, Any]]:
    """Connections with something waiting for them, most first."""
    rows = [row for row in now.connections if row["queued"] or row["blocked"]]
    rows.sort(key=lambda row: (-row["queued"], not row["blocked"]))
    names = ("user_id", "session_id", "queued", "blocked", "silent_ms", "subscriptions", "worker")
    return [{name: row[name] for name in names if name in row} for row in rows[:ROWS]]


def _workers(before: Sample | None, now: Sample) -> list[dict[str, Any]]:
    rows = now.stats.get("per_worker") or {"0": now.stats}
    earlier = (before.stats.get("per_worker") or {"0": before.stats}) if before is not None else {}
    made = []
    for slot, row in rows.items():
        rate = None
        if before is not None and slot in earlier and now.at > before.at:
            change = row["hub"].get("deliveries", 0) - earlier[slot]["hub"].get("deliveries", 0)
            rate = max(0.0, change / (now.at - before.at))
        made.append(
            {
                "worker": int(slot),
                "connections": row["connections"],
                "deliveries": rate,
                "rss_bytes": row["rss_bytes"],
                "uptime_secs": row["uptime_secs"],
                "draining": row["draining"],
            }
        )
    return made
