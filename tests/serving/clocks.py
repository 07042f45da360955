"""A wall clock for server processes that the test can set, by a library that is loaded before the C library.

    with wall_clock() as clock, started(1, settings, environment=clock.environment) as servers:
        clock.jump(3600)

Only the wall clock is changed: `clock_gettime(CLOCK_REALTIME)`, `gettimeofday` and `time`. The monotonic clock goes on
as it is, and so do the clocks of other processes, Redis's among them.
"""

import contextlib
import mmap
import struct
from collections.abc import Iterator

from serving.preloaded import preloaded

HOUR = 3600
YEAR = 365 * 24 * HOUR

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset;  /* seconds, the first of the shared words */
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("RTC_TEST_WORDS");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *found = file < 0 ? MAP_FAILED : mmap(0, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    if (file >= 0)
        close(file);
    if (found != MAP_FAILED)
        offset = found;
}

static int64_t ahead(void) {
    return offset ? __atomic_load_n(offset, __ATOMIC_RELAXED) : 0;
}

static int ask(clockid_t clock, struct timespec *out) {
    if (!real_clock_gettime)
        real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    if (!real_clock_gettime)
        return (int) syscall(SYS_clock_gettime, clock, out);
    return real_clock_gettime(clock, out);
}

int clock_gettime(clockid_t clock, struct timespec *out) {
    int result = ask(clock, out);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        out->tv_sec += ahead();
    return result;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    (void) zone;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}
"""


class WallClock:
    """That of the processes started with `environment`: so many seconds ahead of the true one."""

    def __init__(self, environment: dict[str, str], memory: mmap.mmap) -> None:
        self.environment = environment
        self._memory = memory

    @property
    def ahead_secs(self) -> int:
        """Less than 0: it is behind."""
        (secs,) = struct.unpack("<q", self._memory[:8])
        return int(secs)

    def jump(self, secs: int) -> None:
        """Set it forward, or back."""
        self._memory[:8] = struct.pack("<q", self.ahead_secs + secs)


@contextlib.contextmanager
def wall_clock() -> Iterator[WallClock]:
    """A clock that goes right until it is told otherwise."""
    with preloaded(SOURCE) as (environment, memory):
        yield WallClock(environment, memory)
