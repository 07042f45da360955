"""The measurements of `benchmarks/cluster`, for a moment each and with few clients."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import costs, crossing, deployments, outages, prepare, restarts
from benchmarks.deployments import Unavailable, product
from benchmarks.driver import Driver, Row, Unsound, not_available
from benchmarks.generator import Generator, Report
from benchmarks.measure import two_cores
from benchmarks.servers import Running, free_port, running

MOMENT_SECS = 0.1


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    folder = tmp_path_factory.mktemp("cluster")
    prepare.compiled_parts(folder)
    return Driver(folder, Generator(folder / "load"), 50, MOMENT_SECS)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits, and few subscribers."""
    for name in ("BEFORE_SECS", "AFTER_SECS"):
        monkeypatch.setattr(restarts, name, 0.1)
    monkeypatch.setattr(restarts, "SUBSCRIBERS_PER_TOPIC", 10)
    monkeypatch.setattr(outages, "CUT_FOR_SECS", 0.1)
    monkeypatch.setattr(outages, "CUT_EVERY_SECS", 0.5)
    monkeypatch.setattr(outages, "SUBSCRIBERS_PER_TOPIC", 10)
    monkeypatch.setattr(costs, "SUBSCRIBERS", 20)
    monkeypatch.setattr(costs, "WARM_UP_CONNECTIONS", 5)


def test_a_row_has_the_median_the_least_and_the_most() -> None:
    assert str(Row("figure", [3.0, 1.0, 1000.0], 1)) == "| figure | 3.0 (1.0 – 1,000.0) |"
    assert [str(row) for row in not_available(["a"], "no such thing")] == ["| a | not available: no such thing |"]


def test_sections_of_the_configuration() -> None:
    text = product(redis={"url": "redis://127.0.0.1:1"}, testing={"use_in_memory_storage": False}).configuration
    assert '[redis]\nurl = "redis://127.0.0.1:1"\n' in text
    assert "[testing]\nuse_in_memory_storage = false\n" in text


def test_what_cannot_be_started_is_not_available(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def none(count: int, cores: str) -> Iterator[Running]:
        raise Unavailable("no workers today")
        yield

    monkeypatch.setattr(deployments, "workers", none)
    rows = [*crossing.workers(driver, "0,1", 1, 10), *crossing.crossing(driver, "0,1", 1)]
    assert {row.missing for row in rows} == {"not available: no workers today"}
    assert len(rows) == len(crossing.WORKERS_FIGURES) + len(crossing.CROSSING_FIGURES)


def test_without_a_redis_server(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    (missing,) = {row.missing for row in crossing.through_redis(driver, "0,1", 1, 10)}
    assert missing == "not available: there is no redis-server on this machine"


def report(*cpus: float) -> Report:
    return Report("fanout", 1, 0, 1, 10, 10, 0, 0, 0, sum(cpus), 0, 0, 0, 0, 0, False, "", server_cpus=list(cpus))


def test_runs_are_told_apart_by_the_workers_they_used() -> None:
    local, crossed = costs.split([report(0.001, 0.0, 0.0), report(0.002, 0.001, 0.0)])
    assert local == pytest.approx([100.0])
    assert crossed == pytest.approx([300.0])


def test_an_unsound_run_has_no_figures(driver: Driver) -> None:
    with pytest.raises(Unsound, match="errors 1"):
        driver.run("connect", free_port(), [], connections=1)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_under_clients(driver: Driver, how: signal.Signals) -> None:
    server_core, _ = two_cores()
    outcome = restarts.restart(driver, product(), server_core, 20, how)
    assert (outcome.lost, outcome.recovered, outcome.reset, outcome.never_back, outcome.violations) == (20, 0, 20, 0, 0)
    assert 0 < outcome.started < outcome.serving <= outcome.half_back <= outcome.back
    assert outcome.cpu > 0
    assert min(outcome.usual_rss, outcome.peak_rss) > 1024 * 1024


@pytest.mark.usefixtures("quick")
def test_a_restart_of_a_server_whose_cache_is_in_redis(driver: Driver) -> None:
    server_core, load_core = two_cores()
    with restarts.with_redis(load_core) as candidate:
        outcome = restarts.restart(driver, candidate, server_core, 20, signal.SIGKILL)
    assert (outcome.lost, outcome.recovered, outcome.reset, outcome.never_back, outcome.violations) == (20, 20, 0, 0, 0)
    assert len(restarts.rows_of("title", [outcome])) > 5


@pytest.mark.usefixtures("quick")
def test_a_rolling_restart(driver: Driver) -> None:
    secs, lost, violations = restarts.rolling_restarts(driver, two_cores(), 1, 20)
    assert secs.values > [0.0]
    assert lost.values[0] < 20
    assert violations.values == [0.0]


@pytest.mark.usefixtures("quick")
def test_restarts_without_a_redis_server(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    rows = restarts.restarts(driver, two_cores(), 1, 20)
    assert [row.missing for row in rows if row.missing] == [
        "not available: there is no redis-server on this machine"
    ] * 2
    assert len(rows) > 10


@pytest.mark.usefixtures("quick")
def test_cut_connections() -> None:
    server_core, load_core = two_cores()
    share, recovered, violations, p99 = outages.cuts(server_core, load_core, 1, 20, 1.0)
    assert (share.values, violations.values) == ([1.0], [0.0])
    assert recovered.values > [0.0]
    assert p99.values > [0.0]


@pytest.mark.usefixtures("quick")
def test_the_costs_of_one_worker(driver: Driver) -> None:
    core, _ = two_cores()
    collected = costs.Collected()
    with running(product(), core) as server:
        costs.fan_out(driver, server, collected)
        costs.history(driver, server, collected, 1)
        costs.idle(driver, server, collected, 20, 0.1)
    found = collected.costs()
    assert {"delivery_cpu", "delivery_cpu_coalesced", "publication_cpu", "connect_cpu", "idle_cpu"} < found.keys()
    assert found["delivery_cpu"].value > 0
    assert found["envelope_bytes"].value > 50


def test_the_file_of_costs_has_what_the_model_needs_of_one_node() -> None:
    found = costs.read()
    assert {"delivery_cpu", "publication_cpu", "connection_bytes", "history_bytes", "idle_cpu"} < found.costs.keys()
    for name, cost in found.costs.items():
        assert 0 <= cost.least <= cost.value <= cost.most, name


def test_a_file_that_is_no_costs(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_text('{"costs": 1}')
    with pytest.raises(ValueError, match="costs"):
        costs.read(path)
