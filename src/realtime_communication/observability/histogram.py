"""A histogram whose label sets can be folded together, so that their number has a bound.

`prometheus_client.Histogram` takes a lock for each observation, writes a `_created` sample for each label set and
cannot move counts from one to another; this one belongs to a single thread.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence

from prometheus_client.metrics_core import HistogramMetricFamily

Labels = tuple[str, ...]


class Histogram:
    """Counts of observations by upper bound, one row for each set of label values.

    `bounds` rise and are finite; the last bucket, +Inf, is added. The caller bounds the label sets it uses.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(float(bound) for bound in bounds)
        self._names = (*(repr(bound) for bound in self._bounds), "+Inf")
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, value: float, labels: Labels = ()) -> None:
        """Count `value`, which belongs to the first bucket whose bound is not below it."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._row(labels)
        counts[bisect.bisect_left(self._bounds, value)] += 1
        self._sums[labels] += value

    def begin(self, labels: Labels) -> None:
        """Serve a row of zeros before its first observation, so that its rate can be told from then on."""
        if labels not in self._counts:
            self._row(labels)

    def fold(self, labels: Labels, into: Labels) -> None:
        """Add the row of `labels` to that of `into`, and forget it."""
        counts = self._counts.pop(labels)
        target = self._counts.get(into)
        if target is None:
            target = self._row(into)
        for index, count in enumerate(counts):
            target[index] += count
        self._sums[into] += self._sums.pop(labels)

    def rows(self) -> Iterator[Labels]:
        """The label sets there are; safe to fold while iterating."""
        return iter(tuple(self._counts))

    def add_to(self, family: HistogramMetricFamily) -> None:
        """Put all rows into a family with the same labels."""
        for labels, counts in self._counts.items():
            total = 0
            buckets: list[tuple[str, float]] = []
            for name, count in zip(self._names, counts, strict=True):
                total += count
                buckets.append((name, total))
            family.add_metric(labels, buckets, self._sums[labels])

    def _row(self, labels: Labels) -> list[int]:
        counts = self._counts[labels] = [0] * len(self._names)
        self._sums[labels] = 0.0
        return counts
