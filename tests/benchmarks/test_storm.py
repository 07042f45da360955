"""What `benchmarks/storm` finds, with few clients; and that it names what did not come back."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from benchmarks import prepare, restarts, storm, storm_figures
from benchmarks.candidates import Candidate
from benchmarks.deployments import Unavailable
from benchmarks.driver import Driver
from benchmarks.generator import Generator, GeneratorError
from benchmarks.measure import two_cores
from benchmarks.storm import Storm, answers_of, broken, rows_of

CLIENTS = 30


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    folder = tmp_path_factory.mktemp("storm")
    prepare.compiled_parts(folder)
    return Driver(folder, Generator(folder / "load"), CLIENTS, 0.1)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts, "SUBSCRIBERS_PER_TOPIC", 10)
    for name in ("BEFORE_SECS", "AFTER_SECS"):
        monkeypatch.setattr(storm, name, 0.1)
    monkeypatch.setattr(storm, "PROBE_SECS", 0.01)


@pytest.fixture(scope="module")
def found(driver: Driver) -> Storm:
    """One whose connections were cut; with the figures of the module as they are."""
    with storm.alone(two_cores()[1]) as candidate:
        return storm.storm(driver, candidate, two_cores()[0], CLIENTS, None)


def test_all_that_are_cut_come_back(found: Storm) -> None:
    comeback = found.comeback
    assert (comeback.lost, comeback.recovered, comeback.never_back, comeback.reset) == (CLIENTS, CLIENTS, 0, 0)
    assert (found.violations, comeback.unseen) == (0, 0)
    assert 0 < found.half_back <= found.back
    assert min(found.rate, found.cpu) > 0
    assert found.peak_rss >= found.usual_rss > 1024 * 1024
    assert broken("title", [found]) == []
    assert f"| {CLIENTS} ({CLIENTS} – {CLIENTS}) |" in "\n".join(map(str, rows_of("title", [found])))
    assert "| title: `/health`" in answers_of("title", [found])


def test_all_that_a_killed_server_had_come_back(driver: Driver) -> None:
    (made,) = storm.storms(driver, two_cores(), "killed", 1, CLIENTS)
    assert broken("title", [made]) == []
    assert made.comeback.recovered == CLIENTS


def test_who_does_not_is_named(found: Storm) -> None:
    comeback = msgspec.structs.replace(found.comeback, recovered=CLIENTS - 2, never_back=1, reset=1)
    (words,) = broken("title", [msgspec.structs.replace(found, comeback=comeback)])
    assert "28 recovered, 1 were told of a gap, 1 never came back" in words
    (words,) = broken("title", [msgspec.structs.replace(found, violations=3)])
    assert "3 violations" in words


def test_nothing_that_was_cut(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.generator.Held.cut", lambda self: None)
    monkeypatch.setattr(storm, "BACK_WITHIN_SECS", 0.1)
    with pytest.raises(GeneratorError, match="no connection was lost"):
        storm.storms(driver, two_cores(), "cut", 1, CLIENTS)


def test_the_whole_of_it(
    found: Storm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    @contextmanager
    def none(load_core: int) -> Iterator[Candidate]:
        raise Unavailable("no Redis today")
        yield

    monkeypatch.setattr(storm, "storm", lambda *_: found)
    monkeypatch.setattr(storm, "with_redis", none)
    assert storm_figures.main([f"--clients={CLIENTS}", "--rounds=1", f"--json={tmp_path / 'out.json'}"]) == 0
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["storms"]["30 clients, cut"][0]["comeback"]["recovered"] == CLIENTS
    assert "not available: no Redis today" in capsys.readouterr().out
    assert dict(storm.KINDS)["killed"] is signal.SIGKILL
    lost = msgspec.structs.replace(found, violations=1)
    monkeypatch.setattr(storm, "storm", lambda *_: lost)
    assert storm_figures.main([f"--clients={CLIENTS}", "--rounds=1", "--only=cut"]) == 1
