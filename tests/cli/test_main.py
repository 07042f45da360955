"""The console script as a process: exit statuses, and where output goes."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import click
import pytest

from realtime_communication.cli.main import COMMANDS, cli

MAIN = "import sys; from realtime_communication.cli.main import main; main(sys.argv[1:])"
SECRET = "0123456789abcdef0123456789abcdef"


def _run(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", MAIN, *words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_both_scripts_lead_here() -> None:
    scripts = {script.name: script.value for script in entry_points(group="console_scripts")}
    assert scripts["rtc"] == scripts["realtime_communication"] == "realtime_communication.cli.main:main"


def test_version(tmp_path: Path) -> None:
    done = _run(tmp_path, "--version")
    assert done.returncode == 0 and version("realtime_communication") in done.stdout


@pytest.mark.parametrize("words", [["--help"], ["-h"]])
def test_help_names_the_commands(tmp_path: Path, words: list[str]) -> None:
    done = _run(tmp_path, *words)
    assert done.returncode == 0
    assert all(f"\n  {command}  " in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_an_example(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None and command.help is not None and command.name == name
    assert command.get_help(click.Context(command, info_name=name)).startswith(f"Usage: {name} ")
    assert "rtc " in command.help + (command.epilog or "") or name == "config"  # an example


def test_the_list_of_commands_loads_none_of_them(tmp_path: Path) -> None:
    script = MAIN.replace("main(sys", "import atexit; atexit.register(lambda: print(*sys.modules)); main(sys")
    for words in (["--help"], ["--version"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
        )
        loaded = set(done.stdout.split())
        assert not {"asyncio", "aiohttp", "jwt", "picows", "ssl", "cryptography", "prometheus_client"} & loaded
        assert not {name for name in loaded if name.startswith("realtime_communication.") and name.count(".") > 2}


def test_subcommands_load_no_server(tmp_path: Path) -> None:
    script = MAIN.replace("main(sys", "import atexit; atexit.register(lambda: print(*sys.modules)); main(sys")
    for words in (["pub", "--help"], ["top", "--help"], ["doctor", "--help"], ["keys", "secret"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
        )
        assert not {"aiohttp", "uvloop", "jwt", "cryptography"} & set(done.stdout.split())


@pytest.mark.parametrize("words", [["--port=99999"], ["serve", "--port=99999"], ["config", "check", "--port=99999"]])
def test_a_bad_configuration_exits_with_78(tmp_path: Path, words: list[str]) -> None:
    done = _run(tmp_path, *words)
    assert done.returncode == 78 and done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == "error: command line --port: server.port = 99999: must be an integer from 0 to 65535"
    assert lines[1].startswith("error: auth.jwt_secret: is missing")
    assert lines[2] == "The configuration has 2 problems; nothing was started."


def test_without_a_command_and_without_a_secret(tmp_path: Path) -> None:
    done = _run(tmp_path)
    assert done.returncode == 78 and "JWT_SECRET" in done.stderr


def test_a_bad_file_exits_with_78(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[server\n")
    done = _run(tmp_path, JWT_SECRET=SECRET)
    assert done.returncode == 78 and "config.toml" in done.stderr and "line 1" in done.stderr


def test_exit_status_survives_a_closed_standard_error(tmp_path: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -c "$1" --port=0 2>&-', sys.executable, MAIN],
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert done.returncode == 78


def test_a_full_disk_is_no_traceback(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", MAIN, "config", "schema"],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert "No space left" in done.stderr and "Traceback" not in done.stderr
    assert done.returncode not in (0, 78)


def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    assert _run(tmp_path, "srve").returncode == 2


def test_misuse_has_its_own_status(tmp_path: Path) -> None:
    done = _run(tmp_path, "token", "--user=alice", "--profile=dev")
    assert done.returncode == 64 and "JWT_SECRET" in done.stderr


def test_checking_is_quick_because_it_loads_no_server(tmp_path: Path) -> None:
    script = MAIN.replace("main(sys", "import atexit; atexit.register(lambda: print(*sys.modules)); main(sys")
    done = subprocess.run(
        [sys.executable, "-c", script, "config", "check", "--profile=dev"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert not {"aiohttp", "uvloop", "jwt", "asyncio"} & set(done.stdout.split())
