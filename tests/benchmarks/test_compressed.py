"""Compressed messages in the load generator, and the figures that are made of them."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import pytest

from benchmarks.candidates import CANDIDATES, PRODUCT, SECRET
from benchmarks.compressed import FORMS, PAYLOAD_BYTES, Pair, measure, orders, rows, wire_bytes
from benchmarks.driver import Driver, Unsound
from benchmarks.generator import Generator, GeneratorError, Report, write_tokens
from benchmarks.servers import Running, running

SUBSCRIBERS = 20
MOMENT_SECS = 0.2
Faulty = Callable[..., AbstractContextManager[int]]


@pytest.fixture(scope="module")
def product() -> Iterator[Running]:
    (candidate,) = (candidate for candidate in CANDIDATES if candidate.name == PRODUCT)
    with running(candidate, min(os.sched_getaffinity(0))) as server:
        yield server


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("payload") / "payload.json"
    path.write_bytes(orders(PAYLOAD_BYTES) + b"\n")
    return path


def fan_out(generator: Generator, server: Running, folder: Path, *arguments: str) -> Report:
    tokens = folder / "tokens"
    write_tokens(tokens, SUBSCRIBERS + 1, SECRET)
    return generator.run(
        "--mode=fanout",
        f"--port={server.port}",
        f"--tokens={tokens}",
        f"--connections={SUBSCRIBERS}",
        "--in-flight=4",
        f"--seconds={MOMENT_SECS}",
        "--warmup=0.05",
        *arguments,
    )


class TestAgainstTheProduct:
    @pytest.mark.parametrize("form", FORMS)
    def test_every_form_is_unpacked(
        self, generator: Generator, product: Running, payload: Path, tmp_path: Path, form: str
    ) -> None:
        report = fan_out(generator, product, tmp_path, f"--compression={form}", f"--payload={payload}")
        assert report.is_sound, report.problems
        assert report.bytes > report.deliveries * PAYLOAD_BYTES
        assert wire_bytes(report) < PAYLOAD_BYTES / 2

    @pytest.mark.parametrize("form", FORMS)
    def test_small_messages_come_as_they_are(
        self, generator: Generator, product: Running, tmp_path: Path, form: str
    ) -> None:
        report = fan_out(generator, product, tmp_path, f"--compression={form}", "--message-bytes=100")
        assert report.is_sound, report.problems
        assert report.received >= report.bytes

    def test_a_payload_as_it_is(self, generator: Generator, product: Running, payload: Path, tmp_path: Path) -> None:
        report = fan_out(generator, product, tmp_path, f"--payload={payload}")
        assert report.is_sound, report.problems
        assert report.received > report.bytes > report.deliveries * PAYLOAD_BYTES

    def test_a_pair_has_the_same_bytes(
        self,
        generator: Generator,
        product: Running,
        payload: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("benchmarks.figures.SUBSCRIBERS", SUBSCRIBERS)
        driver = Driver(tmp_path, generator, SUBSCRIBERS, MOMENT_SECS)
        pair = measure(driver, product, "zstd", 4, payload)
        assert wire_bytes(pair.plain) == pytest.approx(wire_bytes(pair.compressed), rel=0.02)
        assert pair.ratio > 0

    def test_what_is_not_compressed_is_no_pair(
        self, generator: Generator, product: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("benchmarks.figures.SUBSCRIBERS", SUBSCRIBERS)
        small = tmp_path / "small.json"
        small.write_text('{"small":true}')
        with pytest.raises(Unsound, match="compressed nothing"):
            measure(Driver(tmp_path, generator, SUBSCRIBERS, MOMENT_SECS), product, "zstd", 1, small)


class TestFaultsAreFound:
    def run(self, generator: Generator, port: int) -> Report:
        return generator.run(
            "--mode=fanout",
            f"--port={port}",
            "--compression=zstd",
            "--connections=3",
            "--in-flight=2",
            f"--seconds={MOMENT_SECS}",
            "--warmup=0",
        )

    def test_an_honest_server_is_sound(self, generator: Generator, faulty: Faulty) -> None:
        with faulty("packing_server.py", "none") as port:
            report = self.run(generator, port)
        assert report.is_sound, report.problems
        assert report.deliveries > 0

    def test_a_frame_that_is_not_whole(self, generator: Generator, faulty: Faulty) -> None:
        with faulty("packing_server.py", "cut") as port:
            report = self.run(generator, port)
        assert report.errors > 0
        assert report.first_error == "no message of the form that was asked for"

    def test_another_message_in_a_sound_frame(self, generator: Generator, faulty: Faulty) -> None:
        with faulty("packing_server.py", "other") as port:
            report = self.run(generator, port)
        assert not report.is_sound
        assert report.duplicates + report.gaps > 0


class TestTheCommandLine:
    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (["--compression=brotli"], "no such compression: brotli"),
            (["--protocol=text", "--compression=zstd"], "need rtc"),
            (["--payload=/nowhere"], "/nowhere"),
            (["--payload=/dev/null"], "the payload is empty or too long"),
        ],
    )
    def test_mistakes(self, generator: Generator, arguments: list[str], problem: str) -> None:
        with pytest.raises(GeneratorError, match=problem):
            generator.run("--mode=fanout", "--port=1", *arguments)


class TestFigures:
    def report(self, cpu: float, received: int) -> Report:
        zeros = dict.fromkeys(Report.__struct_fields__[:17], 0)
        fields = {**zeros, "mode": "fanout", "stalled": False, "first_error": "", "deliveries": 1000}
        return msgspec.convert({**fields, "server_cpu": cpu, "received": received}, Report)

    def test_ratio_is_of_cpu_time_a_delivery(self) -> None:
        pair = Pair(self.report(0.0022, 900_000), self.report(0.002, 900_000))
        assert pair.ratio == pytest.approx(1.1)
        assert [str(row) for row in rows("zstd", 16, [pair])] == [
            "| zstd, 16 in flight: bytes a delivery | 900 (900 – 900) |",
            "| zstd, 16 in flight: µs of CPU a delivery | 2.20 (2.20 – 2.20) |",
            "| zstd, 16 in flight: ratio to the same bytes uncompressed | 1.100 (1.100 – 1.100) |",
        ]

    def test_orders_are_json_and_always_the_same(self) -> None:
        text = orders(PAYLOAD_BYTES)
        assert PAYLOAD_BYTES <= len(text) < PAYLOAD_BYTES + 300
        assert text == orders(PAYLOAD_BYTES)
        assert {"id", "customer", "note"} <= json.loads(text)[0].keys()
