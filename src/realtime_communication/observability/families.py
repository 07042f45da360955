"""Metrics of one scrape, under the names the configuration gives them."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from realtime_communication.observability.histogram import Histogram, Labels

Values = Iterable[tuple[Labels, float]]
"""Values of the labels in their order, and the number itself."""


class Families:
    """Makes metrics whose names begin with `namespace` and `subsystem`, each of which may be empty."""

    def __init__(self, namespace: str, subsystem: str) -> None:
        self._prefix = "".join(f"{part}_" for part in (namespace, subsystem) if part)

    def full(self, name: str, *, standard: bool = False) -> str:
        """The name under which a metric is served, without the `_total` of counters."""
        return name if standard else self._prefix + name

    def bare(self, name: str) -> str:
        """The name of a metric in the catalogue that is served under `name`."""
        return name.removeprefix(self._prefix)

    def simple(
        self, kind: str, name: str, help: str, labels: Labels, values: Values, *, standard: bool = False
    ) -> Metric:
        """A counter or a gauge; a counter's samples have `_total` behind their names. `standard`: no prefix."""
        made = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
        family: CounterMetricFamily | GaugeMetricFamily = made(self.full(name, standard=standard), help, labels=labels)
        for label_values, value in values:
            family.add_metric(label_values, value)
        return family

    def histogram(self, name: str, help: str, labels: Labels, histogram: Histogram) -> Metric:
        """All rows of a histogram, whose label sets are in the order of `labels`."""
        family = HistogramMetricFamily(self._prefix + name, help, labels=labels)
        histogram.add_to(family)
        return family
