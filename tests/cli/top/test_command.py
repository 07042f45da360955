"""`top` against a running server."""

from __future__ import annotations

import json
import signal

import pytest

from serving.commands import SCRIPT, as_user, complaint, rtc, started
from serving.processes import ServerProcess, free_port
from serving.terminals import Terminal


def test_one_picture(live_server: ServerProcess) -> None:
    env = as_user(live_server, "root", roles=["admin"])
    assert rtc("pub", "of-top-once", "1", env=as_user(live_server)).returncode == 0
    done = rtc("top", "--once", "--interval=0.1", env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"rtc top  {live_server.http_url}  ") and "\x1b" not in done.stdout
    assert "busiest topics" in done.stdout and "http_request_duration_seconds  p50" in done.stdout


def test_json(live_server: ServerProcess) -> None:
    env = as_user(live_server, "root", roles=["admin"])
    done = rtc("top", "--once", "--json", "--interval=0.1", env=env)
    found = json.loads(done.stdout)
    assert found["url"] == live_server.http_url and found["status"] == "ok" and found["missing"] == []
    assert all(rate >= 0 for rate in found["rates"].values()) and found["latency"]["p99"] > 0
    with started("top", "--json", "--interval=0.1", env=env) as process:
        assert process.stdout is not None
        assert [json.loads(process.stdout.readline())["status"] for _ in range(2)] == ["ok", "ok"]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def test_several_nodes(live_server: ServerProcess) -> None:
    env = as_user(live_server, "root", roles=["admin"])
    other = f"http://127.0.0.1:{free_port()}"
    words = (f"--node={live_server.http_url}", f"--node={other}")
    done = rtc("top", "--once", "--json", "--interval=0.1", *words, env=env)
    rows = json.loads(done.stdout)["nodes"]
    assert [row["url"] for row in rows] == [live_server.http_url] * 2 + [other]
    assert [row["status"] for row in rows] == ["ok", "ok", "unreachable"]


def test_live(live_server: ServerProcess) -> None:
    env = as_user(live_server, "root", roles=["admin"]) | {"TERM": "xterm"}
    with Terminal([SCRIPT, "top", "--interval=0.2"], env, columns=100, lines=30) as terminal:
        place = terminal.until("(by rate)")
        terminal.press("s")
        place = terminal.until("(by subscribers)", behind=place)
        terminal.press("p")
        place = terminal.until("paused", behind=place)
        terminal.resize(60, 20)
        terminal.process.send_signal(signal.SIGWINCH)
        place = terminal.until("\x1b[?2026h", behind=place)
        terminal.press("pq")
        terminal.until("\x1b[?1049l", behind=place)
        assert terminal.process.wait(60) == 0 and terminal.restored()


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ((), 2, "give --once or --json"),
        (("--once", "--metrics-url=x"), 2, "--metrics-url"),
        (("--once", "--node=x"), 2, "--node"),
        (("--once",), 1, "admin"),
    ],
)
def test_refusals(live_server: ServerProcess, words: tuple[str, ...], status: int, told: str) -> None:
    done = rtc("top", *words, env=as_user(live_server))
    assert done.returncode == status and told in done.stderr.splitlines()[-1]
    if status == 1:
        complaint(done)
