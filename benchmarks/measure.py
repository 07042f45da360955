"""Runs every figure on every server in turn, several rounds, and prints what came out.

`benchmarks/run` prepares the environment and then runs this module; it has the same options.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import msgspec

from . import figures, tables
from .candidates import CANDIDATES, SECRET, UWEBSOCKETS, Candidate
from .figures import Figure
from .generator import Generator, GeneratorError, Report, write_tokens
from .machine import Watch
from .results import Idle, Results
from .servers import Running, StartError, running
from .setting import setting

WARM_UP_CONNECTIONS = 100
LATENCY_PUBLICATIONS = 20
LATENCY_MOST_SECS = 10.0
"""A run at a fixed rate is long enough for so many publications, but not longer than that."""

CURVE_HOLD_SECS = 2.0
"""For how long the connections of the memory curve are held: nothing is measured of them but memory."""


class Plan(msgspec.Struct, frozen=True):
    """How much is measured."""

    rounds: int
    seconds: float
    figures: tuple[Figure, ...]
    idle: Figure | None
    idle_seconds: float
    memory: tuple[Figure, ...]
    candidates: tuple[Candidate, ...]

    def all_figures(self) -> tuple[Figure, ...]:
        return (*self.figures, *([self.idle] if self.idle is not None else []), *self.memory)


class Session:
    """One whole measurement: the servers stay up, each round asks every figure of every one of them in turn."""

    def __init__(self, plan: Plan, results: Results, generator: Generator, tokens: Path, server_core: int) -> None:
        self._plan = plan
        self._results = results
        self._generator = generator
        self._tokens = tokens
        self._server_core = server_core
        connections = [figure.connections for figure in plan.all_figures()]
        self._token_count = max(connections, default=0) + 1
        write_tokens(tokens, self._token_count, SECRET)

    def run(self) -> None:
        with ExitStack() as stack:
            servers = self._start(stack)
            for number in range(self._plan.rounds):
                say(f"round {number + 1} of {self._plan.rounds}")
                self._round(number, servers)
        for candidate in self._plan.candidates:
            absent = {*self._results.not_started, *self._results.missing}
            if "idle" in candidate.figures and candidate.name not in absent:
                if self._plan.idle is not None:
                    held = self._measure_idle(self._plan.idle, candidate, self._plan.idle_seconds)
                    self._results.idle[candidate.name] = held
                for figure in self._plan.memory:
                    held = self._measure_idle(figure, candidate, CURVE_HOLD_SECS)
                    self._results.memory.setdefault(candidate.name, []).append(held)

    def _round(self, number: int, servers: list[Running]) -> None:
        too_much: Counter[str] = Counter()
        """By server: the loads in a row that it did not keep up with. After two it is not asked for a higher one."""
        for figure in self._plan.figures:
            rate = self._rate_for_latency(figure) if figure.kind == "latency" else 1.0
            for server in servers:
                name = server.candidate.name
                if figure.kind not in server.candidate.figures or (figure.kind == "latency" and too_much[name] == 2):
                    continue
                report = self._measure(figure, server, rate)
                self._results.add(figure, server.candidate, number, report)
                too_much[name] = 0 if report.kept_up else too_much[name] + 1

    def _start(self, stack: ExitStack) -> list[Running]:
        servers = []
        for candidate in self._plan.candidates:
            if (missing := candidate.missing()) is not None:
                self._results.missing[candidate.name] = missing
                say(f"{candidate.name}: {missing}")
                continue
            try:
                servers.append(stack.enter_context(running(candidate, self._server_core)))
            except (StartError, OSError) as problem:
                self._results.not_started[candidate.name] = str(problem)
                say(str(problem))
        return servers

    def _rate_for_latency(self, figure: Figure) -> float:
        """A share of the load that uWebSockets takes; without it, of what the slowest server here takes."""
        one = figures.fanout(1)
        rates = self._results.medians(one)
        reference = rates.get(UWEBSOCKETS) or min(rates.values(), default=0.0)
        return max(reference / one.connections * figure.percent / 100, 1.0)

    def _measure(self, figure: Figure, server: Running, rate: float) -> Report:
        """One run; a run that went wrong is kept, and told about at the end."""
        if figure.kind == "connect":
            write_tokens(self._tokens, self._token_count, SECRET)  # none that the server has seen before
        server.settle()
        arguments = [
            *figure.arguments(server.candidate, self._seconds(figure, rate), rate),
            *self._arguments(server),
        ]
        report = self._generator.run(*arguments)
        if not report.is_sound:
            say(f"{server.candidate.name}, {figure.key}: {report.problems}")
        return report

    def _seconds(self, figure: Figure, rate: float) -> float:
        """How long a run lasts."""
        if figure.kind != "latency":
            return self._plan.seconds
        return max(self._plan.seconds, min(LATENCY_PUBLICATIONS / rate, LATENCY_MOST_SECS))

    def _arguments(self, server: Running) -> list[str]:
        arguments = [f"--port={server.port}", *(f"--server-pid={pid}" for pid in server.pids())]
        if server.candidate.checks_tokens:
            arguments.append(f"--tokens={self._tokens}")
        return arguments

    def _measure_idle(self, figure: Figure, candidate: Candidate, seconds: float) -> Idle:
        """Memory of a fresh process before and with the connections; a few came and went before, for what is lazy."""
        say(f"{figure.connections} idle connections: {candidate.name}")
        with running(candidate, self._server_core) as server:
            few = Figure("warm-up", "connect", WARM_UP_CONNECTIONS)
            self._measure(few, server, 1.0)
            server.settle()
            before = server.rss_bytes()
            held: list[int] = []

            def hold() -> None:
                server.settle()
                time.sleep(seconds)
                held.append(server.rss_bytes())

            arguments = [*figure.arguments(candidate, 0, 1.0), *self._arguments(server)]
            report = self._generator.run(*arguments, hold=hold)
        if not held:
            raise GeneratorError(f"{candidate.name}: the idle connections did not open: {report.problems}")
        return Idle(report, before, held[0])


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def make_plan(options: argparse.Namespace) -> Plan:
    """The figures and servers that were asked for."""
    quick: bool = options.quick
    wanted: list[Figure] = [figures.fanout(count) for count in figures.FANOUT_IN_FLIGHT]
    if not quick:
        wanted += [figures.fanout(count) for count in figures.CLIFF_IN_FLIGHT]
        wanted += [figures.spread(count) for count in figures.SPREAD_SUBSCRIBERS]
    wanted += [figures.ECHO, figures.DIRECT, figures.connect(1000 if quick else 5000), figures.LATENCY]
    idle = figures.idle(1000 if quick else 10_000)
    kinds = {figure.kind for figure in wanted} | {"idle"}
    only = {name for name in (options.only or "").split(",") if name}
    names = {candidate.name for candidate in CANDIDATES}
    known = names | kinds | {figure.key for figure in wanted} | set(figures.CURVES)
    if unknown := only - known:
        raise SystemExit(f"--only: not known: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    servers = only & names
    asked = only - servers
    chosen = [figure for figure in wanted if not asked or {figure.kind, figure.key} & asked]
    for curve in ("inflight", "load"):
        if curve in asked:
            chosen += [figure for figure in figures.CURVES[curve] if figure not in chosen]
    return Plan(
        rounds=options.rounds or (2 if quick else 5),
        seconds=0.5 if quick else 1.0,
        figures=tuple(sorted(chosen, key=figures.order)),
        idle=idle if not asked or "idle" in asked else None,
        idle_seconds=1.0 if quick else 35.0,
        memory=figures.CURVES["memory"][: 2 if quick else None] if "memory" in asked else (),
        candidates=tuple(candidate for candidate in CANDIDATES if not servers or candidate.name in servers),
    )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two short rounds and fewer connections, to see it run")
    parser.add_argument("--only", help="servers and figures, by name and separated by commas")
    parser.add_argument("--rounds", type=int, help="how often each figure is taken (5; with --quick 2)")
    parser.add_argument("--json", type=Path, help="a file for every single result")
    return parser.parse_args()


def two_cores() -> tuple[int, int]:
    """The cores of server and load. Raises SystemExit where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("measuring takes two cores: one for the server, one for the load")
    return cores[0], cores[1]


def main() -> None:
    options = parse_options()
    plan = make_plan(options)
    server_core, load_core = two_cores()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    results = Results()
    where = setting(plan.candidates, plan.all_figures(), plan.rounds, plan.seconds)
    watch = Watch((server_core, load_core))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        tokens = Path(folder) / "tokens"
        try:
            Session(plan, results, Generator(core=load_core), tokens, server_core).run()
        except GeneratorError as problem:
            raise SystemExit(f"the load generator failed: {problem}") from problem
    results.foreign_share = watch.foreign_share()
    print(tables.document(plan.candidates, plan.figures, plan.idle, results))
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(results.as_json(where), indent=1))
    sys.exit(1 if results.not_started or results.unsound() else 0)


if __name__ == "__main__":
    main()
