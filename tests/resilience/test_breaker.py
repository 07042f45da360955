"""Circuit breakers: single rules in turn, and random histories against the plain model."""

import asyncio

import pytest

from realtime_communication.errors import CircuitOpen
from realtime_communication.resilience.breaker import BreakerSettings, BreakerState, CircuitBreaker

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
SETTINGS = BreakerSettings(
    enabled=True, failure_threshold=3, success_threshold=2, timeout_secs=10.0, half_open_requests=2
)


class Stage:
    """A breaker on a clock that the test moves, and its changes."""

    def __init__(self, settings=SETTINGS):
        self.time = 1000.0
        self.changes = []
        self.breaker = CircuitBreaker(
            "redis", settings, self.changes.append, lambda: self.time, lambda: 5e8 + self.time
        )

    def fail(self, times=1, error=OSError):
        for _ in range(times):
            with pytest.raises(error), self.breaker.guard():
                raise error("secret")

    def succeed(self, times=1):
        for _ in range(times):
            with self.breaker.guard():
                pass

    def refused(self):
        with pytest.raises(CircuitOpen) as caught, self.breaker.guard():
            raise AssertionError("the call was made")
        return caught.value


def test_failures_in_a_row_open_it():
    stage = Stage()
    stage.fail(2)
    stage.succeed()
    stage.fail(2)
    assert stage.breaker.state is CLOSED
    stage.fail()
    assert stage.breaker.state is OPEN
    error = stage.refused()
    assert (error.service, error.retry_after_secs, error.code) == ("redis", 10.0, "unavailable")
