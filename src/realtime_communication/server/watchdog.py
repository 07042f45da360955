"""Says what holds the event loop up: a callback of an operator's own that blocks, above all.

While one runs nobody is served, and nothing on the loop can say so. A thread sees that the loop has not turned for a
while and logs where it is: one line with the stack, as it is at that moment. Further stalls within a minute are only
counted, and the next line has their number. Code that keeps the interpreter's lock for itself holds that thread up
too: it speaks when the lock is free.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Final

from realtime_communication.observability.logs import get_logger

STALLED_SECS: Final = 2.0  # without a turn of the loop
LOOK_SECS: Final = 0.5
TOLD_EACH_SECS: Final = 60.0
MAX_FRAMES: Final = 16  # of the stack, the innermost

_log = get_logger(__name__)


class Stalls:
    """Decides when a stall is to be told, and counts those that are not. All times are of one monotonic clock."""

    def __init__(self, now: float) -> None:
        self.untold = 0
        """Stalls since the last one that was told."""
        self._turned = now
        self._looked = now
        self._told = -TOLD_EACH_SECS
        self._stalled = False

    def turn(self, now: float) -> None:
        """The loop turns."""
        self._turned = now
        self._stalled = False

    def look(self, now: float) -> float | None:
        """For how many seconds the loop has not turned, when that is to be told now. To be called every LOOK_SECS.

        A look that comes late itself tells nothing: the whole process did not run.
        """
        late = now - self._looked > LOOK_SECS + STALLED_SECS / 2
        self._looked = now
        if late:
            self._turned = max(self._turned, now)
        secs = now - self._turned
        if secs < STALLED_SECS or self._stalled:
            return None
        self._stalled = True
        if now - self._told < TOLD_EACH_SECS:
            self.untold += 1
            return None
        self._told = now
        return secs


class Watchdog:
    """Watches the loop that `run` runs on, until that task is cancelled."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock

    async def run(self) -> None:
        """To be run as a service."""
        stalls = Stalls(self._clock())
        stop = threading.Event()
        watching = (stalls, threading.get_ident(), stop)
        threading.Thread(target=self._watch, args=watching, name="watchdog", daemon=True).start()
        try:
            while True:
                stalls.turn(self._clock())
                await asyncio.sleep(LOOK_SECS)
        finally:
            stop.set()

    def _watch(self, stalls: Stalls, loop_thread: int, stop: threading.Event) -> None:
        while not stop.wait(LOOK_SECS):
            secs = stalls.look(self._clock())
            if secs is None:
                continue
            untold, stalls.untold = stalls.untold, 0
            _log.error(
                "the event loop is held up",
                seconds=round(secs, 1),
                where=stack_of(sys._current_frames().get(loop_thread)),
                **({"not_logged": untold} if untold else {}),
            )


def stack_of(frame: FrameType | None) -> str:
    """The innermost frames, the innermost first: file, line and function of each."""
    frames = itertools.islice(traceback.walk_stack(frame), MAX_FRAMES) if frame is not None else ()
    return " < ".join(f"{short(each.f_code.co_filename)}:{line} {each.f_code.co_name}" for each, line in frames)


def short(path: str) -> str:
    """The file and its folder: a line of the log has a bound."""
    return "/".join(path.split("/")[-2:])
