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
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "benchmarks"
PYTHON = CACHE / "venv" / "bin" / "python"
REQUIREMENTS = ROOT / "benchmarks" / "requirements.txt"
PEERS = ROOT / "benchmarks" / "peers"
PACKAGES = PEERS / "package.json"
NODE_MODULES = CACHE / "node" / "node_modules"
GO_PROGRAMS = CACHE / "go"
CENTRIFUGO = GO_PROGRAMS / "centrifugo"
CENTRIFUGO_MODULE = "github.com/centrifugal/centrifugo/v6@latest"
NATS_MODULE = "github.com/nats-io/nats-server/v2@latest"
NATS_PACKAGE = "nats-server"
HEADERS = {"zlib.h": "zlib1g-dev", "zstd.h": "libzstd-dev", "lz4frame.h": "liblz4-dev"}
BUILD_REQUIREMENTS = ("scikit-build-core>=0.11", "cython>=3.1", "cmake", "ninja")


def everything() -> None:
    """Prepares for a full run. Raises CalledProcessError when a package cannot be had or something does not compile."""
    CACHE.mkdir(parents=True, exist_ok=True)
    debian_packages()
    compiled_parts(CACHE)
    environment()
    product()
    for peer in (node_packages, centrifugo, nats):
        optional(peer)


def run_module(module: str) -> NoReturn:
    """Prepares, unless only help is asked for, and goes on as a module of this folder, with the tests' own at hand: the
    swarm, its checker, clients on plain sockets. Raises CalledProcessError."""
    os.chdir(ROOT)
    if not {"-h", "--help"} & set(sys.argv[1:]) or not PYTHON.exists():
        everything()
    os.environ["PYTHONPATH"] = str(ROOT / "tests")
    os.execv(PYTHON, [str(PYTHON), "-m", module, *sys.argv[1:]])


def optional(peer: Callable[[], None]) -> None:
    """Makes a peer that a machine may do without: the report then says what is missing."""
    try:
        peer()
    except (OSError, subprocess.CalledProcessError) as problem:
        print(f"{peer.__name__}: {problem}", file=sys.stderr, flush=True)


def debian_packages() -> None:
    """Installs the compiler, what the load generator links and libuv (for socketify), where they are missing."""
    wanted = [package for package in ("gcc", "make") if shutil.which(package) is None]
    wanted += [package for header, package in HEADERS.items() if not Path("/usr/include", header).exists()]
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
    for folder in ("_core", "src", "benchmarks/load"):
        sources += [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    if changed("product", sources):
        pip("--no-build-isolation", f"-Cbuild-dir={CACHE / 'build'}", str(ROOT))
        remember("product", sources)


def node_packages() -> None:
    """Installs the packages of the Node.js peers, again when their list has changed."""
    if shutil.which("npm") is not None and (changed("node", [PACKAGES]) or not NODE_MODULES.is_dir()):
        folder = NODE_MODULES.parent
        folder.mkdir(exist_ok=True)
        shutil.copy(PACKAGES, folder)
        run("npm", "install", "--silent", "--no-audit", "--no-fund", cwd=folder)
        remember("node", [PACKAGES])


def centrifugo() -> None:
    """Builds Centrifugo, which takes some minutes the first time."""
    if not CENTRIFUGO.exists() and shutil.which("go") is not None:
        go_program(CENTRIFUGO_MODULE)


def nats() -> None:
    """Gets nats-server where there is none: unpacks Debian's package here, which starts no service, or builds it."""
    if Path(nats_server()).exists():
        return
    if shutil.which("apt-get") is not None:
        folder = CACHE / "debian"
        folder.mkdir(exist_ok=True)
        try:
            run("apt-get", "download", NATS_PACKAGE, cwd=folder)
            for package in folder.glob(f"{NATS_PACKAGE}_*.deb"):
                run("dpkg-deb", "--extract", str(package), str(folder))
            return
        except subprocess.CalledProcessError as problem:
            print(f"nats: {problem}", file=sys.stderr, flush=True)
    if shutil.which("go") is not None:
        go_program(NATS_MODULE)


def nats_server() -> str:
    """Where nats-server is, or would be."""
    places = [CACHE / "debian" / "usr" / "sbin" / "nats-server", Path("/usr/sbin/nats-server")]
    found = shutil.which("nats-server") or next((str(place) for place in places if place.exists()), None)
    return found or str(GO_PROGRAMS / "nats-server")


def go_program(module: str) -> None:
    print(f"building {module}", file=sys.stderr, flush=True)
    run("go", "install", module, environment={"GOBIN": str(GO_PROGRAMS)})


def run(*command: str, cwd: Path = ROOT, environment: Mapping[str, str] | None = None) -> None:
    """Raises OSError, CalledProcessError."""
    variables = {**os.environ, **(environment or {})}
    subprocess.run(command, check=True, stdout=sys.stderr, cwd=cwd, env=variables)


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
