"""What `benchmarks/soak` finds, for a moment and with few clients; and that it notices what it is there for."""

import json
from pathlib import Path

import pytest

from benchmarks import soak_figures, steady
from benchmarks.probes import quantile
from benchmarks.steady import MIB, Bounds, Load, Sample, slope, verdicts
from serving.checker import Checker

GROWTH = 8 * 1024 * 1024
"""Bytes a minute of a server that leaks."""


def samples(growth: float = 0.0, files: float = 0.0, drift: float = 0.0) -> list[Sample]:
    """Five minutes of a server that grows by so much a minute, after one in which it grows in any case."""
    made = []
    for number in range(60):
        minutes = number / 12
        warm = max(0.0, minutes - 1)
        rss = int(100 * MIB + min(minutes, 1) * 50 * MIB + warm * growth + (number % 3) * 100_000)
        made.append(Sample(minutes * 60, rss, int(40 + warm * files), 200, 0.0, 500, 1.0 + warm * drift, 2.0))
    return made


def broken(found: list[Sample], checker: Checker | None = None) -> list[str]:
    return [each.figure for each in verdicts(found, 60, checker or Checker(), Bounds()) if not each.holds]


def test_what_is_level_breaks_no_bound() -> None:
    assert broken(samples()) == []
    assert broken(samples(growth=100_000, files=0.5, drift=0.1)) == []


@pytest.mark.parametrize(
    ("what", "named"),
    [({"growth": GROWTH}, "resident memory"), ({"files": 3.0}, "descriptors"), ({"drift": 1.0}, "latency")],
)
def test_what_grows_is_named(what: dict[str, float], named: str) -> None:
    (found,) = broken(samples(**what))
    assert named in found


def test_a_loss_is_named() -> None:
    checker = Checker()
    track = checker.track("reader", "t")
    track.subscribing(None)
    track.subscribed("e", 0, False)
    track.message(2, "second")
    (found,) = broken(samples(), checker)
    assert "violations" in found


def test_of_few_points() -> None:
    assert (slope([]), slope([(1, 1)]), slope([(1, 5), (1, 7)])) == (0, 0, 0)
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert (quantile([], 0.5), quantile([7], 0.99), quantile([1, 2, 3, 4], 0.5)) == (0, 7, 3)


def test_a_moment_of_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name, value in (("TICK_SECS", 0.1), ("STAY_SECS", 0.4), ("SLOW_SECS", 0.2)):
        monkeypatch.setattr(steady, name, value)
    load = Load(clients=12, topics=3, publishers=2, rate=100, joins=10, cuts=10, slow=10)
    monkeypatch.setattr(steady, "Load", lambda **_: load)
    words = ["--minutes=0.03", "--warm-up=0", "--sample-secs=0.2", f"--json={tmp_path / 'out.json'}"]
    loose = ["--rss-bound=1e9", "--files-bound=1000", "--drift-bound=1e9"]
    assert soak_figures.main([*words, *loose]) == 0
    written = json.loads((tmp_path / "out.json").read_text())
    assert len(written["samples"]) > 3
    assert written["totals"]["recoveries"] > 0
    assert written["totals"]["acknowledged"] == written["totals"]["published"] > 50
    assert "| growth of resident memory |" in capsys.readouterr().out
    assert soak_figures.main([*words, "--rss-bound=-1e9"]) == 1
    assert "**broken**" in capsys.readouterr().out
