"""Histograms whose rows can be folded."""

from __future__ import annotations

from prometheus_client.metrics_core import HistogramMetricFamily

from realtime_communication.observability.histogram import Histogram


def samples(histogram: Histogram, *labels: str) -> dict[tuple[str, ...], float]:
    """Numbers by label values, and the sample's kind or bucket."""
    family = HistogramMetricFamily("h", "help", labels=labels)
    histogram.add_to(family)
    return {
        (*(each.labels[name] for name in labels), each.labels.get("le", each.name)): each.value
        for each in family.samples
    }


def test_a_value_belongs_to_the_first_bound_not_below_it() -> None:
    histogram = Histogram((1, 2.5))
    for value in (0.5, 1.0, 1.1, 2.5, 99.0):
        histogram.observe(value)
    assert samples(histogram) == {("1.0",): 2, ("2.5",): 4, ("+Inf",): 5, ("h_count",): 5, ("h_sum",): 104.1}


def test_a_row_of_zeros() -> None:
    histogram = Histogram((1.0,))
    histogram.begin(("a",))
    histogram.observe(0.5, ("b",))
    histogram.begin(("b",))
    found = samples(histogram, "x")
    assert found["a", "+Inf"] == 0 and found["b", "+Inf"] == 1


def test_folding_keeps_every_count() -> None:
    histogram = Histogram((1.0,))
    for value, label in ((0.5, "a"), (2.0, "a"), (0.25, "other"), (3.0, "b")):
        histogram.observe(value, (label,))
    for labels in histogram.rows():
        if labels != ("other",):
            histogram.fold(labels, ("other",))
    assert samples(histogram, "x") == {
        ("other", "1.0"): 2,
        ("other", "+Inf"): 4,
        ("other", "h_count"): 4,
        ("other", "h_sum"): 5.75,
    }
