"""A server that starts again under thousands of clients, which are the load generator's, compiled.

The generator proves that every subscriber got every acknowledged message once and in order, or was told of the gap.
The server has one core; the generator and the Redis share the other one.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import msgspec

from . import deployments
from .candidates import Candidate
from .deployments import Unavailable, peak_rss_bytes, product
from .driver import Driver, Row, not_available
from .generator import Held, Report
from .servers import Running, free_port, run_time_ns, running

SUBSCRIBERS_PER_TOPIC = 100
PUBLISHERS = 2
PUBLICATIONS_PER_SEC = 100
SETTLE_SECS = 10.0
JITTER_MS = 250
RETRY_MS = 200
BEFORE_SECS = 2.0
AFTER_SECS = 3.0
BACK_WITHIN_SECS = 120.0
LONGEST_ROLLING_SECS = 60.0
MIB = 1024 * 1024


class Outcome(msgspec.Struct, frozen=True):
    """Of a restart. Times in seconds since the old server was told to end, memory in bytes."""

    started: float
    """When the new server's process was made."""
    serving: float
    """When the first client was signed on again."""
    connected: float
    """When the last one was signed on."""
    back: float
    """When the last one was subscribed, with what it had missed."""
    half_back: float
    lost: int
    never_back: int
    recovered: int
    reset: int
    violations: int
    unseen: int
    cpu: float
    """What the new server had used until then."""
    usual_rss: int
    """Of the old server under these clients."""
    peak_rss: int
    """Of the new one."""


@contextmanager
def with_redis(load_core: int) -> Iterator[Candidate]:
    """This build with its cache in a Redis on that core. Raises Unavailable."""
    with deployments.redis(str(load_core)) as (_, port):
        yield product(redis={"url": f"redis://127.0.0.1:{port}"}, testing={"use_in_memory_storage": False})


@contextmanager
def alone(load_core: int) -> Iterator[Candidate]:
    """This build with nothing beside it."""
    yield product()


def restarts(driver: Driver, cores: tuple[int, int], rounds: int, clients: int) -> list[Row]:
    """SIGTERM and SIGKILL under `clients` that each have a subscription, while some publish."""
    server_core, load_core = cores
    rows = []
    for where, deployment in (("cache in Redis", with_redis), ("no Redis", alone)):
        for name, how in (("SIGTERM", signal.SIGTERM), ("SIGKILL", signal.SIGKILL)):
            title = f"{name} under {clients:,} clients, {where}"
            try:
                outcomes = []
                for _ in range(rounds):
                    with deployment(load_core) as candidate:
                        outcomes.append(restart(driver, candidate, server_core, clients, how))
            except Unavailable as why:
                rows += not_available([title], why)
            else:
                rows += rows_of(title, outcomes)
    return rows + rolling_restarts(driver, cores, rounds, clients)


def rolling_restarts(driver: Driver, cores: tuple[int, int], rounds: int, clients: int) -> list[Row]:
    """SIGUSR2 under two workers on both cores: their connections move to the new processes."""
    title = f"SIGUSR2 under {clients:,} clients, two workers"
    secs, reports = [], []
    try:
        for _ in range(rounds):
            with deployments.workers(2, ",".join(map(str, cores))) as server:
                with clients_of(driver, server.port, clients) as held:
                    time.sleep(BEFORE_SECS)
                    secs.append(roll(server))
                    time.sleep(AFTER_SECS)
                    reports.append(held.end())
                    tell_problems(reports[-1])
    except Unavailable as why:
        return not_available([title], why)
    lost = [each.comeback.lost for each in reports if each.comeback is not None]
    return [
        Row(f"{title}: all workers are new, s", secs),
        Row("… connections lost", list(map(float, lost)), 0),
        Row("… violations of order, once or completeness", [float(violations_of(each)) for each in reports], 0),
    ]


def roll(server: Running) -> float:
    """A rolling restart, to its end; how many seconds it took. Raises Unavailable."""
    supervisor, *old = server.pids()
    began = time.monotonic()
    os.kill(supervisor, signal.SIGUSR2)
    while set(old) & set(now := server.pids()) or len(now) != len(old) + 1:
        if time.monotonic() - began > LONGEST_ROLLING_SECS:
            raise Unavailable(f"the workers were not replaced within {LONGEST_ROLLING_SECS:.0f} s")
        time.sleep(0.05)
    return time.monotonic() - began


def rows_of(title: str, outcomes: Sequence[Outcome]) -> list[Row]:
    def values(of: Callable[[Outcome], float]) -> list[float]:
        return [of(each) for each in outcomes]

    return [
        Row(f"{title}: the first client is signed on again, s", values(lambda each: each.serving)),
        Row("… of it the new server's start, s", values(lambda each: each.serving - each.started)),
        Row("… half are back, subscribed and recovered, s", values(lambda each: each.half_back)),
        Row("… all are back, subscribed and recovered, s", values(lambda each: each.back)),
        Row("… CPU of the new server until then, s", values(lambda each: each.cpu)),
        Row("… never back", values(lambda each: each.never_back), 0),
        Row("… recovered without a gap, subscriptions", values(lambda each: each.recovered), 0),
        Row("… told that the epoch is another, subscriptions", values(lambda each: each.reset), 0),
        Row("… violations of order, once or completeness", values(lambda each: each.violations), 0),
        Row("… acknowledged messages that went with the old epoch", values(lambda each: each.unseen), 0),
        Row("… RSS peak of the new server ÷ RSS of the old one", values(lambda each: each.peak_rss / each.usual_rss)),
        Row("… RSS peak of the new server, MiB", values(lambda each: each.peak_rss / MIB), 1),
    ]


@contextmanager
def clients_of(driver: Driver, port: int, clients: int) -> Iterator[Held]:
    """The clients, all subscribed, and publishing. Raises GeneratorError."""
    topics = max(1, clients // SUBSCRIBERS_PER_TOPIC)
    arguments = ["--mode=reconnect", f"--port={port}", f"--connections={clients}", f"--topics={topics}"]
    arguments += [f"--rate={PUBLICATIONS_PER_SEC}", f"--publishers={PUBLISHERS}", f"--seconds={SETTLE_SECS}"]
    arguments += [f"--jitter-ms={JITTER_MS}", f"--retry-ms={RETRY_MS}"]
    with driver.started(*arguments) as held:
        if not held.wait_for("ready"):
            sys.exit(f"no figures: {held.end().problems}")
        yield held


def restart(driver: Driver, candidate: Candidate, core: int, clients: int, how: signal.Signals) -> Outcome:
    """One server ends and starts again on its port."""
    port = free_port()
    with ExitStack() as stack:
        old = stack.enter_context(running(candidate, core, port))
        held = stack.enter_context(clients_of(driver, port, clients))
        time.sleep(BEFORE_SECS)
        usual_rss = old.rss_bytes()
        ended_ns = time.monotonic_ns()
        end(old, how)
        started_ns = time.monotonic_ns()
        new = stack.enter_context(running(candidate, core, port))
        held.wait_for("back", BACK_WITHIN_SECS)
        cpu = sum(map(run_time_ns, new.pids())) / 1e9
        time.sleep(AFTER_SECS)
        report = held.end()
        peak_rss = sum(map(peak_rss_bytes, new.pids()))
    return outcome_of(report, ended_ns, started_ns, cpu, usual_rss, peak_rss)


def outcome_of(report: Report, ended_ns: int, started_ns: int, cpu: float, usual_rss: int, peak_rss: int) -> Outcome:
    comeback = report.comeback
    assert comeback is not None
    tell_problems(report)

    def since(time_ns: int) -> float:
        return (time_ns - ended_ns) / 1e9

    return Outcome(
        started=since(started_ns),
        serving=since(comeback.connected.first_ns),
        connected=since(comeback.connected.last_ns),
        back=since(comeback.subscribed.last_ns),
        half_back=since(comeback.subscribed.half_ns),
        lost=comeback.lost,
        never_back=comeback.never_back,
        recovered=comeback.recovered,
        reset=comeback.reset,
        violations=violations_of(report),
        unseen=comeback.unseen,
        cpu=cpu,
        usual_rss=usual_rss,
        peak_rss=peak_rss,
    )


def tell_problems(report: Report) -> None:
    """Say on standard error what was wrong, if anything was."""
    if not report.is_sound:
        print(f"{report.problems}; {report.comeback}", file=sys.stderr)


def violations_of(report: Report) -> int:
    return report.gaps + report.duplicates + report.disorder + report.lost + report.errors


def end(server: Running, how: signal.Signals) -> None:
    """Signal the server and wait until its process is gone."""
    pid = server.pids()[0]
    os.kill(pid, how)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
