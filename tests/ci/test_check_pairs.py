"""ci/check_pairs on small trees."""

import runpy
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "ci" / "check_pairs"


def check(root: Path, *names: str) -> tuple[int, list[str]]:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    done = subprocess.run([sys.executable, str(SCRIPT), str(root)], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_complete_modules_pass(tmp_path: Path) -> None:
    result = check(
        tmp_path,
        "_core/__init__.py",
        "_core/wire/frames.pyx",
        "_core/wire/frames.pxd",
        "_core/wire/frames.pyi",
        "tests/core/wire/test_frames.py",
        "src/realtime_communication/__init__.py",
        "src/realtime_communication/errors.py",
        "tests/test_errors.py",
        "src/realtime_communication/config/loader.py",
        "tests/config/test_loader.py",
    )
    assert result == (0, [])


def test_each_missing_file_is_named(tmp_path: Path) -> None:
    result = check(
        tmp_path, "_core/wire/frames.pyx", "tests/wire/test_frames.py", "src/realtime_communication/config/loader.py"
    )
    assert result == (
        1,
        [
            "_core/wire/frames.pyx has no _core/wire/frames.pxd",
            "_core/wire/frames.pyx has no _core/wire/frames.pyi",
            "_core/wire/frames.pyx has no tests/core/wire/test_frames.py",
            "src/realtime_communication/config/loader.py has no tests/config/test_loader.py",
        ],
    )


def test_an_exemption_without_need_is_a_fault(tmp_path: Path) -> None:
    missing_beside_python = runpy.run_path(str(SCRIPT))["missing_beside_python"]
    check(tmp_path, "src/realtime_communication/a.py", "src/realtime_communication/b.py", "tests/test_b.py")
    reasons = {f"src/realtime_communication/{name}.py": "reason" for name in "ab"}
    assert missing_beside_python(tmp_path, reasons) == [
        "ci/check_pairs exempts src/realtime_communication/b.py for nothing"
    ]
