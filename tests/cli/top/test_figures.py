"""Figures of made-up samples."""

from __future__ import annotations

import json
import math

import pytest

from cli.top.made_up import sample
from realtime_communication.cli.top.figures import RATES, figures, latency, percentile
from realtime_communication.cli.top.sample import Histogram


def test_rates_are_per_second() -> None:
    found = figures(sample(10, 100), sample(12, 200))
    assert found["rates"] == dict.fromkeys(RATES, 150.0)
    assert [(row["worker"], row["deliveries"]) for row in found["workers"]] == [(0, 50.0), (1, 100.0)]
    assert json.loads(json.dumps(found)) == found


def test_without_a_sample_before_there_are_none() -> None:
    found = figures(None, sample(12, 200))
    assert set(found["rates"].values()) == {None} and found["busiest_topics"][0]["rate"] is None
    assert found["connections"] == 12 and found["latency"]["recent"] is False


def test_a_replaced_worker_makes_no_negative_rate() -> None:
    assert set(figures(sample(10, 300), sample(12, 200))["rates"].values()) == {0.0}


@pytest.mark.parametrize(
    ("order", "topics"),
    [
        ("rate", ["busy", "quiet", "new"]),
        ("subscribers", ["quiet", "busy", "new"]),
        ("offset", ["busy", "quiet", "new"]),
    ],
)
def test_the_order_of_topics(order: str, topics: list[str]) -> None:
    found = figures(sample(10, 100), sample(12, 200), order)
    assert [row["topic"] for row in found["busiest_topics"]] == topics
    assert {row["topic"]: row["rate"] for row in found["busiest_topics"]} == {"busy": 50.0, "quiet": 0.0, "new": None}


def test_the_slowest_consumers() -> None:
    assert [row["user_id"] for row in figures(None, sample(1, 1))["slowest"]] == ["slower", "slow"]


def test_a_server_of_one_worker() -> None:
    now = sample(12, 200)
    del now.stats["per_worker"]
    assert [row["worker"] for row in figures(None, now)["workers"]] == [0]


@pytest.mark.parametrize(
    ("buckets", "share", "wanted"),
    [
        ({1.0: 50, 2.0: 100, math.inf: 100}, 0.5, 1.0),
        ({1.0: 50, 2.0: 100, math.inf: 100}, 0.75, 1.5),
        ({1.0: 50, 2.0: 100, math.inf: 200}, 0.99, 2.0),
        ({1.0: 0, 2.0: 0, math.inf: 0}, 0.5, None),
        ({}, 0.5, None),
    ],
)
def test_percentiles(buckets: dict[float, float], share: float, wanted: float | None) -> None:
    assert percentile(buckets, share) == wanted


def test_latency_is_of_the_interval_where_something_happened() -> None:
    before = Histogram("h", {1.0: 10.0, 2.0: 10.0})
    now = Histogram("h", {1.0: 10.0, 2.0: 20.0})
    recent = latency(before, now)
    assert recent is not None and recent["recent"] and recent["p50"] == 1.5
    whole = latency(now, now)
    assert whole is not None and not whole["recent"] and whole["p50"] == 1.0
    other = latency(Histogram("g", {}), now)
    assert other is not None and not other["recent"]
    assert latency(before, None) is None
