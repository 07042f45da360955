"""Runs of the compiled load generator: its command line, its tokens, and what it reports."""

import secrets
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import jwt
import msgspec

from . import prepare

TOKEN_LIFETIME_SECS = 24 * 3600
ISSUER = "ai-system-rust"
AUDIENCE = "realtime-communication"


KEPT_UP = 0.95
"""The share of the publications that were due that a server must deliver to count as having kept up."""

EDGE = 2
"""Publications that may be on their way when the measured time ends."""


class Report(msgspec.Struct):
    """The load generator's line of JSON. Times in seconds, latencies in microseconds."""

    mode: str
    connections: int
    connect_seconds: float
    seconds: float
    deliveries: int
    publications: int
    bytes: int
    server_user: float
    server_system: float
    server_cpu: float
    gaps: int
    duplicates: int
    disorder: int
    lost: int
    errors: int
    stalled: bool
    first_error: str
    p50_us: float | None = None
    p99_us: float | None = None
    p999_us: float | None = None
    max_us: float | None = None
    received: int = 0
    """Bytes of everything that arrived, frame headers and all; of fan-out, latency and echo runs."""
    offered: float = 0.0
    """Of latency runs: publications a second that were due."""
    server_cpus: list[float] = []
    """Of fan-out and latency runs: `server_cpu` of each process, in the order they were named."""

    @property
    def is_sound(self) -> bool:
        """No loss, no duplicate, no disorder, no error: only such a run counts."""
        return not (self.gaps or self.duplicates or self.disorder or self.lost or self.errors or self.stalled)

    @property
    def kept_up(self) -> bool:
        """Whether what was published at a fixed rate arrived at it; what piles up makes latencies mean nothing."""
        if self.offered and not self.deliveries:
            return False
        return self.publications + EDGE >= KEPT_UP * self.offered * self.seconds

    @property
    def problems(self) -> str:
        """What was wrong with the run, for people."""
        counts = {name: getattr(self, name) for name in ("gaps", "duplicates", "disorder", "lost", "errors", "stalled")}
        return ", ".join(f"{name} {count}" for name, count in counts.items() if count) + f" {self.first_error}".rstrip()

    @property
    def rate(self) -> float:
        """Deliveries a second."""
        return self.deliveries / self.seconds if self.seconds else 0.0

    @property
    def connect_rate(self) -> float:
        return self.connections / self.connect_seconds if self.connect_seconds else 0.0


class GeneratorError(Exception):
    """The load generator ended without a report."""


def write_tokens(path: Path, count: int, secret: str) -> None:
    """One token a line; the user of line i is `u<i>`. No token is ever the same as one of an earlier call."""
    series = secrets.token_hex(8)
    now = int(time.time())
    with path.open("w") as file:
        for index in range(count):
            claims = {
                "sub": f"u{index}",
                "user_id": f"u{index}",
                "session_id": f"login-{index}",
                "jti": f"{series}-{index}",
                "iss": ISSUER,
                "aud": AUDIENCE,
                "iat": now,
                "nbf": now,
                "exp": now + TOKEN_LIFETIME_SECS,
                "roles": ["user"],
                "permissions": ["read", "write", "subscribe"],
            }
            file.write(jwt.encode(claims, secret, "HS256") + "\n")


class Generator:
    """The compiled load generator, pinned to one core (None: wherever the kernel puts it)."""

    def __init__(self, binary: Path = prepare.CACHE / "load", core: int | None = None) -> None:
        self._binary = binary
        self._core = core

    def run(self, *arguments: str, hold: Callable[[], None] | None = None) -> Report:
        """One run to its end. With mode idle, `hold` is called while the connections are open.

        Raises GeneratorError when it reports nothing.
        """
        pinned = [] if self._core is None else ["taskset", "-c", str(self._core)]
        process = subprocess.Popen(
            [*pinned, str(self._binary), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            try:
                return self._report(process, hold)
            finally:
                process.kill()

    def _report(self, process: subprocess.Popen[bytes], hold: Callable[[], None] | None) -> Report:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        if line == b"ready\n":
            if hold is not None:
                hold()
            process.stdin.close()
            line = process.stdout.readline()
        if not line:
            raise GeneratorError(process.stderr.read().decode(errors="replace"))
        return msgspec.json.decode(line, type=Report)
