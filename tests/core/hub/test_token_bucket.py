"""Token buckets against a model in exact fractions: those of one worker, and those that all workers share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.token_bucket import ModelBucket, Rate
from realtime_communication._core.base.shared import Shared
from realtime_communication._core.hub.shared_limits import SharedBucket
from realtime_communication._core.hub.token_bucket import Bucket

AnyBucket = Bucket | SharedBucket
Make = Callable[[int, float, int, int, float], AnyBucket]


def shared_bucket(user: bytes | None, now_ms: int, rate: tuple[float, int, int, float]) -> SharedBucket:
    """A full one in memory of its own. A shared bucket counts from its first use, so it is used."""
    fd = Shared.create(1, 16)
    bucket = SharedBucket(Shared(fd), user, *rate)
    os.close(fd)
    assert bucket.take(now_ms) == -1
    bucket.give_back()
    return bucket


def of_the_server(now_ms: int, *rate: Any) -> SharedBucket:
    return shared_bucket(None, now_ms, rate)  # type: ignore[arg-type]


def of_a_user(now_ms: int, *rate: Any) -> SharedBucket:
    return shared_bucket(b"alice", now_ms, rate)  # type: ignore[arg-type]


every_kind = pytest.mark.parametrize("make", [Bucket, of_the_server, of_a_user])
thorough = settings(max_examples=200, deadline=None, derandomize=True)

rates = st.tuples(
    st.one_of(st.sampled_from([0.001, 0.1, 1 / 3, 1.0, 10.0, 33.3, 100.0, 1e6]), st.floats(0.001, 1e5)),
    st.integers(1, 50),
    st.sampled_from([1, 7, 10, 100, 1000, 60_000]),
    st.sampled_from([0.001, 0.1, 0.25, 0.3, 0.7, 1.0]),
)
steps = st.one_of(
    st.tuples(st.just("take"), st.integers(1, 20)),
    st.tuples(st.just("wait"), st.one_of(st.integers(0, 300), st.integers(0, 10**7))),
    st.tuples(st.just("back"), st.integers(1, 2000)),
    st.tuples(st.just("give_back"), st.integers(1, 3)),
    st.tuples(st.just("rate"), rates),
)


@every_kind
@thorough
@given(st.integers(0, 2**47), rates, st.lists(steps, max_size=60))
def test_does_what_the_model_does(
    make: Make, now: int, rate: tuple[float, int, int, float], program: list[tuple[str, Any]]
) -> None:
    bucket = make(now, *rate)
    model = ModelBucket(now, Rate.of(*rate))
    for step, argument in program:
        if step == "take":
            for _ in range(argument):
                assert bucket.take(now) == model.take(now)
        elif step == "wait":
            now += argument
        elif step == "back":
            now = max(0, now - argument)
        elif step == "give_back":
            for _ in range(argument):
                bucket.give_back()
                model.give_back()
        else:
            bucket.change_rate(*argument)
            model.change_rate(Rate.of(*argument))
            # A bucket learns of its rate when it is asked, so a rate that no request has seen leaves no trace.
            assert bucket.take(now) == model.take(now)


@every_kind
@thorough
@given(st.integers(0, 2**40), rates, st.integers(0, 100), st.integers(0, 10**5))
def test_retry_after_is_the_first_moment_that_works(
    make: Make, now: int, rate: tuple[float, int, int, float], spent: int, wait: int
) -> None:
    bucket = make(now, *rate)
    for _ in range(spent):
        bucket.take(now)
    now += wait
    while (retry := bucket.take(now)) < 0:
        pass
    assert retry >= 1
    assert bucket.remaining(now) == 0
    assert bucket.remaining(now + retry - 1) == 0
    assert bucket.remaining(now + retry) >= 1
    assert bucket.take(now + retry - 1) == 1
    assert bucket.take(now + retry) == -1


@every_kind
@pytest.mark.parametrize("precision", [0.001, 0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("interval", [1, 7, 100, 1000])
@pytest.mark.parametrize("per_second", [0.1, 1 / 3, 3.7, 99.9, 333.333333])
def test_over_a_long_time_the_rate_is_exact(make: Make, per_second: float, interval: int, precision: float) -> None:
    burst = 400
    bucket = make(0, per_second, burst, interval, precision)
    now = taken = 0
    while taken < burst + 2000:
        retry = bucket.take(now)
        if retry < 0:
            taken += 1
        else:
            now += retry
    earned = round(per_second * 1e6) * now / 1e9
    # What is earned and not taken is at most what one refill brings, and a step of the precision held back.
    assert taken - burst <= earned < taken - burst + 2 + per_second * interval / 1000


@every_kind
@thorough
@given(rates, st.lists(st.integers(0, 500), max_size=50))
def test_remaining_counts_what_take_allows(make: Make, rate: tuple[float, int, int, float], waits: list[int]) -> None:
    bucket = make(0, *rate)
    now = 0
    for wait in waits:
        now += wait
        promised = bucket.remaining(now)
        allowed = 0
        while bucket.take(now) < 0:
            allowed += 1
        assert allowed == promised


@every_kind
@thorough
@given(rates, st.integers(0, 50), st.integers(0, 5000))
def test_full_after_as_long_as_it_says(make: Make, rate: tuple[float, int, int, float], spent: int, wait: int) -> None:
    bucket = make(0, *rate)
    taken = sum(bucket.take(0) < 0 for _ in range(spent))
    left = bucket.full_in_ms(wait)
    if taken == 0:
        assert left == 0
    if left:
        assert bucket.full_in_ms(wait + left - 1) == 1
    assert bucket.full_in_ms(wait + left) == 0
    assert bucket.remaining(wait + left) == rate[1]


@every_kind
def test_a_lower_burst_takes_effect_at_once_and_a_higher_one_fills_slowly(make: Make) -> None:
    bucket = make(0, 100.0, 200, 100, 0.1)
    bucket.change_rate(100.0, 5, 100, 0.1)
    assert bucket.remaining(0) == 5
    bucket.change_rate(100.0, 500, 100, 0.1)
    assert bucket.remaining(0) == 200
    assert bucket.take(0) == -1
    bucket.change_rate(100.0, 5, 100, 0.1)
    assert [bucket.take(0) for _ in range(6)] == [-1] * 5 + [100]


@every_kind
def test_tokens_come_at_multiples_of_the_interval(make: Make) -> None:
    bucket = make(1000, 100.0, 1, 100, 0.1)
    assert bucket.take(1000) == -1
    assert bucket.take(1001) == 99
    assert bucket.take(1099) == 1
    assert bucket.take(1100) == -1


@every_kind
def test_precision_holds_back_what_is_not_a_multiple_of_it(make: Make) -> None:
    fine = make(0, 0.5, 2, 100, 0.1)
    coarse = make(0, 0.5, 2, 100, 0.3)
    for bucket in (fine, coarse):
        assert [bucket.take(0), bucket.take(0)] == [-1, -1]
    assert fine.take(0) == 2000
    assert coarse.take(0) == 2400


@every_kind
@pytest.mark.parametrize("per_second", [1e300, float("inf"), float("nan"), 1e18, 4.7e12])
def test_absurd_rates_fill_at_once(make: Make, per_second: float) -> None:
    bucket = make(0, per_second, 2**32 - 1, 1, 0.1)
    assert bucket.remaining(0) == 2**32 - 1
    assert [bucket.take(0) for _ in range(3)] == [-1] * 3
    assert bucket.remaining(2**63) == 2**32 - 1
    assert bucket.full_in_ms(2**64 - 1) == 0


@every_kind
def test_the_least_rate_gives_a_token_at_some_time(make: Make) -> None:
    bucket = make(0, 1e-30, 1, 2**32 - 1, 1e-30)
    assert bucket.take(0) == -1
    retry = bucket.take(1)
    assert retry == 2**32 - 2
    assert bucket.take(2**32 - 1) == -1


@every_kind
@pytest.mark.parametrize("precision", [0.0, -1.0, float("nan"), 5.0])
def test_precision_out_of_range_still_gives_tokens(make: Make, precision: float) -> None:
    bucket = make(0, 10.0, 0, 0, precision)
    assert [bucket.take(0), bucket.take(0), bucket.take(100)] == [-1, 100, -1]
