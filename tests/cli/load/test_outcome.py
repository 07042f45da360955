"""What a run came to."""

from __future__ import annotations

import json

import pytest

from realtime_communication.cli.load.outcome import document, duration, figures, remarks
from serving.bench_runs import outcome


def test_the_figures_of_a_run_with_deliveries() -> None:
    rows = dict(figures(outcome()))
    assert rows["deliveries a second"] == "1,000"
    assert rows["latency, median"] == "90 µs"
    assert rows["latency, 99 %"] == "1.50 ms"
    assert rows["longest"] == "2.60 s"
    assert remarks(outcome()) == []


@pytest.mark.parametrize("mode", ["connect", "idle"])
def test_the_figures_of_a_run_without(mode: str) -> None:
    rows = dict(figures(outcome(mode, buckets=[])))
    assert rows["opened a second"] == "200"
    assert "deliveries" not in rows and ("held for" in rows) == (mode == "idle")


@pytest.mark.parametrize("field", ["gaps", "duplicates", "disorder", "lost", "errors"])
def test_what_makes_a_run_unsound(field: str) -> None:
    run = outcome(**{field: 3})
    assert not run.is_sound
    assert remarks(run) == [f"unsound, the figures do not count: {field} 3"]


def test_a_run_that_stalled() -> None:
    assert remarks(outcome(stalled=True)) == ["unsound, the figures do not count: stalled 1"]


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        ("upgrade refused: HTTP/1.1 401 Unauthorized", "--secret-file"),
        ("unexpected: {'code':'rate_limited'}", "rate_limiting"),
        ("unexpected: {'code':'forbidden'}", "permissions"),
        ("unexpected: {'type':'Lagged'}", "mailbox_capacity"),
    ],
)
def test_what_to_do_about_an_error(error: str, hint: str) -> None:
    said = remarks(outcome(errors=1, first_error=error))
    assert said[1] == f"first error: {error}"
    assert hint in said[2]


@pytest.mark.parametrize(("publications", "kept_up"), [(20, True), (17, True), (16, False), (0, False)])
def test_a_rate_that_the_server_did_not_keep(publications: int, kept_up: bool) -> None:
    run = outcome("latency", offered=10.0, publications=publications)
    assert run.is_sound and run.kept_up == kept_up
    assert [line for line in remarks(run) if "did not keep up with 10 " in line] == remarks(run)
    assert bool(remarks(run)) != kept_up


@pytest.mark.parametrize(("value", "text"), [(0.4, "0 µs"), (999.0, "999 µs"), (1000.0, "1.00 ms"), (2e6, "2.00 s")])
def test_durations(value: float, text: str) -> None:
    assert duration(value) == text


def test_the_document() -> None:
    read = json.loads(document(outcome()))
    assert (read["format"], read["mode"], read["sound"], read["rate"]) == (1, "fanout", True, 1000.0)
    assert read["options"]["topic"] == "<topic>" and read["result"]["p50_us"] == 90.0
    assert [point["at"] for point in read["series"]] == [0.5, 1.0]
