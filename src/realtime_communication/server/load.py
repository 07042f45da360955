"""How busy a worker is: the share of a core that its event loop's thread has had over the last seconds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

WINDOW: Final = 4  # measurements that a share spans


class LoadMeter:
    """Measured in the thread that calls it. `clock` and `used` tell seconds: of time, and of the thread's processor."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, used: Callable[[], float] = time.thread_time
    ) -> None:
        self._clock = clock
        self._used = used
        self._marks: deque[tuple[float, float]] = deque([(clock(), used())], maxlen=WINDOW)

    def measure(self) -> float:
        """The share since WINDOW measurements ago, from 0 to 1; to be called at even intervals."""
        now, used = self._clock(), self._used()
        since, used_then = self._marks[0]
        self._marks.append((now, used))
        return min(1.0, max(0.0, (used - used_then) / (now - since))) if now > since else 0.0
