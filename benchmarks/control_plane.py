"""What configuration, health and observability cost. `benchmarks/control` prepares the environment and runs this.

Figures: how long reading and checking the guide's configuration takes; how long `/health` takes while the server fans
out as fast as it can; what a delivery costs with metrics scraped every second and JSON logs, beside one with all of it
off. The last is a ratio within each pair of runs, by the server's CPU time per delivery, so that other programs on the
cores disturb it little; in which order the two of a pair run changes from pair to pair.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from . import figures
from .candidates import CANDIDATES, PRODUCT, PRODUCT_CONFIGURATION, SECRET, WITHOUT_REDIS, Candidate
from .generator import Generator, Report, write_tokens
from .measure import say, two_cores
from .probes import probing
from .servers import Running, free_port, running

GUIDE = Path(__file__).resolve().parent.parent / "tests" / "config" / "guide" / "config.toml"
SCRAPE_SECS = 1.0
HEALTH_SECS = 0.01
IN_FLIGHT = (1, 64)
LOAD_IN_PROCESS = """
import sys, time
from realtime_communication.config import load
started = time.perf_counter()
load(["--config=" + sys.argv[1]], {"JWT_SECRET": "s" * 32})
print((time.perf_counter() - started) * 1000)
"""
ALL_OFF = PRODUCT_CONFIGURATION.replace('level = "warn"', 'level = "off"') + "\n[metrics]\nenabled = false\n"
ALL_OFF += "[tracing]\nenabled = false\n"


def observed(port: int) -> str:
    """Metrics on `port`, logs at info as JSON, no traces."""
    return (
        PRODUCT_CONFIGURATION.replace('level = "warn"', 'level = "info"\nformat = "json"')
        + f"\n[metrics]\nenabled = true\nport = {port}\nupdate_interval_secs = 1\n[tracing]\nenabled = false\n"
    )


def span(values: Sequence[float], digits: int = 2) -> str:
    """Median, least and most."""
    ordered = sorted(values)
    return f"{statistics.median(ordered):.{digits}f} ({ordered[0]:.{digits}f} – {ordered[-1]:.{digits}f})"


def configuration(rounds: int) -> list[str]:
    """Milliseconds to read and check the guide's main file: inside a fresh process, and the whole `config check`."""
    inside, whole = [], []
    environment = {**os.environ, "JWT_SECRET": SECRET}
    script = str(Path(sys.executable).with_name("rtc"))
    for _ in range(rounds):
        ran = subprocess.run([sys.executable, "-c", LOAD_IN_PROCESS, str(GUIDE)], check=True, capture_output=True)
        inside.append(float(ran.stdout))
        started = time.perf_counter()
        command = [script, "config", "check", f"--config={GUIDE}"]
        subprocess.run(command, check=True, capture_output=True, env=environment)
        whole.append((time.perf_counter() - started) * 1000)
    return [
        f"| reading and checking the guide's configuration, ms | {span(inside, 1)} |",
        f"| `rtc config check`, whole process, ms | {span(whole, 1)} |",
    ]


class Load:
    """Fan-out to 1,000 subscribers from a generator on a core of its own."""

    def __init__(self, folder: Path, core: int, seconds: float) -> None:
        self._tokens = folder / "tokens"
        self._generator = Generator(core=core)
        self._seconds = seconds
        write_tokens(self._tokens, figures.SUBSCRIBERS + 1, SECRET)

    def run(self, server: Running, in_flight: int) -> Report:
        """One run. Raises SystemExit when anything got lost: its figures would mean nothing."""
        server.settle()
        report = self._generator.run(
            *figures.fanout(in_flight).arguments(server.candidate, self._seconds, 1.0),
            f"--port={server.port}",
            f"--tokens={self._tokens}",
            *(f"--server-pid={pid}" for pid in server.pids()),
        )
        if not report.is_sound:
            raise SystemExit(f"{server.candidate.name}: {report.problems}")
        return report


def health(load: Load, core: int, rounds: int) -> list[str]:
    """`/health` under full load: every answer's time over all rounds."""
    times: list[float] = []
    with running(product(PRODUCT_CONFIGURATION), core) as server:
        for _ in range(rounds):
            with probing(server.port, "/health", HEALTH_SECS) as prober:
                load.run(server, 64)
            if prober.failures:
                raise SystemExit(f"/health failed {prober.failures} times")
            times += prober.times
    times.sort()
    p99 = times[int(len(times) * 0.99)]
    row = f"p50 {statistics.median(times):.1f}, p99 {p99:.1f}, most {times[-1]:.1f} of {len(times)} requests"
    return [f"| `/health` while fanning out with 64 in flight, ms | {row} |"]


def observability(load: Load, core: int, rounds: int) -> list[str]:
    """CPU time per delivery with metrics scraped and logs on, as a multiple of that with all off."""
    port = free_port()
    rows = []
    with (
        running(product(ALL_OFF), core) as silent,
        running(product(observed(port)), core) as watched,
        probing(port, "/metrics", SCRAPE_SECS),
    ):
        for in_flight in IN_FLIGHT:
            ratios = []
            for number in range(rounds):
                order = (silent, watched) if number % 2 else (watched, silent)
                costs = {}
                for server in order:
                    report = load.run(server, in_flight)
                    costs[server] = report.server_cpu / report.deliveries
                ratios.append(costs[watched] / costs[silent])
            rows.append(f"| CPU per delivery, {in_flight} in flight: observed / all off | {span(ratios, 3)} |")
    return rows


def product(configuration: str) -> Candidate:
    """This build with a configuration of its own."""
    found = next(candidate for candidate in CANDIDATES if candidate.name == PRODUCT)
    return msgspec.structs.replace(found, configuration=configuration + WITHOUT_REDIS)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/control", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="runs of each kind (15)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a run (1)")
    options = parser.parse_args()
    server_core, load_core = two_cores()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows = ["| figure | median (least – most) |", "| --- | --- |"]
    say("configuration")
    rows += configuration(options.rounds)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        load = Load(Path(folder), load_core, options.seconds)
        say("health under load")
        rows += health(load, server_core, max(3, options.rounds // 3))
        say("observability")
        rows += observability(load, server_core, options.rounds)
    print("\n".join(rows))


if __name__ == "__main__":
    main()
