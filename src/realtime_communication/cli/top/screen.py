"""The terminal while `top` runs: another screen, single keys, its size; all as it was afterwards."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Sequence
from types import FrameType
from typing import Any, Final, Self

_ENTER: Final = "\x1b[?1049h\x1b[?25l"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_BEGIN: Final = "\x1b[?2026h\x1b[H"  # what follows appears at once, in terminals that know this
_END: Final = "\x1b[J\x1b[?2026l"
_LINE_END: Final = "\x1b[K"
_WIDTH, _HEIGHT = 80, 24  # of a terminal that does not tell
RESIZED: Final = "resized"
TERMINATED: Final = 128 + signal.SIGTERM


class Screen:
    """Use it as a context manager. `draw` puts lines in place of the last ones, without clearing in between."""

    def __init__(self) -> None:
        self._input = sys.stdin.fileno()
        self._modes: list[Any] = []
        self._typed = ""
        self._wake, self._woken = os.pipe()

    def __enter__(self) -> Self:
        self._modes = termios.tcgetattr(self._input)
        tty.setcbreak(self._input)
        for end in (self._wake, self._woken):
            os.set_blocking(end, False)
        signal.signal(signal.SIGWINCH, self._resized)
        signal.signal(signal.SIGTERM, _terminated)
        _write(_ENTER)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # the terminal may be gone
            _write(_LEAVE)
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._input, termios.TCSADRAIN, self._modes)
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(self._wake)
        os.close(self._woken)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in cells."""
        found = os.get_terminal_size(sys.stdout.fileno())  # variables may be of the time before it was resized
        return found.columns or _WIDTH, found.lines or _HEIGHT

    def draw(self, lines: Sequence[str]) -> None:
        """Show the lines from the top. Raises BrokenPipeError and OSError when the terminal is gone."""
        _write(_BEGIN + f"{_LINE_END}\n".join(lines) + _LINE_END + _END)

    def key(self, until: float) -> str:
        """The next key that is pressed, RESIZED, or nothing when it is `until` of the monotonic clock."""
        if self._typed:
            return self._next_key()
        ready, _, _ = select.select([self._input, self._wake], [], [], max(0.0, until - time.monotonic()))
        if self._wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 1024)
            return RESIZED
        if self._input in ready:
            data = os.read(self._input, 256)
            self._typed = data.decode("utf-8", "replace") if data else "q"  # its end: the terminal was closed
            return self._next_key()
        return ""

    def _next_key(self) -> str:
        """Of what was typed ahead. A key that sends a sequence, such as an arrow, takes what has come with it."""
        count = len(self._typed) if self._typed.startswith("\x1b") else 1
        key, self._typed = self._typed[:count], self._typed[count:]
        return key

    def _resized(self, _signal: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._woken, b"r")


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(TERMINATED)


def _write(text: str) -> None:
    data = text.encode("utf-8", "replace")
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]
