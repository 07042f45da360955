"""Stacks of a process, as its profiler sees them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from realtime_communication.observability import sampling_profiler
from realtime_communication.observability.sampling_profiler import (
    COMPILED,
    OTHER,
    WAITING,
    Profile,
    SamplingProfiler,
    by_time,
    collapsed,
)

Run = Callable[[Callable[[], None]], int]


def spin(stop: threading.Event) -> None:
    while not stop.is_set():
        sum(range(100))


@pytest.fixture
def thread() -> Iterator[Callable[..., int]]:
    """Runs a function with an event in a thread of this name until the test is over; the thread's ident."""
    stop = threading.Event()
    started: list[threading.Thread] = []

    def start(function: Callable[[threading.Event], object], name: str) -> int:
        started.append(threading.Thread(target=function, args=(stop,), name=name))
        started[-1].start()
        assert started[-1].ident is not None
        return started[-1].ident

    yield start
    stop.set()
    for each in started:
        each.join()


def look(loop_thread: int, seconds: float = 0.3, hz: float = 200.0) -> Profile:
    return SamplingProfiler(loop_thread).run(seconds, hz, threading.Event())


def of(profile: Profile, name: str) -> dict[tuple[str, ...], int]:
    return {stack: value for stack, value in profile.stacks.items() if stack[0] == name}


def test_what_works_is_seen_where_it_works(thread: Callable[..., int]) -> None:
    profile = look(thread(spin, "busy"))
    stacks = of(profile, "busy")
    assert profile.samples > 0
    assert any("spin (" in frame and "test_sampling_profiler.py:" in frame for stack in stacks for frame in stack)
    assert all(stack[1].startswith("Thread._bootstrap (threading.py:") for stack in stacks)
    assert sum(stacks.values()) <= profile.seconds * 1_000_000


def test_what_waits_is_marked(thread: Callable[..., int]) -> None:
    profile = look(thread(threading.Event.wait, "idle"))
    stacks = of(profile, "idle")
    assert stacks
    assert any(stack[-1] == WAITING and "Condition.wait (threading.py:" in stack[-2] for stack in stacks)
    # Another thread than the loop's is not asked for its processor time.
    thread(spin, "busy")
    profile = look(threading.main_thread().ident or 0)
    assert {stack[-1] for stack in of(profile, "idle")} == {WAITING}


def test_processor_time_that_nobody_saw_is_compiled_code() -> None:
    profiler = SamplingProfiler(threading.get_ident())
    profiler._stacks = {("loop", "run", "callback"): 100, ("other", "f"): 500}
    profiler._unseen = {("loop", "run"): 600, ("loop", "select"): 300}
    profiler._share_unseen(400)
    assert profiler._stacks == {
        ("loop", "run", "callback"): 100,
        ("other", "f"): 500,
        ("loop", "run", COMPILED): 200,
        ("loop", "run", WAITING): 400,
        ("loop", "select", COMPILED): 100,
        ("loop", "select", WAITING): 200,
    }


@pytest.mark.parametrize(
    ("cpu", "expected"), [(0, {WAITING: 10}), (1000, {COMPILED: 10}), (4, {COMPILED: 4, WAITING: 6})]
)
def test_shares_never_exceed_what_was_not_seen(cpu: int, expected: dict[str, int]) -> None:
    profiler = SamplingProfiler(threading.get_ident())
    profiler._unseen = {("loop",): 10}
    profiler._share_unseen(cpu)
    assert {stack[-1]: value for stack, value in profiler._stacks.items()} == expected


def test_it_ends_when_told() -> None:
    stop = threading.Event()
    stop.set()
    profile = SamplingProfiler(threading.get_ident()).run(3600, 1000, stop)
    assert (profile.samples, profile.stacks) == (0, {})


def test_the_interpreter_switches_as_before_afterwards(thread: Callable[..., int]) -> None:
    before = sys.getswitchinterval()
    look(thread(spin, "busy"), seconds=0.05)
    assert sys.getswitchinterval() == before


def test_the_thread_that_looks_is_not_seen(thread: Callable[..., int]) -> None:
    profile = look(thread(spin, "busy"), seconds=0.1)
    assert not any("SamplingProfiler" in frame for stack in profile.stacks for frame in stack)


class TestBounds:
    def test_depth(self, thread: Callable[..., int]) -> None:
        def deep(stop: threading.Event, left: int = 400) -> None:
            if left:
                deep(stop, left - 1)
            else:
                spin(stop)

        profile = look(thread(deep, "deep"))
        assert max(len(stack) for stack in of(profile, "deep")) == 1 + sampling_profiler.MAX_DEPTH

    def test_stacks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sampling_profiler, "MAX_STACKS", 2)
        profiler = SamplingProfiler(threading.get_ident())
        for number in range(10):
            profiler._add(profiler._stacks, ("loop", str(number)), 1)
        profiler._add(profiler._stacks, ("loop", "1"), 1)
        assert profiler._stacks == {("loop", "0"): 1, ("loop", "1"): 2, ("loop", OTHER): 8}

    def test_threads(self, thread: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sampling_profiler, "MAX_THREADS", 1)
        thread(threading.Event.wait, "idle")
        profile = look(thread(spin, "busy"))
        assert {stack[0] for stack in profile.stacks} == {"busy"}


def test_collapsed_lines() -> None:
    profile = Profile(1.0, 100.0, 3, {("t", "a;b\n"): 1, ("t", "c (x.py:1)"): 5})
    assert collapsed(profile) == "t;c (x.py:1) 5\nt;a_b_ 1\n"
    assert [value for _, value in by_time(profile)] == [5, 1]
