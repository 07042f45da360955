"""The load generator in the protocols of the peers: against relays that speak them, and against NATS."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import prepare
from benchmarks.candidates import CANDIDATES
from benchmarks.figures import PAYLOAD_BYTES
from benchmarks.generator import Generator, Report
from benchmarks.servers import Running, running

SUBSCRIBERS = 5
PROTOCOLS = ("text", "nats", "centrifugo", "socketio")


@pytest.fixture(scope="session")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    folder = tmp_path_factory.mktemp("compiled")
    prepare.compiled_parts(folder)
    return Generator(folder / "load")


@contextmanager
def relay(fault: str, protocol: str) -> Iterator[int]:
    command = [sys.executable, str(Path(__file__).with_name("faulty_relay.py")), fault, protocol]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def fan_out(generator: Generator, protocol: str, port: int, in_flight: int, *more: str) -> Report:
    return generator.run(
        "--mode=fanout",
        f"--protocol={protocol}",
        f"--port={port}",
        f"--connections={SUBSCRIBERS}",
        f"--in-flight={in_flight}",
        f"--message-bytes={PAYLOAD_BYTES}",
        "--seconds=0.1",
        "--warmup=0",
        *more,
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
class TestAgainstARelay:
    def test_fan_out_loses_nothing(self, generator: Generator, protocol: str) -> None:
        with relay("none", protocol) as port:
            report = fan_out(generator, protocol, port, 3)
        assert report.is_sound, report.problems
        assert report.deliveries > 0
        assert report.bytes == report.deliveries * PAYLOAD_BYTES
        assert report.received > report.bytes

    def test_echoes_come_back_unchanged(self, generator: Generator, protocol: str) -> None:
        with relay("none", protocol) as port:
            report = generator.run(
                "--mode=echo", f"--protocol={protocol}", f"--port={port}", "--connections=4", "--seconds=0.1"
            )
        assert report.is_sound, report.problems
        assert report.deliveries > 0
        assert report.bytes == report.deliveries * PAYLOAD_BYTES

    def test_connections_sign_on(self, generator: Generator, protocol: str) -> None:
        with relay("none", protocol) as port:
            report = generator.run("--mode=connect", f"--protocol={protocol}", f"--port={port}", "--connections=7")
        assert report.is_sound, report.problems
        assert report.connections == 7

    @pytest.mark.parametrize(("fault", "found"), [("lose", "gaps"), ("double", "duplicates"), ("swap", "disorder")])
    def test_faults_are_found(self, generator: Generator, protocol: str, fault: str, found: str) -> None:
        with relay(fault, protocol) as port:
            report = fan_out(generator, protocol, port, 10)
        assert not report.is_sound
        assert getattr(report, found) > 0
        assert report.errors == 0

    def test_several_messages_in_one_or_one_in_several(self, generator: Generator, protocol: str) -> None:
        with relay("joined", protocol) as port:
            report = fan_out(generator, protocol, port, 10)
        assert report.is_sound, report.problems
        assert report.deliveries > 0


class TestTheMeasuredTime:
    def test_it_lasts_until_all_that_was_in_flight_has_landed(self, generator: Generator) -> None:
        with relay("none", "text") as port:
            report = fan_out(generator, "text", port, 500, "--seconds=0.001")
        assert report.is_sound, report.problems
        assert report.publications >= 500


class TestWhatIsRefused:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_a_payload_of_another_length(self, generator: Generator, protocol: str) -> None:
        with relay("shorten", protocol) as port:
            report = fan_out(generator, protocol, port, 10)
        assert report.errors > 0
        assert report.first_error.startswith("unexpected: ")

    def test_another_protocol(self, generator: Generator) -> None:
        with relay("none", "socketio") as port:
            report = generator.run("--mode=connect", "--protocol=centrifugo", f"--port={port}", "--connections=1")
        assert report.errors == 1
        assert report.first_error.startswith("instead of being accepted: 0{")


@pytest.fixture(scope="module")
def nats(generator: Generator) -> Iterator[Running]:
    (candidate,) = (candidate for candidate in CANDIDATES if candidate.name == "nats")
    assert candidate.missing() is None, "ci/packages installs nats-server"
    with running(candidate, min(os.sched_getaffinity(0))) as server:
        yield server


class TestAgainstNats:
    @pytest.mark.parametrize("in_flight", [1, 64])
    def test_fan_out_loses_nothing(self, generator: Generator, nats: Running, in_flight: int) -> None:
        report = fan_out(generator, "nats", nats.port, in_flight)
        assert report.is_sound, report.problems
        assert report.deliveries > 0

    def test_echoes_come_back_unchanged(self, generator: Generator, nats: Running) -> None:
        report = generator.run("--mode=echo", "--protocol=nats", f"--port={nats.port}", "--connections=4")
        assert report.is_sound, report.problems
        assert report.deliveries > 0

    def test_latencies_are_taken(self, generator: Generator, nats: Running) -> None:
        report = generator.run("--mode=latency", "--protocol=nats", f"--port={nats.port}", "--connections=3")
        assert report.is_sound, report.problems
        assert report.offered == 100
        assert report.p50_us is not None
