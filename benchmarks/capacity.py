"""How many workers, nodes and Redis shards a load needs, and what gives first when it grows.

    python -m benchmarks.capacity --connections=500000 --messages=2000 --fan-out=50 --crossing=0.3

Multiplies the load by the costs of one unit each, which `benchmarks/cluster --costs` measured (costs.json). A cost that
is not in the file counts as nothing and is named in the answer, which then is a lower bound. `docs/scaling.md` has the
formulas in words.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import msgspec

from . import costs
from .costs import SMALL, Costs

MOST_WORKERS = 64
"""Of one server."""
MOST_NODES = 1000
"""Where the search gives up."""
FRAME_BYTES = 4
"""Head of a WebSocket frame of 126 bytes to 64 KiB (RFC 6455, 5.2)."""
PACKET_BYTES = 90
"""Of each packet beside its data: Ethernet with preamble and gap 38, IPv4 20, TCP with timestamps 32. Every delivery is
taken to have a packet of its own; under load several share one."""
PACKET_DATA_BYTES = 1448
"""Of a packet, with an MTU of 1,500."""
GIB = 1024**3

REDIS_COSTS = ("redis_out_cpu", "redis_feed_cpu", "redis_publication_cpu", "redis_history_bytes")
WORKER_COSTS = ("worker_crossing_cpu",)

REMEDIES = {
    "home worker of the busiest topic": "split that topic into several: one topic's order is made in one place",
    "feeds that every node has to read": "keep the subscribers of a topic on fewer nodes, by routing clients by "
    "topic; more nodes do not help, since each of them reads every crossing publication",
    "Redis shard of the busiest topic": "split that topic into several; beyond Redis the nodes feed each other "
    "directly, each topic with a home node as it has a home worker within a node (docs/scaling.md)",
    "network of the Redis shard of the busiest topic": "smaller payloads or fewer nodes that want them; beyond Redis "
    "the nodes feed each other directly (docs/scaling.md)",
}


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the servers together."""

    connections: int = 0
    connects: float = 0.0
    """New connections a second."""
    messages: float = 0.0
    """Publications a second, over all topics."""
    fan_out: float = 1.0
    """Subscribers of a topic, weighed by its publications."""
    payload: int = SMALL
    """Bytes."""
    crossing: float = 0.0
    """The share of the other nodes that want a publication, 0 to 1."""
    history: int = 0
    """Messages in the caches, over all topics."""
    busiest: float = 0.01
    """The busiest topic's share of the publications."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """One node, and one Redis shard."""

    cores: int = 8
    memory_gib: float = 16.0
    network_gbit: float = 10.0
    redis_memory_gib: float = 16.0
    target: float = 0.6
    """How much of each may be used at all; the rest is for peaks."""


class Use(msgspec.Struct, frozen=True):
    """Of one node, as a share of what it has."""

    cpu: float
    memory: float
    network: float


class Limit(msgspec.Struct, frozen=True):
    """Something that more machines do not help. It gives at `factor` times the load."""

    what: str
    factor: float


class Plan(msgspec.Struct, frozen=True):
    """The answer. `nodes` 0: no number of them is enough; `shards` None: what Redis costs was not measured."""

    nodes: int
    workers: int
    """Of each node."""
    use: Use | None
    shards: int | None
    deliveries: float
    limits: list[Limit]
    """The nearest first."""
    not_measured: list[str]


class Model:
    """The arithmetic. Rates are a second's, CPU is in cores, over all nodes together unless said otherwise."""

    def __init__(self, costs: Costs, load: Load, machine: Machine) -> None:
        self._costs = costs
        self._load = load
        self._machine = machine

    def plan(self) -> Plan:
        """The smallest number of nodes that carries the load."""
        for nodes in range(1, MOST_NODES + 1):
            use = self.use(nodes, workers := self.workers(nodes))
            if use.cpu <= 1 and use.memory <= 1 and use.network <= 1:
                return self._plan(nodes, workers, use)
        return self._plan(0, 0, None)

    def cpu(self, nodes: int, workers: int) -> float:
        """Cores that the servers use when there are so many nodes with so many workers each."""
        load = self._load
        micros = load.connections * self._cost("idle_cpu") + load.connects * self._cost("connect_cpu")
        micros += load.messages * self._cost("publication_cpu") + self.deliveries * self._delivery_cpu()
        micros += load.messages * self.feeds(nodes) * (1 - 1 / workers) * self._cost("worker_crossing_cpu")
        if nodes > 1:
            micros += load.messages * self._cost("redis_out_cpu")
            micros += load.messages * self.feeds(nodes) * self._cost("redis_feed_cpu")
        return micros / 1e6

    @property
    def deliveries(self) -> float:
        return self._load.messages * self._load.fan_out

    def feeds(self, nodes: int) -> float:
        """How many nodes read a publication: its own, and those of the others that want it."""
        return 1 + self._load.crossing * (nodes - 1)

    def workers(self, nodes: int) -> int:
        """The fewest on each node that keep below the target; all there can be when even they do not."""
        most = min(self._machine.cores, MOST_WORKERS)
        for workers in range(1, most):
            if self.cpu(nodes, workers) / nodes <= workers * self._machine.target:
                return workers
        return most

    def use(self, nodes: int, workers: int) -> Use:
        """Of one node; 1 is all that the target allows."""
        machine, load = self._machine, self._load
        cpu = self.cpu(nodes, workers) / nodes / workers
        kept = load.history * self.feeds(nodes) / nodes
        memory = load.connections / nodes * (self._cost("connection_bytes") + self._cost("connection_kernel_bytes"))
        memory += kept * (load.payload + self._cost("history_bytes"))
        bits = (self.deliveries * self.wire_bytes + self._redis_bytes(nodes)) / nodes * 8
        return Use(
            cpu / machine.target,
            memory / (machine.memory_gib * GIB) / machine.target,
            bits / (machine.network_gbit * 1e9) / machine.target,
        )

    @property
    def wire_bytes(self) -> float:
        """Of a delivery, on the network."""
        data = self._load.payload + self._cost("envelope_bytes") + FRAME_BYTES
        return data + math.ceil(data / PACKET_DATA_BYTES) * PACKET_BYTES

    def shards(self, nodes: int) -> int | None:
        """Of Redis; 0 where one node needs none, None where its costs were not measured."""
        if nodes == 1:
            return 0
        if any(self._costs.value(name) is None for name in REDIS_COSTS):
            return None
        load, machine = self._load, self._machine
        cpu = load.messages * self.feeds(nodes) * self._cost("redis_publication_cpu") / 1e6
        memory = load.history * (load.payload + self._cost("redis_history_bytes"))
        return max(
            1, math.ceil(cpu / machine.target), math.ceil(memory / (machine.redis_memory_gib * GIB) / machine.target)
        )

    def limits(self, nodes: int) -> list[Limit]:
        """What more nodes, workers or shards do not help, the nearest first."""
        found = [Limit(what, self._machine.target / used) for what, used in self._singles(nodes) if used > 0]
        return sorted(found, key=lambda limit: limit.factor)

    def _singles(self, nodes: int) -> Iterator[tuple[str, float]]:
        """What each uses of the one thing it is bound to."""
        load, machine = self._load, self._machine
        busiest = load.messages * load.busiest
        yield (
            "home worker of the busiest topic",
            busiest * (self._cost("publication_cpu") + self._cost("worker_crossing_cpu")) / 1e6,
        )
        if nodes == 1:
            return
        yield (
            "feeds that every node has to read",
            load.messages * load.crossing * self._cost("redis_feed_cpu") / 1e6 / machine.cores,
        )
        feeds = self.feeds(nodes)
        yield "Redis shard of the busiest topic", busiest * feeds * self._cost("redis_publication_cpu") / 1e6
        bits = busiest * feeds * self.wire_bytes * 8
        yield "network of the Redis shard of the busiest topic", bits / (machine.network_gbit * 1e9)

    def _plan(self, nodes: int, workers: int, use: Use | None) -> Plan:
        counted = nodes or MOST_NODES
        return Plan(
            nodes,
            workers,
            use,
            self.shards(counted),
            self.deliveries,
            self.limits(counted),
            list(self._not_measured(counted, workers)),
        )

    def _not_measured(self, nodes: int, workers: int) -> Iterator[str]:
        wanted = ["idle_cpu", "connect_cpu", "publication_cpu", "delivery_cpu", "payload_byte_cpu", "envelope_bytes"]
        wanted += ["connection_bytes", "connection_kernel_bytes", "history_bytes"]
        wanted += WORKER_COSTS if workers != 1 else ()
        wanted += REDIS_COSTS if nodes > 1 else ()
        return (name for name in wanted if self._costs.value(name) is None)

    def _delivery_cpu(self) -> float:
        more = max(0, self._load.payload - SMALL)
        return self._cost("delivery_cpu") + more * self._cost("payload_byte_cpu")

    def _redis_bytes(self, nodes: int) -> float:
        """Between the nodes and Redis: each publication there once, and back as often as nodes read it."""
        return 0.0 if nodes == 1 else self._load.messages * (1 + self.feeds(nodes)) * self.wire_bytes

    def _cost(self, name: str) -> float:
        return self._costs.value(name) or 0.0


def document(plan: Plan, measured: Costs) -> str:
    """The answer as Markdown."""
    lines = ["| | |", "| --- | --- |", f"| deliveries a second | {plan.deliveries:,.0f} |"]
    if plan.use is None:
        lines.append(f"| nodes | not even {MOST_NODES} carry this load |")
    else:
        lines += [
            f"| nodes | {plan.nodes} |",
            f"| workers on each | {plan.workers} |",
            f"| of a node's allowance: CPU of the workers | {plan.use.cpu:.0%} |",
            f"| … memory | {plan.use.memory:.0%} |",
            f"| … network | {plan.use.network:.0%} |",
        ]
    lines.append(f"| Redis shards | {'what Redis costs was not measured' if plan.shards is None else plan.shards} |")
    lines += [f"| gives at {limit.factor:,.1f} × this load | {limit.what} |" for limit in plan.limits]
    if plan.limits:
        first = plan.limits[0].what
        lines += ["", f"What more machines do not help gives first at the {first}: {REMEDIES[first]}."]
    if plan.not_measured:
        lines += ["", f"Not measured, and so counted as nothing: {', '.join(plan.not_measured)}."]
    lines += ["", f"Costs of {measured.measured_at}, {measured.machine}."]
    return "\n".join(lines)


def parse_options(arguments: list[str] | None = None) -> tuple[Load, Machine, Path]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__)
    kinds = {"int": int, "float": float}
    for struct in (Load, Machine):
        for field in msgspec.structs.fields(struct):
            kind = kinds[field.type.__name__]
            name = "--" + field.name.replace("_", "-")
            parser.add_argument(name, type=kind, default=field.default, help=f"{field.default}")
    parser.add_argument("--costs", type=Path, default=costs.FILE, help="the measured costs")
    options = vars(parser.parse_args(arguments))
    for name, value in options.items():
        if name != "costs" and value < 0:
            parser.error(f"--{name.replace('_', '-')}: must not be negative")
    for name in ("crossing", "busiest", "target"):
        if options[name] > 1:
            parser.error(f"--{name}: a share is at most 1")
    for field in msgspec.structs.fields(Machine):
        if options[field.name] == 0:
            parser.error(f"--{field.name.replace('_', '-')}: must be more than 0")
    load = {field.name: options[field.name] for field in msgspec.structs.fields(Load)}
    machine = {field.name: options[field.name] for field in msgspec.structs.fields(Machine)}
    return Load(**load), Machine(**machine), options["costs"]


def main() -> None:
    load, machine, path = parse_options()
    try:
        measured = costs.read(path)
    except OSError as problem:
        raise SystemExit(f"no costs: {problem}; `benchmarks/cluster --costs` measures them") from problem
    print(document(Model(measured, load, machine).plan(), measured))


if __name__ == "__main__":
    main()
