"""`serve` up to the point where the server takes over."""

from __future__ import annotations

import json
import os
import sys
import types
from pathlib import Path

import pytest
from click.testing import CliRunner

from realtime_communication.cli.serve import serve
from realtime_communication.config import LoadedConfig
from realtime_communication.observability import logs


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[LoadedConfig]:
    """What the server was started with; the server itself ends at once with status 7."""
    seen: list[LoadedConfig] = []

    def run(loaded: LoadedConfig) -> int:
        seen.append(loaded)
        return 7

    worker = types.ModuleType("realtime_communication.server.worker")
    vars(worker)["run"] = run
    monkeypatch.setitem(sys.modules, worker.__name__, worker)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    return seen


def _serve(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[dict[str, object]]]:
    done = CliRunner(env={"JWT_SECRET": "s" * 32}).invoke(serve, list(words), catch_exceptions=False)
    logs.shutdown()
    return done.exit_code, [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_the_server_gets_the_configuration_and_gives_the_status(
    started: list[LoadedConfig], capfd: pytest.CaptureFixture[str]
) -> None:
    status, entries = _serve(capfd, "--port=9000", "--workers=1")
    assert status == 7 and started[0].config.server.port == 9000
    assert [entry["event"] for entry in entries] == ["configuration loaded"]


@pytest.mark.parametrize(("workers", "level"), [("0", "info"), ("3", "warn")])
def test_more_workers_than_this_version_has(
    started: list[LoadedConfig], capfd: pytest.CaptureFixture[str], workers: str, level: str
) -> None:
    _, entries = _serve(capfd, f"--workers={workers}")
    (line,) = [entry for entry in entries if "one worker" in str(entry["event"])]
    assert line["level"] == level and line["setting"] == f"server.workers = {workers}"


def test_doubtful_settings_are_told_once(started: list[LoadedConfig], capfd: pytest.CaptureFixture[str]) -> None:
    Path("config.toml").write_text("[auth]\nvalidate_exp = false\n")
    _, entries = _serve(capfd)
    warnings = [str(entry["event"]) for entry in entries if entry["level"] == "warn"]
    assert len(warnings) == 1 and "auth.validate_exp is false" in warnings[0]
