"""Everything that was measured, and the statistics the tables show."""

from collections.abc import Callable
from statistics import median

import msgspec

from .candidates import Candidate
from .figures import Figure
from .generator import Report
from .setting import Setting


class Idle(msgspec.Struct, frozen=True):
    """Idle connections: the run, and the server's resident memory in bytes without and with them."""

    report: Report
    rss_before: int
    rss_with: int

    @property
    def bytes_per_connection(self) -> float:
        return (self.rss_with - self.rss_before) / self.report.connections


class Spread(msgspec.Struct, frozen=True):
    """The middle of several rounds and how far they lie apart."""

    least: float
    middle: float
    most: float


class CpuCost(msgspec.Struct, frozen=True):
    """CPU time of the server for one delivery, microseconds."""

    user: float
    system: float

    @property
    def total(self) -> float:
        return self.user + self.system


def spread_of(values: list[float]) -> Spread | None:
    return Spread(min(values), median(values), max(values)) if values else None


def default_value(figure: Figure) -> Callable[[Report], float]:
    """The number a figure is about: connections or deliveries a second, or the 99th percentile in microseconds."""
    if figure.kind == "connect":
        return lambda report: report.connect_rate
    if figure.kind == "latency":
        return lambda report: report.p99_us or 0.0
    return lambda report: report.rate


class Results:
    """Reports by figure, server and round. Only sound runs enter the statistics; the others are listed."""

    def __init__(self) -> None:
        self._reports: dict[tuple[str, str], dict[int, Report]] = {}
        self.idle: dict[str, Idle] = {}
        self.memory: dict[str, list[Idle]] = {}
        """Of the curve: by server, each with fewer connections first."""
        self.not_started: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        """What a server lacks on this machine; it is not measured, and that is no failure."""
        self.foreign_share: float | None = None

    def add(self, figure: Figure, candidate: Candidate, number: int, report: Report) -> None:
        self.add_report(figure.key, candidate.name, number, report)

    def add_report(self, key: str, name: str, number: int, report: Report) -> None:
        self._reports.setdefault((key, name), {})[number] = report

    def rounds(self) -> int:
        """One more than the number of the last round."""
        return max((number + 1 for reports in self._reports.values() for number in reports), default=0)

    def sound(self, figure: Figure, name: str) -> dict[int, Report]:
        """The sound reports by round."""
        reports = self._reports.get((figure.key, name), {})
        return {number: report for number, report in reports.items() if report.is_sound}

    def unsound(self) -> list[tuple[str, str, Report]]:
        """Every run with a loss, a duplicate, disorder or an error: figure, server, report."""
        found = [
            (key, name, report)
            for (key, name), reports in self._reports.items()
            for report in reports.values()
            if not report.is_sound
        ]
        held = [*self.idle.items(), *((name, idle) for name, curve in self.memory.items() for idle in curve)]
        return found + [("idle", name, idle.report) for name, idle in held if not idle.report.is_sound]

    def runs(self) -> int:
        return sum(len(reports) for reports in self._reports.values()) + len(self.idle)

    def deliveries(self) -> int:
        return sum(report.deliveries for reports in self._reports.values() for report in reports.values())

    def spread(self, figure: Figure, name: str, value: Callable[[Report], float] | None = None) -> Spread | None:
        taken = value or default_value(figure)
        return spread_of([taken(report) for report in self.sound(figure, name).values()])

    def medians(self, figure: Figure) -> dict[str, float]:
        names = {name for key, name in self._reports if key == figure.key}
        spreads = {name: self.spread(figure, name) for name in names}
        return {name: spread.middle for name, spread in spreads.items() if spread is not None}

    def ratio(self, figure: Figure, name: str, other_figure: Figure, other: str) -> Spread | None:
        """A server's figure as a share of another's, taken round by round."""
        value, other_value = default_value(figure), default_value(other_figure)
        others = self.sound(other_figure, other)
        return spread_of(
            [
                value(report) / other_value(others[number])
                for number, report in self.sound(figure, name).items()
                if number in others and other_value(others[number]) > 0
            ]
        )

    def cpu_cost(self, figure: Figure, name: str) -> CpuCost | None:
        """Over all rounds together. The sum is exact; how it splits, the kernel counts in ticks of 10 ms."""
        reports = self.sound(figure, name).values()
        count = sum(report.connections if figure.kind == "connect" else report.deliveries for report in reports)
        if count == 0:
            return None
        user = sum(report.server_user for report in reports)
        system = sum(report.server_system for report in reports)
        total = sum(report.server_cpu for report in reports) * 1e6 / count
        share = user / (user + system) if user + system else 0.0
        return CpuCost(total * share, total * (1 - share))

    def kept_up(self, figure: Figure, name: str) -> bool:
        """Whether the server delivered a fixed rate at that rate, in most rounds."""
        kept = [report.kept_up for report in self.sound(figure, name).values()]
        return 2 * sum(kept) > len(kept) or not kept

    def as_json(self, setting: Setting) -> bytes:
        document = {
            "setting": setting,
            "runs": [
                {"figure": key, "server": name, "round": number, "report": report}
                for (key, name), reports in self._reports.items()
                for number, report in reports.items()
            ],
            "idle": self.idle,
            "memory": self.memory,
            "not_started": self.not_started,
            "missing": self.missing,
            "foreign_share": self.foreign_share,
        }
        return msgspec.json.encode(document)
