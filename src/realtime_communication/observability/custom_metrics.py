"""The metrics of `[[monitoring.custom_metrics]]`: those of `config/metric_names.py` that somebody asked for.

A metric asked for without a label it offers is served as the sum over that label, a histogram without splitting it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from prometheus_client.metrics_core import Metric

from realtime_communication.config.metric_names import CUSTOM_METRICS, MAX_TOPICS, OTHER
from realtime_communication.config.watching import CustomMetric
from realtime_communication.observability.families import Families, Values
from realtime_communication.observability.histogram import Histogram, Labels
from realtime_communication.observability.sources import Sample, Sources
from realtime_communication.observability.topic_labels import PublicationLedger, TopicLabels, with_rest

NANOSECONDS: Final = 1e-9

STATS: Final[Mapping[str, Mapping[str, str]]] = {
    "connected_users": {"users": ""},
    "presence_members": {"members": ""},
    "open_sessions": {"sessions": ""},
    "slow_consumers": {"slow_consumers": ""},
    "rejected_requests": {"invalid": "invalid", "rate_limited": "rate_limited", "backpressure": "backpressure"},
    "undelivered_messages": {"dropped": "dropped", "lagged": "lagged", "untranscoded": "untranscoded"},
    "cached_bytes": {"cached_bytes": ""},
    "memory_arenas": {"arenas": "used", "arenas_kept": "kept"},
    "pending_timers": {"timers": ""},
    "idempotency_keys": {"idempotency_keys": ""},
}
"""Metrics that are entries of `Hub.stats()`: the entries, and the value of the label each of them has."""


class CustomMetrics:
    """Those that were asked for. `update` takes what costs something, `collect` serves."""

    def __init__(self, wanted: Sequence[CustomMetric], families: Families, buckets: Sequence[float]) -> None:
        self._wanted = tuple(wanted)
        self._families = families
        self._latency = Histogram(buckets)
        self._latency_labels: Labels = next((each.labels for each in wanted if each.name == "message_latency"), ())
        if not self._latency_labels:
            self._latency.begin(())
        self._topics = TopicLabels()
        self._ledger = PublicationLedger()
        self.wants_samples = any(each.name == "message_latency" for each in wanted)
        self._wants_topics = any("topic" in each.labels for each in wanted)

    def update(self, sources: Sources) -> None:
        """Decide which topics have labels, and take what was counted for them."""
        if self._wants_topics and sources.topic_counts is not None:
            self._topics.update(sources.topic_counts(MAX_TOPICS))
            self._ledger.update(self._topics, sources.stats()["publications"])
            self._fold_latencies()
        if self.wants_samples and sources.take_samples is not None:
            self.record(sources.take_samples())

    def record(self, samples: Sequence[Sample]) -> None:
        """Count latencies of publications, when somebody asked for them."""
        if not self.wants_samples:
            return
        for kind, topic, _, duration_ns in samples:
            self._latency.observe(duration_ns * NANOSECONDS, self._labels_of(kind, topic))

    def collect(self, stats: Mapping[str, int]) -> Iterator[Metric]:
        """What was asked for, in the order of the configuration."""
        for metric in self._wanted:
            spec = CUSTOM_METRICS[metric.name]
            text = metric.help or spec.help
            if spec.type == "histogram":
                yield self._families.histogram(spec.name, text, metric.labels, self._latency)
            else:
                values = self._values(metric, stats)
                yield self._families.simple(spec.type, spec.name, text, metric.labels, values)

    def _values(self, metric: CustomMetric, stats: Mapping[str, int]) -> Values:
        parts = self._parts(metric, stats)
        return [((label,), value) for label, value in parts.items()] if metric.labels else [((), sum(parts.values()))]

    def _parts(self, metric: CustomMetric, stats: Mapping[str, int]) -> Mapping[str, int]:
        """Numbers by the one label the metric offers."""
        entries = STATS.get(metric.name)
        if entries is not None:
            return {label: stats[entry] for entry, label in entries.items() if entry in stats}
        total = stats["subscriptions" if metric.name == "active_subscriptions" else "publications"]
        if not metric.labels:
            return {"": total}
        if metric.name == "published_messages":
            return self._ledger.counts
        by_topic = self._topics.subscribers if metric.name == "active_subscriptions" else self._topics.offsets
        return with_rest(by_topic, total)

    def _labels_of(self, kind: str, topic: str) -> Labels:
        values = {"message_type": kind, "topic": self._topics.of(topic)}
        return tuple(values[label] for label in self._latency_labels)

    def _fold_latencies(self) -> None:
        if "topic" not in self._latency_labels:
            return
        at = self._latency_labels.index("topic")
        for labels in self._latency.rows():
            if not self._topics.keeps(labels[at]):
                self._latency.fold(labels, (*labels[:at], OTHER, *labels[at + 1 :]))
