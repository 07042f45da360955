"""Builds the performance page and its plots from measured results; `benchmarks/report` runs it.

Every number comes out of the files that are given. The same files give the same page, byte for byte.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from . import driver, figures, measurements, prepare
from .charts import QUANTILES, Chart, charts
from .driver import Rows
from .figures import Figure
from .measurements import Measurements, UnusableError
from .results import Spread, spread_of
from .setting import Server
from .tables import cpu_cell, idle_cells, memory_table, rounded, spread_cell, table

PAGE = "performance.md"
FOLDER = "performance"
NOT_MEASURED = "not measured"

HEAD = """# Performance

What this server does on one core, beside others in the same run. `benchmarks/report` makes this page of measured
results; no number on it is written by hand. Cells have the median of the rounds, with the least and the most in
brackets."""

METHOD = """## Method

* The server runs on one core, the load generator on another, over loopback. All servers are up during the whole run,
  and each figure is taken of one after the other, round by round.
* Every message is counted at every subscriber, and its number must follow the one before. A run with a gap, a
  duplicate, disorder, a loss or an error is in no figure; it is listed at the end.
* Compression is off, unless a heading says otherwise, and no server writes a log of single messages. Each is in the
  best configuration that its documentation has for one core;
  [benchmarks/README.md](../benchmarks/README.md) says which.
* CPU time is that of the server's processes during the measured time.
* A fan-out is measured for a second, and longer where what was in flight has not landed by then: a slow server works
  through it in bursts."""


def page(measured: Measurements, pictures: Sequence[Chart]) -> str:
    """The whole page, with links to the pictures beside it."""
    drawn = {chart.name: chart for chart in pictures}
    sections = [
        HEAD,
        machine(measured),
        METHOD,
        "## Servers\n\n" + servers(measured),
        section("Fan-out over publications in flight", drawn.get("throughput"), in_flight(measured)),
        section("CPU time for a delivery", None, cpu(measured)),
        section("Fan-out over subscribers", None, subscribers(measured)),
        section("Latency over load", drawn.get("latency"), latency(measured)),
        section("Memory over connections", drawn.get("memory"), memory(measured)),
        section("Idle connections", None, idle(measured)),
        section(
            "Connections opened", drawn.get("connects"), rates(measured, measured.of_kind("connect"), connects_head)
        ),
        section("Echoes and direct messages", None, rates(measured, pairs(measured), pairs_head)),
        *(section(found.title, None, rows(found)) for found in measured.tables),
        "## Soundness\n\n" + soundness(measured),
        "## How to repeat it\n\n" + REPEAT,
    ]
    return "\n\n".join(sections) + "\n"


REPEAT = """On a machine with two cores that does nothing else:

```
benchmarks/run --json=run.json
benchmarks/run --only=inflight,load,memory --json=curves.json
benchmarks/cluster --json=cluster.json
benchmarks/compression --json=compression.json
benchmarks/tls --json=tls.json
benchmarks/scale --json=scale.json
benchmarks/report run.json curves.json cluster.json compression.json tls.json scale.json
```

Where Node.js or Go is missing, the servers that need them are left out and the page says so."""


def section(title: str, chart: Chart | None, text: str) -> str:
    parts = [f"## {title}"]
    if chart is not None:
        parts.append(f"![{chart.alt}]({FOLDER}/{chart.name}.svg)")
    return "\n\n".join([*parts, text or f"{NOT_MEASURED[0].upper()}{NOT_MEASURED[1:]}."])


def machine(measured: Measurements) -> str:
    where = measured.machine
    foreign = ", ".join(f"{share:.0%}" for share in measured.foreign_shares)
    rounds = ", ".join(f"{count} with runs of {seconds:g} s" for count, seconds in measured.lengths)
    rows = [
        ["measured on", ", ".join(measured.dates)],
        ["rounds", rounds],
        ["processor", f"{where.processor}, {where.cores} cores"],
        ["memory", f"{where.memory_bytes / 2**30:.1f} GiB"],
        ["system", f"{where.system}, {where.kernel}"],
        ["other programs took", f"{foreign} of the two cores" if foreign else NOT_MEASURED],
    ]
    return "## Machine\n\n" + table(["", ""], rows)


def servers(measured: Measurements) -> str:
    one = figures.fanout(1)
    rows = []
    for server in measured.servers:
        if server.name in measured.results.missing:
            rows.append([server.title, f"not available: {measured.results.missing[server.name]}", NOT_MEASURED])
            continue
        sizes = [report.received / report.deliveries for report in measured.results.sound(one, server.name).values()]
        size = spread_or_not(spread_of(sizes), "{:.0f}".format)
        rows.append([server.title, server.version or "of this tree", size])
    text = (
        f"Bytes of a delivery with a payload of {figures.PAYLOAD_BYTES} bytes, frame header and all, as they arrived."
    )
    return text + "\n\n" + table(["server", "version", "bytes of a delivery"], rows)


Cell = Callable[[Figure, Server], str]


def per_server(measured: Measurements, head: Sequence[str], columns: Sequence[Figure], cell: Cell) -> str:
    """A row for each server that has a cell; nothing when there is none."""
    rows = []
    for server in measured.servers:
        cells = [cell(figure, server) for figure in columns]
        if any(text != NOT_MEASURED for text in cells):
            rows.append([server.title, *cells])
    return table(["server", *head], rows) if rows else ""


def spread_or_not(spread: Spread | None, form: Callable[[float], str] = rounded) -> str:
    return NOT_MEASURED if spread is None else spread_cell(spread, form)


def rates(measured: Measurements, columns: Sequence[Figure], head: Callable[[Figure], str]) -> str:
    """Each figure's own value, such as deliveries a second."""
    return per_server(
        measured,
        [head(figure) for figure in columns],
        columns,
        lambda figure, server: spread_or_not(measured.results.spread(figure, server.name)),
    )


def connects_head(figure: Figure) -> str:
    return f"a second, {figure.connections:,} connections"


def pairs(measured: Measurements) -> list[Figure]:
    return [*measured.of_kind("echo"), *measured.of_kind("direct")]


def pairs_head(figure: Figure) -> str:
    return {"echo": "echoes a second, 64 connections", "direct": "direct messages a second, 64 pairs"}[figure.kind]


def in_flight(measured: Measurements) -> str:
    text = rates(measured, measured.fanouts(), lambda figure: f"{figure.in_flight:,} in flight")
    return "Deliveries a second.\n\n" + text if text else ""


def subscribers(measured: Measurements) -> str:
    columns = [figure for figure in measured.figures if figure.key.startswith("subscribers-")]
    columns += [figure for figure in measured.figures if columns and figure.key == figures.fanout(16).key]
    columns.sort(key=lambda figure: figure.connections)
    text = rates(measured, columns, lambda figure: f"{figure.connections:,} subscribers")
    return "Deliveries a second with 16 publications in flight.\n\n" + text if text else ""


def cpu(measured: Measurements) -> str:
    columns = measured.fanouts()

    def cell(figure: Figure, server: Server) -> str:
        cost = measured.results.cpu_cost(figure, server.name)
        return NOT_MEASURED if cost is None else cpu_cell(cost)

    text = per_server(measured, [f"{figure.in_flight:,} in flight" for figure in columns], columns, cell)
    return "Microseconds, user + system, over all rounds.\n\n" + text if text else ""


def latency(measured: Measurements) -> str:
    rows = []
    for figure in sorted(measured.of_kind("latency"), key=lambda figure: figure.percent):
        for server in measured.servers:
            reports = measured.results.sound(figure, server.name).values()
            if not reports:
                continue
            offered = spread_cell(spread_of([report.offered * report.connections for report in reports]))
            if measured.results.kept_up(figure, server.name):
                cells = [spread_cell(measured.results.spread(figure, server.name, value)) for _, value in QUANTILES]
            else:
                cells = ["did not keep up"] * len(QUANTILES)
            rows.append([f"{figure.percent} %", offered, server.title, *cells])
    if not rows:
        return ""
    text = (
        "Microseconds from when a message was due to its arrival, 1,000 subscribers. The load is the same for all, in "
        "percent of what uWebSockets took with one publication in flight. A server that did not keep up with two "
        "loads was not asked for more."
    )
    return text + "\n\n" + table(["load", "deliveries a second", "server", *(name for name, _ in QUANTILES)], rows)


def memory(measured: Measurements) -> str:
    text = memory_table(measured.servers, measured.results, NOT_MEASURED)
    head = "MiB resident of a fresh process with so many connections that do nothing, each with a subscription.\n\n"
    return head + text if text else ""


def idle(measured: Measurements) -> str:
    rows = []
    for server in measured.servers:
        held = measured.results.idle.get(server.name)
        if held is not None and held.report.is_sound:
            cells = idle_cells(server, measured.results)
            rows.append([server.title, f"{held.report.connections:,}", *cells])
    head = ["server", "connections", "RSS for each", "MiB without → with them", "CPU for each, µs/s"]
    return table(head, rows) if rows else ""


def rows(found: Rows) -> str:
    return f"This server alone; other programs took {found.foreign_share:.0%} of the two cores.\n\n" + driver.table(
        [row for row in found.rows if row.values or row.missing]
    )


def soundness(measured: Measurements) -> str:
    results = measured.results
    lines = [f"* {name}, {key}: {report.problems.strip()}" for key, name, report in results.unsound()]
    lines += [f"* {name}: did not start" for name in results.not_started]
    counted = f"{results.runs():,} runs, {results.deliveries():,} deliveries counted in their measured time"
    if not lines:
        return f"{counted}: no loss, no duplicate, no disorder."
    return f"{counted}. Not counted above:\n\n" + "\n".join(lines)


def write(measured: Measurements, docs: Path, draw: Callable[[Chart], bytes]) -> list[Path]:
    """Writes the page and its pictures below `docs`, and removes pictures that are no longer on it."""
    pictures = charts(measured)
    folder = docs / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    written = [docs / PAGE]
    written[0].write_text(page(measured, pictures))
    for chart in pictures:
        path = folder / f"{chart.name}.svg"
        path.write_bytes(draw(chart))
        written.append(path)
    for path in set(folder.glob("*.svg")) - set(written):
        path.unlink()
    return written


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/report", description=__doc__)
    parser.add_argument(
        "results",
        nargs="+",
        type=Path,
        help="files of benchmarks/run --json, and of benchmarks/cluster, compression, tls and scale",
    )
    parser.add_argument("--docs", type=Path, default=prepare.ROOT / "docs", help="where the page goes (docs)")
    options = parser.parse_args()
    from .plots import draw  # the page is built without matplotlib

    try:
        measured = measurements.read(options.results)
    except UnusableError as problem:
        raise SystemExit(str(problem)) from problem
    for path in write(measured, options.docs, draw):
        print(path)


if __name__ == "__main__":
    main()
