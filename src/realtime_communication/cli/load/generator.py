"""Runs of the compiled load generator: its command line, what it says meanwhile, and what it reports."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

import realtime_communication
from realtime_communication.cli.load.credentials import USER_PREFIX, Credentials
from realtime_communication.cli.load.target import Target

BINARY = Path(realtime_communication.__file__).parent / "_bench" / "rtc-load"
LONGEST_LINE = 1 << 20
OTHER_FILES = 64
"""Descriptors beside those of the connections."""

MODES = {"echo": "own"}
"""What the generator calls a mode, where the command has another name for it."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    mode: str
    connections: int
    seconds: float = 0.0
    warmup: float = 0.0
    message_bytes: int = 100
    in_flight: int = 1
    rate: float = 1.0
    topic: str = "bench"
    topics: int = 0
    opening: int = 64
    progress_ms: int = 1000


class Opening(msgspec.Struct, frozen=True, tag_field="progress", tag="opening"):
    """The connections are being opened."""

    open: int
    of: int


class Running(msgspec.Struct, frozen=True, tag_field="progress", tag="running"):
    """How the last interval was; times in seconds since the load began, `rate` a second in the interval."""

    at: float
    measuring: bool
    deliveries: int
    rate: float
    p50_us: float | None = None
    p99_us: float | None = None


class Report(msgspec.Struct, frozen=True):
    """What a run came to. Times in seconds, latencies in microseconds."""

    connect_seconds: float
    seconds: float
    deliveries: int
    publications: int
    bytes: int
    received: int
    offered: float
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
    buckets: list[tuple[float, int]] = []
    """Where each bucket of latencies begins, and how many are in it."""

    @property
    def problems(self) -> dict[str, int]:
        """What was wrong, by name; empty in a sound run."""
        names = ("gaps", "duplicates", "disorder", "lost", "errors", "stalled")
        return {name: int(getattr(self, name)) for name in names if getattr(self, name)}


def check_descriptors(connections: int) -> None:
    """Raises click.UsageError when the process may not open that many connections."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and connections + OTHER_FILES > hard:
        raise click.UsageError(
            f"--connections={connections} needs {connections + OTHER_FILES} open files, and the limit is {hard}: raise "
            f"it with `ulimit -Hn` (LimitNOFILE in systemd), or use at most {max(hard - OTHER_FILES, 0)} connections"
        )


def run(plan: Plan, target: Target, who: Credentials, tell: Callable[[Opening | Running], None]) -> Report:
    """One run to its end; `tell` hears of it at each interval. Raises click.ClickException."""
    with _started(plan, target, who) as process:
        assert process.stdout is not None and process.stdin is not None
        ends = None
        for line in process.stdout:
            if line == b"ready\n":
                ends = time.monotonic() + plan.seconds
                if plan.seconds <= 0:
                    process.stdin.close()
                continue
            try:
                said = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
                if "progress" not in said:
                    return msgspec.json.decode(line, type=Report)
                tell(msgspec.json.decode(line, type=Opening | Running))
            except msgspec.DecodeError as error:
                raise click.ClickException(f"the load generator said what it never says: {error}") from None
            if ends is not None and time.monotonic() >= ends and not process.stdin.closed:
                process.stdin.close()
        assert process.stderr is not None
        why = process.stderr.read(LONGEST_LINE).decode(errors="replace").partition("\n")[0]
        raise click.ClickException(f"the load generator ended without a report: {why or process.wait()}")


@contextmanager
def _started(plan: Plan, target: Target, who: Credentials) -> Iterator[subprocess.Popen[bytes]]:
    """The generator's process, gone at the end. Credentials travel in memory that it inherits, not in a file."""
    if not os.access(BINARY, os.X_OK):
        raise click.ClickException(f"{BINARY} is missing: this installation has no load generator")
    memory = os.memfd_create("credentials", 0)
    try:
        with open(memory, "w", encoding="ascii", closefd=False) as file:
            file.writelines(f"{value}\n" for value in who.values)
        process = subprocess.Popen(  # noqa: S603 - the generator of this package
            _command(plan, target, who, memory),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(memory,),
        )
    except OSError as error:
        raise click.ClickException(f"the load generator cannot be started: {error.strerror}") from None
    finally:
        os.close(memory)
    with process:
        try:
            yield process
        finally:
            process.kill()


def _command(plan: Plan, target: Target, who: Credentials, memory: int) -> list[str]:
    words = [
        str(BINARY),
        f"--mode={MODES.get(plan.mode, plan.mode)}",
        "--protocol=rtc",
        f"--address={target.address}",
        f"--host={target.host}",
        f"--port={target.port}",
        f"--path={target.path}",
        f"--connections={plan.connections}",
        f"--seconds={plan.seconds}",
        f"--warmup={plan.warmup}",
        f"--message-bytes={plan.message_bytes}",
        f"--in-flight={plan.in_flight}",
        f"--rate={plan.rate}",
        f"--topic={plan.topic}",
        f"--topics={plan.topics}",
        f"--opening={plan.opening}",
        f"--user-prefix={USER_PREFIX}",
        f"--progress-ms={plan.progress_ms}",
    ]
    if target.secure:
        words.append("--tls")
    if target.ca_file is not None:
        words.append(f"--ca-file={target.ca_file}")
    if target.insecure:
        words.append("--insecure")
    if who.values:
        words.append(f"--tokens=/proc/self/fd/{memory}")
    if who.header:
        words.append(f"--token-header={who.header}")
    return words
