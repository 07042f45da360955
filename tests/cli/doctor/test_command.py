"""`doctor` as a process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving.commands import environment, rtc
from serving.processes import free_port, toml

SECRET = "0123456789abcdef0123456789abcdef"


def settings(tmp_path: Path, **more: object) -> str:
    path = tmp_path / "config.toml"
    made = {
        "server": {"host": "127.0.0.1", "port": free_port(), "workers": 1},
        "websocket": {"max_connections": 100},
        "metrics": {"port": free_port()},
        "tracing": {"enabled": False},
        "testing": {"enable_test_mode": True, "use_in_memory_storage": True},
    }
    path.write_text(toml(made | more))
    return f"--config={path}"


def test_lines_and_status(tmp_path: Path) -> None:
    done = rtc("doctor", "--profile=test", settings(tmp_path), env=environment(JWT_SECRET=SECRET))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("ok    configuration: is valid (profile test;") for line in lines)
    assert all(line.split()[0] in ("ok", "warn", "fail", "mend:") for line in lines[:-1])
    assert lines[-1].endswith("0 fail")
    mends = sum(line.lstrip().startswith("mend: ") for line in lines)
    assert mends == sum(line.startswith("warn") for line in lines)
    assert SECRET not in done.stdout
    quiet = rtc("doctor", "--profile=test", "--quiet", settings(tmp_path), env=environment(JWT_SECRET=SECRET))
    assert not any(line.startswith("ok") for line in quiet.stdout.splitlines())


def test_json_of_failures(tmp_path: Path) -> None:
    limits = {"websocket": {"max_connections": 1_000_000_000}}
    done = rtc("doctor", "--profile=test", "--json", settings(tmp_path, **limits), env=environment(JWT_SECRET=SECRET))
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert all(row.keys() == {"level", "subject", "text", "mend"} for row in found)
    assert any(row["level"] == "fail" and row["mend"] for row in found)


@pytest.mark.parametrize("word", ["--port=99999", "--nonsense.key=1"])
def test_a_configuration_that_is_none(tmp_path: Path, word: str) -> None:
    done = rtc("doctor", "--json", word, cwd=tmp_path)
    failed = [row for row in json.loads(done.stdout) if row["subject"] == "configuration"]
    assert done.returncode == 1
    assert len(failed) >= 2 and any("JWT_SECRET" in row["text"] for row in failed)
    assert any(row["subject"] == "open files" for row in json.loads(done.stdout))
