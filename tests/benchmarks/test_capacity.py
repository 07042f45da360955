"""The capacity model by cases that were computed by hand, with costs in round numbers."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks.capacity import GIB, Load, Machine, Model, document, parse_options
from benchmarks.costs import Cost, Costs

ROOT = Path(__file__).resolve().parents[2]
OF_ONE_NODE = {
    "idle_cpu": 1.0,
    "connect_cpu": 100.0,
    "publication_cpu": 10.0,
    "delivery_cpu": 2.0,
    "payload_byte_cpu": 0.001,
    "envelope_bytes": 96.0,
    "connection_bytes": 1024.0,
    "connection_kernel_bytes": 3072.0,
    "history_bytes": 100.0,
}
OF_WORKERS = {"worker_crossing_cpu": 20.0}
OF_REDIS = {
    "redis_out_cpu": 15.0,
    "redis_feed_cpu": 5.0,
    "redis_publication_cpu": 25.0,
    "redis_history_bytes": 156.0,
}
MACHINE = Machine(cores=4, memory_gib=8, network_gbit=10, redis_memory_gib=8, target=0.5)


def costs(*groups: dict[str, float]) -> Costs:
    found = {name: Cost(value, value, value, "") for group in groups for name, value in group.items()}
    return Costs("2026-01-01", "a machine", 0.0, found)


ALL = costs(OF_ONE_NODE, OF_WORKERS, OF_REDIS)


def model(load: Load, machine: Machine = MACHINE, measured: Costs = ALL) -> Model:
    return Model(measured, load, machine)


class TestCpu:
    def test_of_one_worker(self) -> None:
        load = Load(connections=10_000, connects=100, messages=1000, fan_out=20)
        # idle 0.01 + connects 0.01 + publications 0.01 + deliveries 20,000 × 2 µs = 0.04
        assert model(load).cpu(1, 1) == pytest.approx(0.07)

    def test_of_a_larger_payload(self) -> None:
        # 10,000 deliveries × (2 µs + 1,000 bytes more × 0.001 µs), and 10 µs for each of 1,000 publications
        assert model(Load(messages=1000, fan_out=10, payload=1100)).cpu(1, 1) == pytest.approx(0.04)

    def test_a_smaller_payload_is_not_cheaper(self) -> None:
        assert model(Load(messages=1000, payload=10)).cpu(1, 1) == model(Load(messages=1000)).cpu(1, 1)

    def test_of_crossing_between_workers(self) -> None:
        # of four workers three are another one: 1,000 × 3/4 × 20 µs = 0.015 beside 1,000 × (10 + 2) µs
        assert model(Load(messages=1000)).cpu(1, 4) == pytest.approx(0.027)

    def test_of_crossing_between_nodes(self) -> None:
        # three nodes, half of the others want it: 1 + 0.5 × 2 = 2 feeds; 1,000 × (12 + out 15 + 2 × 5) µs
        assert model(Load(messages=1000, crossing=0.5)).cpu(3, 1) == pytest.approx(0.037)


class TestPlan:
    def test_nothing_needs_one_worker(self) -> None:
        plan = model(Load()).plan()
        assert (plan.nodes, plan.workers, plan.shards, plan.limits, plan.not_measured) == (1, 1, 0, [], [])

    def test_more_workers_before_more_nodes(self) -> None:
        # 300,000 deliveries × 2 µs + 1,000 × 10 µs = 0.61 cores, at half of a core each: two workers, which cost
        # 1,000 × 1/2 × 20 µs = 0.01 more
        plan = model(Load(messages=1000, fan_out=300)).plan()
        assert (plan.nodes, plan.workers) == (1, 2)
        assert plan.use is not None
        assert plan.use.cpu == pytest.approx(0.62 / 2 / 0.5)

    def test_more_nodes_when_the_cores_are_used_up(self) -> None:
        # 1,000 × 2,000 × 2 µs + 0.01 = 4.01 cores; with crossing 0: 1,000 × (15 + 5) µs = 0.02 for Redis, and 3/4 of
        # 20 µs for workers = 0.015; a node has 4 × 0.5 = 2 cores: three of them
        plan = model(Load(messages=1000, fan_out=2000)).plan()
        assert (plan.nodes, plan.workers, plan.shards) == (3, 3, 1)
        assert plan.deliveries == 2_000_000

    def test_more_nodes_for_memory(self) -> None:
        # 4 KiB a connection, 4 GiB allowed: 1,048,576 on one node
        assert model(Load(connections=1_048_576), msgspec.structs.replace(MACHINE, cores=64)).plan().nodes == 1
        plan = model(Load(connections=1_048_577), msgspec.structs.replace(MACHINE, cores=64)).plan()
        assert (plan.nodes, plan.use and round(plan.use.memory, 3)) == (2, 0.5)

    def test_memory_of_the_caches(self) -> None:
        # 1,000,000 × (100 + 100) bytes on one node; on two, of which each wants all of it, on both
        both = model(Load(history=1_000_000, crossing=1.0))
        assert both.use(1, 1).memory == pytest.approx(2e8 / (4 * GIB))
        assert both.use(2, 1).memory == both.use(1, 1).memory

    def test_network(self) -> None:
        # 100 + 96 + 4 bytes and one packet's 90: 290 bytes × 1,000,000 × 8 = 2.32 Gbit/s of the 5 allowed
        assert model(Load(messages=1000, fan_out=1000)).use(1, 1).network == pytest.approx(2.32 / 5)

    def test_network_of_several_packets(self) -> None:
        # 2,900 + 96 + 4 = 3,000 bytes in three packets
        assert model(Load(messages=1, payload=2900)).wire_bytes == 3000 + 3 * 90

    def test_what_every_node_reads_may_be_too_much(self) -> None:
        # each node reads all 500,000 publications: 500,000 × 5 µs = 2.5 cores, 2 are allowed
        plan = model(Load(messages=500_000, fan_out=0.001, crossing=1.0)).plan()
        assert (plan.nodes, plan.use) == (0, None)
        assert "not even 1000" in document(plan, ALL)
        (feeds,) = (limit for limit in plan.limits if limit.what == "feeds that every node has to read")
        assert feeds.factor == pytest.approx(0.8)


class TestRedis:
    def test_shards_by_cpu(self) -> None:
        # 20,000 publications × 2 feeds × 25 µs = 1 core, half of one allowed
        assert model(Load(messages=20_000, crossing=1.0)).shards(2) == 2

    def test_shards_by_memory(self) -> None:
        # 256 bytes a message, 4 GiB allowed: 16,777,216 messages each
        assert model(Load(history=16_777_217)).shards(2) == 2

    def test_none_for_one_node(self) -> None:
        assert model(Load(messages=20_000)).shards(1) == 0

    def test_unknown_where_it_was_not_measured(self) -> None:
        measured = costs(OF_ONE_NODE, OF_WORKERS)
        plan = model(Load(messages=1000, fan_out=2000), measured=measured).plan()
        assert (plan.nodes, plan.shards) == (3, None)
        assert plan.not_measured == list(OF_REDIS)
        text = document(plan, measured)
        assert "| Redis shards | what Redis costs was not measured |" in text
        assert "Not measured, and so counted as nothing: redis_out_cpu" in text


class TestLimits:
    def test_the_home_of_the_busiest_topic(self) -> None:
        # 1,000 publications × 10 % × (10 + 20) µs = 0.003 cores of half a one
        (limit,) = model(Load(messages=1000, busiest=0.1)).limits(1)
        assert (limit.what, round(limit.factor, 3)) == ("home worker of the busiest topic", round(0.5 / 0.003, 3))

    def test_the_nearest_comes_first(self) -> None:
        limits = model(Load(messages=1000, busiest=0.1, crossing=1.0)).limits(3)
        # Redis: 100 × 3 × 25 µs = 0.0075; home: 0.003; feeds: 1,000 × 5 µs / 4 cores = 0.00125
        # network: 100 × 3 × 290 bytes × 8 = 696,000 bit/s of 10 Gbit/s
        assert [limit.what for limit in limits] == [
            "Redis shard of the busiest topic",
            "home worker of the busiest topic",
            "feeds that every node has to read",
            "network of the Redis shard of the busiest topic",
        ]
        assert [round(limit.factor, 2) for limit in limits] == [66.67, 166.67, 400.0, 7183.91]

    def test_the_answer_names_a_remedy_for_the_first(self) -> None:
        plan = model(Load(messages=1000, fan_out=2000, busiest=0.1, crossing=1.0)).plan()
        assert "gives first at the Redis shard of the busiest topic: split that topic" in document(plan, ALL)


class TestCommandLine:
    def test_load_and_machine(self) -> None:
        load, machine, _ = parse_options(["--connections=5", "--fan-out=2.5", "--cores=2", "--target=0.7"])
        assert (load.connections, load.fan_out, machine.cores, machine.target) == (5, 2.5, 2, 0.7)

    @pytest.mark.parametrize(
        ("option", "problem"),
        [
            ("--connections=-1", "--connections: must not be negative"),
            ("--crossing=2", "--crossing: a share is at most 1"),
            ("--network-gbit=0", "--network-gbit: must be more than 0"),
        ],
    )
    def test_out_of_range(self, option: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            parse_options([option])
        assert problem in capsys.readouterr().err

    def test_with_the_measured_costs(self) -> None:
        ran = subprocess.run(
            [sys.executable, "-m", "benchmarks.capacity", "--connections=100000", "--messages=100", "--fan-out=100"],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        assert "| nodes | 1 |" in ran.stdout

    def test_without_costs(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.capacity", f"--costs={tmp_path / 'none.json'}"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert ran.returncode == 1
        assert "benchmarks/cluster --costs" in ran.stderr
