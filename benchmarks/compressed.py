"""What a delivery costs when messages are compressed. `benchmarks/compression` prepares the environment and runs this.

A message of 3 KB of JSON goes to 1,000 subscribers in each compressed form; right behind it goes an uncompressed one
that is as long as the compressed frame was, so that the same number of bytes leaves the server. The figure is the ratio
of the server's CPU time per delivery, within each such pair. Reading the longer message, and compressing it, counts.
"""

import argparse
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from . import figures
from .candidates import CANDIDATES, PRODUCT
from .driver import Driver, Row, Unsound, publish
from .generator import Generator, GeneratorError, Report
from .machine import Watch
from .measure import say, two_cores
from .servers import Running, StartError, running

FORMS = ("zstd", "lz4", "gzip", "deflate")
PAYLOAD_BYTES = 3000
IN_FLIGHT = (1, 16)
ENVELOPE_BYTES = len(figures.SAMPLE_ENVELOPE) - figures.PAYLOAD_BYTES
HEADER_BYTES = 4
"""Of a frame of 126 to 65,535 bytes."""
SAME_BYTES = 0.02
"""How far apart, as a share, the two of a pair may be in bytes that left."""


def orders(size: int) -> bytes:
    """A list of orders as JSON of at least `size` bytes, the same every time."""
    chance = random.Random(1)
    words = ("fragile", "gift", "invoice", "by", "courier", "second", "address", "leave", "at", "the", "door", "call")
    listed: list[object] = []
    while len(text := msgspec.json.encode(listed)) < size:
        listed.append(
            {
                "id": chance.randrange(10**8),
                "customer": f"c-{chance.randrange(10**5)}",
                "status": chance.choice(("open", "paid", "shipped")),
                "total": round(chance.random() * 500, 2),
                "currency": chance.choice(("EUR", "USD")),
                "created_at": f"2026-03-{chance.randrange(1, 29):02}T{chance.randrange(24):02}:00:00Z",
                "note": " ".join(chance.choice(words) for _ in range(4)),
            }
        )
    return text


def wire_bytes(report: Report) -> float:
    """Bytes that a delivery had, with the frame's header."""
    return report.received / report.deliveries


def cpu_us(report: Report) -> float:
    """CPU time of the server per delivery, microseconds."""
    return report.server_cpu / report.deliveries * 1e6


class Pair(msgspec.Struct, frozen=True):
    """A compressed run, and an uncompressed one of as many bytes."""

    compressed: Report
    plain: Report

    @property
    def ratio(self) -> float:
        return cpu_us(self.compressed) / cpu_us(self.plain)


def measure(driver: Driver, server: Running, form: str, in_flight: int, payload: Path) -> Pair:
    """Raises Unsound, also when the two differ in their bytes or nothing was compressed."""

    def run(form: str, size: int, file: Path | None) -> Report:
        server.settle()
        return driver.run(
            "fanout",
            server.port,
            server.pids(),
            connections=figures.SUBSCRIBERS,
            in_flight=in_flight,
            payload=size,
            compression=form,
            payload_file=file,
        )

    compressed = run(form, PAYLOAD_BYTES, payload)
    if compressed.received > compressed.bytes:
        raise Unsound(f"{form}: the server compressed nothing")
    plain = run("none", round(wire_bytes(compressed)) - HEADER_BYTES - ENVELOPE_BYTES, None)
    if abs(wire_bytes(plain) / wire_bytes(compressed) - 1) > SAME_BYTES:
        raise Unsound(f"{form}: {wire_bytes(compressed):.0f} bytes beside {wire_bytes(plain):.0f}")
    return Pair(compressed, plain)


def rows(form: str, in_flight: int, pairs: Sequence[Pair]) -> list[Row]:
    name = f"{form}, {in_flight} in flight"
    return [
        Row(f"{name}: bytes a delivery", [wire_bytes(pair.compressed) for pair in pairs], digits=0),
        Row(f"{name}: µs of CPU a delivery", [cpu_us(pair.compressed) for pair in pairs]),
        Row(f"{name}: ratio to the same bytes uncompressed", [pair.ratio for pair in pairs], digits=3),
    ]


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/compression", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each pair is taken (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long a run is measured (1)")
    parser.add_argument("--json", type=Path, help="a file for every round's value")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    server_core, load_core = two_cores()
    (candidate,) = (candidate for candidate in CANDIDATES if candidate.name == PRODUCT)
    taken: dict[tuple[str, int], list[Pair]] = {(form, count): [] for count in IN_FLIGHT for form in FORMS}
    watch = Watch((server_core, load_core))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, running(candidate, server_core) as server:
        payload = Path(folder) / "payload.json"
        payload.write_bytes(orders(PAYLOAD_BYTES))
        driver = Driver(Path(folder), Generator(core=load_core), figures.SUBSCRIBERS, options.seconds)
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}")
            for (form, count), pairs in taken.items():
                pairs.append(measure(driver, server, form, count, payload))
    found = [row for (form, count), pairs in taken.items() for row in rows(form, count, pairs)]
    publish(options, "Compression", found, watch)


if __name__ == "__main__":
    try:
        main()
    except (Unsound, GeneratorError, StartError) as problem:
        raise SystemExit(str(problem)) from problem
