"""What the data plane has sampled of the publications of the last seconds, for somebody who looks at the server.

Nobody looks most of the time, and nothing is sampled then. `look` says that somebody does, and has to be said again
before LOOK_SECS are over. Whoever feeds the window (`server/samples.py`) waits for that, adds what was sampled, and
stops when nobody looks any more.
"""

from __future__ import annotations

import asyncio
import bisect
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from realtime_communication.observability.sources import Sample

LOOK_SECS: Final = 5.0
WINDOW_SECS: Final = 5.0
MAX_TOPICS: Final = 50  # the busiest ones are told
BOUNDS: Final = tuple(round(10 ** (step / 10), 9) for step in range(-50, 11))
"""Upper bounds of the buckets of latency in seconds, ten for each power of ten from 10 µs to 10 s; one is above."""

SHARES: Final[Mapping[str, float]] = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}

_NANOSECONDS: Final = 1e-9


class PublicationWindow:
    """See the head of this module. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = float("-inf")
        self._looked = asyncio.Event()
        self._added: deque[tuple[float, list[int], Counter[str]]] = deque()

    @property
    def watched(self) -> bool:
        """Whether somebody has looked within LOOK_SECS."""
        return self._clock() < self._until

    def look(self) -> None:
        """Somebody looks: have publications sampled for LOOK_SECS."""
        self._until = self._clock() + LOOK_SECS
        self._looked.set()

    async def looked_at(self) -> None:
        """Wait until somebody looks; forgets what was added before."""
        if not self.watched:
            self._added.clear()
            self._looked.clear()
            await self._looked.wait()

    def add(self, samples: Sequence[Sample]) -> None:
        """Take what was sampled since the last time."""
        counts, topics = [0] * (len(BOUNDS) + 1), Counter[str]()
        for _, topic, _, duration_ns in samples:
            counts[bisect.bisect_left(BOUNDS, duration_ns * _NANOSECONDS)] += 1
            topics[topic] += 1
        self._added.append((self._clock(), counts, topics))
        self._drop_old()

    def read(self) -> dict[str, Any]:
        """{latency: counts by bucket, topics: the most often sampled ones}, of the last WINDOW_SECS."""
        self._drop_old()
        topics = Counter[str]()
        for _, _, counted in self._added:
            topics.update(counted)
        latency = summed([counts for _, counts, _ in self._added])
        return {"latency": latency, "topics": [topic for topic, _ in topics.most_common(MAX_TOPICS)]}

    def _drop_old(self) -> None:
        while self._added and self._added[0][0] < self._clock() - WINDOW_SECS:
            self._added.popleft()


def summed(rows: Sequence[Sequence[int]]) -> list[int]:
    """The counts of several, bucket by bucket."""
    return [sum(column) for column in zip(*rows, strict=True)] if rows else [0] * (len(BOUNDS) + 1)


def percentiles(counts: Sequence[int]) -> dict[str, float | None]:
    """SHARES of what was counted, in seconds: evenly within a bucket; of what is above all, the last bound."""
    return {name: _percentile(counts, share) for name, share in SHARES.items()}


def _percentile(counts: Sequence[int], share: float) -> float | None:
    left, low = share * sum(counts), 0.0
    if not left:
        return None
    for count, bound in zip(counts, BOUNDS, strict=False):
        if count >= left:
            return low + (bound - low) * left / count
        left, low = left - count, bound
    return BOUNDS[-1]
