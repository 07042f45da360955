"""Where the time of a process goes: the stacks of its threads, looked at many times a second from a thread of its own.

What it sees are Python's frames, at the moments when the interpreter lets another thread run. So that those are not
only the moments when the loop goes to sleep, threads are switched faster than usual meanwhile. Each stack is given the
time since the look before, not a count of one: a look may come late.

Compiled code (the data plane, uvloop) has no frames, and mostly nobody can look while it runs. What it took is reckoned
at the end: the time the loop's thread had a processor, less the time in stacks that were seen.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable
from types import CodeType, FrameType
from typing import Final

import msgspec

MAX_STACKS: Final = 20_000
"""Different stacks that are kept apart; later ones are put together per thread."""

MAX_DEPTH: Final = 200  # frames of a stack, the innermost; those outside of them are left out
MAX_THREADS: Final = 64

WAITING: Final = "(waiting)"
COMPILED: Final = "(compiled code)"
OTHER: Final = "(further stacks)"

Stack = tuple[str, ...]

# Functions that wait for work while they are the innermost; those of a loop may be running compiled code too.
_WAITING_IN: Final = frozenset(
    {
        ("asyncio/base_events.py", "_run_once"),
        ("asyncio/base_events.py", "run_forever"),
        ("asyncio/base_events.py", "run_until_complete"),
        ("asyncio/runners.py", "run"),
        ("concurrent/futures/thread.py", "_worker"),
        ("queue.py", "get"),
        ("selectors.py", "select"),
        ("threading.py", "_wait_for_tstate_lock"),
        ("threading.py", "join"),
        ("threading.py", "wait"),
    }
)
_SWITCH_SECS: Final = 0.000_01  # the interpreter's own is 5 ms, longer than most turns of the loop
_MICROSECONDS: Final = 1_000_000


class Profile(msgspec.Struct):
    """What was seen. A stack begins with its thread's name and ends with the innermost frame."""

    seconds: float
    hz: float
    samples: int
    stacks: dict[Stack, int]  # microseconds


class SamplingProfiler:
    """Looks at the threads of this process. `loop_thread` is the ident of the event loop's, which must outlive it."""

    def __init__(self, loop_thread: int) -> None:
        self._loop_thread = loop_thread
        self._labels: dict[CodeType, tuple[str, bool]] = {}
        self._stacks: dict[Stack, int] = {}
        self._unseen: dict[Stack, int] = {}  # of the loop's thread, where it waits or runs compiled code

    def run(self, seconds: float, hz: float, stop: threading.Event) -> Profile:
        """Look for `seconds`, or until `stop` is set. Blocks: to be called in a thread of its own, once."""
        usual = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_SECS)
        try:
            return self._run(seconds, hz, stop)
        finally:
            sys.setswitchinterval(usual)

    def _run(self, seconds: float, hz: float, stop: threading.Event) -> Profile:
        cpu_clock = time.pthread_getcpuclockid(self._loop_thread)
        cpu = time.clock_gettime(cpu_clock)
        started = last = time.perf_counter()
        samples = 0
        due = started + 1 / hz
        while due <= started + seconds and not stop.wait(max(due - time.perf_counter(), 0)):
            now = time.perf_counter()
            self._look(round((now - last) * _MICROSECONDS))
            samples += 1
            last = now
            due = max(due + 1 / hz, time.perf_counter())  # what could not be looked at in time is not made up for
        self._share_unseen(round((time.clock_gettime(cpu_clock) - cpu) * _MICROSECONDS))
        return Profile(time.perf_counter() - started, hz, samples, self._stacks)

    def _look(self, value: int) -> None:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        own = threading.get_ident()
        threads = [item for item in sys._current_frames().items() if item[0] != own]
        # The loop's thread first, so that it is among those that are looked at.
        threads.sort(key=lambda item: item[0] != self._loop_thread)
        for ident, frame in threads[:MAX_THREADS]:
            frames, waits = self._frames_of(frame)
            stack = (names.get(ident, f"thread {ident}"), *frames)
            if not waits:
                self._add(self._stacks, stack, value)
            elif ident == self._loop_thread:
                self._add(self._unseen, stack, value)
            else:
                self._add(self._stacks, (*stack, WAITING), value)

    def _share_unseen(self, cpu: int) -> None:
        """Split what was not seen of the loop's thread, which had a processor for `cpu` microseconds."""
        unseen = sum(self._unseen.values())
        names = {stack[0] for stack in self._unseen}
        seen = sum(value for stack, value in self._stacks.items() if stack[0] in names)
        working = min(max(cpu - seen, 0), unseen)
        for stack, value in self._unseen.items():
            part = value * working // unseen if unseen else 0
            self._add(self._stacks, (*stack, COMPILED), part)
            self._add(self._stacks, (*stack, WAITING), value - part)

    def _add(self, stacks: dict[Stack, int], stack: Stack, value: int) -> None:
        if value <= 0:
            return
        if stack not in stacks and len(stacks) >= MAX_STACKS:
            stack = (stack[0], OTHER)
        stacks[stack] = stacks.get(stack, 0) + value

    def _frames_of(self, innermost: FrameType) -> tuple[list[str], bool]:
        labels: list[str] = []
        _, waits = self._label(innermost.f_code)
        frame: FrameType | None = innermost
        while frame is not None and len(labels) < MAX_DEPTH:
            labels.append(self._label(frame.f_code)[0])
            frame = frame.f_back
        labels.reverse()
        return labels, waits

    def _label(self, code: CodeType) -> tuple[str, bool]:
        known = self._labels.get(code)
        if known is None:
            path = _short(code.co_filename)
            label = f"{code.co_qualname} ({path}:{code.co_firstlineno})"
            known = self._labels[code] = (label, (path, code.co_name) in _WAITING_IN)
        return known


def collapsed(profile: Profile) -> str:
    """One stack a line, frames separated by `;`, then its microseconds: what flame graph tools read."""
    lines = (f"{';'.join(map(_collapsible, stack))} {value}\n" for stack, value in by_time(profile))
    return "".join(lines)


def by_time(profile: Profile) -> Iterable[tuple[Stack, int]]:
    """The stacks, those that took most time first."""
    return sorted(profile.stacks.items(), key=lambda item: (-item[1], item[0]))


def _collapsible(label: str) -> str:
    return "".join(char if char.isprintable() and char != ";" else "_" for char in label)


def _short(filename: str) -> str:
    """The path below the folder it is imported from."""
    folders = [folder for folder in sys.path if folder and filename.startswith(folder.rstrip("/") + "/")]
    return filename[len(max(folders, key=len).rstrip("/")) + 1 :] if folders else filename
