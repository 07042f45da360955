"""Python's cyclic garbage collector, out of the way of the messages.

A collection walks every container object of the process while nothing else runs. Messages make no cycles, so it is
turned off, what exists after the start is frozen (never walked again), and it runs at set times: every
`performance.memory.gc_interval_secs`, and when resident memory is above `gc_threshold_mb`.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Final

from realtime_communication.observability.logs import get_logger

CHECK_SECS: Final = 5.0
# Above the threshold, memory that is no garbage must not make the collector run all the time.
MIN_PAUSE_SECS: Final = 30.0
BYTES_PER_MB: Final = 1 << 20

_log = get_logger(__name__)


class Collector:
    """Runs collections at the times above, in `run`, until that task is cancelled."""

    def __init__(self, interval_secs: float, threshold_mb: int, resident_bytes: Callable[[], int]) -> None:
        self._interval = interval_secs
        self._threshold = threshold_mb * BYTES_PER_MB
        self._resident = resident_bytes
        self._last = 0.0

    async def run(self) -> None:
        """Freeze what is there, then collect from time to time. Restores the automatic collector at the end."""
        gc.collect()
        gc.freeze()
        gc.disable()
        self._last = time.monotonic()
        try:
            while True:
                await asyncio.sleep(min(CHECK_SECS, self._interval))
                if self.is_due(time.monotonic()):
                    self._collect()
        finally:
            gc.enable()
            gc.unfreeze()

    def is_due(self, now: float) -> bool:
        """Whether a collection should run at `now` (seconds of the monotonic clock)."""
        since = now - self._last
        return since >= self._interval or (since >= MIN_PAUSE_SECS and self._resident() > self._threshold)

    def _collect(self) -> None:
        started = time.perf_counter()
        found = gc.collect()
        self._last = time.monotonic()
        _log.debug("cycles collected", objects=found, duration_ms=round((time.perf_counter() - started) * 1000, 3))
