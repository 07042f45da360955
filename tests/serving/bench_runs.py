"""Runs that have ended, to show."""

from __future__ import annotations

from typing import Any

from realtime_communication.cli.load.generator import Plan, Report, Running
from realtime_communication.cli.load.outcome import Outcome


def outcome(mode: str = "fanout", series: bool = True, **changes: Any) -> Outcome:
    """A sound run, but for what is changed in its report."""
    report: dict[str, Any] = {
        "connect_seconds": 0.5,
        "seconds": 2.0,
        "deliveries": 2000,
        "publications": 20,
        "bytes": 200_000,
        "received": 204_000,
        "offered": 0.0,
        "first_error": "",
        "p50_us": 90.0,
        "p99_us": 1500.0,
        "p999_us": 2_500_000.0,
        "max_us": 2_600_000.0,
        "buckets": [(90.0, 1900), (1500.0, 99), (2_500_000.0, 1)],
        **dict.fromkeys(("gaps", "duplicates", "disorder", "lost", "errors"), 0),
        "stalled": False,
        **changes,
    }
    points = [Running(0.5, False, 400, 800.0, 80.0, 900.0), Running(1.0, True, 900, 1000.0, 91.0, 1400.0)]
    return Outcome(
        Plan(mode=mode, connections=100, seconds=2.0, rate=10.0, topic="<topic>"),
        "ws://localhost:8080/ws",
        "2030-01-01T00:00:00+00:00",
        Report(**report),
        points if series else [],
    )
