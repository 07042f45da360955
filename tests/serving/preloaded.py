"""Libraries that are loaded into a server before the C library, and listen to the test in a file that both have mapped.

Compiled anew each time: `cc` is needed.
"""

import contextlib
import mmap
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

WORDS = 16


@contextlib.contextmanager
def preloaded(source: str) -> Iterator[tuple[dict[str, str], mmap.mmap]]:
    """The environment of servers that load it, and WORDS words of 64 bits, 0 at first, that they share with the test.

    `source` finds them in the file that the variable RTC_TEST_WORDS names.
    """
    with tempfile.TemporaryDirectory(prefix="rtc-preload-") as name:
        folder = Path(name)
        code, library, path = (folder / each for each in ("preload.c", "preload.so", "words"))
        code.write_text(source)
        command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(code), "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"the library does not compile: {done.stderr}"
        path.write_bytes(bytes(8 * WORDS))
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 8 * WORDS) as memory:
            yield {"LD_PRELOAD": str(library), "RTC_TEST_WORDS": str(path)}, memory
