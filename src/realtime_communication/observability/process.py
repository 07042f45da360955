"""What the system says about this process: memory, processor time, files (proc(5)).

`prometheus_client` has a collector for this. It lists every open file at each scrape, which with a hundred thousand
connections holds up the loop; the number of files is read here as one figure where the kernel gives it (since 6.2).
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from typing import Final

import msgspec

_FILES: Final = "/proc/self/fd"
_START_FIELD: Final = 19  # `starttime` of /proc/self/stat, counted from behind the command's name


class ProcessReading(msgspec.Struct, frozen=True):
    """Memory in bytes, times in seconds; None where this system does not tell."""

    resident_bytes: int
    cpu_secs: float
    virtual_bytes: int | None = None
    open_files: int | None = None
    max_files: int | None = None
    threads: int | None = None


def read_process() -> ProcessReading:
    """The figures at this moment. Never raises OSError."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    virtual, threads = None, None
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = _stat_fields()
        threads, virtual = int(fields[17]), int(fields[20])
    return ProcessReading(
        resident_bytes=resident_bytes(),
        cpu_secs=time.process_time(),
        virtual_bytes=virtual,
        open_files=_open_files(),
        max_files=None if limit == resource.RLIM_INFINITY else limit,
        threads=threads,
    )


def resident_bytes() -> int:
    """Memory of this process that is in RAM (proc(5), statm); where there is no /proc, the highest it ever was."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def start_time() -> float | None:
    """When this process began, in seconds since the epoch; None where this system does not tell."""
    try:
        since_boot = int(_stat_fields()[_START_FIELD]) / os.sysconf("SC_CLK_TCK")
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def _stat_fields() -> list[str]:
    """Fields of /proc/self/stat from the third on: the command's name before them may hold spaces."""
    with open("/proc/self/stat", encoding="ascii", errors="replace") as stat:
        return stat.read().rpartition(")")[2].split()


def _open_files() -> int | None:
    try:
        return os.stat(_FILES).st_size or len(os.listdir(_FILES))
    except OSError:
        return None
