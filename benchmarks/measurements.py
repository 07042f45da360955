"""What `benchmarks/run --json` and the programs that print rows wrote, read back and put together."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from .driver import Rows
from .figures import Figure
from .generator import Report
from .results import Idle, Results
from .setting import Machine, Server, Setting


class Run(msgspec.Struct, frozen=True):
    """One figure of one server in one round."""

    figure: str
    server: str
    round: int
    report: Report


class Document(msgspec.Struct, frozen=True):
    """A file of `benchmarks/run`."""

    setting: Setting
    runs: list[Run]
    idle: dict[str, Idle]
    memory: dict[str, list[Idle]]
    not_started: dict[str, str]
    missing: dict[str, str]
    foreign_share: float | None


class UnusableError(Exception):
    """A file that is none of a measurement, or files that do not belong together; says which and why."""


class Measurements(msgspec.Struct, frozen=True):
    """Everything that was measured, on one machine."""

    machine: Machine
    dates: list[str]
    lengths: list[tuple[int, float]]
    """Of each file: how many rounds, and how many seconds a run is measured."""
    servers: list[Server]
    figures: list[Figure]
    results: Results
    foreign_shares: list[float]
    tables: list[Rows]
    """What no server is compared with others in."""

    def of_kind(self, kind: str) -> list[Figure]:
        return [figure for figure in self.figures if figure.kind == kind]

    def fanouts(self) -> list[Figure]:
        """To the usual number of subscribers, by what is in flight."""
        found = [figure for figure in self.figures if figure.key.startswith("fanout-")]
        return sorted(found, key=lambda figure: figure.in_flight)


def read(paths: Sequence[Path]) -> Measurements:
    """All files together; rounds of the same figure in several files count like rounds of one. Raises UnusableError."""
    documents: list[Document] = []
    tables: list[Rows] = []
    for path in paths:
        found = decode(path)
        if isinstance(found, Document):
            documents.append(found)
        else:
            tables.append(found)
    if not documents:
        raise UnusableError("there is no result of benchmarks/run among the files")
    machines = {document.setting.machine for document in documents}
    if len(machines) > 1:
        raise UnusableError(f"the files are of {len(machines)} machines; a page is about one")
    results = Results()
    for document in documents:
        add(document, results)
    settings = [document.setting for document in documents]
    return Measurements(
        machine=machines.pop(),
        dates=sorted({setting.measured_at for setting in settings}),
        lengths=[(setting.rounds, setting.seconds) for setting in settings],
        servers=list({server.name: server for setting in settings for server in setting.servers}.values()),
        figures=list({figure.key: figure for setting in settings for figure in setting.figures}.values()),
        results=results,
        foreign_shares=[document.foreign_share for document in documents if document.foreign_share is not None],
        tables=tables,
    )


def decode(path: Path) -> Document | Rows:
    try:
        text = path.read_bytes()
        is_run = "setting" in msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        return msgspec.json.decode(text, type=Document if is_run else Rows)
    except (OSError, msgspec.DecodeError) as problem:
        raise UnusableError(f"{path}: {problem}") from problem


def add(document: Document, results: Results) -> None:
    """Puts the rounds of a file behind those that are there."""
    first = results.rounds()
    for run in document.runs:
        results.add_report(run.figure, run.server, first + run.round, run.report)
    results.idle.update(document.idle)
    for name, curve in document.memory.items():
        results.memory.setdefault(name, []).extend(curve)
    results.not_started.update(document.not_started)
    results.missing.update(document.missing)
