"""Memory that runs out in the data plane, at each of its allocations in turn: answers or closed connections, no crash,
no block left over, and everybody served once there is memory again.

What `operations.py` does runs in a process of its own, with `failing_malloc.c` in front of the C library. Only some of
the allocations are tried here; `python -m memory.operations` in `tests/`, with the same LD_PRELOAD, tries all.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from memory.scenarios import SCENARIOS

HERE = Path(__file__).parent
MOST = 40


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`failing_malloc.c`, compiled."""
    made = tmp_path_factory.mktemp("shim") / "failing_malloc.so"
    compiler = os.environ.get("CC", "cc")
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(made)]
    subprocess.run([compiler, *flags, str(HERE / "failing_malloc.c"), "-ldl"], check=True, timeout=60)
    return made


def run(shim: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with these arguments; freed memory is overwritten, so that nobody reads it unseen."""
    preload = f"{shim} {os.environ.get('LD_PRELOAD', '')}".strip()
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(HERE.parent)]))
    sanitizer = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
    added = {"LD_PRELOAD": preload, "PYTHONPATH": path, "MALLOC_PERTURB_": "165", "ASAN_OPTIONS": sanitizer}
    return subprocess.run(
        [sys.executable, *arguments],
        check=False,
        env={**os.environ, **added},
        capture_output=True,
        text=True,
        timeout=250,
    )


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_allocation_may_fail(shim: Path, name: str) -> None:
    done = run(shim, "-m", "memory.operations", "--most", str(MOST), name)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_an_allocation_that_fails_is_noticed(shim: Path) -> None:
    """That the shim reaches the data plane at all: without memory for it no client gets in."""
    code = (
        "from memory.operations import FOREVER, Allocations\n"
        "from core.hub.sans_io import make_hub\n"
        "allocations = Allocations()\n"
        "allocations.watch()\n"
        "server = make_hub(connection_pool_size=0)\n"
        "allocations.fail(1, FOREVER)\n"
        "try:\n"
        "    server.driver.connect()\n"
        "except MemoryError:\n"
        "    print('none left')\n"
    )
    done = run(shim, "-c", code)
    assert done.stdout == "none left\n", done.stderr
