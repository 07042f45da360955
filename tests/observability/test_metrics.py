"""All metrics of a process, read back as Prometheus would read them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from realtime_communication._core.hub.pending import Pending
from realtime_communication.config.metric_names import CUSTOM_METRICS
from realtime_communication.config.watching import CustomMetric, Monitoring, Prometheus
from realtime_communication.observability.catalogue import ROWS
from realtime_communication.observability.metrics import UNMATCHED, Metrics
from realtime_communication.observability.sources import Sources
from serving.scrapes import full_sources

ALL_CUSTOM = tuple(CustomMetric(name=spec.name, type=spec.type, labels=spec.labels) for spec in CUSTOM_METRICS.values())
BARE = Prometheus(namespace="", subsystem="", buckets=(0.5, 1.0))


def full(**changes: object) -> Metrics:
    """Everything there is, with a value."""
    metrics = Metrics(Monitoring(prometheus=BARE, custom_metrics=ALL_CUSTOM), full_sources(**changes))
    metrics.update()
    metrics.observe_http("GET", "/health", 200, 0.1)
    return metrics


def samples(metrics: Metrics) -> dict[str, dict[tuple[str, ...], float]]:
    """Numbers by the names of samples and the values of labels in alphabetic order of their names."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in parse(metrics.snapshot().text().decode()):
        for each in family.samples:
            labels = tuple(value for _, value in sorted(each.labels.items()))
            assert labels not in found.setdefault(each.name, {}), "a series twice"
            found[each.name][labels] = each.value
    return found


def test_every_row_of_the_catalogue_is_served_with_its_type_and_text() -> None:
    served = {family.name: family for family in parse_openmetrics(full().snapshot().text(openmetrics=True).decode())}
    for name, row in ROWS.items():
        assert (served[name].type, served[name].documentation) == (row.type, row.help)
        assert all(set(each.labels) - {"le"} == set(row.labels) for each in served[name].samples)
    for name, spec in CUSTOM_METRICS.items():
        assert (served[name].type, served[name].documentation) == (spec.type, spec.help)
    assert served.keys() == ROWS.keys() | CUSTOM_METRICS.keys()


def test_both_forms_say_the_same() -> None:
    snapshot = full().snapshot()
    old, new = snapshot.text().decode(), snapshot.text(openmetrics=True).decode()
    assert new.endswith("# EOF\n")
    assert [line for line in old.splitlines() if line[0] != "#"] == [
        line for line in new.splitlines() if line[0] != "#"
    ]


def test_numbers_come_from_the_sources() -> None:
    stats = {"connections": 3, "publications": 40, "slow_consumers": 2, "subscriptions": 9}
    found = samples(full(stats=lambda: stats))
    assert found["connections"] == {(): 3} and found["publications_total"] == {(): 40}
    assert found["connections_cut_total"] == {("slow_consumer",): 2}
    assert found["queued_messages"] == {(): 12} and found["process_open_fds"] == {(): 4}
    assert found["circuit_breaker_state"] == {("redis",): 2}
    assert found["circuit_breaker_transitions_total"] == {("redis", "open"): 3}
    assert found["service_restarts_total"] == {("HTTP",): 2}
    assert found["redis_latency_seconds"] == {(): 0.001}


def test_a_snapshot_is_of_one_moment() -> None:
    metrics = full()
    snapshot = metrics.snapshot()
    before = snapshot.text()
    metrics.observe_http("GET", "/health", 200, 0.1)
    assert snapshot.text() == before != metrics.snapshot().text()


def test_counters_are_read_at_each_scrape_and_the_rest_is_taken() -> None:
    stats, asked = {"publications": 1, "subscriptions": 0}, iter(range(100))
    metrics = full(stats=lambda: stats, queued=lambda: next(asked))
    stats["publications"] = 2
    for _ in range(3):
        found = samples(metrics)
        assert found["publications_total"] == {(): 2} and found["queued_messages"] == {(): 0}
    metrics.update()
    assert samples(metrics)["queued_messages"] == {(): 1}


def test_with_counters_alone() -> None:
    metrics = Metrics(Monitoring(), Sources(stats=lambda: {"connections": 1}))
    assert "realtime_comm_websocket_connections" in samples(metrics), "before the first update"
    metrics.update()
    found = samples(metrics)
    assert not any(name.startswith("realtime_comm_websocket_redis") for name in found)
    assert found["process_resident_memory_bytes"][()] > 0


def test_what_tells_nothing_is_not_served() -> None:
    nothing = {
        "last_reload": lambda: None,
        "certificate_expiry": lambda: None,
        "tls_failures": lambda: None,
        "redis": lambda: None,
        "told": dict,
    }
    found = samples(full(**nothing, breakers=list, breaker_transitions=dict))
    assert not [name for name in found if name.startswith(("config_", "tls_", "redis_", "circuit_"))]


def test_http_labels_have_a_bound() -> None:
    metrics = Metrics(Monitoring(prometheus=BARE), full_sources())
    for number in range(10_000):
        metrics.observe_http(f"M{number}", UNMATCHED, 404, 0.7)
    metrics.observe_http("GET", "/api/{x}", 204, 0.2)
    found = samples(metrics)
    assert found["http_request_duration_seconds_count"] == {
        ("other", UNMATCHED, "4xx"): 10_000,
        ("GET", "/api/{x}", "2xx"): 1,
    }
    assert found["http_request_duration_seconds_bucket"]["0.5", "GET", "/api/{x}", "2xx"] == 1


def test_authentication() -> None:
    metrics = Metrics(Monitoring(prometheus=BARE), full_sources())
    answers: Iterator[object] = iter([object(), (401, "unauthorized", "no", []), None, ("unauthorized", "no")])
    check = metrics.timed_authentication(lambda *asked: (asked, next(answers))[1])
    assert [type(check(1, 2)) for _ in range(4)] == [object, tuple, type(None), tuple]
    counts = samples(metrics)["authentication_duration_seconds_count"]
    assert counts == {("accepted",): 1, ("refused",): 2}


def test_an_answer_that_comes_later_is_counted_by_who_waits_for_it() -> None:
    metrics = Metrics(Monitoring(prometheus=BARE), full_sources())

    async def later() -> object:
        return object()

    assert asyncio.run(metrics.timed_authentication(later)())
    assert metrics.timed_authentication(Pending)()
    assert samples(metrics)["authentication_duration_seconds_count"]["accepted",] == 0
    metrics.observe_authentication(True, 0.7)
    assert samples(metrics)["authentication_duration_seconds_bucket"]["1.0", "accepted"] == 1


def test_the_longest_lag_of_each_interval() -> None:
    metrics = full()
    for lag in (0.1, 0.3, 0.2):
        metrics.note_lag(lag)
    metrics.update()
    assert samples(metrics)["event_loop_lag_seconds"] == {(): 0.3}
    metrics.update()
    assert samples(metrics)["event_loop_lag_seconds"] == {(): 0}


def test_samples_can_come_from_somebody_else() -> None:
    metrics = full(take_samples=None)
    assert metrics.wants_samples
    metrics.record_samples([("Broadcast", "room", 0, 1)])
    assert samples(metrics)["message_latency_count"] == {("Broadcast", "room"): 1}


@pytest.mark.parametrize("topic", ['quote"', "back\\slash", "line\nend", "täglich", "x" * 255, "{}", "# HELP"])
def test_names_of_topics_cannot_break_the_text(topic: str) -> None:
    metrics = full(topic_counts=lambda limit: [(topic, 3, 4)])
    snapshot = metrics.snapshot()
    for text, read in ((snapshot.text(), parse), (snapshot.text(openmetrics=True), parse_openmetrics)):
        served = {family.name: family for family in read(text.decode())}
        assert topic[:128] in {each.labels["topic"] for each in served["active_subscriptions"].samples}


def test_two_servers_in_one_process_do_not_meet() -> None:
    full()
    full()
