"""A steady load for a long time: clients that come, go, read slowly or lose their connection, and what is published.

The clients are the tests' swarm; its checker proves order, once, and completeness of every delivery over the whole
time. `Steady.run` gives the samples that `verdicts` judges: whether memory grows, descriptors pile up, latency drifts.
"""

import array
import asyncio
import json
import os
import random
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from serving.checker import Checker
from serving.member import Subscriber
from serving.swarm import Swarm

from .candidates import Candidate
from .deployments import product
from .outages import sign
from .probes import quantile
from .servers import Running, run_time_ns

TICK_SECS = 1.0
CACHE_SECS = 30
"""How long messages are kept: what the cache holds is level after that."""
STAY_SECS = 20.0
SLOW_SECS = 3.0
PADDING_BYTES = 200
MIB = 1024 * 1024


class Load(msgspec.Struct, frozen=True):
    """How much is done, every second all of it."""

    clients: int = 200
    topics: int = 20
    publishers: int = 5
    rate: float = 100.0
    """Publications a second."""
    joins: float = 2.0
    """Clients that come each second, and leave after STAY_SECS."""
    cuts: float = 2.0
    """Clients whose connection is reset each second."""
    slow: float = 1.0
    """Clients that stop reading each second, for SLOW_SECS."""
    seed: int = 1


class Sample(msgspec.Struct, frozen=True):
    """The server at one moment, and what was delivered since the sample before."""

    seconds: float
    rss: int
    files: int
    """Open descriptors, less the connections that the server counts."""
    connections: int
    cpu: float
    """Seconds of processor time since the start of the load."""
    deliveries: int
    p50_ms: float
    p99_ms: float


class Bounds(msgspec.Struct, frozen=True):
    """What breaks a run."""

    rss_per_minute: int = 256 * 1024
    """Bytes by which memory may grow each minute, of the straight line through the samples behind the warm-up."""
    files: int = 5
    """Descriptors more at the end than at the beginning."""
    drift: float = 2.0
    """The median latency of the last quarter over that of the first."""


class Verdict(msgspec.Struct, frozen=True):
    """One figure beside its bound."""

    figure: str
    value: float
    bound: float
    unit: str

    @property
    def holds(self) -> bool:
        return self.value <= self.bound


def steady_server() -> Candidate:
    """This build, with a cache that is level soon."""
    return product(message_routing={"max_cache_entries": 10_000, "cache_ttl_secs": CACHE_SECS})


class Steady:
    """One run against `server`."""

    def __init__(self, server: Running, load: Load) -> None:
        self._server = server
        self._load = load
        self._chance = random.Random(load.seed)
        self._ages: array.array[int] = array.array("Q")
        self._leaving: list[tuple[float, Subscriber]] = []
        self._slow: list[tuple[float, Subscriber]] = []
        self._due = dict.fromkeys(("joins", "cuts", "slow"), 0.0)
        self.checker = Checker()
        self.samples: list[Sample] = []

    async def run(self, seconds: float, sample_secs: float) -> None:
        """Until the time is over and all that was published is accounted for."""
        topics = [f"soak:{number}" for number in range(self._load.topics)]
        url = f"ws://127.0.0.1:{self._server.port}/ws"
        async with Swarm([url], self.checker, on_delivery=self._ages.append, sign=sign) as swarm:
            for number, topic in enumerate(topics):
                more = self._load.clients * (number + 1) // len(topics) - self._load.clients * number // len(topics)
                await swarm.subscribe(more, [topic])
            await swarm.publish(self._load.publishers, topics, self._load.rate, padding_bytes=PADDING_BYTES)
            began = time.monotonic()
            cpu = self._cpu()
            next_sample = began + sample_secs
            while (now := time.monotonic()) < began + seconds:
                self._disturb(swarm, topics, now)
                if now >= next_sample:
                    self.samples.append(await self._sample(now - began, cpu))
                    next_sample += sample_secs
                await asyncio.sleep(TICK_SECS)
            for _, client in self._slow:
                client.read_on()
            with suppress(AssertionError):  # the caller counts what is wrong
                await swarm.settle()
        if self.checker.violation_count:
            print(self.checker.report(), file=sys.stderr)

    def _disturb(self, swarm: Swarm, topics: Sequence[str], now: float) -> None:
        """What is due of coming, going, cutting and reading slowly."""
        for _ in range(self._turns("joins")):
            self._leaving.append((now + STAY_SECS, swarm.join(self._chance.sample(topics, 2))))
        while self._leaving and self._leaving[0][0] <= now:
            swarm.leave(self._leaving.pop(0)[1])
        for client in self._chance.sample(swarm.subscribers, self._turns("cuts")):
            client.cut()
        for client in self._chance.sample(swarm.subscribers, self._turns("slow")):
            client.stop_reading()
            self._slow.append((now + SLOW_SECS, client))
        while self._slow and self._slow[0][0] <= now:
            self._slow.pop(0)[1].read_on()

    def _turns(self, what: str) -> int:
        self._due[what] += getattr(self._load, what) * TICK_SECS
        count = int(self._due[what])
        self._due[what] -= count
        return count

    async def _sample(self, seconds: float, cpu: float) -> Sample:
        ages, self._ages[:] = sorted(self._ages), array.array("Q")
        files, connections = await asyncio.to_thread(files_and_connections, self._server)
        return Sample(
            seconds=round(seconds, 1),
            rss=self._server.rss_bytes(),
            files=files - connections,
            connections=connections,
            cpu=self._cpu() - cpu,
            deliveries=len(ages),
            p50_ms=quantile(ages, 0.5) / 1e6,
            p99_ms=quantile(ages, 0.99) / 1e6,
        )

    def _cpu(self) -> float:
        return sum(map(run_time_ns, self._server.pids())) / 1e9


def files_and_connections(server: Running) -> tuple[int, int]:
    """Open descriptors of its processes, and the connections it counts, at about the same time."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/health", timeout=10) as answer:
        connections = int(json.load(answer)["connections"])
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in server.pids()), connections


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the straight line through the points, by least squares; 0 of fewer than two."""
    if len({x for x, _ in points}) < 2:
        return 0.0
    return statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope


def quarters(samples: Sequence[Sample], of: Callable[[Sample], float]) -> tuple[float, float]:
    """The medians of the first and the last quarter."""
    size = max(1, len(samples) // 4)
    return statistics.median(map(of, samples[:size])), statistics.median(map(of, samples[-size:]))


def verdicts(samples: Sequence[Sample], warm_up_secs: float, checker: Checker, bounds: Bounds) -> list[Verdict]:
    """What the samples behind the warm-up say, and the account of all deliveries."""
    kept = [each for each in samples if each.seconds >= warm_up_secs] or list(samples)
    rss = slope([(each.seconds / 60, each.rss) for each in kept])
    first_files, last_files = quarters(kept, lambda each: each.files)
    first_ms, last_ms = quarters(kept, lambda each: each.p50_ms)
    unanswered = checker.totals.published - checker.totals.acknowledged
    return [
        Verdict("growth of resident memory", rss / 1024, bounds.rss_per_minute / 1024, "KiB a minute"),
        Verdict("descriptors beside connections, last quarter less first", last_files - first_files, bounds.files, ""),
        Verdict("median latency, last quarter ÷ first", last_ms / first_ms if first_ms else 0.0, bounds.drift, ""),
        Verdict("violations of order, once or completeness", checker.violation_count, 0, ""),
        Verdict("publications without an acknowledgement", unanswered, 0, ""),
    ]
