"""What TLS costs a delivery, and a connection. `benchmarks/tls` prepares the environment and runs this.

The same fan-out goes to two servers, one of them with TLS, one right behind the other; then `openssl speed` says on
the server's core what the negotiated cipher alone takes for records as long as those that arrived. The ratio is the
server's CPU time per delivery over TLS to the sum of the plain one and the cipher's share of it.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from .deployments import product
from .driver import Driver, Row, Unsound, figures_parser, publish
from .figures import FANOUT_IN_FLIGHT, SUBSCRIBERS
from .generator import Generator, GeneratorError, Report
from .machine import Watch, allow_many_files
from .measure import say, two_cores
from .servers import Running, StartError, running

FIGURES = ("fanout", "memory")
WARM_UP_CONNECTIONS = 100
HOLD_SECS = 2.0
CIPHERS = {
    "TLS_AES_256_GCM_SHA384": "aes-256-gcm",
    "TLS_AES_128_GCM_SHA256": "aes-128-gcm",
    "TLS_CHACHA20_POLY1305_SHA256": "chacha20-poly1305",
}
"""What `openssl speed` calls the cipher of a suite of TLS 1.3 (RFC 8446 appendix B.4)."""


class Certificate(msgspec.Struct, frozen=True):
    """Files of a certificate that signs itself, and of its key."""

    cert_file: Path
    key_file: Path


def certificate(folder: Path) -> Certificate:
    """One for 127.0.0.1, with a key on P-256, which is what most servers have. Raises CalledProcessError."""
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=benchmark"
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(made.key_file), "-out", str(made.cert_file)]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    return made


@contextmanager
def served(core: int, secured: Certificate | None) -> Iterator[Running]:
    """This build, with TLS when there is a certificate. Raises StartError."""
    tls: dict[str, object] = {"enabled": secured is not None}
    if secured is not None:
        tls |= {"cert_file": str(secured.cert_file), "key_file": str(secured.key_file)}
    with running(product(**{"security.tls": tls}), core) as server:
        yield server


def cipher_seconds(suite: str, record: int, core: int, seconds: int = 1) -> float:
    """What the cipher of a suite takes for a record of so many bytes, by `openssl speed` on that core."""
    command = ["openssl", "speed", "-mr", "-seconds", str(seconds), "-bytes", str(record), "-evp", CIPHERS[suite]]
    done = subprocess.run(["taskset", "-c", str(core), *command], check=True, capture_output=True, text=True)
    return record / rate_of(done.stdout)


def rate_of(said: str) -> float:
    """Bytes a second, of what `openssl speed -mr` prints. Raises ValueError."""
    for line in said.splitlines():
        if line.startswith("+F:"):
            return float(line.rpartition(":")[2])
    raise ValueError(f"openssl speed gave no rate: {said[-200:]}")


class Pair(msgspec.Struct, frozen=True):
    """A run without TLS, one with it, and what the cipher takes for a record of the latter."""

    plain: Report
    sealed: Report
    cipher_seconds: float

    @property
    def plain_us(self) -> float:
        return self.plain.server_cpu / self.plain.deliveries * 1e6

    @property
    def sealed_us(self) -> float:
        return self.sealed.server_cpu / self.sealed.deliveries * 1e6

    @property
    def cipher_us(self) -> float:
        """Of a delivery, by its share of a record."""
        return self.cipher_seconds * self.sealed.records / self.sealed.deliveries * 1e6

    @property
    def ratio(self) -> float:
        return self.sealed_us / (self.plain_us + self.cipher_us)


def record_bytes(report: Report) -> float:
    """What a record held on average."""
    return report.received / report.records


def measure(
    driver: Driver, plain: Running, sealed: Running, ca_file: Path, subscribers: int, in_flight: int, core: int
) -> Pair:
    """Raises Unsound, GeneratorError."""
    reports = []
    for server, trusted in ((plain, None), (sealed, ca_file)):
        server.settle()
        reports.append(
            driver.run(
                "fanout",
                server.port,
                server.pids(),
                connections=subscribers,
                in_flight=in_flight,
                ca_file=trusted,
            )
        )
    if not reports[1].records:
        raise Unsound(f"{in_flight} in flight: no record of TLS arrived")
    return Pair(*reports, cipher_seconds(reports[1].cipher, round(record_bytes(reports[1])), core))


def rows(in_flight: int, pairs: Sequence[Pair]) -> list[Row]:
    return [
        Row(f"{in_flight} in flight: plain, µs of CPU a delivery", [pair.plain_us for pair in pairs], 3),
        Row("… over TLS", [pair.sealed_us for pair in pairs], 3),
        Row(f"… the cipher alone ({pairs[0].sealed.cipher})", [pair.cipher_us for pair in pairs], 3),
        Row("… TLS / (plain + cipher)", [pair.ratio for pair in pairs], 3),
        Row("… bytes in a record", [record_bytes(pair.sealed) for pair in pairs], 0),
        Row("… messages in a record", [pair.sealed.deliveries / pair.sealed.records for pair in pairs]),
    ]


def fan_out(options: argparse.Namespace, driver: Driver, secured: Certificate, core: int) -> list[Row]:
    taken: dict[int, list[Pair]] = {count: [] for count in FANOUT_IN_FLIGHT}
    with served(core, None) as plain, served(core, secured) as sealed:
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}")
            for count, pairs in taken.items():
                pairs.append(measure(driver, plain, sealed, secured.cert_file, options.subscribers, count, core))
    return [row for count, pairs in taken.items() for row in rows(count, pairs)]


def connection_bytes(driver: Driver, core: int, secured: Certificate | None, connections: int) -> float:
    """Resident memory of an idle connection: the growth of a fresh process, divided by the connections."""
    trusted = None if secured is None else secured.cert_file
    with served(core, secured) as server:
        where = (server.port, server.pids())
        driver.run("connect", *where, connections=WARM_UP_CONNECTIONS, ca_file=trusted)
        server.settle()
        before, held = server.rss_bytes(), 0

        def hold() -> None:
            nonlocal held
            server.settle()
            time.sleep(HOLD_SECS)
            held = server.rss_bytes()

        driver.new_tokens()
        driver.run("idle", *where, connections=connections, ca_file=trusted, hold=hold)
    return (held - before) / connections


def memory(options: argparse.Namespace, driver: Driver, secured: Certificate, core: int) -> list[Row]:
    values: dict[str, list[float]] = {"plain": [], "TLS": []}
    for number in range(options.memory_rounds):
        say(f"memory, round {number + 1} of {options.memory_rounds}")
        for name, found in values.items():
            with_tls = secured if name == "TLS" else None
            found.append(connection_bytes(driver, core, with_tls, options.connections) / 1024)
    return [
        Row(f"{options.connections:,} idle connections: KiB resident for each", values["plain"]),
        Row("… over TLS", values["TLS"]),
    ]


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = figures_parser("benchmarks/tls", __doc__, FIGURES)
    parser.add_argument("--rounds", type=int, default=5, help="how often each pair is taken (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long a run is measured (1)")
    parser.add_argument("--subscribers", type=int, default=SUBSCRIBERS, help=f"of the topic ({SUBSCRIBERS})")
    parser.add_argument("--memory-rounds", type=int, default=3, help="how often memory is taken (3)")
    parser.add_argument("--connections", type=int, default=2000, help="idle ones, of the memory (2000)")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse_options()
    cores = two_cores()
    allow_many_files()
    watch = Watch(cores)
    found: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        secured = certificate(Path(folder))
        connections = max(options.subscribers, options.connections, WARM_UP_CONNECTIONS)
        driver = Driver(Path(folder), Generator(core=cores[1]), connections, options.seconds)
        if "fanout" in options.only:
            found += fan_out(options, driver, secured, cores[0])
        if "memory" in options.only:
            found += memory(options, driver, secured, cores[0])
    publish(options, "TLS", found, watch)


if __name__ == "__main__":
    try:
        main()
    except (Unsound, GeneratorError, StartError, subprocess.CalledProcessError) as problem:
        sys.exit(f"no figures: {problem}")
