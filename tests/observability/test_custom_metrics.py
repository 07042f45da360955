"""The metrics somebody asked for, with the labels somebody asked for."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from realtime_communication.config.metric_names import CUSTOM_METRICS, INBOXES, MAX_TOPICS, OTHER
from realtime_communication.config.watching import CustomMetric
from realtime_communication.observability.custom_metrics import CustomMetrics
from realtime_communication.observability.families import Families
from realtime_communication.observability.sources import Sample, Sources
from realtime_communication.observability.topic_labels import TopicCount

STATS = {"subscriptions": 1000, "publications": 5000, "users": 7, "slow_consumers": 2}
STATS |= {"invalid": 1, "rate_limited": 2, "backpressure": 4}


class Hub:
    """What a hub tells: to be changed between updates."""

    def __init__(self) -> None:
        self.stats: dict[str, int] = dict(STATS)
        self.topics: list[TopicCount] = []
        self.samples: list[Sample] = []
        self.limits: list[int] = []

    def topic_counts(self, limit: int) -> list[TopicCount]:
        self.limits.append(limit)
        return self.topics[:limit]

    def take_samples(self) -> list[Sample]:
        taken, self.samples = self.samples, []
        return taken

    @property
    def sources(self) -> Sources:
        return Sources(stats=lambda: self.stats, topic_counts=self.topic_counts, take_samples=self.take_samples)


class Served:
    """One metric that was asked for. `values` are its numbers by label values, buckets left out."""

    def __init__(self, name: str, *labels: str, help: str = "") -> None:
        self._labels = labels
        wanted = CustomMetric(name=name, type=CUSTOM_METRICS[name].type, labels=labels, help=help)
        self.metrics = CustomMetrics([wanted], Families("", ""), (0.001, 1.0))
        self.hub = Hub()

    def update(self) -> Mapping[tuple[str, ...], float]:
        self.metrics.update(self.hub.sources)
        return self.values()

    def values(self) -> Mapping[tuple[str, ...], float]:
        (family,) = self.metrics.collect(self.hub.stats)
        return {
            tuple(each.labels[label] for label in self._labels): each.value
            for each in family.samples
            if not each.name.endswith(("_bucket", "_sum"))
        }


@pytest.mark.parametrize(
    ("name", "value"),
    [("connected_users", 7), ("slow_consumers", 2), ("rejected_requests", 7), ("active_subscriptions", 1000)],
)
def test_without_labels(name: str, value: int) -> None:
    assert Served(name).update() == {(): value}


def test_reasons() -> None:
    assert Served("rejected_requests", "reason").update() == {
        ("invalid",): 1,
        ("rate_limited",): 2,
        ("backpressure",): 4,
    }


def test_topics() -> None:
    subscriptions, messages = Served("active_subscriptions", "topic"), Served("topic_messages", "topic")
    for served in (subscriptions, messages):
        served.hub.topics = [("a", 900, 10), ("b", 60, 4000)]
    assert subscriptions.update() == {("a",): 900, ("b",): 60, (OTHER,): 40}
    assert messages.update() == {("a",): 10, ("b",): 4000, (OTHER,): 990}
    assert subscriptions.hub.limits == [MAX_TOPICS]


def test_topics_are_taken_not_walked_at_a_scrape() -> None:
    served = Served("active_subscriptions", "topic")
    for _ in range(3):
        served.values()
    assert served.hub.limits == []


def test_published_messages_by_topic() -> None:
    served = Served("published_messages", "topic")
    served.hub.topics = [("a", 3, 10)]
    assert served.update() == {("a",): 10, (OTHER,): 4990}
    served.hub.topics, served.hub.stats["publications"] = [("a", 3, 12), ("b", 2, 1)], 5003
    assert served.update() == {("a",): 12, ("b",): 1, (OTHER,): 4990}


class TestLatency:
    samples = (
        ("Broadcast", "room", 0, 500_000),
        ("Broadcast", "room", 0, 2_000_000),
        ("Broadcast", "elsewhere", 0, 2_000_000),
        ("DirectMessage", "@alice", 0, 2_000_000),
    )

    @pytest.mark.parametrize(
        ("labels", "expected"),
        [
            ((), {(): 4}),
            (("message_type",), {("Broadcast",): 3, ("DirectMessage",): 1}),
            (("topic",), {("room",): 2, (OTHER,): 1, (INBOXES,): 1}),
            (
                ("topic", "message_type"),
                {("room", "Broadcast"): 2, (OTHER, "Broadcast"): 1, (INBOXES, "DirectMessage"): 1},
            ),
        ],
    )
    def test_labels_in_the_order_asked_for(self, labels: tuple[str, ...], expected: dict[tuple[str, ...], int]) -> None:
        served = Served("message_latency", *labels)
        served.hub.topics, served.hub.samples = [("room", 1, 1)], list(self.samples)
        assert served.update() == expected
        assert served.update() == expected, "samples are taken once"

    def test_seconds_in_buckets(self) -> None:
        served = Served("message_latency")
        served.hub.samples = list(self.samples)
        served.update()
        (family,) = served.metrics.collect(STATS)
        found = {each.labels.get("le", each.name): each.value for each in family.samples}
        assert found["0.001"] == 1 and found["1.0"] == 4
        assert found["message_latency_sum"] == pytest.approx(0.0065)

    def test_a_topic_that_loses_its_label_keeps_its_counts_with_the_rest(self) -> None:
        served = Served("message_latency", "topic")
        served.hub.topics, served.hub.samples = [("room", 1, 1)], list(self.samples)
        served.update()
        served.hub.topics = []
        assert served.update() == {(OTHER,): 3, (INBOXES,): 1}

    def test_nobody_asked(self) -> None:
        served = Served("connected_users")
        assert not served.metrics.wants_samples
        served.hub.samples = list(self.samples)
        served.update()
        served.metrics.record(self.samples)
        assert len(served.hub.samples) == 4, "left where they are"


def test_the_text_of_the_configuration() -> None:
    (family,) = Served("connected_users", help="People").metrics.collect(STATS)
    assert family.documentation == "People"
    (family,) = Served("connected_users").metrics.collect(STATS)
    assert family.documentation == CUSTOM_METRICS["connected_users"].help


def test_a_million_topics_do_not_grow_anything() -> None:
    wanted = [
        CustomMetric(name=name, type=CUSTOM_METRICS[name].type, labels=CUSTOM_METRICS[name].labels)
        for name in ("message_latency", "active_subscriptions", "topic_messages", "published_messages")
    ]
    metrics, hub = CustomMetrics(wanted, Families("", ""), (1.0,)), Hub()
    sizes = set()
    for start in range(0, 1_000_000, 10_000):
        hub.topics = [(f"{topic:07}" * 30, 5, 1) for topic in range(start, start + MAX_TOPICS)]
        hub.samples = [("Broadcast", f"{topic:07}" * 30, 0, 1) for topic in range(start, start + 10_000)]
        hub.stats["publications"] += 10_000
        metrics.update(hub.sources)
        sizes.add(tuple(len(family.samples) for family in metrics.collect(hub.stats)))
    rows = MAX_TOPICS + 1
    assert sizes == {(rows * 4, rows, rows, rows)}, "two buckets, count and sum for each row of the histogram"
