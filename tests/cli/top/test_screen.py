"""The terminal while `top` runs, by a small program in its place."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import pytest

from serving.commands import environment
from serving.terminals import Terminal

PROGRAM = """
import sys, time
from realtime_communication.cli.top.screen import Screen
with Screen() as screen:
    while True:
        screen.draw([f"size {screen.size}", "second"])
        key = screen.key(time.monotonic() + 60)
        print(f"key {key!r}", flush=True)
        if key == "q":
            sys.exit(3)
"""


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with Terminal([sys.executable, "-c", PROGRAM], environment(), columns=80, lines=24) as made:
        yield made


def test_keys_and_a_terminal_as_it_was(terminal: Terminal) -> None:
    place = terminal.until("size (80, 24)\x1b[K")
    assert "\x1b[?1049h\x1b[?25l" in terminal.shown and not terminal.restored()
    terminal.press("s")
    place = terminal.until("key 's'", behind=place)
    terminal.press("\x1b[A")
    place = terminal.until("key '\\x1b[A'", behind=place)
    terminal.press("q")
    terminal.until("\x1b[?25h\x1b[?1049l", behind=place)
    assert terminal.process.wait(60) == 3 and terminal.restored()
    assert "\x1b[2J" not in terminal.shown  # nothing is wiped in between: no flicker


def test_another_size(terminal: Terminal) -> None:
    place = terminal.until("size (80, 24)")
    terminal.resize(60, 10)
    terminal.process.send_signal(signal.SIGWINCH)
    terminal.until("size (60, 10)", behind=place)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_signals(terminal: Terminal, number: signal.Signals, status: int) -> None:
    place = terminal.until("second")
    terminal.process.send_signal(number)
    terminal.until("\x1b[?1049l", behind=place)
    assert terminal.process.wait(60) in (status, 1, 130) and terminal.restored()
