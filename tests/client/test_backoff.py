"""Delays between attempts."""

import pytest

from realtime_communication.client.backoff import Backoff


def longest(_low: float, high: float) -> float:
    return high


def test_ceiling_doubles_up_to_the_maximum() -> None:
    backoff = Backoff(0.5, 3.0, uniform=longest)
    assert [backoff.next_delay() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_reset_starts_anew() -> None:
    backoff = Backoff(0.5, 3.0, uniform=longest)
    backoff.next_delay()
    backoff.reset()
    assert backoff.next_delay() == 0.5


def test_servers_wish_is_a_floor_below_the_jitter() -> None:
    assert Backoff(0.5, 3.0, uniform=lambda low, high: low).next_delay(2.0) == 2.0


def test_delays_are_spread() -> None:
    delays = {Backoff().next_delay() for _ in range(100)}
    assert len(delays) > 90
    assert all(0 <= delay <= 0.2 for delay in delays)


def test_a_thousand_attempts_do_not_overflow() -> None:
    backoff = Backoff(0.1, 5.0, uniform=longest)
    assert [backoff.next_delay() for _ in range(1000)][-1] == 5.0


@pytest.mark.parametrize(("initial", "maximum"), [(0, 1), (-1, 1), (2, 1)])
def test_senseless_bounds(initial: float, maximum: float) -> None:
    with pytest.raises(ValueError, match="initial"):
        Backoff(initial, maximum)
