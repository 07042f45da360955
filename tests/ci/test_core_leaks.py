"""Which leaks in a sanitizer's log are the data plane's."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "ci" / "core_leaks"
HEAD = "==7==ERROR: LeakSanitizer: detected memory leaks\n\n"
OURS = """Direct leak of 64 byte(s) in 1 object(s) allocated from:
    #0 0x7f0 in __interceptor_realloc (/lib/libasan.so+0x1)
    #1 0x7f1 in buffer_grow c/_core/base/memory.c:10
    #2 0x7f2 in append (/site/realtime_communication/_core/base/memory.cpython-311.so+0x2)
    #3 0x7f3 in PyObject_Vectorcall (/lib/libpython3.11.so+0x3)

"""
PYTHONS = """Indirect leak of 64 byte(s) in 1 object(s) allocated from:
    #0 0x7f0 in malloc (/lib/libasan.so+0x1)
    #1 0x7f1 in PyType_GenericAlloc (/lib/libpython3.11.so+0x3)
    #2 0x7f2 in append (/site/realtime_communication/_core/base/memory.cpython-311.so+0x2)

"""


def check(folder: Path, report: str) -> subprocess.CompletedProcess[str]:
    log = folder / "log.7"
    log.write_text(report)
    return subprocess.run([sys.executable, SCRIPT, log], check=False, capture_output=True, text=True, timeout=60)


def test_what_python_keeps_is_no_fault(tmp_path: Path) -> None:
    assert check(tmp_path, HEAD + PYTHONS).returncode == 0
    assert check(tmp_path, "").returncode == 0


def test_a_block_of_the_data_plane_is_one(tmp_path: Path) -> None:
    done = check(tmp_path, HEAD + PYTHONS + OURS)
    assert done.returncode == 1
    assert "buffer_grow" in done.stdout
    assert "PyType_GenericAlloc" not in done.stdout


def test_any_other_report_is_a_fault(tmp_path: Path) -> None:
    assert check(tmp_path, "==7==ERROR: AddressSanitizer: heap-use-after-free\n").returncode == 1
