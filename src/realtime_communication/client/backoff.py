"""When to try again after a lost connection."""

from __future__ import annotations

import random
from collections.abc import Callable

__all__ = ["Backoff"]


class Backoff:
    """Exponential delays with full jitter, so that the clients of a restarted server do not come back in step.

    The n-th delay is drawn evenly from 0 … ``initial`` × 2ⁿ, at most ``maximum`` (all in seconds).
    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    def __init__(
        self, initial: float = 0.2, maximum: float = 20.0, *, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        if not 0 < initial <= maximum:
            raise ValueError("initial must be above 0 and not above maximum")
        self.initial = initial
        self.maximum = maximum
        self.attempt = 0
        self._uniform = uniform

    def next_delay(self, at_least: float = 0.0) -> float:
        """Seconds until the next attempt; never under ``at_least``, the server's own wish."""
        ceiling = min(self.maximum, self.initial * 2 ** min(self.attempt, 32))
        self.attempt += 1
        return at_least + self._uniform(0.0, ceiling)

    def reset(self) -> None:
        """A connection stood: start from the beginning next time."""
        self.attempt = 0
