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
from benchmarks.generator import Generator, GeneratorError, Report, write_tokens
from benchmarks.servers import Running, free_port, rss_bytes, running

MOMENT_SECS = 0.2
SUBSCRIBERS = 20
BACK_WITHIN_SECS = 30.0
ABORT_AFTER = 30  # publications, in faulty_server.py


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
def faulty(script: str, fault: str) -> Iterator[int]:
    command = [sys.executable, str(Path(__file__).with_name(script)), fault]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


class TestFaultsAreFound:
    @pytest.mark.parametrize(("fault", "found"), [("lose", "gaps"), ("double", "duplicates"), ("swap", "disorder")])
    def test_each_kind_is_counted_as_itself(self, generator: Generator, fault: str, found: str) -> None:
        with faulty("faulty_relay.py", fault) as port:
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
        with faulty("faulty_relay.py", "none") as port:
            report = generator.run(
                "--mode=fanout", "--protocol=text", f"--port={port}", "--connections=2", "--in-flight=10", "--warmup=0"
            )
        assert report.is_sound, report.problems

    def test_a_wrong_command_line_has_no_report(self, generator: Generator) -> None:
        with pytest.raises(GeneratorError, match="no such mode"):
            generator.run("--mode=nothing", "--port=1")


COMING_BACK = ("--mode=reconnect", "--topics=2", "--jitter-ms=20", "--retry-ms=10", "--rate=200")


def come_back(generator: Generator, port: int, *arguments: str, clients: int = 8) -> Report:
    """Clients whose connections the server aborts, to the end of their run."""
    with generator.started(*COMING_BACK, f"--port={port}", f"--connections={clients}", *arguments) as held:
        assert held.wait_for("ready")
        held.wait_for("back", BACK_WITHIN_SECS)
        return held.end()


class TestClientsThatComeBack:
    def test_an_honest_server_is_sound(self, generator: Generator) -> None:
        with faulty("faulty_server.py", "none") as port:
            report = come_back(generator, port)
        comeback = report.comeback
        assert report.is_sound, report.problems
        assert comeback is not None
        assert (comeback.lost, comeback.recovered, comeback.reset, comeback.never_back) == (8, 8, 0, 0)
        assert comeback.acknowledged == report.publications >= ABORT_AFTER
        assert comeback.recovered_messages >= 4
        assert report.deliveries == report.publications * 4
        stages = [comeback.connected, comeback.subscribed]
        times = [[stage.first_ns, stage.half_ns, stage.p99_ns, stage.last_ns] for stage in stages]
        assert times == [sorted(each) for each in times]
        assert 0 < comeback.lost_first_ns <= comeback.lost_last_ns
        assert comeback.lost_first_ns < comeback.connected.first_ns < comeback.subscribed.last_ns

    @pytest.mark.parametrize(
        ("fault", "found"),
        [("lose", "gaps"), ("double", "duplicates"), ("swap", "disorder"), ("hole", "gaps"), ("again", "duplicates")],
    )
    def test_each_fault_is_counted_as_itself(self, generator: Generator, fault: str, found: str) -> None:
        with faulty("faulty_server.py", fault) as port:
            report = come_back(generator, port)
        assert not report.is_sound
        assert getattr(report, found) > 0
        assert report.errors == 0

    def test_a_history_that_was_lost_is_no_fault_when_it_is_told(self, generator: Generator) -> None:
        with faulty("faulty_server.py", "forget") as port:
            report = come_back(generator, port)
        assert report.is_sound, report.problems
        assert report.comeback is not None
        assert (report.comeback.recovered, report.comeback.reset) == (0, 8)

    def test_who_never_comes_back_is_counted(self, generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys.modules[__name__], "BACK_WITHIN_SECS", 0.5)
        with faulty("faulty_server.py", "refuse") as port:
            report = come_back(generator, port)
        assert report.comeback is not None
        assert report.comeback.never_back == 8
        assert report.comeback.turned_away > 0
        assert "503" in report.comeback.why
        assert report.lost > 0  # publications that nobody could take

    def test_without_an_outage(self, generator: Generator, baseline: Running, tokens: Path) -> None:
        with generator.started(
            *COMING_BACK, f"--port={baseline.port}", f"--connections={SUBSCRIBERS}", f"--tokens={tokens}"
        ) as held:
            assert held.wait_for("ready")
            assert not held.wait_for("back", MOMENT_SECS)
            report = held.end()
        assert report.is_sound, report.problems
        assert report.comeback is not None
        assert report.comeback.lost == 0
        assert report.deliveries == report.publications * SUBSCRIBERS / 2

    def test_a_server_that_is_not_there(self, generator: Generator) -> None:
        with generator.started(*COMING_BACK, f"--port={free_port()}", "--connections=2") as held:
            assert not held.wait_for("ready")
            assert held.end().first_error == "Connection refused"

    def test_more_publishers_than_connections(self, generator: Generator) -> None:
        with pytest.raises(GeneratorError, match="no more publishers"):
            generator.run(*COMING_BACK, "--port=1", "--connections=2", "--publishers=3")


def test_resident_memory_is_read() -> None:
    assert rss_bytes(os.getpid()) > 1024 * 1024
