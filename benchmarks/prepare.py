"""Makes what the measurements need: Debian packages, a virtual environment, the compiled parts.

Standard library only, since it runs before there is an environment.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "benchmarks"
PYTHON = CACHE / "venv" / "bin" / "python"
REQUIREMENTS = ROOT / "benchmarks" / "requirements.txt"
BUILD_REQUIREMENTS = ("scikit-build-core>=0.11", "cython>=3.1", "cmake", "ninja")


def everything() -> None:
    """Prepares for a full run. Raises CalledProcessError when a package cannot be had or something does not compile."""
    CACHE.mkdir(parents=True, exist_ok=True)
    debian_packages()
    compiled_parts(CACHE)
    environment()
    product()


def debian_packages() -> None:
    """Installs the compiler and libuv (which socketify loads) where they are missing."""
    wanted = [package for package in ("gcc", "make") if shutil.which(package) is None]
    try:
        ctypes.CDLL("libuv.so.1")
    except OSError:
        wanted.append("libuv1")
    if wanted:
        command = ["apt-get", "install", "-y", "--no-install-recommends", *wanted]
        subprocess.run(command if os.geteuid() == 0 else ["sudo", *command], check=True, stdout=sys.stderr)


def compiled_parts(out: Path) -> None:
    """Builds the load generator and the bare C loop into `out`."""
    for folder in ("load", "limit"):
        command = ["make", "-s", "-C", str(ROOT / "benchmarks" / folder), f"OUT={out}"]
        subprocess.run(command, check=True, stdout=sys.stderr)


def environment() -> None:
    """Makes the virtual environment and installs the requirements, again when their list has changed."""
    if not PYTHON.exists():
        venv.create(CACHE / "venv", with_pip=True)
    if changed("requirements", [REQUIREMENTS]):
        pip("-r", str(REQUIREMENTS), *BUILD_REQUIREMENTS)
        remember("requirements", [REQUIREMENTS])


def product() -> None:
    """Builds this tree's server and installs it, when its sources have changed."""
    sources = [ROOT / "pyproject.toml", ROOT / "CMakeLists.txt"]
    for folder in ("_core", "src"):
        sources += [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    if changed("product", sources):
        pip("--no-build-isolation", f"-Cbuild-dir={CACHE / 'build'}", str(ROOT))
        remember("product", sources)


def pip(*arguments: str) -> None:
    subprocess.run([str(PYTHON), "-m", "pip", "install", "-q", *arguments], check=True, stdout=sys.stderr)


def digest(files: Iterable[Path]) -> str:
    together = hashlib.sha256()
    for path in sorted(files):
        together.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return together.hexdigest()


def changed(name: str, files: Iterable[Path]) -> bool:
    mark = CACHE / f"{name}.sha256"
    return not mark.exists() or mark.read_text() != digest(files)


def remember(name: str, files: Iterable[Path]) -> None:
    (CACHE / f"{name}.sha256").write_text(digest(files))
