"""SIGHUP before the server can act on it.

Its default is to end the process. Whoever asks for a reload just after the start, such as a tool that wrote a file,
must not end the server: the signal is noted from early on, and the reload made when the server is ready for it.
"""

from __future__ import annotations

import signal
from types import FrameType


class _Noted:
    """Whether it came: one per process, like the signal's handler."""

    came = False


def hold_hang_ups() -> None:
    """Note SIGHUP from now on instead of ending by it. To be called in the main thread."""
    _Noted.came = False
    signal.signal(signal.SIGHUP, _note)


def take_hang_up() -> bool:
    """Whether one came since `hold_hang_ups` or the last call; to be asked once another handler is in place."""
    came, _Noted.came = _Noted.came, False
    return came


def _note(number: int, frame: FrameType | None) -> None:
    _Noted.came = True
