"""The compiled load generator in each of its modes, for a moment, against the baseline and the bare C loop."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from benchmarks import prepare
from benchmarks.candidates import CANDIDATES, LIMIT, SECRET
from benchmarks.figures import PAYLOAD_BYTES, Figure
from benchmarks.generator import Generator, GeneratorError, write_tokens
from benchmarks.servers import Running, free_port, rss_bytes, running

MOMENT_SECS = 0.2
SUBSCRIBERS = 20


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the freshly built load generator and bare C loop."""
    folder = tmp_path_factory.mktemp("compiled")
    prepare.compiled_parts(folder)
    return folder


@pytest.fixture(scope="session")
def generator(compiled: Path) -> Generator:
    return Generator(compiled / "load")


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    write_tokens(path, SUBSCRIBERS + 1, SECRET)
    return path


def any_core() -> int:
    return min(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def baseline() -> Iterator[Running]:
    (candidate,) = (candidate for candidate in CANDIDATES if candidate.name == "baseline")
    with running(candidate, any_core()) as server:
        yield server


@pytest.fixture(scope="module")
def limit(compiled: Path) -> Iterator[Running]:
    (candidate,) = (candidate for candidate in CANDIDATES if candidate.name == LIMIT)
    command = (str(compiled / "limit"), "{port}")
    with running(msgspec.structs.replace(candidate, command=command), any_core()) as server:
        yield server


def arguments(server: Running, figure: Figure, tokens: Path) -> list[str]:
    return [
        *figure.arguments(server.candidate, MOMENT_SECS, rate=50.0),
        "--warmup=0.05",
        f"--port={server.port}",
        f"--tokens={tokens}",
        *(f"--server-pid={pid}" for pid in server.pids()),
    ]


class TestAgainstTheBaseline:
    @pytest.mark.parametrize("in_flight", [1, 16])
    def test_fan_out_loses_nothing(self, generator: Generator, baseline: Running, tokens: Path, in_flight: int) -> None:
        figure = Figure("fan-out", "fanout", SUBSCRIBERS, in_flight)
        report = generator.run(*arguments(baseline, figure, tokens))
        assert report.is_sound, report.problems
        assert report.deliveries > 0
        assert abs(report.deliveries - report.publications * SUBSCRIBERS) <= in_flight * SUBSCRIBERS
        assert report.bytes > report.deliveries * PAYLOAD_BYTES
        assert report.server_cpu > 0
        assert sum(report.server_cpus) > 0
        assert len(report.server_cpus) == len(baseline.pids())

    def test_latencies_come_in_order(self, generator: Generator, baseline: Running, tokens: Path) -> None:
        report = generator.run(*arguments(baseline, Figure("latency", "latency", SUBSCRIBERS), tokens))
        assert report.is_sound, report.problems
        quantiles = [report.p50_us, report.p99_us, report.p999_us, report.max_us]
        assert all(quantile is not None and quantile > 0 for quantile in quantiles)
        assert quantiles == sorted(quantiles, key=lambda quantile: quantile or 0)

    def test_direct_messages_go_back_and_forth(self, generator: Generator, baseline: Running, tokens: Path) -> None:
        deliveries = 0
        while deliveries <= 8:  # on a busy machine a moment may be too short for a second round
            report = generator.run(*arguments(baseline, Figure("direct", "direct", 8), tokens))
            assert report.is_sound, report.problems
            deliveries = report.deliveries

    def test_connections_open_with_a_token_each(self, generator: Generator, baseline: Running, tokens: Path) -> None:
        report = generator.run(*arguments(baseline, Figure("connect", "connect", SUBSCRIBERS), tokens))
        assert report.is_sound, report.problems
        assert report.connections == SUBSCRIBERS
        assert report.connect_rate > 0

    def test_idle_connections_stay_open_while_held(self, generator: Generator, baseline: Running, tokens: Path) -> None:
        baseline.settle()
        seen: list[int] = []

        def hold() -> None:
            with urllib.request.urlopen(f"http://127.0.0.1:{baseline.port}/health") as answer:
                seen.append(json.load(answer)["connections"])

        report = generator.run(*arguments(baseline, Figure("idle", "idle", SUBSCRIBERS), tokens), hold=hold)
        assert report.is_sound, report.problems
        assert seen == [SUBSCRIBERS]

    def test_a_refused_token_ends_the_run(self, generator: Generator, baseline: Running, tmp_path: Path) -> None:
        wrong = tmp_path / "tokens"
        write_tokens(wrong, 1, "another secret, thirty-two bytes or more")
        report = generator.run(*arguments(baseline, Figure("connect", "connect", 1), wrong))
        assert report.errors == 1
        assert "401" in report.first_error


class TestThePublishersPort:
    def test_only_the_publisher_connects_there(self, generator: Generator, limit: Running, tokens: Path) -> None:
        figure = Figure("fan-out", "fanout", SUBSCRIBERS)
        report = generator.run(*arguments(limit, figure, tokens), f"--publish-port={free_port()}")
        assert (report.errors, report.lost) == (1, 0)
        assert report.first_error == "Connection refused"


class TestAgainstTheBareLoop:
    @pytest.mark.parametrize("in_flight", [1, 64])
    def test_fan_out_loses_nothing(self, generator: Generator, limit: Running, tokens: Path, in_flight: int) -> None:
        figure = Figure("fan-out", "fanout", SUBSCRIBERS, in_flight)
        report = generator.run(*arguments(limit, figure, tokens))
        assert report.is_sound, report.problems
        assert report.deliveries > 0

    def test_echoes_come_back_unchanged(self, generator: Generator, limit: Running, tokens: Path) -> None:
        report = generator.run(*arguments(limit, Figure("echo", "echo", 8), tokens))
        assert report.is_sound, report.problems
        assert report.bytes == report.deliveries * PAYLOAD_BYTES


@contextmanager
def faulty_relay(fault: str) -> Iterator[int]:
    command = [sys.executable, str(Path(__file__).with_name("faulty_relay.py")), fault]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


class TestFaultsAreFound:
    @pytest.mark.parametrize(("fault", "found"), [("lose", "gaps"), ("double", "duplicates"), ("swap", "disorder")])
    def test_each_kind_is_counted_as_itself(self, generator: Generator, fault: str, found: str) -> None:
        with faulty_relay(fault) as port:
            report = generator.run(
                "--mode=fanout",
                "--protocol=text",
                f"--port={port}",
                "--connections=2",
                "--in-flight=10",
                f"--seconds={MOMENT_SECS}",
                "--warmup=0",
            )
        assert not report.is_sound
        assert getattr(report, found) > 0
        assert report.errors == 0

    def test_an_honest_relay_is_sound(self, generator: Generator) -> None:
        with faulty_relay("none") as port:
            report = generator.run(
                "--mode=fanout", "--protocol=text", f"--port={port}", "--connections=2", "--in-flight=10", "--warmup=0"
            )
        assert report.is_sound, report.problems

    def test_a_wrong_command_line_has_no_report(self, generator: Generator) -> None:
        with pytest.raises(GeneratorError, match="no such mode"):
            generator.run("--mode=nothing", "--port=1")


def test_resident_memory_is_read() -> None:
    assert rss_bytes(os.getpid()) > 1024 * 1024
