"""ci/check_layers on small trees: what it lets pass, and each kind of fault."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def check(root: Path, files: dict[str, str]) -> tuple[int, list[str]]:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    done = subprocess.run(
        [sys.executable, str(ROOT / "ci" / "check_layers"), str(root)], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def python(name: str) -> str:
    return f"src/realtime_communication/{name}"


def test_imports_that_point_down_pass(tmp_path: Path) -> None:
    status, faults = check(
        tmp_path,
        {
            python("errors.py"): "import logging\n",
            python("config/schema.py"): "from realtime_communication.errors import Error\n",
            python("config/loader.py"): "from realtime_communication.config import schema\n",
            python("server/worker.py"): "from realtime_communication._core.io.reactor import Reactor\n",
            "_core/io/reactor.pyx": "from realtime_communication._core.hub.hub cimport Hub\n",
            "_core/hub/hub.pxd": "from realtime_communication._core.wire.frames cimport Parser\n",
            "_core/wire/frames.pyx": "cimport realtime_communication._core.base.memory as m\nfrom libc cimport math\n",
            "_core/base/memory.pyx": "",
        },
    )
    assert (status, faults) == (0, [])


@pytest.mark.parametrize(
    ("importer", "statement", "fault"),
    [
        ("config/loader.py", "from realtime_communication.cli import main", "1: upward: config may not know cli"),
        (
            "config/loader.py",
            "def f():\n    import realtime_communication.auth.jwt",
            "2: upward: config may not know auth",
        ),
        ("auth/jwt.py", "from ..http.api import x", "1: upward: auth may not know http"),
        ("client/link.py", "from realtime_communication.observability import logs", "1: sideways: client and observ"),
        (
            "errors.py",
            "import realtime_communication._core.hub.hub",
            "1: sideways: errors and _core stand on one floor",
        ),
        ("misc/odd.py", "from realtime_communication import errors", "1: misc stands on no floor"),
        ("__init__.py", "from realtime_communication.client import link", "1: the package itself imports nothing"),
    ],
)
def test_python_faults(tmp_path: Path, importer: str, statement: str, fault: str) -> None:
    names = ("cli/main.py", "auth/jwt.py", "http/api.py", "observability/logs.py", "client/link.py", "errors.py")
    files = {python(name): "" for name in names}
    status, faults = check(tmp_path, {**files, python(importer): statement + "\n"})
    assert status == 1
    assert [line for line in faults if line.startswith(f"{python(importer)}:{fault}")] == faults
    assert len(faults) == 1


@pytest.mark.parametrize(
    ("importer", "statement", "fault"),
    [
        (
            "wire/frames.pyx",
            "from realtime_communication._core.hub.hub cimport Hub",
            "1: upward: wire may not know hub",
        ),
        ("wire/frames.pxd", "cimport realtime_communication._core.io.reactor", "1: upward: wire may not know io"),
        ("base/memory.pyi", "from realtime_communication._core.wire import utf8", "1: upward: base may not know wire"),
        (
            "wire/utf8.pyx",
            "from realtime_communication._core.wire cimport (\n    frames,\n)",
            "1: sideways: _core.wire.utf8",
        ),
        (
            "base/memory.pyx",
            "\nfrom realtime_communication.config import schema",
            "2: upward: _core may not know config",
        ),
    ],
)
def test_cython_faults(tmp_path: Path, importer: str, statement: str, fault: str) -> None:
    files = {f"_core/{name}.pyx": "" for name in ("hub/hub", "io/reactor", "wire/frames", "wire/utf8", "base/memory")}
    files[python("config/schema.py")] = ""
    status, faults = check(tmp_path, {**files, f"_core/{importer}": statement + "\n"})
    assert status == 1
    assert len(faults) == 1
    assert faults[0].startswith(f"_core/{importer}:{fault}")


def test_a_cycle_of_cimports_is_found(tmp_path: Path) -> None:
    status, faults = check(
        tmp_path,
        {
            "_core/hub/hub.pxd": "from realtime_communication._core.hub.driver cimport Driver\n",
            "_core/hub/memory_driver.pyx": "from realtime_communication._core.hub.hub cimport Hub\n",
            "_core/hub/hub.pyx": "from realtime_communication._core.hub.memory_driver cimport MemoryDriver\n",
            "_core/hub/driver.pyx": "",
        },
    )
    assert (status, faults) == (1, ["import cycle: _core.hub.hub, _core.hub.memory_driver"])


def test_a_late_import_closes_a_cycle_and_a_typing_only_one_does_not(tmp_path: Path) -> None:
    late = "def f():\n    from realtime_communication.client import link\n"
    typing_only = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from realtime_communication.client import link\n"
    )
    files = {python("client/link.py"): "import realtime_communication.client.events\n"}
    assert check(tmp_path, {**files, python("client/events.py"): typing_only}) == (0, [])
    assert check(tmp_path, {**files, python("client/events.py"): late}) == (
        1,
        ["import cycle: client.events, client.link"],
    )
