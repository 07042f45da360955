"""Statistics over rounds, and the tables made of them."""

import msgspec
import pytest

from benchmarks import figures, tables
from benchmarks.candidates import CANDIDATES, LIMIT, PRODUCT, Candidate
from benchmarks.generator import Report
from benchmarks.results import Idle, Results

FIGURE = figures.fanout(1)
SOUND = Report(
    mode="fanout",
    connections=1000,
    connect_seconds=0.5,
    seconds=2.0,
    deliveries=1000,
    publications=1,
    bytes=195_000,
    received=197_000,
    offered=0.0,
    server_user=0.25,
    server_system=0.75,
    server_cpu=2.0,
    gaps=0,
    duplicates=0,
    disorder=0,
    lost=0,
    errors=0,
    stalled=False,
    first_error="",
)


def candidate(name: str) -> Candidate:
    (found,) = (candidate for candidate in CANDIDATES if candidate.name == name)
    return found


def with_deliveries(*deliveries: int, server: str = PRODUCT, into: Results | None = None) -> Results:
    results = into or Results()
    for number, count in enumerate(deliveries):
        results.add(FIGURE, candidate(server), number, msgspec.structs.replace(SOUND, deliveries=count))
    return results


def test_the_middle_least_and_most_of_the_rounds() -> None:
    spread = with_deliveries(400, 100, 300).spread(FIGURE, PRODUCT)
    assert spread is not None
    assert (spread.least, spread.middle, spread.most) == (50, 150, 200)


def test_ratios_are_taken_round_by_round() -> None:
    results = with_deliveries(100, 1000, server=LIMIT)
    with_deliveries(80, 900, into=results)
    ratio = results.ratio(FIGURE, PRODUCT, FIGURE, LIMIT)
    assert ratio is not None
    assert (ratio.least, ratio.most) == (pytest.approx(0.8), pytest.approx(0.9))


@pytest.mark.parametrize("fault", ["gaps", "duplicates", "disorder", "lost", "errors", "stalled"])
def test_an_unsound_run_is_listed_and_does_not_count(fault: str) -> None:
    results = with_deliveries(200)
    results.add(FIGURE, candidate(PRODUCT), 1, msgspec.structs.replace(SOUND, deliveries=10**9, **{fault: 1}))
    spread = results.spread(FIGURE, PRODUCT)
    assert spread is not None
    assert spread.most == 100
    assert [(key, name) for key, name, _ in results.unsound()] == [("fanout-1", PRODUCT)]
    assert fault in tables.soundness(results)


def test_cpu_time_splits_as_the_ticks_do() -> None:
    cost = with_deliveries(1000, 1000).cpu_cost(FIGURE, PRODUCT)
    assert cost is not None
    assert cost.user == pytest.approx(500)
    assert cost.system == pytest.approx(1500)


def test_the_document_shows_every_table_and_verdict() -> None:
    results = with_deliveries(1000, server=LIMIT)
    with_deliveries(900, into=results)
    idle = figures.idle(1000)
    results.idle[PRODUCT] = Idle(msgspec.structs.replace(SOUND, mode="idle"), 50_000_000, 50_900_000)
    text = tables.document([candidate(LIMIT), candidate(PRODUCT)], [FIGURE], idle, results)
    assert "| **this build** / bare C loop | 0.90 (0.90 – 0.90) |" in text
    assert "| fan-out, 1 in flight | ≥ 0.85 × the bare C loop | 0.90 (0.90 – 0.90) | yes |" in text
    assert "0.88 KiB" in text
    assert "no loss, no duplicate, no disorder" in text


def test_what_was_not_measured_is_said_to_be_so() -> None:
    text = tables.goals_table([FIGURE], None, Results())
    assert "not measured" in text
    assert "yes" not in text


@pytest.mark.parametrize(
    ("publications", "deliveries", "kept_up"), [(200, 1000, True), (189, 1000, True), (180, 1000, False), (0, 0, False)]
)
def test_a_rate_was_kept_up_with_or_not(publications: int, deliveries: int, kept_up: bool) -> None:
    """200 were due in two seconds; two may be on their way at the end, and 5 % are allowed for noise."""
    report = msgspec.structs.replace(SOUND, publications=publications, deliveries=deliveries, offered=100.0)
    assert report.kept_up is kept_up


def test_nothing_was_due_is_kept_up_with() -> None:
    assert SOUND.kept_up


def test_the_latency_of_a_server_that_did_not_keep_up_is_not_shown() -> None:
    results = Results()
    late = msgspec.structs.replace(SOUND, offered=100.0, p50_us=1.0, p99_us=2.0, p999_us=3.0)
    results.add(figures.LATENCY, candidate(PRODUCT), 0, late)
    text = tables.latency_table([candidate(PRODUCT)], [figures.LATENCY], results)
    assert "| **this build** | 20 % | did not keep up | – | – |" in text


def test_memory_over_connections_is_that_of_the_process() -> None:
    results = Results()
    held = msgspec.structs.replace(SOUND, mode="idle")
    results.memory[PRODUCT] = [Idle(held, 2**20, 3 * 2**20)]
    assert "| **this build** | 3.0 |" in tables.memory_table([candidate(PRODUCT)], results)


def test_a_rate_counts_as_kept_up_with_when_most_rounds_did() -> None:
    results = Results()
    for number, publications in enumerate((200, 10, 200)):
        report = msgspec.structs.replace(SOUND, offered=100.0, publications=publications)
        results.add(figures.LATENCY, candidate(PRODUCT), number, report)
        assert results.kept_up(figures.LATENCY, PRODUCT) is (number != 1)
