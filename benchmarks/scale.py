"""Many idle connections in one process, and many topics. `benchmarks/scale` prepares the environment and runs this.

The connections are held for more than two heartbeats; all must be there at the end, and one message must reach them
all. What a million of them would take on one host is that figure multiplied: an extrapolation, and printed as one.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from . import topics
from .costs import kernel_bytes
from .deployments import product
from .driver import Driver, Row, Unsound, figures_parser, publish
from .generator import Generator, GeneratorError, Report
from .machine import Watch, allow_many_files
from .measure import say, two_cores
from .servers import StartError, running

FIGURES = ("connections", "topics")
WARM_UP_CONNECTIONS = 100
MILLION = 1_000_000
HEARTBEATS = 2.2
GIB = 1 << 30


class Held(msgspec.Struct, frozen=True):
    """Connections that were idle, and got one message at the end."""

    report: Report
    before_bytes: int
    held_bytes: int
    kernel_bytes: int
    """How much more the kernel took meanwhile, on the whole machine: for both ends of each connection."""

    @property
    def connection_bytes(self) -> float:
        return (self.held_bytes - self.before_bytes) / self.report.connections

    @property
    def cpu_us(self) -> float:
        """Of one connection, a second."""
        return self.report.server_cpu / self.report.seconds / self.report.connections * 1e6


def hold(driver: Driver, core: int, connections: int, heartbeat_secs: float) -> Held:
    """Raises Unsound when one of them is lost, or does not get the message; StartError, GeneratorError."""
    websocket: dict[str, object] = {"max_connections": connections + WARM_UP_CONNECTIONS}
    if heartbeat_secs:
        websocket |= {"heartbeat_interval_secs": heartbeat_secs, "client_timeout_secs": 2 * heartbeat_secs}
    seconds = HEARTBEATS * (heartbeat_secs or 30.0)
    candidate = product()
    text = candidate.configuration.replace("max_connections = 15000\n", lines(websocket))
    with running(msgspec.structs.replace(candidate, configuration=text), core) as server:
        where = (server.port, server.pids())
        driver.run("connect", *where, connections=min(WARM_UP_CONNECTIONS, connections))
        server.settle()
        before, kernel_before, seen = server.rss_bytes(), kernel_bytes(), (0, 0)

        def wait() -> None:
            nonlocal seen
            time.sleep(seconds)
            seen = (server.rss_bytes(), kernel_bytes() - kernel_before)

        driver.new_tokens()
        report = driver.run("idle", *where, connections=connections, hold=wait, farewell=True)
    if report.deliveries != connections:
        raise Unsound(f"the message reached {report.deliveries:,} of {connections:,} connections")
    return Held(report, before, *seen)


def lines(table: dict[str, object]) -> str:
    return "".join(f"{key} = {msgspec.json.encode(value).decode()}\n" for key, value in table.items())


def connection_rows(runs: Sequence[Held]) -> list[Row]:
    count = runs[0].report.connections
    return [
        Row(f"{count:,} idle connections in one process, each: KiB", [run.connection_bytes / 1024 for run in runs]),
        Row("… µs of CPU for each, a second", [run.cpu_us for run in runs], 3),
        Row("… held for, s", [run.report.seconds for run in runs], 0),
        Row("… opened a second", [run.report.connect_rate for run in runs], 0),
        Row("… lost", [float(run.report.lost + run.report.errors) for run in runs], 0),
        Row("… one message to all: half have it after, ms", [(run.report.p50_us or 0) / 1000 for run in runs]),
        Row("… the last one has it after, ms", [(run.report.max_us or 0) / 1000 for run in runs]),
        Row("… KiB of the kernel's memory for one end of each", [run.kernel_bytes / 2 / count / 1024 for run in runs]),
        Row(
            "extrapolated to 1,000,000 on one host: GiB resident",
            [run.connection_bytes * MILLION / GIB for run in runs],
            1,
        ),
        Row("extrapolated …: cores that heartbeats keep busy", [run.cpu_us * MILLION / 1e6 for run in runs]),
    ]


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = figures_parser("benchmarks/scale", __doc__, FIGURES)
    parser.add_argument("--connections", type=int, default=19_000, help="idle ones (19000)")
    parser.add_argument("--heartbeat-secs", type=float, default=0.0, help="between pings; 0: the server's default, 30")
    parser.add_argument("--rounds", type=int, default=1, help="how often the connections are held (1)")
    parser.add_argument("--topics", default="10,1000,100000", help="numbers of topics (10,1000,100000)")
    parser.add_argument("--subscribers", type=int, default=32, help="connections that share the topics (32)")
    parser.add_argument("--publications", type=int, default=20_000, help="of a round, over the topics (20000)")
    parser.add_argument("--topic-rounds", type=int, default=5, help="how often each number is taken (5)")
    options = parser.parse_args(arguments)
    options.topics = [int(count) for count in options.topics.split(",")]
    return options


def main() -> None:
    options = parse_options()
    cores = two_cores()
    allow_many_files()
    watch = Watch(cores)
    found: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        if "connections" in options.only:
            driver = Driver(Path(folder), Generator(core=cores[1]), options.connections + 1, 0)
            runs = []
            for number in range(options.rounds):
                say(f"{options.connections:,} connections, round {number + 1} of {options.rounds}")
                runs.append(hold(driver, cores[0], options.connections, options.heartbeat_secs))
            found += connection_rows(runs)
        if "topics" in options.only:
            found += topics.flat(cores, options.topics, options.subscribers, options.publications, options.topic_rounds)
    publish(options, "Many connections, many topics", found, watch)


if __name__ == "__main__":
    try:
        main()
    except (Unsound, GeneratorError, StartError) as problem:
        sys.exit(f"no figures: {problem}")
