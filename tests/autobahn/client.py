"""Installs and runs the Autobahn suite's fuzzing client.

The suite exists for Python 2.7 only. It is installed, pinned, into a folder of ``.cache/`` in the clone, which a later
run uses again; nothing outside the clone changes.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "autobahn"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
BOOT = Path(__file__).with_name("boot.py")

# The last pip that runs on Python 2.7; run out of its wheel, so that the interpreter needs none of its own.
PIP = "pip==20.3.4"

CASES = 517
AGENT = "realtime_communication"

# Runs of the client, the longest first. The cases of 12 and 13, 1,000 messages each, take nearly all of the time.
GROUPS: tuple[tuple[str, ...], ...] = (
    ("12.3.*",),
    ("12.2.*",),
    ("12.5.*",),
    ("13.3.*",),
    ("13.7.*",),
    ("13.5.*",),
    ("13.4.*",),
    ("12.1.*",),
    ("13.6.*",),
    ("12.4.*",),
    ("13.2.*",),
    ("13.1.*",),
    ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"),
)
GROUP_SECS = 900.0

NO_PYTHON = """\
THE AUTOBAHN SUITE DID NOT RUN: there is no Python 2.7, which it needs.
Put python2.7 on PATH, install it with pyenv, or name it: RTC_PYTHON2=/path/to/python2.7"""


@dataclass(frozen=True)
class Result:
    """How one case went: ``behavior`` of the messages, ``close`` of the closing handshake."""

    case: str
    behavior: str
    close: str
    report: Path


def find_python() -> str | None:
    """A Python 2.7 that runs, or None: RTC_PYTHON2, PATH, then the versions of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [os.environ.get("RTC_PYTHON2"), shutil.which("python2.7"), shutil.which("python2")]
    candidates += [str(path) for path in sorted(pyenv.glob("versions/2.7*/bin/python2.7"), reverse=True)]
    for candidate in candidates:
        if candidate and _is_python2(candidate):
            return candidate
    return None


def _is_python2(command: str) -> bool:
    try:
        done = subprocess.run(
            [command, "-c", "import ssl, sys; print(sys.version_info[:2] == (2, 7))"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return False
    return done.stdout.strip() == "True"


def install(python: str) -> Path:
    """The folder with the suite in it, made when it is not there yet."""
    version = _run([python, "-c", "import sys; print(sys.version)"]) + REQUIREMENTS.read_text() + PIP
    site = CACHE / hashlib.sha256(version.encode()).hexdigest()[:16]
    if site.is_dir():
        return site
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--dest={scratch}", PIP])
        (wheel,) = Path(scratch).glob("pip-*.whl")
        target = Path(scratch) / "site"
        options = ["--quiet", "--no-deps", "--no-python-version-warning", "--disable-pip-version-check"]
        # Unpacked, because pip runs a file of its own by its path where a package has a build system of its own.
        unpacked = Path(scratch) / "pip"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        pip = str(unpacked / "pip")
        _run([python, pip, "install", *options, f"--target={target}", f"--requirement={REQUIREMENTS}"])
        _run([python, "-E", "-s", str(BOOT), str(target), "--help"])
        target.rename(site)
    return site


def _run(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def run(python: str, site: Path, url: str, folder: Path) -> list[Result]:
    """Run every case against the echo server at ``url``, as many clients at a time as there are cores."""
    clients = max(2, min(4, len(os.sched_getaffinity(0))))
    with ThreadPoolExecutor(clients) as pool:
        runs = [pool.submit(_run_group, python, site, url, folder / str(at), group) for at, group in enumerate(GROUPS)]
        return [result for finished in runs for result in finished.result()]


def _run_group(python: str, site: Path, url: str, folder: Path, cases: tuple[str, ...]) -> list[Result]:
    folder.mkdir(parents=True)
    specification = {
        "outdir": str(folder),
        "servers": [{"agent": AGENT, "url": url}],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    path = folder / "specification.json"
    path.write_text(json.dumps(specification))
    command = [python, "-E", "-s", str(BOOT), str(site), "--mode=fuzzingclient", f"--spec={path}"]
    done = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=GROUP_SECS, check=False
    )
    index = folder / "index.json"
    if not index.exists():
        raise RuntimeError(f"the client wrote no report for {cases}:\n{done.stdout[-4000:].decode(errors='replace')}")
    return [
        Result(case, entry["behavior"], entry["behaviorClose"], folder / entry["reportfile"])
        for case, entry in json.loads(index.read_bytes())[AGENT].items()
    ]
