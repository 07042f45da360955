"""The processor, and what else happens on the cores that are measured on."""

import os
import resource
from pathlib import Path

IDLE_FIELDS = (3, 4)
"""idle and iowait among the numbers of a `cpu` line (proc(5), stat)."""


class Watch:
    """Counts the CPU time that other programs take on some cores from its making on."""

    def __init__(self, cores: tuple[int, ...]) -> None:
        self._cores = cores
        self._start_busy, self._start_all = self._read()
        self._start_own = own_seconds()

    def foreign_share(self) -> float:
        """What others took so far, as a share of the cores' time. Our own children count once they have ended."""
        busy, together = self._read()
        own = own_seconds() - self._start_own
        passed = together - self._start_all
        return max(busy - self._start_busy - own, 0.0) / passed if passed > 0 else 0.0

    def _read(self) -> tuple[float, float]:
        """Busy and all time of the cores so far, seconds."""
        tick = 1 / os.sysconf("SC_CLK_TCK")
        names = {f"cpu{core}" for core in self._cores}
        busy = together = 0.0
        for line in Path("/proc/stat").read_text().splitlines():
            name, *numbers = line.split()
            if name in names:
                times = [int(number) * tick for number in numbers[:8]]
                together += sum(times)
                busy += sum(times) - sum(times[field] for field in IDLE_FIELDS)
        return busy, together


def processor() -> str:
    """The name the kernel has for it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def allow_many_files() -> None:
    """As many open files as this process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def own_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
