"""Publications that the data plane has timed, brought to those who want them: traces, metrics, and who looks.

The data plane keeps samples in one ring that is emptied by whoever takes them, so only one may: this.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import Final, Protocol

from realtime_communication.observability.publication_window import PublicationWindow
from realtime_communication.observability.spans import Sample, Tracer

INTERVAL_SECS: Final = 1.0
MAX_SPANS: Final = 512  # an interval; each costs some 50 µs
SPANS_AT_ONCE: Final = 32  # then the event loop gets its turn
LOOK_SAMPLES: Final = 2048  # an interval, while somebody looks: half of what the ring of the data plane has room for
MAX_KEPT: Final = 4096  # for the metrics, as many as the ring of the data plane; the oldest make room


class SamplingHub(Protocol):
    """The part of the compiled hub that is used here."""

    def observe(self, rate: float) -> None: ...
    def take_samples(self) -> list[Sample]: ...


class SampleFeed:
    """Asks the hub to time as many publications as the traces or the metrics want, and hands the samples out.

    `metrics_rate` is the share the metrics want; 0: none. While somebody looks at `window`, some LOOK_SAMPLES are timed
    in each interval, or all; without it the feed is to be run only where it is `wanted`.
    """

    def __init__(
        self, hub: SamplingHub, tracer: Tracer, *, metrics_rate: float = 0.0, window: PublicationWindow | None = None
    ) -> None:
        self._hub = hub
        self._tracer = tracer
        self._metrics_rate = metrics_rate
        self._window = window
        self._rate = 0.0  # now
        self._look_rate = 1.0
        self._kept: deque[Sample] = deque(maxlen=MAX_KEPT)

    @property
    def wanted(self) -> bool:
        """Whether traces or metrics want samples, or somebody may come to look."""
        return self._window is not None or self._standing_rate > 0

    def take(self) -> list[Sample]:
        """What has come for the metrics since the last call."""
        taken = list(self._kept)
        self._kept.clear()
        return taken

    async def run(self) -> None:
        """Until cancelled; the hub times nothing afterwards."""
        try:
            while True:
                await self._ask()
                await asyncio.sleep(INTERVAL_SECS)
                await self._hand_out(self._hub.take_samples())
        finally:
            self._observe(0.0)

    @property
    def _standing_rate(self) -> float:
        """What is wanted whether or not somebody looks."""
        return max(self._tracer.sample_rate, self._metrics_rate)

    async def _ask(self) -> None:
        """Have the hub time as many as are wanted now; where that is none, wait until somebody looks."""
        rate = self._standing_rate
        if self._window is not None:
            if rate == 0 and not self._window.watched:
                self._observe(0.0)
                await self._window.looked_at()
            if self._window.watched:
                rate = max(rate, self._look_rate)
        self._observe(rate)

    def _observe(self, rate: float) -> None:
        if rate != self._rate:
            self._rate = rate
            self._hub.observe(rate)

    async def _hand_out(self, samples: list[Sample]) -> None:
        if self._window is not None and self._window.watched:
            self._window.add(samples)
            self._look_rate = min(1.0, self._rate * LOOK_SAMPLES / max(1, len(samples)))
        if self._metrics_rate > 0:
            self._kept.extend(samples)
        share = min(self._tracer.sample_rate / self._rate, 1.0)
        if share <= 0:
            return
        if len(samples) * share > MAX_SPANS:
            samples = random.sample(samples, int(MAX_SPANS / share))
        for start in range(0, len(samples), SPANS_AT_ONCE):
            self._tracer.record_samples(samples[start : start + SPANS_AT_ONCE], self._rate)
            await asyncio.sleep(0)
