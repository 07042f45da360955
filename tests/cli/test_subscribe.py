"""`sub` as a process."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from serving.asking import ask, bearer, until
from serving.commands import SCRIPT, as_user, environment, rtc, started
from serving.peer import unique, unique_user
from serving.processes import ServerProcess
from serving.proxy import Proxy, scenario
from serving.tokens import token


def publish(server: ServerProcess, topic: str, payload: object) -> Any:
    answer = ask(server.port, "POST", "/api/publish", bearer("bob"), {"topic": topic, "payload": payload})
    assert answer.status == 200, answer
    return answer.json


def subscribers(server: ServerProcess, topic: str) -> int:
    return int(ask(server.port, "GET", f"/api/topics/{topic}/presence", bearer()).json["count"])


def test_lines_of_several_topics_up_to_a_count(live_server: ServerProcess) -> None:
    topics = [unique(), unique()]
    publish(live_server, topics[0], "earlier")
    with started("sub", *topics, "--history=1", "--count=3", env=as_user(live_server)) as process:
        until(lambda: subscribers(live_server, topics[1]))
        position = publish(live_server, topics[1], {"n": 1})
        publish(live_server, topics[0], 2)
        assert process.stdout is not None
        lines = [json.loads(line) for line in process.stdout]
        assert process.wait(60) == 0
    assert [line["payload"] for line in lines if line["topic"] == topics[0]] == ["earlier", 2]
    (other,) = (line for line in lines if line["topic"] == topics[1])
    assert other == {
        "type": "Message",
        "topic": topics[1],
        "epoch": position["epoch"],
        "offset": 1,
        "ts": other["ts"],
        "from": "bob",
        "payload": {"n": 1},
    }


def test_from_a_position(live_server: ServerProcess) -> None:
    topic = unique()
    for number in range(4):
        position = publish(live_server, topic, number)
    done = rtc("sub", topic, f"--from={position['epoch']}:2", "--count=2", env=as_user(live_server))
    assert [json.loads(line)["payload"] for line in done.stdout.splitlines()] == [2, 3]
    assert (done.returncode, done.stderr) == (0, "")


def test_a_gap_is_told(live_server: ServerProcess) -> None:
    topic = unique()
    publish(live_server, topic, 1)
    done = rtc("sub", topic, "--from=another:7", "--history=1", "--count=1", "--quiet", env=as_user(live_server))
    assert done.stderr == f"rtc: gap: the history of {topic} was lost; messages may be missing\n"
    assert json.loads(done.stdout)["payload"] == 1


def test_presence(live_server: ServerProcess) -> None:
    topic, user = unique(), unique_user()
    with started("sub", topic, "--presence", "--count=1", env=as_user(live_server)) as process:
        until(lambda: subscribers(live_server, topic))
        with started("sub", topic, env=as_user(live_server, user)) as other:
            assert process.stdout is not None
            line = json.loads(process.stdout.readline())
            other.send_signal(signal.SIGINT)
            assert other.wait(60) == 130
        assert (line["type"], line["topic"], line["user_id"]) == ("Join", topic, user)


def test_direct_messages(live_server: ServerProcess) -> None:
    user = unique_user()
    with started("sub", "--direct", "--count=1", env=as_user(live_server, user)) as process:
        body = {"to": user, "payload": "psst"}
        until(lambda: ask(live_server.port, "POST", "/api/send", bearer(), body).json["delivered"])
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        assert process.wait(60) == 0
    assert (line["type"], line["payload"], line["from"]) == ("DirectMessage", "psst", "alice")


@scenario
async def test_a_lost_connection_is_opened_again(live_server: ServerProcess) -> None:
    topic = unique()
    async with Proxy(live_server.port) as proxy:
        env = environment(RTC_URL=proxy.url, RTC_TOKEN=token("alice"))
        process = await asyncio.create_subprocess_exec(
            SCRIPT, "sub", topic, "--count=2", env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        await asyncio.to_thread(until, lambda: subscribers(live_server, topic))
        await asyncio.to_thread(publish, live_server, topic, 1)
        assert process.stdout is not None and process.stderr is not None
        assert json.loads(await process.stdout.readline())["payload"] == 1
        proxy.refusing = True
        proxy.cut()
        await asyncio.to_thread(publish, live_server, topic, 2)
        assert b"rtc: the connection was lost" in await process.stderr.readline()
        proxy.refusing = False
        assert json.loads(await process.stdout.readline())["payload"] == 2
        assert await process.wait() == 0
        assert b"connected again" in await process.stderr.read()


def test_ctrl_c(live_server: ServerProcess) -> None:
    topic = unique()
    with started("sub", topic, env=as_user(live_server)) as process:
        until(lambda: subscribers(live_server, topic))
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr is not None and process.stderr.read() == ""


def test_the_reader_goes_while_nothing_is_printed(live_server: ServerProcess) -> None:
    topic = unique()
    with started("sub", topic, env=as_user(live_server)) as process:
        until(lambda: subscribers(live_server, topic))
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == ""


def test_output_to_a_file(live_server: ServerProcess, tmp_path: Path) -> None:
    topic = unique()
    publish(live_server, topic, 1)
    with (tmp_path / "out").open("w") as file:
        with started("sub", topic, "--history=1", "--count=1", env=as_user(live_server), stdout=file) as process:
            assert process.wait(60) == 0
    assert json.loads((tmp_path / "out").read_text())["payload"] == 1


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ((), 2, "name a topic"),
        (("a", "a"), 2, "named twice"),
        (("a", "b", "--from=x:1"), 2, "exactly one topic"),
        (("a", "--from=x"), 2, "EPOCH:OFFSET"),
        (("a", "--count=0"), 2, "--count"),
        (("@somebody",), 1, "forbidden"),
    ],
)
def test_refusals(live_server: ServerProcess, words: tuple[str, ...], status: int, told: str) -> None:
    done = rtc("sub", *words, env=as_user(live_server))
    assert done.returncode == status and told in done.stderr.splitlines()[-1]
