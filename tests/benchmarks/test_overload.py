"""What `benchmarks/overload` finds, for a moment and with few clients; and that it notices what it is there for."""

import json
from pathlib import Path

import msgspec
import pytest

from benchmarks import overload, overload_figures, prepare, probes
from benchmarks.driver import Driver
from benchmarks.generator import Generator, GeneratorError, Moment, Report, Shedding
from benchmarks.measure import two_cores
from benchmarks.overload import Capacity, Outcome, Plan, back, capacity_of, middle, outcome_of
from benchmarks.overload_figures import MIB, Bounds, broken
from benchmarks.probes import Answers

CAPACITY = Capacity(publications=500.0, deliveries=5000.0)
PLAN = Plan(subscribers=10, slow=2, publishers=3, before=0.4, seconds=0.5, after=0.6)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    folder = tmp_path_factory.mktemp("overload")
    prepare.compiled_parts(folder)
    return Driver(folder, Generator(folder / "load"), PLAN.clients, 0.1)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overload, "PROBE_SECS", 0.02)
    monkeypatch.setattr(overload, "MOMENT_MS", 50)


def shedding(**changes: int) -> Shedding:
    none = {field: 0 for field in Shedding.__struct_fields__ if field != "why"}
    return Shedding(why="", **{**none, **changes})


def report(**changes: object) -> Report:
    made = Report("overload", 10, 0, 1.0, 5000, 500, 0, 0, 0, 0.5, 0, 0, 0, 0, 0, False, "")
    return msgspec.structs.replace(made, offered=1500.0, shedding=shedding(), **changes)


def moments() -> list[Moment]:
    """A second of before, one of overload, two of afterwards, the first of which is slow still."""
    slow = [(False, 100.0)] * 4 + [(True, 5000.0)] * 4 + [(False, 900.0)] * 4 + [(False, 110.0)] * 4
    return [Moment(0.25 * (at + 1), measuring, 5000.0, p50, 2 * p50) for at, (measuring, p50) in enumerate(slow)]


def outcome(**changes: object) -> Outcome:
    answers = [Answers("`/health`", {200: 10}, 0, 1.0, 2.0, 3.0)]
    made = outcome_of("backpressure", PLAN, CAPACITY, report(), moments(), (80 * MIB, 90 * MIB), answers)
    return msgspec.structs.replace(made, **changes)


def test_a_run_that_is_as_promised() -> None:
    made = outcome()
    assert (made.offered, made.goodput, made.cpu) == (3.0, 1.0, 0.5)
    assert (made.before.p50_us, made.meanwhile.p50_us) == (100.0, 5000.0)
    assert made.p50_back_secs == made.p99_back_secs == 1.25
    assert broken(made, Bounds()) == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"goodput": 0.5}, "0.50 of the capacity"),
        ({"violations": 2, "problems": "gaps 2"}, "gaps 2"),
        ({"shedding": shedding(told=4, missing=5)}, "told of 4 missing deliveries, and 5 were"),
        ({"peak_rss": 800 * MIB}, "memory grew by 720 MiB"),
        ({"p99_back_secs": None}, "latency was not as before"),
        ({"answers": [Answers("`/health`", {200: 9}, 1, 1.0, 2.0, 3.0)]}, "1 without an answer"),
        ({"answers": [Answers("`/health`", {500: 9}, 0, 1.0, 2.0, 3.0)]}, "{500: 9}"),
    ],
)
def test_what_is_not_is_named(changes: dict[str, object], named: str) -> None:
    (found,) = broken(outcome(**changes), Bounds())
    assert named in found


def test_back_needs_several_moments_in_a_row() -> None:
    after = [(number / 4, figure) for number, figure in enumerate([9.0, 1.0, 1.0, None, 1.0, 1.0, 1.0, 1.0], 5)]
    assert back(after, [1.0] * 4, 1.0) == 1.25
    assert back(after[:7], [1.0] * 4, 1.0) is None
    assert back(after, [], 1.0) is None
    assert middle([]).p50_us is None


def test_a_run_that_came_to_nothing() -> None:
    with pytest.raises(GeneratorError, match="no run"):
        outcome_of("limits", PLAN, CAPACITY, report(errors=1, seconds=0.0), [], (0, 0), [])


def test_limits_are_in_the_configuration() -> None:
    text = overload.server_of("limits", PLAN, CAPACITY, 1).configuration
    assert "enabled = true\n[rate_limiting.global]" not in text
    assert "requests_per_second = 450.0\nburst_size = 45\n" in text
    assert f"max_connections = {PLAN.clients}\n" in text
    assert 'overflow_strategy = "drop_oldest"' in overload.server_of("drop_oldest", PLAN, CAPACITY, 1).configuration


def test_a_moment_of_overload(driver: Driver) -> None:
    core, _ = two_cores()
    capacity = capacity_of(driver, core, PLAN, rounds=1)
    assert capacity.deliveries > capacity.publications > 0
    driver.new_tokens()
    made = overload.overload(driver, core, "limits", PLAN, Capacity(200.0, 2000.0))
    shed = made.shedding
    assert (made.violations, made.problems) == (0, "")
    assert shed.rate_limited + shed.away > 0
    assert shed.sent == shed.acknowledged + shed.rate_limited + shed.unanswered
    assert (shed.told, made.peak_rss > MIB) == (shed.missing, True)
    answered = {each.what: each.statuses for each in made.answers}
    assert set(answered["`/health`"]) == set(answered["`/admin/stats`"]) == set(answered["`/metrics`"]) == {200}
    assert set(answered["a client more than there is room for"]) <= {101, 503}


def test_gaps_are_told_as_many_as_there_are(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overload, "MAILBOX", 5)
    driver.new_tokens()
    plan = msgspec.structs.replace(PLAN, payload=20_000)
    made = overload.overload(driver, two_cores()[0], "drop_oldest", plan, Capacity(400.0, 4000.0))
    assert made.violations == 0, made.problems
    assert made.shedding.told == made.shedding.missing > 0


def test_the_whole_of_it(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = [outcome(), outcome(goodput=0.1)]
    monkeypatch.setattr(overload_figures, "capacity_of", lambda *_: CAPACITY)
    monkeypatch.setattr(overload_figures, "overload", lambda *_: found.pop(0))
    words = ["--only=backpressure", "--subscribers=5", f"--json={tmp_path / 'out.json'}"]
    assert overload_figures.main(words) == 0
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["outcomes"][0]["shedding"]["sent"] == 0
    assert "| deliveries/s ÷ capacity | 1.00 |" in capsys.readouterr().out
    assert overload_figures.main(words) == 1
    assert "bound broken: backpressure: 0.10" in capsys.readouterr().err


def test_answers_as_a_table() -> None:
    assert "| `/x` | none | 2 | 0.0 | 0.0 | 0.0 |" in probes.table([Answers("`/x`", {}, 2, 0, 0, 0)])
    assert "| 3 × 200, 1,000 × 503 |" in probes.table([Answers("`/x`", {503: 1000, 200: 3}, 0, 1, 2, 3)])
