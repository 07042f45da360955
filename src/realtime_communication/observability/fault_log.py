"""Lines about what peers do wrong: some in a second, however many peers there are, and how many were left out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from realtime_communication.observability.logs import EventLogger

LOGGED_EACH_SECOND: Final = 10  # faults with a line of their own; the others are counted


class FaultLog:
    """Logs one event by `log`, with fields, at most LOGGED_EACH_SECOND times in a second of `clock`."""

    def __init__(self, log: EventLogger, event: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._event = event
        self._clock = clock
        self._second = 0
        self._lines = 0
        self._left_out = 0

    def tell(self, **fields: object) -> None:
        """It has happened once more. `not_logged` says how often it did so without a line, since the last one."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= LOGGED_EACH_SECOND:
            self._left_out += 1
            return
        self._lines += 1
        left_out, self._left_out = self._left_out, 0
        self._log.info(self._event, **fields, **({"not_logged": left_out} if left_out else {}))
