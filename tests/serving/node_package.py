"""Builds the TypeScript client and runs its tests, by the Node.js that ``ci/node`` has seen to."""

import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

from serving.processes import ROOT

PACKAGE = ROOT / "clients" / "js"
BUILT = PACKAGE / ".build"
BUILD_SECS = 180
RUN_SECS = 150
LEAST_NODE = 20


@functools.cache
def node_folder() -> str:
    """Where ``node`` and ``npm`` are: on PATH, or beside the interpreter."""
    beside = Path(sys.executable).parent
    for folder in (*os.environ["PATH"].split(os.pathsep), str(beside)):
        node, npm = Path(folder) / "node", Path(folder) / "npm"
        if os.access(node, os.X_OK) and os.access(npm, os.X_OK) and _version(node) >= LEAST_NODE:
            return folder
    raise AssertionError(f"no Node.js of at least {LEAST_NODE} with npm; ci/node sees to that")


def _version(node: Path) -> int:
    found = re.match(rb"v(\d+)\.", subprocess.run([node, "--version"], check=False, stdout=subprocess.PIPE).stdout)
    return int(found[1]) if found else 0


def run(*command: str, seconds: float = RUN_SECS, environment: Mapping[str, str] | None = None) -> str:
    """What ``command`` of Node.js or of the package's tools wrote to standard output; AssertionError when it failed."""
    path = os.pathsep.join([str(PACKAGE / "node_modules" / ".bin"), node_folder(), os.environ["PATH"]])
    done = subprocess.run(
        [shutil.which(command[0], path=path) or command[0], *command[1:]],
        check=False,
        cwd=PACKAGE,
        env={**os.environ, "PATH": path, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def built() -> Path:
    """The package with its dependencies and ``dist``, and its tests in ``.build``. Once, whoever asks first."""
    BUILT.mkdir(exist_ok=True)
    with (BUILT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = BUILT / "stamp"
        wanted = _state()
        if not stamp.exists() or stamp.read_text() != wanted:
            stamp.unlink(missing_ok=True)
            _build(wanted.partition(" ")[0])
            stamp.write_text(wanted)
    return PACKAGE


def _build(dependencies: str) -> None:
    installed = PACKAGE / "node_modules" / ".installed"
    if not installed.exists() or installed.read_text() != dependencies:
        run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", seconds=BUILD_SECS)
        installed.write_text(dependencies)
    for folder in (PACKAGE / "dist", BUILT / "test"):
        shutil.rmtree(folder, ignore_errors=True)
    run("tsc", "-p", "tsconfig.json", seconds=BUILD_SECS)
    run("tsc", "-p", "test/tsconfig.json", seconds=BUILD_SECS)


def _state() -> str:
    """What the dependencies are, and what everything is made from."""
    dependencies = _digest([PACKAGE / "package-lock.json"])
    sources = [path for folder in ("src", "test") for path in (PACKAGE / folder).rglob("*")]
    return f"{dependencies} {_digest([*PACKAGE.glob('*.json'), *sources])}"


def _digest(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in paths if path.is_file()):
        digest.update(f"{path.relative_to(PACKAGE)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def failures(report: Path) -> Iterator[str]:
    """The tests that failed, of a report in JUnit's format, each with what it said."""
    for case in ElementTree.parse(report).iter("testcase"):
        for failure in case.findall("failure"):
            yield f"{case.get('name')}\n{(failure.text or failure.get('message') or '').strip()}"
