"""A long steady load. `benchmarks/soak` prepares the environment and runs this.

Prints tables, and with `--json` writes every sample. Exit status 1: a bound was broken, and which.
"""

import argparse
import sys
import time
from pathlib import Path

import msgspec

from . import steady
from .driver import conclude
from .machine import Watch, allow_many_files, processor
from .measure import say, two_cores
from .outages import on_core
from .servers import running

FIGURES = ("steady",)
SAMPLES_SHOWN = 12


class Result(msgspec.Struct):
    """Of one run, as `--json` writes it."""

    measured_at: str
    machine: str
    load: steady.Load
    bounds: steady.Bounds
    foreign_share: float = 0.0
    samples: list[steady.Sample] = []
    verdicts: list[steady.Verdict] = []
    totals: dict[str, int] = {}


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    bounds, load = steady.Bounds(), steady.Load()
    parser = argparse.ArgumentParser(prog="benchmarks/soak", description=__doc__)
    parser.add_argument("--only", default="steady", help=f"separated by commas: {', '.join(FIGURES)} (steady)")
    parser.add_argument("--minutes", type=float, default=15.0, help="of the steady load (15)")
    parser.add_argument("--warm-up", type=float, default=2.0, help="minutes of it that do not count (2)")
    parser.add_argument("--sample-secs", type=float, default=5.0, help="between two samples (5)")
    parser.add_argument("--clients", type=int, default=load.clients, help=f"that stay ({load.clients})")
    parser.add_argument("--rate", type=float, default=load.rate, help=f"publications a second ({load.rate:.0f})")
    parser.add_argument("--rss-bound", type=float, default=bounds.rss_per_minute / 1024, help="KiB a minute (256)")
    parser.add_argument("--files-bound", type=int, default=bounds.files, help=f"descriptors more ({bounds.files})")
    parser.add_argument("--drift-bound", type=float, default=bounds.drift, help=f"of the latency ({bounds.drift})")
    parser.add_argument("--json", type=Path, help="a file for all of it")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(FIGURES):
        parser.error(f"--only: not known: {', '.join(sorted(unknown))}; there are {', '.join(FIGURES)}")
    return options


def soak(options: argparse.Namespace, result: Result, cores: tuple[int, int]) -> None:
    """The steady load, with its verdicts."""
    with running(steady.steady_server(), cores[0]) as server:
        run = steady.Steady(server, result.load)
        on_core(cores[1], run.run(options.minutes * 60, options.sample_secs))
    result.samples = run.samples
    result.verdicts = steady.verdicts(run.samples, options.warm_up * 60, run.checker, result.bounds)
    result.totals = {name: getattr(run.checker.totals, name) for name in run.checker.totals.__dataclass_fields__}


def measure(options: argparse.Namespace, result: Result, cores: tuple[int, int]) -> None:
    """All that was asked for."""
    if "steady" in options.only:
        say(f"steady load for {options.minutes:g} minutes")
        soak(options, result, cores)


def tables(result: Result) -> str:
    """For people."""
    lines = []
    if result.samples:
        lines += [
            "| minute | RSS MiB | descriptors | connections | p50 ms | p99 ms |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        step = max(1, len(result.samples) // SAMPLES_SHOWN)
        for each in result.samples[::step]:
            lines.append(
                f"| {each.seconds / 60:.1f} | {each.rss / steady.MIB:.1f} | {each.files} | {each.connections} "
                f"| {each.p50_ms:.2f} | {each.p99_ms:.2f} |"
            )
        lines += ["", "| figure | value | bound | |", "| --- | --- | --- | --- |"]
        for verdict in result.verdicts:
            outcome = "" if verdict.holds else "**broken**"
            lines.append(
                f"| {verdict.figure} | {verdict.value:,.2f} {verdict.unit} | {verdict.bound:,.2f} | {outcome} |"
            )
        lines += ["", "; ".join(f"{name} {count:,}" for name, count in result.totals.items())]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    options = parse_options(arguments)
    cores = two_cores()
    allow_many_files()
    watch = Watch(cores)
    load = steady.Load(clients=options.clients, rate=options.rate)
    bounds = steady.Bounds(int(options.rss_bound * 1024), options.files_bound, options.drift_bound)
    result = Result(time.strftime("%Y-%m-%d", time.gmtime()), processor(), load, bounds)
    measure(options, result, cores)
    result.foreign_share = round(watch.foreign_share(), 3)
    broken = [verdict.figure for verdict in result.verdicts if not verdict.holds]
    return conclude(options, tables(result), result.foreign_share, result, broken)


if __name__ == "__main__":
    sys.exit(main())
