"""Publications that the data plane has timed, brought to those who want them: the traces and the metrics.

The data plane keeps samples in one ring that is emptied by whoever takes them, so only one may: this.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import Final, Protocol

from realtime_communication.observability.spans import Sample, Tracer

INTERVAL_SECS: Final = 1.0
MAX_SPANS: Final = 512  # an interval; each costs some 50 µs
SPANS_AT_ONCE: Final = 32  # then the event loop gets its turn
MAX_KEPT: Final = 4096  # for the metrics, as many as the ring of the data plane; the oldest make room


class SamplingHub(Protocol):
    """The part of the compiled hub that is used here."""

    def observe(self, rate: float) -> None: ...
    def take_samples(self) -> list[Sample]: ...


class SampleFeed:
    """Asks the hub to time as many publications as the traces or the metrics want, and hands the samples out.

    `metrics_rate` is the share the metrics want; 0: none. To be run as a service where `wanted`.
    """

    def __init__(self, hub: SamplingHub, tracer: Tracer, *, metrics_rate: float = 0.0) -> None:
        self._hub = hub
        self._tracer = tracer
        self._metrics_rate = metrics_rate
        self._rate = max(tracer.sample_rate, metrics_rate)
        self._kept: deque[Sample] = deque(maxlen=MAX_KEPT)

    @property
    def wanted(self) -> bool:
        """Whether anybody wants samples."""
        return self._rate > 0

    def take(self) -> list[Sample]:
        """What has come for the metrics since the last call."""
        taken = list(self._kept)
        self._kept.clear()
        return taken

    async def run(self) -> None:
        """Until cancelled; the hub times nothing afterwards."""
        self._hub.observe(self._rate)
        try:
            while True:
                await asyncio.sleep(INTERVAL_SECS)
                await self._hand_out(self._hub.take_samples())
        finally:
            self._hub.observe(0.0)

    async def _hand_out(self, samples: list[Sample]) -> None:
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
