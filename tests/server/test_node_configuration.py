"""A configuration of many workers changes in all of them or in none."""

import asyncio

import pytest

from realtime_communication.config import load
from realtime_communication.errors import ConfigurationError, ControlClosed, ControlError
from realtime_communication.server import node_configuration
from realtime_communication.server.node_configuration import NodeConfiguration
from realtime_communication.server.place import unpacked_configuration


class Worker:
    """Answers as told, and keeps what is in force."""

    def __init__(self, slot):
        self.slot = slot
        self.channel = self
        self.answers = {"prepare": [], "commit": None}
        self.prepared = self.in_force = self.killed = None
        self.aborted = 0
        self.reloads = []

    async def call(self, method, params, timeout_secs):
        answer = self.answers[method]
        if isinstance(answer, Exception):
            raise answer
        if method == "prepare" and not answer:
            self.prepared = params["version"], unpacked_configuration(params["loaded"]).config, params["reload"]
        if method == "commit":
            version, self.in_force, self.with_files = self.prepared
            assert version == params["version"]
        return answer

    def notify(self, method, params):
        if method == "abort":
            self.aborted += 1
        else:
            self.reloads.append(params["worked"])

    def kill(self, reason):
        self.killed = reason


@pytest.fixture
def workers():
    return [Worker(slot) for slot in range(3)]


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("JWT_SECRET", "s" * 32)
    path = tmp_path / "config.toml"
    path.write_text("websocket.max_connections = 5\n")
    return path


@pytest.fixture
def configuration(file, workers):
    return NodeConfiguration(load([f"--config={file}"]), lambda: workers)


def values(workers):
    return [worker.in_force and worker.in_force.websocket.max_connections for worker in workers]


def test_a_reload_reaches_all_and_is_told_once(configuration, workers, file, caplog):
    caplog.set_level("INFO")
    file.write_text("websocket.max_connections = 6\n")
    assert asyncio.run(configuration.reload())
    assert values(workers) == [6, 6, 6] and all(worker.with_files for worker in workers)
    assert configuration.loaded.config.websocket.max_connections == 6
    assert [record.message for record in caplog.records] == ["setting changed", "configuration reloaded"]
    assert [worker.reloads for worker in workers] == [[True]] * 3


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ([("security.tls.cert_file", "x", "f:1", "cannot be used")], "security.tls.cert_file"),
        (TimeoutError(), "worker 1 did not answer within"),
        (ControlError("prepare: no"), "worker 1 could not prepare for it: prepare: no"),
    ],
)
def test_one_that_cannot_stops_all(configuration, workers, file, caplog, answer, told):
    file.write_text("websocket.max_connections = 6\n")
    workers[1].answers["prepare"] = answer
    assert not asyncio.run(configuration.reload())
    assert values(workers) == [None] * 3 and [worker.aborted for worker in workers] == [1] * 3
    assert configuration.loaded.config.websocket.max_connections == 5
    (record,) = caplog.records
    assert told in record.event_fields["problem"]
    assert [worker.reloads for worker in workers] == [[False]] * 3


def test_a_problem_of_all_is_told_once(configuration, workers, caplog):
    for worker in workers:
        worker.answers["prepare"] = [("k", "", "", "m")]
    assert not asyncio.run(configuration.reload())
    assert len(caplog.records) == 1


def test_a_worker_that_is_gone_does_not_count(configuration, workers, file):
    file.write_text("websocket.max_connections = 6\n")
    workers[1].answers = {"prepare": ControlClosed("gone"), "commit": ControlClosed("gone")}
    assert asyncio.run(configuration.reload())
    assert values(workers) == [6, None, 6] and workers[1].killed is None


def test_one_that_prepared_and_does_not_follow_is_replaced(configuration, workers, file):
    file.write_text("websocket.max_connections = 6\n")
    workers[1].answers["commit"] = TimeoutError()
    assert asyncio.run(configuration.reload())
    assert values(workers) == [6, None, 6] and "put a configuration into force" in workers[1].killed


def test_a_broken_file_asks_nobody(configuration, workers, file):
    file.write_text("websocket.max_connections = 0\n")
    assert not asyncio.run(configuration.reload())
    assert [worker.prepared for worker in workers] == [None] * 3


def test_an_administrators_change(configuration, workers):
    asyncio.run(configuration.change({"websocket.max_connections": 9}, "alice"))
    assert values(workers) == [9] * 3 and not any(worker.with_files for worker in workers)
    assert str(configuration.loaded.origins["websocket.max_connections"]) == "changed by alice"
    with pytest.raises(ConfigurationError):
        asyncio.run(configuration.change({"websocket.max_connections": 10, "no.such": 1}, "alice"))
    assert values(workers) == [9] * 3


def test_levels_and_forms_of_the_log_hold_for_the_supervisor_too(configuration, file, monkeypatch):
    called = []
    monkeypatch.setattr(node_configuration.logs, "set_level", called.append)
    monkeypatch.setattr(node_configuration.logs, "set_format", called.append)
    file.write_text("logging.level = 'error'\nlogging.format = 'pretty'\n")
    assert asyncio.run(configuration.reload())
    assert called == ["error", "pretty"]
