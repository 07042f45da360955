"""A token bucket in exact fractions: slow, and plainly what is promised. The oracle of the compiled one."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor


@dataclass(frozen=True)
class Rate:
    """One limit; the rate counts in millionths of a token per second, the precision in thousandths of a token."""

    tokens_per_second: Fraction
    burst: int
    refill_interval_ms: int
    precision: Fraction

    @classmethod
    def of(cls, tokens_per_second: float, burst: int, refill_interval_ms: int, precision: float) -> Rate:
        return cls(
            Fraction(floor(tokens_per_second * 1e6 + 0.5), 10**6),
            burst,
            refill_interval_ms,
            Fraction(floor(precision * 1e3 + 0.5), 10**3),
        )

    @property
    def per_refill(self) -> Fraction:
        return self.tokens_per_second * self.refill_interval_ms / 1000


class ModelBucket:
    """Tokens arrive at multiples of the interval after `now_ms`; steps of the precision become spendable when whole."""

    def __init__(self, now_ms: int, rate: Rate) -> None:
        self.rate = rate
        self.spendable = Fraction(rate.burst)
        self.held_back = Fraction(0)
        self.refilled_ms = now_ms

    def change_rate(self, rate: Rate) -> None:
        """Go on with the same tokens; what can be spent of them lies on the steps of the new precision."""
        total = self.spendable + self.held_back
        first_step = self.spendable % self.rate.precision % rate.precision
        self.held_back = (total - first_step) % rate.precision
        self.spendable = total - self.held_back
        self.rate = rate

    def refill(self, now_ms: int) -> None:
        intervals = max(0, now_ms - self.refilled_ms) // self.rate.refill_interval_ms
        self.refilled_ms += intervals * self.rate.refill_interval_ms
        self.held_back += intervals * self.rate.per_refill
        whole_steps = self.held_back // self.rate.precision * self.rate.precision
        self.spendable += whole_steps
        self.held_back -= whole_steps
        self.stop_at_burst()

    def stop_at_burst(self) -> None:
        if self.spendable + self.held_back >= self.rate.burst:
            self.spendable = Fraction(self.rate.burst)
            self.held_back = Fraction(0)

    def take(self, now_ms: int) -> int:
        self.refill(now_ms)
        if self.spendable >= 1:
            self.spendable -= 1
            return -1
        steps = ceil((1 - self.spendable) / self.rate.precision) * self.rate.precision
        until_full = self.rate.burst - self.spendable
        intervals = ceil((min(steps, until_full) - self.held_back) / self.rate.per_refill)
        return self.refilled_ms + intervals * self.rate.refill_interval_ms - now_ms

    def give_back(self) -> None:
        self.spendable += 1
        self.stop_at_burst()
