"""A command on a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

WAIT_SECS = 60.0


class Terminal:
    """A command with a terminal; ``with`` starts and ends it. ``shown`` is all it has written so far."""

    def __init__(self, command: Sequence[str | Path], env: Mapping[str, str], *, columns: int, lines: int) -> None:
        self._own, self._other = pty.openpty()
        self.resize(columns, lines)
        self.modes = termios.tcgetattr(self._other)
        self.shown = ""
        self.process = subprocess.Popen(
            command, env=dict(env), stdin=self._other, stdout=self._other, stderr=self._other, start_new_session=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._own)
        os.close(self._other)

    def resize(self, columns: int, lines: int) -> None:
        """Another size; the command gets SIGWINCH by hand, as it has no session on this terminal."""
        fcntl.ioctl(self._own, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._own, keys.encode())

    def until(self, text: str, *, behind: int = 0) -> int:
        """Wait until it has written `text` somewhere behind that place; returns where the text ends."""
        deadline = time.monotonic() + WAIT_SECS
        while (place := self.shown.find(text, behind)) < 0:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} is not in what ends with {self.shown[behind:][-2000:]!r}"
            if select.select([self._own], [], [], left)[0]:
                self.shown += os.read(self._own, 65_536).decode("utf-8", "replace")
        return place + len(text)

    def restored(self) -> bool:
        """Whether the terminal's modes are those of the beginning."""
        return termios.tcgetattr(self._other) == self.modes
