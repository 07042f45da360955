"""`pub` as a process."""

from __future__ import annotations

import json
import os
import pty
import signal
from pathlib import Path

import pytest

from serving.asking import ask, bearer
from serving.commands import as_user, complaint, environment, rtc, started
from serving.peer import unique, unique_user
from serving.processes import ServerProcess, free_port
from serving.tokens import token


def payloads(server: ServerProcess, topic: str) -> list[object]:
    answer = ask(server.port, "GET", f"/api/topics/{topic}/history?limit=1000", bearer())
    return [message["payload"] for message in answer.json["messages"]]


@pytest.mark.parametrize(
    ("words", "payload"),
    [
        (('{"a": [1, null]}',), {"a": [1, None]}),
        (("hello there",), "hello there"),
        (("42",), 42),
        (("42", "--text"), "42"),
        (("true", "--json"), True),
    ],
)
def test_a_payload(live_server: ServerProcess, words: tuple[str, ...], payload: object) -> None:
    topic = unique()
    done = rtc("pub", topic, *words, env=as_user(live_server))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["topic"], told["offset"]) == (topic, 1) and told["epoch"]
    assert payloads(live_server, topic) == [payload]


def test_lines_of_standard_input(live_server: ServerProcess) -> None:
    topic = unique()
    done = rtc("pub", topic, "-", env=as_user(live_server), stdin='{"n": 1}\r\n\ntext\nlast')
    assert [json.loads(line)["offset"] for line in done.stdout.splitlines()] == [1, 2, 3]
    assert payloads(live_server, topic) == [{"n": 1}, "text", "last"]
    quiet = rtc("pub", topic, "--text", "--quiet", env=as_user(live_server), stdin="5\n")
    assert (quiet.returncode, quiet.stdout) == (0, "") and payloads(live_server, topic)[-1] == "5"


def test_a_file_as_standard_input(live_server: ServerProcess, tmp_path: Path) -> None:
    topic = unique()
    (tmp_path / "lines").write_text("".join(f"{number}\n" for number in range(250)))
    with (tmp_path / "lines").open() as file, started("pub", topic, env=as_user(live_server), stdin=file) as process:
        assert process.wait(60) == 0
    assert payloads(live_server, topic) == list(range(250))


def test_progress_is_shown_on_a_terminal(live_server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("1\n" * 50)
    own, other = pty.openpty()
    env = as_user(live_server)
    with (tmp_path / "lines").open() as file, started("pub", unique(), env=env, stdin=file, stderr=other) as process:
        assert process.wait(60) == 0
    os.close(other)
    shown = os.read(own, 100_000).decode()
    os.close(own)
    assert "publishing" in shown and "100%" in shown


def test_a_direct_message(live_server: ServerProcess) -> None:
    user = unique_user()
    done = rtc("pub", f"@{user}", '"hi"', env=as_user(live_server))
    assert json.loads(done.stdout) == {"to": f"@{user}", "online": False}
    answer = ask(live_server.port, "GET", f"/api/topics/@{user}/history", bearer(user))
    assert [message["payload"] for message in answer.json["messages"]] == ["hi"]


def test_an_idempotency_key(live_server: ServerProcess) -> None:
    topic = unique()
    outputs = {rtc("pub", topic, "1", f"--idempotency-key={topic}", env=as_user(live_server)).stdout for _ in range(2)}
    assert len(outputs) == 1 and payloads(live_server, topic) == [1]


@pytest.mark.parametrize(
    ("words", "stdin", "status", "told"),
    [
        (("t", "{", "--json"), "", 2, "--text sends it as text"),
        (("t", "-", "--json"), '{"a": 1}\nnope\n', 1, "line 2 is no JSON"),
        (("t", "-", "--text"), b"\xff\n", 1, "line 1 is no UTF-8 text"),
        (("t", "-", "--idempotency-key=k"), "", 2, "for one payload"),
        (("$system", "1"), "", 1, "forbidden"),
        (("$system", "-"), "1\n", 1, "line 1"),
        ((), "", 2, "TOPIC"),
    ],
)
def test_refusals(
    live_server: ServerProcess, words: tuple[str, ...], stdin: str | bytes, status: int, told: str
) -> None:
    done = rtc("pub", *words, env=as_user(live_server), stdin=stdin)
    assert done.returncode == status and told in done.stderr.splitlines()[-1]
    if status == 1:
        complaint(done)


def test_a_limit_is_waited_for(tmp_path: Path) -> None:
    limits = {
        "enabled": True,
        "user": {"requests_per_second": 50, "burst_size": 2},
        "connection": {"requests_per_second": 1000, "burst_size": 1000},
    }
    process = ServerProcess("product", free_port(), {"rate_limiting": limits}, None)
    process.start()
    try:
        env = environment(RTC_URL=process.url, RTC_TOKEN=token("bob"))
        done = rtc("pub", "t", "-", env=env, stdin="1\n2\n3\n4\n5\n")
        assert done.returncode == 0, done.stderr
        assert [json.loads(line)["offset"] for line in done.stdout.splitlines()] == [1, 2, 3, 4, 5]
    finally:
        process.dispose()


def test_ctrl_c_while_it_waits_for_a_line(live_server: ServerProcess) -> None:
    with started("pub", unique(), "-", env=as_user(live_server)) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write("1\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["offset"] == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == ""
