"""Instructions an operation of the data plane takes, counted by callgrind and compared with those that are stored.

An operation is done N and then 2N times (`core_operations`); it costs the difference divided by N, so that what a loop
does once is left out. `perf stat` would count real ones, but few virtual machines have its counter. A count is the same
in every run but for some per mille, 6 % at most so far, where the C library copies or not as the heap happens to lie:
clocks stand still, hashes are not salted, the environment is empty.

Compiler, Python, C library and valgrind decide the count too. Where they are not those of the stored counts, only a
change is an error that none of them explains.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from realtime_communication._core.hub import hub

from .core_operations import MARK, OPERATIONS

ROOT = Path(__file__).resolve().parent.parent
FILE = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.1
WIDE_TOLERANCE = 0.5
TIMEOUT_SECS = 280
SECTIONS = 3
"""Files an operation leaves: its preparation, N passes, 2N passes."""

PROCESSOR_FLAGS = ("avx", "avx2")
"""By these valgrind decides which processor it shows to the C library and OpenSSL, which choose functions by it."""


class Unavailable(Exception):
    """Nothing can be counted here; says why."""


class Toolchain(msgspec.Struct, frozen=True, kw_only=True):
    """What counts depend on besides the code."""

    machine: str
    processor_flags: tuple[str, ...]
    compiler: str
    python: str
    libc: str
    valgrind: str


class Stored(msgspec.Struct, frozen=True):
    """The file: instructions per operation, and what they were counted with."""

    toolchain: Toolchain
    instructions: dict[str, int]


class Change(msgspec.Struct, frozen=True):
    """One operation beside what is stored, None when nothing is."""

    name: str
    stored: int | None
    measured: int

    @property
    def share(self) -> float:
        """How much more it takes than stored; 0 when nothing is stored."""
        return self.measured / self.stored - 1 if self.stored else 0.0

    def exceeds(self, tolerance: float) -> bool:
        """Whether the difference is an error: also when it takes less, since the stored count guards nothing then."""
        return self.stored is None or abs(self.share) > tolerance


def read(path: Path = FILE) -> Stored:
    """Raises OSError, and msgspec.ValidationError for what is no such file."""
    return msgspec.json.decode(path.read_bytes(), type=Stored)


def write(stored: Stored, path: Path = FILE) -> None:
    """Raises OSError."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(stored), indent=2) + b"\n")


def toolchain() -> Toolchain:
    """That of the installed package and of this interpreter. Raises Unavailable without valgrind."""
    compiler = re.search(rb"(?:GCC: \(|clang version )[^\0]*", Path(hub.__file__).read_bytes())
    found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    flags = found[1].split() if found else []
    return Toolchain(
        machine=platform.machine(),
        processor_flags=tuple(flag for flag in PROCESSOR_FLAGS if flag in flags),
        compiler=compiler[0].decode(errors="replace") if compiler else "unknown",
        python=platform.python_version(),
        libc=" ".join(platform.libc_ver()),
        valgrind=_run(["valgrind", "--version"]).strip(),
    )


def measure(names: list[str], folder: Path) -> dict[str, int]:
    """Instructions of each operation; callgrind's files stay in `folder`, for `callgrind_annotate`.

    Raises Unavailable without valgrind, and when the operations fail.
    """
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    command = ["valgrind", "-q", "--tool=callgrind", f"--dump-before={MARK}", f"--callgrind-out-file={folder}/counts"]
    _run([*command, sys.executable, "-s", "-m", "benchmarks.core_operations", *names], environment)
    return {name: _instructions(folder, index, name) for index, name in enumerate(names)}


def _run(command: list[str], environment: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECS, check=False
        )
    except OSError as error:
        raise Unavailable(f"{command[0]}: {error.strerror}; ci/packages installs it on Debian") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{command[0]} took more than {TIMEOUT_SECS} s") from None
    if done.returncode:
        raise Unavailable(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _instructions(folder: Path, index: int, name: str) -> int:
    operation = OPERATIONS[name]
    once, twice = (_total(folder / f"counts.{SECTIONS * index + section}") for section in (2, 3))
    return round((twice - once) / operation.passes / operation.units)


def _total(path: Path) -> int:
    """Instructions in one of callgrind's files. Raises Unavailable when there is no such file."""
    try:
        found = re.search(r"^totals: (\d+)", path.read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found is None:
        raise Unavailable(f"callgrind wrote no {path.name}: does the C library export {MARK}?")
    return int(found[1])


def compare(stored: Stored, measured: dict[str, int]) -> list[Change]:
    """All that was measured, in order."""
    return [Change(name, stored.instructions.get(name), count) for name, count in measured.items()]


def table(changes: list[Change], tolerance: float) -> str:
    """For people; what exceeds the tolerance is marked."""
    lines = [f"{'operation':<40}{'stored':>10}{'measured':>10}{'change':>9}"]
    for change in changes:
        stored = "-" if change.stored is None else str(change.stored)
        mark = "  <" if change.exceeds(tolerance) else ""
        lines.append(f"{change.name:<40}{stored:>10}{change.measured:>10}{change.share:>+9.1%}{mark}")
    return "\n".join(lines)


def differences(stored: Toolchain, here: Toolchain) -> list[str]:
    """One line for each part that is another one here."""
    return [
        f"{field}: stored with {getattr(stored, field)}, here {getattr(here, field)}"
        for field in Toolchain.__struct_fields__
        if getattr(stored, field) != getattr(here, field)
    ]


def judge(stored: Stored, here: Toolchain, measured: dict[str, int]) -> tuple[bool, str]:
    """Whether all is within the tolerance, and the report."""
    other = differences(stored.toolchain, here)
    tolerance = WIDE_TOLERANCE if other else TOLERANCE
    changes = compare(stored, measured)
    sound = not any(change.exceeds(tolerance) for change in changes)
    lines = [table(changes, tolerance), f"tolerance: {tolerance:.0%}"]
    if other:
        lines += ["wide, because counts of another toolchain are not comparable:", *(f"  {line}" for line in other)]
    if not sound:
        lines.append("If that is meant to be: benchmarks/instructions --update, and say why in the commit.")
    return sound, "\n".join(lines)


def updated(stored: Stored | None, here: Toolchain, measured: dict[str, int]) -> Stored:
    """What to store now. Raises ValueError when counts of two toolchains would be mixed."""
    kept = {} if stored is None else {name: n for name, n in stored.instructions.items() if name in OPERATIONS}
    if stored is not None and stored.toolchain != here and kept.keys() - measured.keys():
        raise ValueError("--only: the stored counts are of another toolchain; update all of them")
    counts = {**kept, **measured}
    return Stored(here, {name: counts[name] for name in OPERATIONS if name in counts})


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/instructions",
        description="Counts the instructions that operations of the data plane take and compares them with those in "
        f"benchmarks/{FILE.name}. Exits with 1 when one differs by more than {TOLERANCE:.0%}.",
        epilog="operations: " + "; ".join(OPERATIONS),
    )
    parser.add_argument("--only", metavar="TEXT", default="", help="only operations whose name has this text in it")
    parser.add_argument("--update", action="store_true", help="store what is measured")
    parser.add_argument(
        "--keep", metavar="FOLDER", type=Path, help="keep callgrind's files: n.2, n.3 of each operation"
    )
    return parser.parse_args(given)


def main(given: list[str]) -> int:
    options = arguments(given)
    names = [name for name in OPERATIONS if options.only in name]
    if not names:
        print(f"--only: no operation has {options.only!r} in its name", file=sys.stderr)
        return 2
    try:
        here = toolchain()
        with tempfile.TemporaryDirectory() as scratch:
            folder = options.keep.resolve() if options.keep else Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            measured = measure(names, folder)
    except Unavailable as error:
        print(f"benchmarks/instructions: {error}", file=sys.stderr)
        return 1
    stored = read() if FILE.exists() else None
    sound, report = judge(stored or Stored(here, {}), here, measured)
    print(report)
    if not options.update:
        return 0 if sound else 1
    try:
        write(updated(stored, here, measured))
    except ValueError as error:
        print(f"benchmarks/instructions: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
