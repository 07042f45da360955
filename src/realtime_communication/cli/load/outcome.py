"""What a run came to, as figures for people, and as the document that `--json` writes."""

from __future__ import annotations

from typing import Any

import msgspec

from realtime_communication import __version__
from realtime_communication.cli.load.generator import Plan, Report, Running

KEPT_UP = 0.95
"""The share of what was due that must arrive for latencies at a fixed rate to mean something."""

EDGE = 2
"""Publications that may be on their way when the measured time ends."""

_UNITS = {"fanout": "deliveries", "latency": "deliveries", "echo": "round trips", "direct": "messages"}
_OPTIONS = {
    "fanout": ("connections", "in_flight", "message_bytes", "seconds", "warmup", "topic"),
    "latency": ("connections", "rate", "message_bytes", "seconds", "warmup", "topic"),
    "echo": ("connections", "message_bytes", "seconds", "warmup", "topic"),
    "direct": ("connections", "message_bytes", "seconds", "warmup"),
    "connect": ("connections", "opening", "topic", "topics"),
    "idle": ("connections", "opening", "seconds", "topic", "topics"),
}


class Outcome(msgspec.Struct, frozen=True):
    """A run that has ended."""

    plan: Plan
    url: str
    started: str
    """When, in UTC, as of ISO 8601."""
    report: Report
    series: list[Running]

    @property
    def is_sound(self) -> bool:
        """No loss, no duplicate, no disorder, no error: only then do the figures count."""
        return not self.report.problems

    @property
    def unit(self) -> str:
        """What is counted."""
        return unit_of(self.plan.mode)

    @property
    def options(self) -> dict[str, Any]:
        """What the run was asked for, of what matters in its mode."""
        return {name: getattr(self.plan, name) for name in _OPTIONS[self.plan.mode]}

    @property
    def rate(self) -> float:
        """Deliveries a second; connections opened a second in the modes without any."""
        report = self.report
        if self.plan.mode in _UNITS:
            return report.deliveries / report.seconds if report.seconds else 0.0
        return self.plan.connections / report.connect_seconds if report.connect_seconds else 0.0

    @property
    def kept_up(self) -> bool:
        """False when less arrived than a fixed rate wanted: then the latencies tell of a queue that grew."""
        report = self.report
        return report.publications + EDGE >= KEPT_UP * report.offered * report.seconds


def unit_of(mode: str) -> str:
    """What a mode counts."""
    return _UNITS.get(mode, "connections")


def figures(outcome: Outcome) -> list[tuple[str, str]]:
    """What a table shows: names and values."""
    report = outcome.report
    rows = [("connections", f"{outcome.plan.connections:,}"), ("opened in", f"{report.connect_seconds:,.3f} s")]
    if outcome.plan.mode in _UNITS:
        rows += [
            ("measured", f"{report.seconds:,.2f} s"),
            (outcome.unit, f"{report.deliveries:,}"),
            (f"{outcome.unit} a second", f"{outcome.rate:,.0f}"),
            ("received a second", f"{report.received / report.seconds / 1e6 if report.seconds else 0:,.2f} MB"),
        ]
    else:
        rows.append(("opened a second", f"{outcome.rate:,.0f}"))
    if outcome.plan.mode == "idle":
        rows.append(("held for", f"{report.seconds:,.2f} s"))
    names = {"p50_us": "latency, median", "p99_us": "latency, 99 %", "p999_us": "latency, 99.9 %", "max_us": "longest"}
    for field, name in names.items():
        value = getattr(report, field)
        if value is not None and report.buckets:
            rows.append((name, duration(value)))
    return rows


def remarks(outcome: Outcome) -> list[str]:
    """What has to be said beside the figures: first what makes them worthless."""
    said = []
    if not outcome.is_sound:
        counts = ", ".join(f"{name} {count:,}" for name, count in outcome.report.problems.items())
        said.append(f"unsound, the figures do not count: {counts}")
    if outcome.report.first_error:
        said.append(f"first error: {outcome.report.first_error}")
        said += [hint for sign, hint in _HINTS if sign in outcome.report.first_error][:1]
    if outcome.is_sound and not outcome.kept_up:
        said.append(f"the server did not keep up with {outcome.plan.rate:g} publications a second: ask for less")
    return said


_CREDENTIALS = "the server wants other credentials: see --secret-file, --token-file and --api-key-file"
_HINTS = (
    ("HTTP/1.1 401", _CREDENTIALS),
    ("unauthorized", _CREDENTIALS),
    ("rate_limited", "the server limits rates (rate_limiting.*): raise or disable them there for a benchmark"),
    ("forbidden", "these credentials may not do that: their permissions or topics are too narrow"),
    ("Lagged", "a mailbox overflowed: ask for fewer --in-flight, or raise actor_system.mailbox_capacity"),
)


def duration(microseconds: float) -> str:
    """A latency for people."""
    if microseconds < 1000:
        return f"{microseconds:,.0f} µs"
    if microseconds < 1_000_000:
        return f"{microseconds / 1000:,.2f} ms"
    return f"{microseconds / 1_000_000:,.2f} s"


def document(outcome: Outcome) -> bytes:
    """The run as JSON: what was asked for, what came out, the intervals. No credentials."""
    body = {
        "format": 1,
        "version": __version__,
        "mode": outcome.plan.mode,
        "url": outcome.url,
        "started": outcome.started,
        "options": outcome.options,
        "sound": outcome.is_sound,
        "problems": outcome.report.problems,
        "kept_up": outcome.kept_up,
        "unit": outcome.unit,
        "rate": round(outcome.rate, 3),
        "result": outcome.report,
        "series": [
            {name: getattr(point, name) for name in ("at", "measuring", "deliveries", "rate", "p50_us", "p99_us")}
            for point in outcome.series
        ],
    }
    return msgspec.json.format(msgspec.json.encode(body)) + b"\n"
