"""The plots of the performance page as data: which lines and bars there are, and what is said of them in words."""

from collections.abc import Callable, Sequence

import msgspec

from .figures import Figure
from .generator import Report
from .measurements import Measurements
from .results import Spread
from .tables import rounded

KILO, MEBI = 1000, 2**20


class Point(msgspec.Struct, frozen=True):
    """A median with the least and the most of the rounds."""

    x: float
    y: Spread


class Line(msgspec.Struct, frozen=True):
    """A server's points from left to right."""

    server: str
    title: str
    points: list[Point]


class Panel(msgspec.Struct, frozen=True):
    """One pair of axes. With `bars` each line has one point, whose x means nothing."""

    title: str
    x_label: str
    y_label: str
    lines: list[Line]
    log_x: bool = False
    log_y: bool = False
    bars: bool = False


class Chart(msgspec.Struct, frozen=True):
    """One picture: panels side by side. `alt` says in words what it shows."""

    name: str
    panels: list[Panel]
    alt: str


Value = Callable[[Report], float]


def charts(measured: Measurements) -> list[Chart]:
    """All that there are measurements for."""
    made = [throughput(measured), latency(measured), memory(measured), connects(measured)]
    return [chart for chart in made if chart is not None]


def throughput(measured: Measurements) -> Chart | None:
    lines = lines_of(
        measured, measured.fanouts(), lambda figure: float(figure.in_flight), lambda report: report.rate / KILO
    )
    if not lines:
        return None
    title = "Fan-out to 1,000 subscribers"
    panel = Panel(title, "publications in flight", "thousand deliveries a second", lines, log_x=True, log_y=True)
    alt = f"{title}: thousand deliveries a second over publications in flight. {last_values(lines, 'in flight')}"
    return Chart("throughput", [panel], alt)


def lines_of(measured: Measurements, figures: Sequence[Figure], x: Callable[[Figure], float], y: Value) -> list[Line]:
    lines = []
    for server in measured.servers:
        points = []
        for figure in figures:
            spread = measured.results.spread(figure, server.name, y)
            if spread is not None and measured.results.kept_up(figure, server.name):
                points.append(Point(x(figure), spread))
        if points:
            lines.append(Line(server.name, plain(server.title), points))
    return lines


QUANTILES: tuple[tuple[str, Value], ...] = (
    ("p50", lambda report: report.p50_us or 0.0),
    ("p99", lambda report: report.p99_us or 0.0),
    ("p99.9", lambda report: report.p999_us or 0.0),
)


def latency(measured: Measurements) -> Chart | None:
    figures = sorted(measured.of_kind("latency"), key=lambda figure: figure.percent)
    panels = []
    for title, value in QUANTILES:
        lines = lines_of(measured, figures, lambda figure: float(figure.percent), value)
        if lines:
            label = "load, % of uWebSockets' with one in flight"
            panels.append(Panel(title, label, "microseconds", lines, log_x=True, log_y=True))
    if not panels:
        return None
    alt = "Latency in microseconds over the load, the median, the 99th and the 99.9th percentile side by side."
    return Chart("latency", panels, f"{alt} p99: {last_values(panels[1].lines, '% load')}")


def memory(measured: Measurements) -> Chart | None:
    lines = []
    for server in measured.servers:
        curve = sorted(measured.results.memory.get(server.name, []), key=lambda idle: idle.report.connections)
        points = []
        for idle in curve:
            if idle.report.is_sound:
                size = idle.rss_with / MEBI
                points.append(Point(float(idle.report.connections), Spread(size, size, size)))
        if points:
            lines.append(Line(server.name, plain(server.title), points))
    if not lines:
        return None
    panel = Panel("Idle connections", "connections", "MiB resident", lines, log_y=True)
    alt = f"Resident memory in MiB over idle connections. {last_values(lines, 'connections')}"
    return Chart("memory", [panel], alt)


def connects(measured: Measurements) -> Chart | None:
    lines = []
    for figure in measured.of_kind("connect"):
        lines += lines_of(measured, [figure], lambda _: 0.0, lambda report: report.connect_rate)
    if not lines:
        return None
    panel = Panel("Connections opened", "connections a second, until signed on", "", lines, bars=True)
    values = ", ".join(f"{line.title} {rounded(line.points[0].y.middle)}" for line in lines)
    return Chart("connects", [panel], f"Connections opened a second: {values}.")


def plain(title: str) -> str:
    """A title without Markdown."""
    return title.replace("*", "").replace("`", "")


def last_values(lines: Sequence[Line], of: str) -> str:
    """In words, where each line ends."""
    ends = [
        f"{line.title} {rounded(line.points[-1].y.middle)} at {line.points[-1].x:,.0f} {of}"
        for line in sorted(lines, key=lambda line: -line.points[-1].y.middle)
    ]
    return "; ".join(ends) + "."
