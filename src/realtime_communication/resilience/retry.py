"""Trying again after a failure, ever more slowly.

Before the n-th further attempt (n from 0) one waits a time drawn evenly from 0 … `delay_secs` × 2ⁿ, at most
`max_delay_secs`: what failed at the same moment does not come back at the same moment.
Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 ("full jitter").
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import msgspec

_MOST_DOUBLINGS: Final = 64  # beyond it any cap is long reached, and a float would overflow some time

T = TypeVar("T")


class RetryPolicy(msgspec.Struct, frozen=True):
    """How often and how fast. `attempts` counts all, the first one too: with 1 nothing is tried again."""

    attempts: int
    delay_secs: float
    max_delay_secs: float = 30.0

    def ceiling(self, retry: int) -> float:
        """Longest wait in seconds before the further attempt `retry`, counted from 0."""
        return min(self.max_delay_secs, self.delay_secs * 2.0 ** min(retry, _MOST_DOUBLINGS))


async def retry(
    operation: Callable[[], Awaitable[T]],
    policy: RetryPolicy,
    should_retry: type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool],
    *,
    uniform: Callable[[float, float], float] = random.uniform,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> T:
    """What `operation` returns, called anew until it succeeds; raises its last error when no attempt is left.

    `should_retry`: the exceptions after which another attempt makes sense, or a judge of them; any other is raised at
    once, as is what is no `Exception`, such as CancelledError. `operation` must bear being called again.
    """
    for number in range(policy.attempts - 1):
        try:
            return await operation()
        except Exception as error:
            if not _is_wanted(error, should_retry):
                raise
        await sleep(uniform(0.0, policy.ceiling(number)))
    return await operation()


def _is_wanted(
    error: Exception, should_retry: type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]
) -> bool:
    if isinstance(should_retry, (type, tuple)):
        return isinstance(error, should_retry)
    return should_retry(error)
