"""`config check | show | schema | reference | metrics`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from realtime_communication.cli.configuration import config
from realtime_communication.config.reference import json_schema, markdown
from realtime_communication.errors import ConfigurationError
from realtime_communication.observability import metrics_reference

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    return CliRunner(env={"JWT_SECRET": SECRET})


def test_check(runner: CliRunner) -> None:
    Path("config.toml").write_text("[server]\nport = 9000\n[auth]\nvalidate_nbf = false\n")
    done = runner.invoke(config, ["check"], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout == "The configuration is valid (profile prod; files: config.toml).\n"
    assert "warning: auth.validate_nbf is false" in done.stderr


def test_check_raises_all_problems(runner: CliRunner) -> None:
    with pytest.raises(ConfigurationError) as caught:
        runner.invoke(config, ["check", "--port=0", "--max-connections", "0"], catch_exceptions=False)
    assert {problem.key for problem in caught.value.problems} == {"server.port", "websocket.max_connections"}


def test_show(runner: CliRunner) -> None:
    done = runner.invoke(config, ["show", "--profile", "dev", "--port=9000"], catch_exceptions=False)
    assert tomllib.loads(done.stdout)["server"]["port"] == 9000
    assert "# command line --port" in done.stdout and "# profile dev" in done.stdout
    assert SECRET not in done.stdout


def test_show_json_among_keys(runner: CliRunner) -> None:
    done = runner.invoke(config, ["show", "--port=9000", "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["keys"]["server.port"]["value"] == 9000


def test_schema(runner: CliRunner) -> None:
    done = runner.invoke(config, ["schema"], catch_exceptions=False)
    assert json.loads(done.stdout) == json.loads(json.dumps(json_schema()))


def test_metrics(runner: CliRunner) -> None:
    assert runner.invoke(config, ["metrics"], catch_exceptions=False).stdout == metrics_reference.markdown()


def test_reference(runner: CliRunner) -> None:
    assert runner.invoke(config, ["reference"], catch_exceptions=False).stdout == markdown()


@pytest.mark.parametrize("command", ["check", "show"])
def test_help_lists_short_options(runner: CliRunner, command: str) -> None:
    text = runner.invoke(config, [command, "--help"], catch_exceptions=False).stdout
    assert all(option in text for option in ("--port", "--max-connections", "--profile", "--config", "--log-level"))
    assert "--redis-url" in text
