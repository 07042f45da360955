"""All clients lose their connection at once and come back. `benchmarks/storm` prepares the environment and runs this.

`cut`: the connections are reset, all at one moment, and the server goes on. `killed`: the server is killed with SIGKILL
and starts again on its port, with its cache in a Redis. Exit status 1: not all came back with what they had missed.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import msgspec

from .deployments import Unavailable
from .driver import Driver, Row, conclude, figures_parser, not_available, table
from .generator import Generator, GeneratorError
from .machine import Watch, allow_many_files
from .measure import say, two_cores
from .servers import StartError
from .storm import KINDS, Storm, answers_of, broken, rows_of, storms

MOMENT_SECS = 1.0


class Result(msgspec.Struct):
    """Of all rounds, as `--json` writes it."""

    storms: dict[str, list[Storm]]
    rows: list[Row]
    foreign_share: float


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = figures_parser("benchmarks/storm", __doc__, [kind for kind, _ in KINDS])
    parser.add_argument("--clients", type=int, default=19_000, help="connected; one process has 20,000 files (19000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is taken (3)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    options = parse_options(arguments)
    cores = two_cores()
    allow_many_files()
    watch = Watch(cores)
    found: dict[str, list[Storm]] = {}
    rows: list[Row] = []
    problems = []
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        driver = Driver(Path(folder), Generator(core=cores[1]), options.clients, MOMENT_SECS)
        for kind in options.only:
            title = f"{options.clients:,} clients, {kind}"
            say(title)
            try:
                found[title] = storms(driver, cores, kind, options.rounds, options.clients)
            except Unavailable as why:
                rows += not_available([title], why)
            except (GeneratorError, StartError) as problem:
                print(f"no figures: {problem}", file=sys.stderr)
                return 1
            else:
                rows += rows_of(title, found[title])
                problems += broken(title, found[title])
    share = watch.foreign_share()
    text = "\n\n".join([table(rows), *(answers_of(title, each) for title, each in found.items())])
    return conclude(options, text, share, Result(found, rows, share), problems)


if __name__ == "__main__":
    sys.exit(main())
