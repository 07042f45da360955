"""The measured figures as Markdown. Every number comes out of the run."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from . import figures
from .candidates import LIMIT, PRODUCT, UWEBSOCKETS, Candidate
from .figures import Figure
from .results import CpuCost, Results, Spread

MISSING = "–"


class Named(Protocol):
    """A server, as a table needs it."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...


class Goal(msgspec.Struct, frozen=True):
    """One line of the list of figures to reach: what was measured, and whether it is there."""

    what: str
    wanted: str
    measured: str
    reached: bool | None

    def row(self) -> list[str]:
        verdict = {True: "yes", False: "**no**", None: "not measured"}[self.reached]
        return [self.what, self.wanted, self.measured, verdict]


def document(candidates: Sequence[Candidate], measured: Sequence[Figure], idle: Figure | None, results: Results) -> str:
    """All tables, one below the other."""
    absent = {*results.not_started, *results.missing}
    started = [candidate for candidate in candidates if candidate.name not in absent]
    parts = [
        "### Rates\n\nMedian of the rounds, least and most in brackets. Deliveries a second with a payload of "
        f"{figures.PAYLOAD_BYTES} bytes ({len(figures.SAMPLE_ENVELOPE)} in an envelope).",
        rates_table(started, measured, idle, results),
        *missing_servers(candidates, results),
        "### As a share of the bare C loop and of uWebSockets\n\nRound by round, so that what disturbed both of a pair "
        "does not count. Direct messages are compared with echoes.",
        ratios_table(started, measured, results),
        "### The same by CPU time\n\nWhat the bare loop spends on a delivery (connection) as a share of what the "
        "server spends: where other programs run on the cores, this holds while rates do not.",
        cpu_ratios_table(started, measured, results),
        "### CPU time of the server\n\nMicroseconds for each delivery (connection), user + system, over all rounds.",
        cpu_table(started, measured, results),
    ]
    if any(figure.kind == "latency" for figure in measured):
        text = (
            "### Latency\n\nMicroseconds, every server at the same rate, in percent of uWebSockets' with one in flight."
        )
        parts += [text, latency_table(started, measured, results)]
    if results.memory:
        parts += ["### Memory over connections\n\nMiB of the process.", memory_table(started, results)]
    if any(candidate.name == PRODUCT for candidate in started):
        parts += ["### Figures to reach", goals_table(measured, idle, results)]
    return "\n\n".join([*parts, "### Soundness", soundness(results)])


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def rounded(value: float) -> str:
    """Three digits that count."""
    if value >= 1000:
        digits = len(str(int(value)))
        return f"{round(value, 3 - digits):,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def spread_cell(spread: Spread | None, form: Callable[[float], str] = rounded) -> str:
    if spread is None:
        return MISSING
    return f"{form(spread.middle)} ({form(spread.least)} – {form(spread.most)})"


def heading(figure: Figure) -> str:
    if figure.key.startswith("subscribers-"):
        return f"{figure.connections:,} subscribers, {figure.in_flight} in flight"
    if figure.kind == "fanout":
        return f"{figure.in_flight:,} in flight"
    return {"direct": "direct, 64 pairs", "echo": "echo, 64 connections", "connect": "connects/s"}[figure.kind]


def with_rates(measured: Sequence[Figure]) -> list[Figure]:
    return [figure for figure in measured if figure.kind != "latency"]


def rates_table(
    candidates: Sequence[Candidate], measured: Sequence[Figure], idle: Figure | None, results: Results
) -> str:
    columns = with_rates(measured)
    head = ["server", *map(heading, columns)]
    if idle is not None:
        head += [
            f"RSS per idle connection, of {idle.connections:,}",
            "RSS before → with them, MiB",
            "CPU per idle connection, µs/s",
        ]
    rows = []
    for candidate in candidates:
        row = [candidate.title, *(spread_cell(results.spread(figure, candidate.name)) for figure in columns)]
        if idle is not None:
            row += idle_cells(candidate, results)
        rows.append(row)
    return table(head, rows)


def idle_cells(server: Named, results: Results) -> list[str]:
    found = results.idle.get(server.name)
    if found is None or not found.report.is_sound:
        return [MISSING] * 3
    cpu = found.report.server_cpu * 1e6 / found.report.connections / found.report.seconds
    sizes = f"{found.rss_before / 2**20:.1f} → {found.rss_with / 2**20:.1f}"
    return [f"{found.bytes_per_connection / 1024:.2f} KiB", sizes, f"{cpu:.2f}"]


def counterpart(figure: Figure) -> Figure:
    return figures.ECHO if figure.kind == "direct" else figure


def ratios_table(candidates: Sequence[Candidate], measured: Sequence[Figure], results: Results) -> str:
    columns = with_rates(measured)
    rows = []
    for other, title in ((LIMIT, "bare C loop"), (UWEBSOCKETS, "uWebSockets")):
        for candidate in candidates:
            if candidate.name != other and any(results.sound(figure, other) for figure in columns):
                ratios = [results.ratio(figure, candidate.name, counterpart(figure), other) for figure in columns]
                rows.append(
                    [f"{candidate.title} / {title}", *(spread_cell(ratio, "{:.2f}".format) for ratio in ratios)]
                )
    return table(["share", *map(heading, columns)], rows)


def cpu_ratios_table(candidates: Sequence[Candidate], measured: Sequence[Figure], results: Results) -> str:
    columns = with_rates(measured)
    rows = []
    for candidate in candidates:
        cells = []
        for figure in columns:
            own, limit = results.cpu_cost(figure, candidate.name), results.cpu_cost(counterpart(figure), LIMIT)
            cells.append(MISSING if own is None or limit is None else f"{limit.total / own.total:.2f}")
        if candidate.name != LIMIT:
            rows.append([f"{candidate.title} / bare C loop", *cells])
    return table(["share", *map(heading, columns)], rows)


def cpu_cell(cost: CpuCost | None) -> str:
    return MISSING if cost is None else f"{cost.user:.3f} + {cost.system:.3f}"


def cpu_table(candidates: Sequence[Candidate], measured: Sequence[Figure], results: Results) -> str:
    columns = with_rates(measured)
    rows = [
        [candidate.title, *(cpu_cell(results.cpu_cost(figure, candidate.name)) for figure in columns)]
        for candidate in candidates
    ]
    return table(["server", *map(heading, columns)], rows)


def missing_servers(candidates: Sequence[Candidate], results: Results) -> list[str]:
    return [
        f"{candidate.title}: not available, {results.missing[candidate.name]}."
        for candidate in candidates
        if candidate.name in results.missing
    ]


def latency_table(candidates: Sequence[Candidate], measured: Sequence[Figure], results: Results) -> str:
    rows = []
    for figure in measured:
        if figure.kind == "latency":
            rows += [
                [candidate.title, f"{figure.percent} %", *latency_cells(figure, candidate.name, results)]
                for candidate in candidates
            ]
    return table(["server", "load", "p50", "p99", "p99.9"], rows)


def latency_cells(figure: Figure, name: str, results: Results) -> list[str]:
    if not results.kept_up(figure, name):
        return ["did not keep up", MISSING, MISSING]
    return [
        spread_cell(results.spread(figure, name, lambda report: report.p50_us or 0.0)),
        spread_cell(results.spread(figure, name, lambda report: report.p99_us or 0.0)),
        spread_cell(results.spread(figure, name, lambda report: report.p999_us or 0.0)),
    ]


def memory_table(servers: Iterable[Named], results: Results, absent: str = MISSING) -> str:
    """MiB of the process over connections; nothing when there are no measurements."""
    counts = sorted({idle.report.connections for curve in results.memory.values() for idle in curve})
    rows = []
    for server in servers:
        curve = results.memory.get(server.name, [])
        sound = {idle.report.connections: idle for idle in curve if idle.report.is_sound}
        if sound:
            cells = [f"{sound[count].rss_with / 2**20:.1f}" if count in sound else absent for count in counts]
            rows.append([server.title, *cells])
    return table(["server", *(f"{count:,} connections" for count in counts)], rows) if rows else ""


def goals_table(measured: Sequence[Figure], idle: Figure | None, results: Results) -> str:
    goals = [*fanout_goals(results), direct_goal(results), *cliff_goals(measured, results)]
    goals += [*spread_goals(measured, results), *connection_goals(measured, idle, results), latency_goal(results)]
    return table(["figure", "to reach", "measured", "reached"], [goal.row() for goal in goals])


def at_least(what: str, bound: float, ratio: Spread | None, of: str) -> Goal:
    reached = None if ratio is None else ratio.middle >= bound
    return Goal(what, f"≥ {bound:g} × {of}", spread_cell(ratio, "{:.2f}".format), reached)


def fanout_goals(results: Results) -> list[Goal]:
    goals = []
    for in_flight in figures.FANOUT_IN_FLIGHT:
        figure = figures.fanout(in_flight)
        what = f"fan-out, {in_flight} in flight"
        goals.append(at_least(what, 0.85, results.ratio(figure, PRODUCT, figure, LIMIT), "the bare C loop"))
        goals.append(at_least(what, 2, results.ratio(figure, PRODUCT, figure, UWEBSOCKETS), "uWebSockets"))
    for in_flight, bound in ((1, 0.3), (64, 0.05)):
        cost = results.cpu_cost(figures.fanout(in_flight), PRODUCT)
        reached = None if cost is None else cost.user <= bound
        measured = MISSING if cost is None else f"{cost.user:.3f} µs"
        goals.append(Goal(f"own CPU per delivery, {in_flight} in flight", f"≤ {bound:g} µs", measured, reached))
    return goals


def direct_goal(results: Results) -> Goal:
    ratio = results.ratio(figures.DIRECT, PRODUCT, figures.ECHO, LIMIT)
    return at_least("direct messages, 64 pairs", 0.85, ratio, "the bare C echo")


def cliff_goals(measured: Sequence[Figure], results: Results) -> list[Goal]:
    """The rate must not fall as more is in flight; 5 % are allowed for noise."""
    rising = [figure for figure in measured if figure.key.startswith("fanout-")]
    spreads = [results.spread(figure, PRODUCT) for figure in rising]
    rates = [spread.middle for spread in spreads if spread is not None]
    if len(rising) < 2:
        return []
    holds = all(after >= 0.95 * before for before, after in itertools.pairwise(rates))
    wanted = f"never falls from {rising[0].in_flight} to {rising[-1].in_flight:,} in flight"
    return [Goal("no cliff", wanted, " → ".join(map(rounded, rates)) or MISSING, holds if rates else None)]


def spread_goals(measured: Sequence[Figure], results: Results) -> list[Goal]:
    several = [figure for figure in measured if figure.kind == "fanout" and figure.in_flight == 16]
    costs = [results.cpu_cost(figure, PRODUCT) for figure in sorted(several, key=lambda figure: figure.connections)]
    totals = [cost.total for cost in costs if cost is not None]
    if len(several) < 2:
        return []
    flat = max(totals) <= 1.2 * min(totals) if totals else None
    shown = " → ".join(f"{total:.2f} µs" for total in totals) or MISSING
    return [Goal("CPU per delivery, 10 to 10,000 subscribers", "flat within 20 %", shown, flat)]


def connection_goals(measured: Sequence[Figure], idle: Figure | None, results: Results) -> list[Goal]:
    goals = []
    if idle is not None:
        found = results.idle.get(PRODUCT)
        size = None if found is None else found.bytes_per_connection
        shown = MISSING if size is None else f"{size:.0f} bytes"
        reached = None if size is None else size <= 1024
        goals.append(
            Goal("RSS per idle, authenticated connection with a subscription", "≤ 1,024 bytes", shown, reached)
        )
    connects = next((figure for figure in measured if figure.kind == "connect"), None)
    if connects is not None:
        rate = results.spread(connects, PRODUCT)
        reached = None if rate is None else rate.middle >= 12_000
        goals.append(Goal("connects/s with a JWT", "≥ 12,000", spread_cell(rate), reached))
        ratio = results.ratio(connects, PRODUCT, connects, UWEBSOCKETS)
        goals.append(at_least("connects/s with a JWT", 0.5, ratio, "uWebSockets without one"))
    return goals


def latency_goal(results: Results) -> Goal:
    ratio = results.ratio(figures.LATENCY, PRODUCT, figures.LATENCY, UWEBSOCKETS)
    reached = None if ratio is None else ratio.middle <= 1
    return Goal("p99 at a fifth of the load", "≤ 1 × uWebSockets", spread_cell(ratio, "{:.2f}".format), reached)


def soundness(results: Results) -> str:
    """Whether anything was lost, doubled or out of order anywhere."""
    lines = [f"- {name}: {key}: {report.problems}" for key, name, report in results.unsound()]
    lines += [f"- {name}: not started" for name in results.not_started]
    counted = f"{results.runs()} runs, {results.deliveries():,} deliveries counted in their measured time"
    if results.foreign_share is not None:
        counted = f"Other programs took {results.foreign_share:.0%} of the two cores. {counted}"
    if not lines:
        return f"{counted}: no loss, no duplicate, no disorder."
    return f"{counted}. Not counted above:\n\n" + "\n".join(lines)
