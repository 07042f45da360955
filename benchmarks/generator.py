"""Runs of the compiled load generator: its command line, its tokens, and what it reports."""

import secrets
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jwt
import msgspec

from . import prepare

TOKEN_LIFETIME_SECS = 24 * 3600
ISSUER = "ai-system-rust"
AUDIENCE = "realtime-communication"

PROGRESS = b'{"progress":'
RUNNING = PROGRESS + b'"running"'

KEPT_UP = 0.95
"""The share of the publications that were due that a server must deliver to count as having kept up."""

EDGE = 2
"""Publications that may be on their way when the measured time ends."""


class Stage(msgspec.Struct, frozen=True):
    """When connections that were lost had come so far: monotonic nanoseconds, all 0 when none did."""

    first_ns: int
    half_ns: int
    p99_ns: int
    last_ns: int


class Comeback(msgspec.Struct, frozen=True):
    """How connections that were lost came back (see `struct comeback` in load/report.h)."""

    why: str
    connected: Stage
    subscribed: Stage
    lost: int
    lost_first_ns: int
    lost_last_ns: int
    refused: int
    turned_away: int
    never_back: int
    recovered: int
    recovered_messages: int
    reset: int
    unseen: int
    lagged: int
    refusals: int
    acknowledged: int


class Shedding(msgspec.Struct, frozen=True):
    """What became of more than a server takes (see `struct shedding` in load/report.h)."""

    why: str
    sent: int
    held: int
    away: int
    acknowledged: int
    rate_limited: int
    unavailable: int
    backpressure: int
    unanswered: int
    lagged: int
    told: int
    missing: int
    made_up: int
    closed_publishers: int
    closed_subscribers: int
    turned_away: int


class Moment(msgspec.Struct, frozen=True):
    """What was delivered since the one before, of a run that tells how it goes (see load/progress.h)."""

    at: float
    """Seconds since the run began."""
    measuring: bool
    rate: float
    """Deliveries a second."""
    p50_us: float | None = None
    p99_us: float | None = None


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
    records: int = 0
    """Of TLS, that `received` came in."""
    cipher: str = ""
    """The suite of TLS that was agreed on; empty without TLS."""
    offered: float = 0.0
    """Of latency runs: publications a second that were due."""
    server_cpus: list[float] = []
    """Of fan-out and latency runs: `server_cpu` of each process, in the order they were named."""
    comeback: Comeback | None = None
    """Of mode reconnect."""
    shedding: Shedding | None = None
    """Of mode overload."""

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


def token(user: str, secret: str, *, session: str = "login", number: str = "", roles: Sequence[str] = ("user",)) -> str:
    """That the measured server takes; no `number` is one that nobody else has."""
    now = int(time.time())
    claims = {
        "sub": user,
        "user_id": user,
        "session_id": session,
        "jti": number or secrets.token_hex(8),
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": now,
        "nbf": now,
        "exp": now + TOKEN_LIFETIME_SECS,
        "roles": list(roles),
        "permissions": ["read", "write", "subscribe"],
    }
    return jwt.encode(claims, secret, "HS256")


def write_tokens(path: Path, count: int, secret: str) -> None:
    """One token a line; the user of line i is `u<i>`. No token is ever the same as one of an earlier call."""
    series = secrets.token_hex(8)
    with path.open("w") as file:
        for index in range(count):
            file.write(token(f"u{index}", secret, session=f"login-{index}", number=f"{series}-{index}") + "\n")


class Held:
    """A run that goes on until it is ended."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._report = b""

    def wait_for(self, word: str, limit_secs: float | None = None) -> bool:
        """Wait until the generator says `word`. False when it has not within the limit, or reports instead.

        Raises GeneratorError when it ends without a report.
        """
        line = self._next_line(limit_secs)
        if line.startswith(b"{"):
            self._report = line
        return line == word.encode() + b"\n"

    def cut(self) -> None:
        """Reset all connections of a run of mode reconnect at once."""
        self._process.send_signal(signal.SIGUSR1)

    def moments(self) -> Iterator[Moment]:
        """Of a run that tells how it goes and ends by itself; `end` gives its report then. Raises GeneratorError."""
        while (line := self._next_line(None)).startswith(PROGRESS):
            if line.startswith(RUNNING):
                yield msgspec.json.decode(line, type=Moment)
        self._report = line

    def end(self) -> Report:
        """Let the run come to its end. Raises GeneratorError."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        while not self._report.startswith(b"{"):
            self._report = self._next_line(None)
        return msgspec.json.decode(self._report, type=Report)

    def _next_line(self, limit_secs: float | None) -> bytes:
        """What it says next; nothing when the limit is over. Raises GeneratorError when it says nothing any more."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        if limit_secs is not None and not select.select([self._process.stdout], [], [], limit_secs)[0]:
            return b""
        line = self._process.stdout.readline()
        if not line:
            raise GeneratorError(self._process.stderr.read().decode(errors="replace"))
        return line


class Generator:
    """The compiled load generator, pinned to one core (None: wherever the kernel puts it)."""

    def __init__(self, binary: Path = prepare.CACHE / "load", core: int | None = None) -> None:
        self._binary = binary
        self._core = core

    def run(self, *arguments: str, hold: Callable[[], None] | None = None) -> Report:
        """One run to its end. `hold`, for mode idle, is called while the connections are open.

        Raises GeneratorError when it reports nothing.
        """
        with self.started(*arguments) as held:
            if hold is not None and held.wait_for("ready"):
                hold()
            return held.end()

    @contextmanager
    def started(self, *arguments: str) -> Iterator[Held]:
        """A run of mode idle or reconnect, or one that ends by itself."""
        pinned = [] if self._core is None else ["taskset", "-c", str(self._core)]
        process = subprocess.Popen(
            [*pinned, str(self._binary), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # what was said is not hidden from select in a buffer
        )
        with process:
            try:
                yield Held(process)
            finally:
                process.kill()
