"""Changing the configuration of a server that runs: all or nothing, and told in the log."""

import asyncio
import json
import logging

import pytest

from realtime_communication.config import load
from realtime_communication.errors import ConfigurationError
from realtime_communication.server.live import LiveConfiguration

SECRET = "s" * 32


class Recorder:
    """A part that keeps what is in force, and refuses when it is told to."""

    def __init__(self):
        self.in_force = []
        self.fault = None

    def __call__(self, config):
        if self.fault is not None:
            raise self.fault
        return lambda: self.in_force.append(config)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("JWT_SECRET", SECRET)
    path = tmp_path / "config.toml"
    path.write_text("websocket.max_connections = 5\n")
    return path


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def live(file, recorder):
    return LiveConfiguration(load([f"--config={file}"]), [recorder])


def told(caplog):
    return [(record.message, getattr(record, "event_fields", {})) for record in caplog.records]


def test_a_reload_puts_live_keys_into_force_and_names_the_others(live, file, recorder, caplog):
    file.write_text("websocket.max_connections = 6\nserver.port = 9000\n")
    assert asyncio.run(live.reload())
    assert recorder.in_force == [live.config]
    assert (live.config.websocket.max_connections, live.config.server.port) == (6, 8081)
    fields = {"key": "server.port", "before": "8081", "after": "9000"}
    assert ("this setting needs a restart", fields) in told(caplog)
    fields = {"key": "websocket.max_connections", "before": "5", "after": "6"}
    assert ("setting changed", fields) in told(caplog)
    assert live.last_reload[0]


@pytest.mark.parametrize("text", ["websocket.max_connections = ", "websocket.max_connections = 0", "no.such = 1"])
def test_a_broken_file_changes_nothing(text, live, file, recorder, caplog):
    before = live.config
    file.write_text("logging.level = 'debug'\n" + text)
    assert not asyncio.run(live.reload())
    assert (live.config, recorder.in_force, live.last_reload[0]) == (before, [], False)
    ((event, fields),) = told(caplog)
    assert event == "the configuration was not reloaded: all stays as it was"
    assert str(file) in fields["problem"]


def test_a_part_that_cannot_follow_stops_all(live, file, recorder):
    later = Recorder()
    live.add(later)
    later.fault = ValueError("the key does not match the certificate")
    file.write_text("websocket.max_connections = 6\n")
    assert not asyncio.run(live.reload())
    assert (live.config.websocket.max_connections, recorder.in_force) == (5, [])
    later.fault = None
    assert asyncio.run(live.reload())
    assert recorder.in_force == later.in_force == [live.config]


def test_a_change_is_told_once_with_who_wanted_it(live, caplog):
    same = {"websocket.max_frame_size": live.config.websocket.max_frame_size}
    live.change({"websocket.max_connections": 9, **same}, "alice")
    changes = [fields for event, fields in told(caplog) if event == "setting changed"]
    assert changes == [{"key": "websocket.max_connections", "before": "5", "after": "9", "by": "alice"}]


@pytest.mark.parametrize(("before", "after"), [("info", "off"), ("off", "info")])
def test_it_is_told_even_when_the_log_goes_off_or_on(live, caplog, before, after):
    numbers = {"off": 100, "info": logging.INFO}
    logger = logging.getLogger("realtime_communication")
    live.change({"logging.level": before}, "alice")
    live.add(lambda config: lambda: logger.setLevel(numbers[config.logging.level]))
    caplog.clear()
    caplog.set_level(numbers[before], logger.name)
    caplog.handler.setLevel(0)
    live.change({"logging.level": after}, "alice")
    changes = [(fields["before"], fields["after"]) for _, fields in told(caplog)]
    assert changes == [(f'"{before}"', f'"{after}"')]


def test_a_change_lasts_until_the_next_reload(live):
    live.change({"websocket.max_connections": 9}, "alice")
    assert live.config.websocket.max_connections == 9
    assert live.effective()["keys"]["websocket.max_connections"] == {"value": 9, "origin": "changed by alice"}
    assert asyncio.run(live.reload())
    assert live.config.websocket.max_connections == 5


def test_a_change_is_all_or_nothing(live, recorder):
    with pytest.raises(ConfigurationError):
        live.change({"websocket.max_connections": 9, "logging.level": "loud"}, "alice")
    assert (live.config.websocket.max_connections, recorder.in_force) == (5, [])


def test_the_secret_made_for_this_run_is_kept(tmp_path, monkeypatch):
    monkeypatch.delenv("JWT_SECRET", raising=False)
    live = LiveConfiguration(load(["--profile=dev"], directory=tmp_path))
    secret = live.config.auth.jwt_secret
    assert asyncio.run(live.reload()) and live.config.auth.jwt_secret == secret


def test_secrets_are_neither_logged_nor_shown(live, monkeypatch, caplog):
    monkeypatch.setenv("JWT_SECRET", "hush-hush-hush-hush-hush-hush-hush")
    assert asyncio.run(live.reload()) and live.config.auth.jwt_secret.startswith("hush")
    assert "hush" not in json.dumps(live.effective()) and "hush" not in repr(told(caplog))
