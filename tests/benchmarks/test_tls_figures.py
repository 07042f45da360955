"""TLS in the load generator, and the figures that are made with it."""

import os
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from benchmarks.candidates import SECRET
from benchmarks.driver import Driver
from benchmarks.generator import Generator, GeneratorError, Report, write_tokens
from benchmarks.servers import Running
from benchmarks.tls_figures import (
    CIPHERS,
    Certificate,
    Pair,
    certificate,
    cipher_seconds,
    connection_bytes,
    measure,
    parse_options,
    rate_of,
    rows,
    served,
)

SUBSCRIBERS = 20
MOMENT_SECS = 0.1


def any_core() -> int:
    return min(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def sealed(secured: Certificate) -> Iterator[Running]:
    with served(any_core(), secured) as server:
        yield server


@pytest.fixture(scope="module")
def driver(generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> Driver:
    return Driver(tmp_path_factory.mktemp("driver"), generator, 150, MOMENT_SECS)


class TestTheGenerator:
    @pytest.fixture
    def tokens(self, tmp_path: Path) -> str:
        write_tokens(tmp_path / "tokens", SUBSCRIBERS + 1, SECRET)
        return f"--tokens={tmp_path / 'tokens'}"

    def run(self, generator: Generator, port: int, mode: str, *words: str) -> Report:
        return generator.run(
            f"--mode={mode}",
            f"--port={port}",
            f"--connections={SUBSCRIBERS}",
            f"--seconds={MOMENT_SECS}",
            "--warmup=0.05",
            "--tls",
            *words,
        )

    @pytest.mark.parametrize("mode", ["fanout", "latency", "own", "direct", "connect"])
    def test_modes(self, generator: Generator, sealed: Running, secured: Certificate, tokens: str, mode: str) -> None:
        report = self.run(generator, sealed.port, mode, f"--ca-file={secured.cert_file}", tokens)
        assert report.is_sound, report.problems
        assert report.deliveries > 0 or mode != "fanout"  # the others end with the time, whatever has arrived
        assert report.cipher in CIPHERS

    def test_messages_longer_than_records(
        self, generator: Generator, sealed: Running, secured: Certificate, tokens: str
    ) -> None:
        words = (f"--ca-file={secured.cert_file}", tokens, "--message-bytes=50000", "--in-flight=8")
        report = self.run(generator, sealed.port, "fanout", *words)
        assert report.is_sound, report.problems
        assert report.records > report.deliveries > 0

    def test_a_certificate_that_is_not_trusted(self, generator: Generator, sealed: Running, tokens: str) -> None:
        report = self.run(generator, sealed.port, "fanout", tokens)
        assert report.first_error.startswith("the certificate is not accepted: ")
        assert self.run(generator, sealed.port, "fanout", tokens, "--insecure").is_sound

    def test_a_certificate_for_another_host(
        self, generator: Generator, sealed: Running, secured: Certificate, tokens: str
    ) -> None:
        for host, why in (("localhost", "ostname mismatch"), ("[::1]", "IP address mismatch")):
            words = (f"--ca-file={secured.cert_file}", tokens, f"--host={host}")
            assert why in self.run(generator, sealed.port, "fanout", *words).first_error

    def test_a_server_without_tls(self, generator: Generator, secured: Certificate, tokens: str) -> None:
        with served(any_core(), None) as plain:
            report = self.run(generator, plain.port, "fanout", f"--ca-file={secured.cert_file}", tokens)
        assert report.first_error.startswith("TLS: ")

    def test_a_file_without_certificates(self, generator: Generator, secured: Certificate) -> None:
        for path in (secured.key_file, Path("/nowhere/ca.pem")):
            with pytest.raises(GeneratorError, match=f"no certificates of authorities in {path}"):
                self.run(generator, 1, "fanout", f"--ca-file={path}")


class TestFigures:
    def test_a_pair(self, driver: Driver, sealed: Running, secured: Certificate) -> None:
        with served(any_core(), None) as plain:
            pair = measure(driver, plain, sealed, secured.cert_file, SUBSCRIBERS, 4, any_core())
        assert not pair.plain.cipher
        assert pair.ratio > 0 and pair.cipher_us > 0
        assert len(rows(4, [pair])) == 6

    def test_memory(self, driver: Driver, secured: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("benchmarks.tls_figures.HOLD_SECS", 0.0)
        monkeypatch.setattr("benchmarks.tls_figures.WARM_UP_CONNECTIONS", 5)
        assert connection_bytes(driver, any_core(), secured, 150) > 0

    def test_the_ratio_is_to_plain_and_cipher_together(self) -> None:
        zeros = dict.fromkeys(Report.__struct_fields__[:17], 0)
        fields = {**zeros, "mode": "fanout", "stalled": False, "first_error": "", "deliveries": 1000}
        plain = msgspec.convert({**fields, "server_cpu": 0.003}, Report)
        sealed = msgspec.convert(
            {**fields, "server_cpu": 0.005, "records": 500, "received": 200_000, "cipher": "A"}, Report
        )
        pair = Pair(plain, sealed, 2e-6)
        assert (pair.plain_us, pair.sealed_us, pair.cipher_us) == pytest.approx((3, 5, 1))
        assert pair.ratio == pytest.approx(1.25)
        assert [str(row) for row in rows(1, [pair])] == [
            "| 1 in flight: plain, µs of CPU a delivery | 3.000 (3.000 – 3.000) |",
            "| … over TLS | 5.000 (5.000 – 5.000) |",
            "| … the cipher alone (A) | 1.000 (1.000 – 1.000) |",
            "| … TLS / (plain + cipher) | 1.250 (1.250 – 1.250) |",
            "| … bytes in a record | 400 (400 – 400) |",
            "| … messages in a record | 2.00 (2.00 – 2.00) |",
        ]

    def test_what_openssl_says(self) -> None:
        assert rate_of("+H:199\n+F:25:AES-256-GCM:514333609.00\n") == 514333609.0
        with pytest.raises(ValueError, match="no rate"):
            rate_of("nothing")
        with pytest.raises(subprocess.CalledProcessError):
            cipher_seconds("TLS_AES_128_GCM_SHA256", -1, any_core())

    def test_every_suite_of_the_servers_is_known(self) -> None:
        suites = {cipher["name"] for cipher in ssl.create_default_context().get_ciphers()}
        assert {suite for suite in suites if suite.startswith("TLS_")} <= CIPHERS.keys()

    def test_figures_that_are_not_known(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            parse_options(["--only=latency"])
        assert "not known: latency" in capsys.readouterr().err
