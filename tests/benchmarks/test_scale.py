"""Many idle connections and many topics, for a moment and with few of them."""

import os

import pytest

from benchmarks import scale, topics
from benchmarks.driver import Driver, Unsound
from benchmarks.generator import Generator
from benchmarks.scale import connection_rows, hold, parse_options

HEARTBEAT_SECS = 0.2
CONNECTIONS = 30


@pytest.fixture(scope="module")
def driver(generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> Driver:
    return Driver(tmp_path_factory.mktemp("driver"), generator, CONNECTIONS + 1, 0)


def any_core() -> int:
    return min(os.sched_getaffinity(0))


def test_connections_live_through_heartbeats_and_all_get_a_message(driver: Driver) -> None:
    held = hold(driver, any_core(), CONNECTIONS, HEARTBEAT_SECS)
    assert held.report.seconds >= scale.HEARTBEATS * HEARTBEAT_SECS
    assert held.report.deliveries == CONNECTIONS
    assert held.cpu_us > 0
    assert [row.figure for row in connection_rows([held])][-1].startswith("extrapolated")


def test_a_connection_that_is_closed_meanwhile_is_no_figure(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "lines", lambda table: "max_connections = 10\n")
    with pytest.raises(Unsound, match="503"):
        hold(driver, any_core(), CONNECTIONS, HEARTBEAT_SECS)


def test_the_cost_of_a_publication_with_several_numbers_of_topics() -> None:
    found = topics.flat((any_core(), any_core()), [4, 20], 5, 40, 2)
    assert [row.figure for row in found] == [
        "4 topics, one subscriber each: µs of CPU a publication",
        "20 topics, one subscriber each: µs of CPU a publication",
        "… ratio to 4 topics",
    ]
    assert all(len(row.values) == 2 and min(row.values) > 0 for row in found)


def test_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_options(["--topics=1,2"]).topics == [1, 2]
    with pytest.raises(SystemExit):
        parse_options(["--only=everything"])
    assert "not known: everything" in capsys.readouterr().err
