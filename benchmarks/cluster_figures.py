"""Several workers, several nodes, outages. `benchmarks/cluster` prepares the environment and runs this.

Prints a table with the median, the least and the most of the rounds. A figure that this build does not serve yet says
`not available` and why. With `--costs` it measures what one unit of load costs instead, and writes the file that
`benchmarks/capacity.py` reads.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from . import costs, crossing, outages, restarts
from .driver import Driver, Row, Unsound, figures_parser, publish
from .generator import Generator, GeneratorError
from .machine import Watch, allow_many_files, processor
from .measure import say, two_cores

FIGURES = ("workers", "crossing", "redis", "restart", "cuts")


def parse_options() -> argparse.Namespace:
    parser = figures_parser("benchmarks/cluster", __doc__, FIGURES)
    parser.add_argument("--rounds", type=int, default=5, help="how often each figure is taken (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a run of the load generator (1)")
    parser.add_argument("--subscribers", type=int, default=1000, help="of a topic that is fanned out (1000)")
    parser.add_argument("--restart-clients", type=int, default=10_000, help="connected while a server restarts (10000)")
    parser.add_argument("--cut-clients", type=int, default=2000, help="whose connection is cut (2000)")
    parser.add_argument("--cut-seconds", type=float, default=60.0, help="for how long it is cut (60)")
    parser.add_argument("--outage-rounds", type=int, default=3, help="how often an outage is taken (3)")
    parser.add_argument("--idle-connections", type=int, default=5000, help="held for the costs (5000)")
    parser.add_argument("--idle-seconds", type=float, default=35.0, help="for how long, more than a heartbeat (35)")
    parser.add_argument("--costs", action="store_true", help=f"measure the costs; --json is {costs.FILE.name} then")
    return parser.parse_args()


def measure(options: argparse.Namespace, driver: Driver, cores: tuple[int, int]) -> list[Row]:
    """The rows of all figures that were asked for."""
    server_core, load_core = cores
    both = f"{server_core},{load_core}"
    rows: list[Row] = []
    for figure in options.only:
        say(figure)
        match figure:
            case "workers":
                rows += crossing.workers(driver, both, options.rounds, options.subscribers)
            case "crossing":
                rows += crossing.crossing(driver, both, options.rounds)
            case "redis":
                rows += crossing.through_redis(driver, str(server_core), options.rounds, options.subscribers)
            case "restart":
                rows += restarts.restarts(driver, cores, options.outage_rounds, options.restart_clients)
            case "cuts":
                rows += outages.cuts(
                    server_core, load_core, options.outage_rounds, options.cut_clients, options.cut_seconds
                )
    return rows


def write_costs(options: argparse.Namespace, driver: Driver, cores: tuple[int, int], watch: Watch) -> None:
    """Measures and writes the file; what could not be measured is not in it."""
    server_core, load_core = cores
    found = costs.measure(
        driver,
        f"{server_core},{load_core}",
        server_core,
        options.rounds,
        options.idle_connections,
        options.idle_seconds,
    )
    file = costs.Costs(
        measured_at=time.strftime("%Y-%m-%d", time.gmtime()),
        machine=processor(),
        foreign_share=round(watch.foreign_share(), 3),
        costs=found,
    )
    path = options.json or costs.FILE
    path.write_bytes(msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n")
    say(f"{len(found)} costs written to {path}")


def main() -> None:
    options = parse_options()
    cores = two_cores()
    allow_many_files()
    watch = Watch(cores)
    connections = max(options.subscribers, options.idle_connections if options.costs else 0, costs.SUBSCRIBERS)
    if "restart" in options.only:
        connections = max(connections, options.restart_clients)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        driver = Driver(Path(folder), Generator(core=cores[1]), connections, options.seconds)
        try:
            if options.costs:
                write_costs(options, driver, cores, watch)
                return
            rows = measure(options, driver, cores)
        except (GeneratorError, Unsound) as problem:
            sys.exit(f"no figures: {problem}")
    publish(options, "Several workers, several nodes, outages", rows, watch)


if __name__ == "__main__":
    main()
