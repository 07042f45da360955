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
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[LoadedConfig, int]]:
    """What the server was started with, and how many workers; the server itself ends at once with status 7."""
    seen: list[tuple[LoadedConfig, int]] = []

    def run(loaded: LoadedConfig, workers: int = 1) -> int:
        seen.append((loaded, workers))
        return 7

    for name in ("worker", "supervisor"):
        module = types.ModuleType(f"realtime_communication.server.{name}")
        vars(module)["run"] = run
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    return seen


def _serve(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[dict[str, object]]]:
    done = CliRunner(env={"JWT_SECRET": "s" * 32}).invoke(serve, list(words), catch_exceptions=False)
    logs.shutdown()
    return done.exit_code, [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_the_server_gets_the_configuration_and_gives_the_status(
    started: list[tuple[LoadedConfig, int]], capfd: pytest.CaptureFixture[str]
) -> None:
    status, entries = _serve(capfd, "--port=9000", "--workers=1")
    assert status == 7 and started[0][0].config.server.port == 9000
    assert [entry["event"] for entry in entries] == ["configuration loaded"]


@pytest.mark.parametrize(("cores", "setting", "workers"), [(4, "0", 4), (200, "0", 63), (4, "1", 1), (1, "3", 3)])
def test_as_many_workers_as_cores_or_as_are_wanted(
    started: list[tuple[LoadedConfig, int]], monkeypatch: pytest.MonkeyPatch, cores: int, setting: str, workers: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    done = CliRunner(env={"JWT_SECRET": "s" * 32}).invoke(serve, [f"--workers={setting}"], catch_exceptions=False)
    logs.shutdown()
    assert done.exit_code == 7
    assert [count for _, count in started] == [workers]


def test_doubtful_settings_are_told_once(
    started: list[tuple[LoadedConfig, int]], capfd: pytest.CaptureFixture[str]
) -> None:
    Path("config.toml").write_text("[auth]\nvalidate_exp = false\n")
    _, entries = _serve(capfd)
    warnings = [str(entry["event"]) for entry in entries if entry["level"] == "warn"]
    assert len(warnings) == 1 and "auth.validate_exp is false" in warnings[0]
