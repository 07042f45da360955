"""What one unit of load costs, for the capacity model. `benchmarks/cluster --costs` measures it and writes the file.

Only what was measured is in the file; a cost that this build cannot show is left out, and the model says so.
"""

import time
from pathlib import Path
from statistics import median

import msgspec

from . import deployments
from .crossing import IN_FLIGHT, by_part, check_that_publications_pass, to_the_other_node
from .deployments import Unavailable
from .driver import Driver
from .generator import Report
from .servers import Running, StartError

FILE = Path(__file__).with_name("costs.json")
SUBSCRIBERS = 1000
SMALL, LARGE = 100, 4000
WARM_UP_CONNECTIONS = 100
FEED_TOPIC = "costs:{}"
COUNT_MESSAGES = """
local total = 0
for _, key in ipairs(redis.call('KEYS', '*')) do
    if redis.call('TYPE', key).ok == 'stream' then total = total + redis.call('XLEN', key) end
end
return total
"""


class Cost(msgspec.Struct, frozen=True):
    """The middle of several rounds, with the least and the most."""

    value: float
    least: float
    most: float
    unit: str


class Costs(msgspec.Struct):
    """The file. `machine` names the processor the CPU times are of, `foreign_share` how busy others kept it."""

    measured_at: str
    machine: str
    foreign_share: float
    costs: dict[str, Cost]

    def value(self, name: str) -> float | None:
        """A cost in its unit, None when it was not measured."""
        found = self.costs.get(name)
        return None if found is None else found.value


def read(path: Path = FILE) -> Costs:
    """Raises OSError, and msgspec.ValidationError for what is no such file."""
    return msgspec.json.decode(path.read_bytes(), type=Costs)


def kernel_bytes() -> int:
    """Memory of the kernel's own objects, sockets among them, of the whole machine."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Slab:"):
            return int(line.split()[1]) * 1024
    return 0


def rounded(value: float) -> float:
    """Four digits that count."""
    return float(f"{value:.4g}")


class Collected:
    """Values by name and round."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[str, list[float]]] = {}

    def add(self, name: str, unit: str, value: float) -> None:
        self._values.setdefault(name, (unit, []))[1].append(value)

    def costs(self) -> dict[str, Cost]:
        return {
            name: Cost(rounded(median(values)), rounded(min(values)), rounded(max(values)), unit)
            for name, (unit, values) in self._values.items()
        }


def measure(driver: Driver, cores: str, core: int, rounds: int, connections: int, idle_secs: float) -> dict[str, Cost]:
    """All that this build shows."""
    collected = Collected()
    with deployments.workers(1, str(core)) as server:
        for _ in range(rounds):
            fan_out(driver, server, collected)
    for number in range(rounds):
        with deployments.workers(1, str(core)) as server:  # fresh, since memory is looked at
            history(driver, server, collected, number)
        with deployments.workers(1, str(core)) as server:
            idle(driver, server, collected, connections, idle_secs)
    for further in (worker_crossing, redis):
        try:
            further(driver, cores, rounds, collected)
        except (Unavailable, StartError):
            continue
    return collected.costs()


def fan_out(driver: Driver, server: Running, collected: Collected) -> None:
    """A publication, a delivery, a byte of a payload."""

    def run(subscribers: int, in_flight: int, payload: int = SMALL) -> Report:
        server.settle()
        return driver.run(
            "fanout", server.port, server.pids(), connections=subscribers, in_flight=in_flight, payload=payload
        )

    single, coalesced = run(SUBSCRIBERS, 1), run(SUBSCRIBERS, IN_FLIGHT)
    alone, large = run(1, 1), run(SUBSCRIBERS, 1, LARGE)
    delivery = single.server_cpu / single.deliveries * 1e6
    collected.add("delivery_cpu", "µs", delivery)
    collected.add("delivery_cpu_coalesced", "µs", coalesced.server_cpu / coalesced.deliveries * 1e6)
    collected.add("publication_cpu", "µs", max(0.0, alone.server_cpu / alone.publications * 1e6 - delivery))
    more = large.server_cpu / large.deliveries * 1e6 - delivery
    collected.add("payload_byte_cpu", "µs", max(0.0, more / (LARGE - SMALL)))
    collected.add("envelope_bytes", "B", single.bytes / single.deliveries - SMALL)


def history(driver: Driver, server: Running, collected: Collected, number: int) -> None:
    """What a message in the cache needs beside its payload."""
    driver.run("connect", server.port, server.pids(), connections=WARM_UP_CONNECTIONS)
    server.settle()
    before = server.rss_bytes()
    report = driver.run(
        "fanout",
        server.port,
        server.pids(),
        connections=1,
        in_flight=IN_FLIGHT,
        topic=FEED_TOPIC.format(number),
        warmup=0,
    )
    grown = server.rss_bytes() - before
    collected.add("history_bytes", "B", grown / report.publications - SMALL)


def idle(driver: Driver, server: Running, collected: Collected, connections: int, idle_secs: float) -> None:
    """A connection: its coming, its memory, its heartbeats."""
    driver.run("connect", server.port, server.pids(), connections=WARM_UP_CONNECTIONS)
    driver.new_tokens()
    server.settle()
    before, kernel_before = server.rss_bytes(), kernel_bytes()
    held: list[int] = []
    kernel: list[int] = []

    def hold() -> None:
        kernel.append(kernel_bytes())
        time.sleep(idle_secs)
        held.append(server.rss_bytes())

    report = driver.run(
        "idle", server.port, server.pids(), connections=connections, topics=max(1, connections // 100), hold=hold
    )
    collected.add("connection_bytes", "B", (held[0] - before) / connections)
    both_ends = (kernel[0] - kernel_before) / connections
    if both_ends > 0:
        collected.add("connection_kernel_bytes", "B", both_ends / 2)
    collected.add("idle_cpu", "µs/s", report.server_cpu / report.seconds / connections * 1e6)
    driver.new_tokens()
    server.settle()
    opened = driver.run("connect", server.port, server.pids(), connections=connections, topics=1)
    collected.add("connect_cpu", "µs", opened.server_cpu / connections * 1e6)


def worker_crossing(driver: Driver, cores: str, rounds: int, collected: Collected) -> None:
    """What a publication costs both workers together when it crosses, beyond what it costs on one.

    With many in flight: of one alone most would be the polling of two workers that wait for each other.
    """
    with deployments.workers(2, cores) as server:
        reports = [
            driver.run(
                "fanout",
                server.port,
                server.pids(),
                connections=1,
                in_flight=IN_FLIGHT,
                topic=FEED_TOPIC.format(number),
            )
            for number in range(16 * rounds)
        ]
    local, crossed = split(reports)
    if not local or not crossed:
        return
    base = median(local)
    for cost in crossed:
        collected.add("worker_crossing_cpu", "µs", max(0.0, cost - base))


def split(reports: list[Report], share: float = 0.1) -> tuple[list[float], list[float]]:
    """CPU µs per publication of the runs on one worker, and of those on more."""
    local: list[float] = []
    crossed: list[float] = []
    for report in reports:
        costs = sorted((cpu / report.publications * 1e6 for cpu in report.server_cpus), reverse=True)
        (crossed if costs[1] >= share * sum(costs) else local).append(sum(costs))
    return local, crossed


def redis(driver: Driver, cores: str, rounds: int, collected: Collected) -> None:
    """A publication through Redis: each node's part, Redis' own, and what it keeps."""
    with deployments.nodes(2, cores) as both:
        check_that_publications_pass(driver, both)
        used, kept = _redis_memory(both.redis_port), _redis_messages(both.redis_port)
        for _ in range(rounds):
            report = to_the_other_node(driver, both, 1)
            out, feed, store = (cpu / report.publications * 1e6 for cpu in by_part(both, report))
            collected.add("redis_out_cpu", "µs", out)
            collected.add("redis_feed_cpu", "µs", feed)
            collected.add("redis_publication_cpu", "µs", store)
        grown = _redis_memory(both.redis_port) - used
        collected.add("redis_history_bytes", "B", grown / (_redis_messages(both.redis_port) - kept) - SMALL)


def _redis_memory(port: int) -> int:
    for line in deployments.ask_redis(port, "info", "memory").splitlines():
        name, _, number = line.partition(":")
        if name == "used_memory":
            return int(number)
    return 0


def _redis_messages(port: int) -> int:
    """In all streams together, whose length is bounded."""
    return int(deployments.ask_redis(port, "eval", COUNT_MESSAGES, "0"))
