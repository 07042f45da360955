"""Runs of the load generator against any port of any server, and rows of what came out."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import msgspec

from .candidates import SECRET
from .figures import PAYLOAD_BYTES
from .generator import Generator, Held, Report, write_tokens
from .machine import Watch

WARMUP_SECS = 0.2


class Row(msgspec.Struct, frozen=True):
    """One figure: its value in each round, or why there is none."""

    figure: str
    values: list[float] = []
    digits: int = 2
    missing: str = ""

    def __str__(self) -> str:
        return f"| {self.figure} | {self.missing or span(self.values, self.digits)} |"


def span(values: Sequence[float], digits: int = 2) -> str:
    """Median, least and most."""
    ordered = sorted(values)
    return f"{median(ordered):,.{digits}f} ({ordered[0]:,.{digits}f} – {ordered[-1]:,.{digits}f})"


def not_available(figures: Sequence[str], why: object) -> list[Row]:
    """The rows of figures that cannot be measured."""
    return [Row(figure, missing=f"not available: {why}") for figure in figures]


def figures_parser(name: str, about: str | None, figures: Sequence[str]) -> argparse.ArgumentParser:
    """The options of every program that measures `figures`; `only` is a list of those that are wanted."""

    def chosen(text: str) -> list[str]:
        asked = text.split(",")
        if unknown := set(asked) - set(figures):
            raise argparse.ArgumentTypeError(f"not known: {', '.join(sorted(unknown))}; there are {', '.join(figures)}")
        return asked

    parser = argparse.ArgumentParser(prog=name, description=about)
    parser.add_argument(
        "--only", type=chosen, default=list(figures), help=f"some figures, separated by commas: {', '.join(figures)}"
    )
    parser.add_argument("--json", type=Path, help="a file for every round's value")
    return parser


def table(rows: Sequence[Row]) -> str:
    return "\n".join(["| figure | median (least – most) |", "| --- | --- |", *map(str, rows)])


class Rows(msgspec.Struct, frozen=True):
    """The file of a program that prints rows: a section of the performance page."""

    title: str
    rows: list[Row]
    foreign_share: float
    """Of the two cores, that other programs took."""


def publish(options: argparse.Namespace, title: str, rows: Sequence[Row], watch: Watch) -> None:
    """Print a table, and write the file that was asked for."""
    share = watch.foreign_share()
    conclude(options, table(rows), share, Rows(title, list(rows), share))


def conclude(
    options: argparse.Namespace, text: str, share: float, found: msgspec.Struct, broken: Sequence[str] = ()
) -> int:
    """Print what came out, write `found` to the file that was asked for, say what is broken; the exit status."""
    print(f"{text}\n\nOther programs took {share:.0%} of the two cores.")
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
    for words in broken:
        print(f"bound broken: {words}", file=sys.stderr)
    return 1 if broken else 0


class Unsound(Exception):
    """A run lost, doubled or reordered something: its figures mean nothing."""


class Driver:
    """The load generator with tokens for `connections`."""

    def __init__(self, folder: Path, generator: Generator, connections: int, seconds: float) -> None:
        self._tokens = folder / "tokens"
        self._generator = generator
        self._connections = connections
        self._seconds = seconds
        self.new_tokens()

    def new_tokens(self) -> None:
        """None that a server has seen before."""
        write_tokens(self._tokens, self._connections + 1, SECRET)

    @contextmanager
    def started(self, *arguments: str) -> Iterator[Held]:
        """A run of a mode that goes on until it is ended, with the tokens."""
        with self._generator.started(*arguments, f"--tokens={self._tokens}") as held:
            yield held

    def run(  # every one is an option of the generator
        self,
        mode: str,
        port: int,
        pids: Sequence[int],
        *,
        connections: int,
        in_flight: int = 1,
        rate: float = 1.0,
        payload: int = PAYLOAD_BYTES,
        topic: str = "bench",
        topics: int = 1,
        publish_port: int | None = None,
        compression: str = "none",
        payload_file: Path | None = None,
        warmup: float = WARMUP_SECS,
        ca_file: Path | None = None,
        farewell: bool = False,
        hold: Callable[[], None] | None = None,
    ) -> Report:
        """One run to its end, over TLS with a `ca_file`. Raises Unsound, GeneratorError."""
        report = self._generator.run(
            f"--mode={mode}",
            "--protocol=rtc",
            f"--port={port}",
            f"--publish-port={publish_port or port}",
            f"--connections={connections}",
            f"--in-flight={in_flight}",
            f"--rate={rate:.3f}",
            f"--message-bytes={payload}",
            f"--topic={topic}",
            f"--topics={topics}",
            f"--seconds={self._seconds}",
            f"--warmup={warmup}",
            f"--tokens={self._tokens}",
            f"--compression={compression}",
            *([] if payload_file is None else [f"--payload={payload_file}"]),
            *([] if ca_file is None else ["--tls", f"--ca-file={ca_file}"]),
            *(["--farewell"] if farewell else []),
            *(f"--server-pid={pid}" for pid in pids),
            hold=hold,
        )
        if not report.is_sound:
            raise Unsound(f"{mode}, {connections} connections, {in_flight} in flight: {report.problems}")
        return report
