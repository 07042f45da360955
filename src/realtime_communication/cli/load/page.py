"""The report of a run as one HTML page: figures as tables, plots as inline SVG, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

from realtime_communication.cli.load.outcome import Outcome, duration, figures, remarks

WIDTH, HEIGHT = 720, 240
LEFT, RIGHT, TOP, BOTTOM = 84, 16, 12, 34
MOST_POINTS = 2000

Points = Sequence[tuple[float, float]]
Format = Callable[[float], str]

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --paper: #fcfcfd; --rule: #d9d9e0; --one: #2563eb; --two: #c2410c;
  --bad: #b91c1c }
@media (prefers-color-scheme: dark) { :root { --ink: #edeef0; --paper: #111113; --rule: #43484e; --one: #60a5fa;
  --two: #fb923c; --bad: #f87171 } }
body { margin: 2rem auto; max-width: 46rem; padding: 0 1rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid var(--rule); padding: .25rem .5rem; text-align: right; font-weight: normal }
th:first-child { text-align: left }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
svg { width: 100%; height: auto } text { fill: var(--ink); font-size: 12px }
.axis { stroke: var(--rule) } .one { stroke: var(--one) } .two { stroke: var(--two) }
polyline { fill: none; stroke-width: 2 } .key.one { color: var(--one) } .key.two { color: var(--two) }
.bad { color: var(--bad) } pre { white-space: pre-wrap; overflow-wrap: anywhere }
"""


def page(outcome: Outcome) -> str:
    """The whole page."""
    title = f"rtc bench {outcome.plan.mode}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(outcome.url)}, {escape(outcome.started)}</p>",
        _verdict(outcome),
        "<h2>Figures</h2>",
        _table(("figure", "value"), figures(outcome)),
        *_plots(outcome),
        "<h2>Options</h2>",
        _table(
            ("option", "value"),
            [(f"--{name.replace('_', '-')}", str(value)) for name, value in outcome.options.items()],
        ),
        *_intervals(outcome),
    ]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _verdict(outcome: Outcome) -> str:
    said = remarks(outcome)
    if not said:
        return "<p>Sound: nothing lost, doubled, out of order or refused.</p>"
    return '<p class="bad">' + "<br>".join(escape(line) for line in said) + "</p>"


def _plots(outcome: Outcome) -> list[str]:
    series, parts = outcome.series, []
    if len(series) > 1:
        name = f"{outcome.unit} a second" if outcome.report.buckets else outcome.unit
        values = [(point.at, point.rate if outcome.report.buckets else point.deliveries) for point in series]
        parts += [f"<h2>{escape(name)}</h2>", plot({name: values}, "seconds", _seconds, _count)]
    timed = [point for point in series if point.p50_us is not None and point.p99_us is not None]
    if len(timed) > 1:
        lines = {
            "median": [(point.at, point.p50_us or 0.0) for point in timed],
            "99 %": [(point.at, point.p99_us or 0.0) for point in timed],
        }
        parts += ["<h2>Latency of each interval</h2>", plot(lines, "seconds", _seconds, duration)]
    if len(outcome.report.buckets) > 1:
        total, seen = sum(count for _, count in outcome.report.buckets), 0
        shares = []
        for latency, count in outcome.report.buckets:
            seen += count
            shares.append((100 * seen / total, latency))
        parts += [
            "<h2>Latency that a share of them did not exceed</h2>",
            plot({"latency": shares}, "per cent", _seconds, duration),
        ]
    return parts


def plot(lines: Mapping[str, Points], along: str, x_format: Format, y_format: Format) -> str:
    """At most two lines over one axis, from zero up, as an SVG with a key."""
    points = [point for line in lines.values() for point in line]
    x_least, x_most = 0.0, max(x for x, _ in points)
    y_most = max(y for _, y in points) or 1.0
    span = (x_most - x_least) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - x_least) / span * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - y / y_most * (HEIGHT - TOP - BOTTOM),
        )

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(", ".join(lines))}">']
    for step in range(5):
        _, y = place(x_least, y_most * step / 4)
        x, _ = place(x_least + span * step / 4, 0)
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(y_format(y_most * step / 4))}</text>'
        )
        label = escape(x_format(x_least + span * step / 4))
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 16}" text-anchor="middle">{label}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 2}" text-anchor="middle">{escape(along)}</text>')
    keys = []
    for (name, line), colour in zip(lines.items(), ("one", "two"), strict=False):
        thinned = line[:: len(line) // MOST_POINTS + 1]
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in thinned)
        parts.append(f'<polyline class="{colour}" points="{path}"/>')
        keys.append(f'<span class="key {colour}">■ {escape(name)}</span>')
    return "\n".join([*parts, "</svg>", f"<p>{' '.join(keys)}</p>"])


def _intervals(outcome: Outcome) -> list[str]:
    if not outcome.series:
        return []
    head = ("second", "rate", "median", "99 %") if outcome.report.buckets else ("second", outcome.unit)
    rows = []
    for point in outcome.series[:MOST_POINTS]:
        first = f"{point.at:.2f}" + ("" if point.measuring else " (warm-up)")
        if outcome.report.buckets:
            latencies = (duration(us) if us is not None else "" for us in (point.p50_us, point.p99_us))
            rows.append((first, f"{point.rate:,.0f}", *latencies))
        else:
            rows.append((first, f"{point.deliveries:,}"))
    return ["<details><summary>Intervals</summary>", _table(head, rows), "</details>"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["<table>", "<tr>" + "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head) + "</tr>"]
    for first, *rest in rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    return "\n".join([*lines, "</table>"])


def _seconds(value: float) -> str:
    return f"{value:.3g}"


def _count(value: float) -> str:
    return f"{value:,.0f}"
