"""The metrics of several workers as those of one."""

from __future__ import annotations

from typing import Any

import msgspec
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from realtime_communication.config.watching import CustomMetric, Monitoring, Prometheus
from realtime_communication.observability import fleet_metrics
from realtime_communication.observability.families import Families
from realtime_communication.observability.fleet_metrics import FleetMetrics
from realtime_communication.observability.metrics import Metrics, Snapshot
from serving.scrapes import full_sources

TOPICS = CustomMetric(name="published_messages", type="counter", labels=("topic",))


class Fleet:
    """Workers whose metrics travel as they do between processes."""

    def __init__(self, count: int = 2, **changes: Any) -> None:
        self.prometheus = Prometheus(namespace="rtc", subsystem="", buckets=(0.5, 1.0))
        self.merged = FleetMetrics(Families("rtc", ""), count)
        self.workers = {slot: self.worker(**changes) for slot in range(count)}

    def worker(self, **changes: Any) -> Metrics:
        metrics = Metrics(Monitoring(prometheus=self.prometheus, custom_metrics=(TOPICS,)), full_sources(**changes))
        metrics.update()
        return metrics

    def text(self, *, openmetrics: bool = False, missing: tuple[int, ...] = (), **further: Any) -> str:
        answers = {
            slot: msgspec.msgpack.decode(msgspec.msgpack.encode(worker.packed()))
            for slot, worker in self.workers.items()
            if slot not in missing
        }
        self.merged.take(answers, **further)
        return Snapshot(list(self.merged.collect())).text(openmetrics=openmetrics).decode()

    def samples(self, **options: Any) -> dict[tuple[str, ...], float]:
        """Numbers by the name and the values of labels."""
        found: dict[tuple[str, ...], float] = {}
        for family in parse(self.text(**options)):
            for each in family.samples:
                key = (each.name, *(value for _, value in sorted(each.labels.items())))
                assert key not in found, "a series twice"
                found[key] = each.value
        return found


def alone(metrics: Metrics) -> dict[tuple[str, ...], float]:
    return {
        (each.name, *(value for _, value in sorted(each.labels.items()))): each.value
        for family in parse(metrics.snapshot().text().decode())
        for each in family.samples
    }


def test_counters_and_gauges_are_added_up() -> None:
    fleet = Fleet()
    one = alone(fleet.workers[0])
    both = fleet.samples()
    for name in ("rtc_deliveries_total", "rtc_connections", "rtc_queued_messages", "process_cpu_seconds_total"):
        assert both[name,] == 2 * one[name,], name


def test_of_some_gauges_the_highest_or_lowest_is_told() -> None:
    fleet = Fleet()
    fleet.workers[1] = fleet.worker(draining=lambda: True, max_connections=lambda: 77)
    fleet.workers[0] = fleet.worker(draining=lambda: False, max_connections=lambda: 77)
    both = fleet.samples()
    assert (both["rtc_draining",], both["rtc_max_connections",]) == (0, 77)
    assert [value for key, value in both.items() if key[0] == "rtc_build_info"] == [1]


def test_histograms_are_added_up_by_bucket() -> None:
    fleet = Fleet()
    for slot, seconds in ((0, 0.1), (1, 0.1), (1, 0.7)):
        fleet.workers[slot].observe_http("GET", "/health", 200, seconds)
    fleet.workers[1].observe_http("GET", "/only/here", 200, 3.0)
    both = fleet.samples()
    labels = ("GET", "/health", "2xx")
    counts = [both["rtc_http_request_duration_seconds_bucket", bound, *labels] for bound in ("0.5", "1.0", "+Inf")]
    assert counts == [2, 3, 3]
    assert both["rtc_http_request_duration_seconds_count", "GET", "/only/here", "2xx"] == 1


def test_each_worker_is_told_of() -> None:
    fleet = Fleet(3)
    found = fleet.samples(missing=(2,), restarts=[0, 4, 1])
    assert [found["rtc_worker_up", slot] for slot in "012"] == [1, 1, 0]
    assert [found["rtc_worker_restarts_total", slot] for slot in "012"] == [0, 4, 1]
    assert found["rtc_worker_connections", "0"] == alone(fleet.workers[0])["rtc_connections",]
    assert ("rtc_worker_connections", "2") not in found
    for name in ("queued_messages", "event_loop_lag_seconds", "resident_memory_bytes", "cpu_seconds_total"):
        assert (f"rtc_worker_{name}", "1") in found


def test_counts_stay_when_a_worker_is_silent_and_when_it_is_replaced() -> None:
    fleet = Fleet()
    one = alone(fleet.workers[0])["rtc_deliveries_total",]
    gauge = alone(fleet.workers[0])["rtc_connections",]
    assert fleet.samples()["rtc_deliveries_total",] == 2 * one
    silent = fleet.samples(missing=(1,))
    assert (silent["rtc_deliveries_total",], silent["rtc_connections",]) == (2 * one, gauge)
    for replaced in range(1, 4):
        fleet.workers[1] = fleet.worker()
        assert fleet.samples()["rtc_deliveries_total",] == (2 + replaced) * one
    assert fleet.samples()["rtc_connections",] == 2 * gauge


def test_the_process_that_serves_counts_too() -> None:
    fleet, own = Fleet(), Fleet().worker()
    families = [family for family in own.collect() if family.name.startswith("process_")]
    found = fleet.samples(own=families)
    assert found["process_threads",] == 3 * alone(own)["process_threads",]


def test_topics_of_workers_that_are_gone_have_a_bound(monkeypatch: Any) -> None:
    monkeypatch.setattr(fleet_metrics, "MAX_KEPT", 5)
    fleet, total = Fleet(1), 0.0
    for run in range(10):
        fleet.workers[0] = fleet.worker(topic_counts=lambda limit, run=run: [(f"room:{run}", 1, 1)])
        found = fleet.samples()
        topics = {key[1]: value for key, value in found.items() if key[0] == "rtc_published_messages_total"}
        assert sum(topics.values()) > total
        total = sum(topics.values())
    assert len(topics) <= 5 + 3


def test_prometheus_can_read_it_in_both_forms() -> None:
    fleet = Fleet()
    fleet.workers[0].observe_http("GET", "/health", 200, 0.1)
    names = [family.name for family in parse_openmetrics(fleet.text(openmetrics=True))]
    assert len(names) == len(set(names))
    served = {family.name for family in parse_openmetrics(fleet.workers[0].snapshot().text(openmetrics=True).decode())}
    assert served <= set(names)
