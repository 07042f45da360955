"""Trying again: how often, how long the waits are, and after which errors."""

import asyncio

import pytest

from realtime_communication.resilience.retry import RetryPolicy, retry


class Flaky:
    """Raises the errors given, one for each call, and then returns 7. The waits between are written down."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.calls = 0
        self.waits = []

    async def __call__(self):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return 7

    async def sleep(self, seconds):
        self.waits.append(seconds)

    def run(self, policy, should_retry=OSError, uniform=lambda low, high: high):
        return asyncio.run(retry(self, policy, should_retry, uniform=uniform, sleep=self.sleep))


def test_success_needs_one_attempt():
    flaky = Flaky()
    assert flaky.run(RetryPolicy(5, 0.1)) == 7
    assert (flaky.calls, flaky.waits) == (1, [])


def test_waits_double_up_to_the_cap():
    flaky = Flaky(*[OSError()] * 5)
    assert flaky.run(RetryPolicy(6, 0.25, max_delay_secs=1.5)) == 7
    assert flaky.waits == [0.25, 0.5, 1.0, 1.5, 1.5]


def test_waits_are_drawn_evenly_from_zero_on():
    drawn = []

    def uniform(low, high):
        drawn.append((low, high))
        return high / 4

    flaky = Flaky(OSError(), OSError())
    flaky.run(RetryPolicy(3, 1.0), uniform=uniform)
    assert (drawn, flaky.waits) == ([(0.0, 1.0), (0.0, 2.0)], [0.25, 0.5])


def test_the_last_error_is_raised_when_no_attempt_is_left():
    flaky = Flaky(OSError("first"), OSError("second"), OSError("third"))
    with pytest.raises(OSError, match="second"):
        flaky.run(RetryPolicy(2, 1.0))
    assert (flaky.calls, flaky.waits) == (2, [1.0])


def test_one_attempt_is_no_retry():
    flaky = Flaky(OSError())
    with pytest.raises(OSError):
        flaky.run(RetryPolicy(1, 1.0))
    assert (flaky.calls, flaky.waits) == (1, [])


@pytest.mark.parametrize(
    "should_retry", [OSError, (OSError, ZeroDivisionError), lambda error: isinstance(error, OSError)]
)
def test_other_errors_are_raised_at_once(should_retry):
    flaky = Flaky(OSError(), KeyError(), OSError())
    with pytest.raises(KeyError):
        flaky.run(RetryPolicy(5, 1.0), should_retry)
    assert flaky.calls == 2


def test_a_cancelled_call_is_not_made_again():
    flaky = Flaky(asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        flaky.run(RetryPolicy(5, 1.0), lambda error: True)
    assert flaky.calls == 1


def test_very_many_attempts_do_not_overflow():
    assert RetryPolicy(10**9, 1.0).ceiling(10**8) == 30.0


def test_the_defaults_really_wait_and_draw():
    flaky = Flaky(OSError())
    assert asyncio.run(retry(flaky, RetryPolicy(2, 0.001), OSError)) == 7
