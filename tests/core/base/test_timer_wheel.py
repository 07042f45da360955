"""The timer wheel against a plain dict of deadlines."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication._core.base.timer_wheel import Alarms

thorough = settings(max_examples=200, deadline=None, derandomize=True)

SIZE = 12
numbers = st.integers(0, SIZE - 1)
delays = st.one_of(st.integers(-500, 2000), st.integers(0, 10**6), st.integers(0, 10**10))
steps = st.one_of(
    st.tuples(st.just("set"), numbers, delays),
    st.tuples(st.just("cancel"), numbers, st.just(0)),
    st.tuples(st.just("wait"), st.just(0), delays),
    st.tuples(st.just("take"), st.just(0), st.integers(0, 3)),
)


class ModelWheel:
    """Deadlines in ticks, looked through in full each time."""

    def __init__(self, now: int, tick: int) -> None:
        self.tick = tick
        self.seen = now // tick
        self.deadlines: dict[int, int] = {}

    def arm(self, number: int, deadline: int) -> None:
        tick = max(-(-deadline // self.tick), self.seen + 1)
        if self.deadlines.get(number) != tick:
            self.deadlines[number] = tick

    def due(self, now: int) -> set[int]:
        """The timers of the earliest tick that has come."""
        self.seen = max(self.seen, now // self.tick)
        first = min(self.deadlines.values(), default=self.seen + 1)
        return {number for number, tick in self.deadlines.items() if tick == first <= self.seen}


@thorough
@given(st.integers(0, 2**44), st.sampled_from([1, 10, 100, 1000]), st.lists(steps, max_size=60))
def test_does_what_the_model_does(now: int, tick: int, program: list[tuple[str, int, int]]) -> None:
    wheel = Alarms(now, tick, SIZE)
    model = ModelWheel(now, tick)
    for step, number, argument in program:
        if step == "set":
            deadline = max(0, now + argument)
            wheel.set(number, deadline)
            model.arm(number, deadline)
        elif step == "cancel":
            wheel.cancel(number)
            model.deadlines.pop(number, None)
        elif step == "wait":
            now = max(0, now + argument)
        for _ in range(argument if step == "take" else 100 if step == "wait" else 0):
            due = model.due(now)
            fired = wheel.expired(now)
            if fired is None:
                assert not due
                break
            assert fired in due
            del model.deadlines[fired]
        assert wheel.count == len(model.deadlines)
        assert {n for n in range(SIZE) if wheel.is_set(n)} == set(model.deadlines)
        check_next(wheel, model, now)


def check_next(wheel: Alarms, model: ModelWheel, now: int) -> None:
    wait = wheel.next_ms(now)
    if not model.deadlines:
        assert wait == -1
    else:
        assert 0 <= wait <= max(0, min(model.deadlines.values()) * model.tick - now)


@thorough
@given(st.integers(0, 2**44), st.sampled_from([1, 10, 100]), st.lists(delays, min_size=1, max_size=SIZE))
def test_sleeping_as_long_as_it_says_fires_each_timer_in_its_tick(now: int, tick: int, waits: list[int]) -> None:
    wheel = Alarms(now, tick, SIZE)
    deadlines = {number: max(0, now + wait) for number, wait in enumerate(waits)}
    start = now
    for number, deadline in deadlines.items():
        wheel.set(number, deadline)
    turns = 0
    while (wait := wheel.next_ms(now)) >= 0:
        now += wait
        turns += 1
        assert turns < 10 * len(waits)
        while (fired := wheel.expired(now)) is not None:
            late = now - max(deadlines.pop(fired), start)
            assert 0 <= late <= tick
    assert not deadlines


def test_a_timer_set_to_the_past_in_the_loop_fires_once_in_that_now() -> None:
    wheel = Alarms(0, 10, 2)
    wheel.set(0, 50)
    wheel.set(1, 100_000)
    fired: list[int] = []
    while (number := wheel.expired(200_000)) is not None:
        fired.append(number)
        wheel.set(number, 0)
    assert fired == [0, 1]
    assert wheel.next_ms(200_000) == 10
    assert wheel.expired(200_009) is None
    assert {wheel.expired(200_010), wheel.expired(200_010)} == {0, 1}


def test_one_of_the_due_can_be_cancelled_or_set_anew_before_it_is_handed_out() -> None:
    wheel = Alarms(0, 10, 4)
    for number in range(4):
        wheel.set(number, 100)
    first = wheel.expired(100)
    assert first is not None
    others = [number for number in range(4) if number != first]
    wheel.cancel(others[0])
    wheel.set(others[1], 500)
    assert wheel.expired(100) == others[2]
    assert wheel.expired(100) is None
    assert not wheel.is_set(others[0])
    assert wheel.expired(499) is None
    assert wheel.expired(500) == others[1]
    assert wheel.count == 0


def test_a_clock_that_steps_back_delays_and_repeats_nothing() -> None:
    wheel = Alarms(1000, 10, 2)
    wheel.set(0, 1500)
    assert wheel.expired(1400) is None
    assert wheel.expired(900) is None
    wheel.set(1, 950)
    assert wheel.expired(1400) is None
    assert wheel.expired(1410) == 1
    assert wheel.next_ms(1410) > 0
    assert wheel.expired(1499) is None
    assert wheel.expired(1500) == 0


def test_many_timers_of_one_period() -> None:
    wheel = Alarms(0, 100, 19_000)
    for number in range(19_000):
        wheel.set(number, 30_000 + number % 1000)
    fired = [0] * 19_000
    for now in range(0, 91_100, 100):
        while (due := wheel.expired(now)) is not None:
            assert 0 <= now - (fired[due] + 1) * 30_000 - due % 1000 < 100 * (fired[due] + 1)
            fired[due] += 1
            wheel.set(due, now + 30_000)
    assert fired == [3] * 19_000
    assert wheel.count == 19_000


@pytest.mark.parametrize("deadline", [2**48 - 1, 2**48, 2**63, 2**64 - 1])
def test_far_deadlines_do_not_wrap(deadline: int) -> None:
    wheel = Alarms(0, 1, 1)
    wheel.set(0, deadline)
    for now in (0, 2**20, 2**32, 2**47, 2**48 - 2):
        assert wheel.expired(now) is None
    assert wheel.count == 1
    assert wheel.next_ms(2**48 - 2) >= 0


def test_a_timer_that_is_not_there() -> None:
    wheel = Alarms(0, 1, 1)
    calls: list[Any] = [lambda: wheel.set(1, 5), lambda: wheel.cancel(1), lambda: wheel.is_set(1)]
    for call in calls:
        with pytest.raises(IndexError):
            call()
