"""The share of a core that a thread has had."""

import pytest

from realtime_communication.server.load import WINDOW, LoadMeter


class Clocks:
    """Time and use of the processor, as a test sets them."""

    def __init__(self) -> None:
        self.now = self.used = 100.0

    def step(self, used: float) -> None:
        self.now += 1
        self.used += used


def meter_of(clocks: Clocks) -> LoadMeter:
    return LoadMeter(lambda: clocks.now, lambda: clocks.used)


def test_over_the_last_measurements() -> None:
    clocks = Clocks()
    meter = meter_of(clocks)
    shares = []
    for used in [0.5] * WINDOW + [1.0] * WINDOW + [0.0] * WINDOW:
        clocks.step(used)
        shares.append(meter.measure())
    assert shares[0] == shares[WINDOW - 1] == pytest.approx(0.5)
    assert shares[WINDOW] == pytest.approx((0.5 * (WINDOW - 1) + 1.0) / WINDOW)
    assert shares[2 * WINDOW - 1] == pytest.approx(1.0)
    assert shares[-1] == 0.0


def test_within_its_bounds() -> None:
    clocks = Clocks()
    meter = meter_of(clocks)
    assert meter.measure() == 0.0
    clocks.step(1.5)
    assert meter.measure() == 1.0


def test_of_this_thread() -> None:
    assert 0.0 <= LoadMeter().measure() <= 1.0
