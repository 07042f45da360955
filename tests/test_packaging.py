"""The installed package: complete, and silent about the machine that built it."""

from importlib.metadata import distribution, files
from pathlib import Path

import realtime_communication

ROOT = Path(__file__).resolve().parents[1]
INSTALLED = Path(realtime_communication.__file__).parent


def test_every_module_of_the_core_is_compiled_and_has_its_stub() -> None:
    sources = sorted(path.relative_to(ROOT / "_core") for path in (ROOT / "_core").rglob("*.pyx"))
    assert sources
    for source in sources:
        folder = INSTALLED / "_core" / source.parent
        assert len(list(folder.glob(f"{source.stem}.*.so"))) == 1
        assert (folder / f"{source.stem}.pyi").exists()


def test_nothing_installed_names_the_folder_it_was_built_in() -> None:
    for path in INSTALLED.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            assert str(ROOT).encode() not in path.read_bytes(), path


def test_no_sources_of_the_build_are_installed() -> None:
    installed = files("realtime_communication")
    assert installed is not None
    assert [path for path in installed if path.suffix in (".pyx", ".c", ".h")] == []


def test_both_commands_are_installed() -> None:
    scripts = {entry.name: entry.value for entry in distribution("realtime_communication").entry_points}
    assert scripts == {
        "realtime_communication": "realtime_communication.cli.main:main",
        "rtc": "realtime_communication.cli.main:main",
    }


def test_the_version_is_the_package_s() -> None:
    assert realtime_communication.__version__ == distribution("realtime_communication").version
