"""`presence` and `history` as processes."""

from __future__ import annotations

import json

import pytest

from serving.asking import ask, bearer
from serving.commands import as_user, complaint, rtc
from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess


def publish(server: ServerProcess, topic: str, count: int) -> str:
    """`count` messages; the epoch."""
    entries = [{"publish": {"topic": topic, "payload": number}} for number in range(count)]
    for start in range(0, count, 1000):
        answer = ask(server.port, "POST", "/api/batch", bearer(), entries[start : start + 1000])
    return str(answer.json[-1]["epoch"])


def test_presence(live_server: ServerProcess) -> None:
    topic, user = unique(), unique_user()
    peer = Peer(live_server.url, user)
    try:
        peer.ok("Subscribe", topic=topic)
        done = rtc("presence", topic, env=as_user(live_server))
        (line,) = map(json.loads, done.stdout.splitlines())
        assert line["user_id"] == user and line["session_id"] and line["joined_at"] > 0
        assert rtc("presence", topic, "--count", env=as_user(live_server)).stdout == "1\n"
    finally:
        peer.close()


def test_history(live_server: ServerProcess) -> None:
    topic = unique()
    epoch = publish(live_server, topic, 5)
    env = as_user(live_server)
    lines = [json.loads(line) for line in rtc("history", topic, "--limit=2", env=env).stdout.splitlines()]
    assert [line["payload"] for line in lines] == [0, 1]
    assert lines[0] == {
        "type": "Message",
        "topic": topic,
        "epoch": epoch,
        "offset": 1,
        "ts": lines[0]["ts"],
        "from": "alice",
        "payload": 0,
    }
    newest = rtc("history", topic, "--limit=2", "--reverse", env=env).stdout.splitlines()
    assert [json.loads(line)["payload"] for line in newest] == [4, 3]
    rest = rtc("history", topic, f"--after={epoch}:3", env=env).stdout.splitlines()
    assert [json.loads(line)["payload"] for line in rest] == [3, 4]
    assert rtc("history", topic, "--position", env=env).stdout == f"{epoch}:5\n"


def test_more_than_a_page(live_server: ServerProcess) -> None:
    topic = unique()
    publish(live_server, topic, 2500)
    done = rtc("history", topic, "--limit=100000", env=as_user(live_server))
    found = [json.loads(line)["payload"] for line in done.stdout.splitlines()]
    assert done.stderr == ""
    assert found == list(range(2500 - len(found), 2500)) and len(found) > 1000  # as many as the cache keeps
    if len(found) < 2500:
        epoch = json.loads(done.stdout.splitlines()[0])["epoch"]
        after = rtc("history", topic, f"--after={epoch}:1", "--limit=1", env=as_user(live_server))
        assert after.stderr == f"rtc: gap: {2500 - len(found) - 1} of {topic} are no longer in the history\n"
    backwards = rtc("history", topic, "--limit=1500", "--reverse", env=as_user(live_server)).stdout.splitlines()
    assert [json.loads(line)["payload"] for line in backwards] == list(range(2499, 2499 - len(backwards), -1))


def test_the_history_of_another_epoch(live_server: ServerProcess) -> None:
    topic = unique()
    publish(live_server, topic, 1)
    done = rtc("history", topic, "--after=another:9", env=as_user(live_server))
    assert "rtc: gap: " in done.stderr and json.loads(done.stdout)["payload"] == 0


@pytest.mark.parametrize("command", ["presence", "history"])
def test_refusals(live_server: ServerProcess, command: str) -> None:
    done = rtc(command, "@somebody", env=as_user(live_server))
    assert done.returncode == 1 and "forbidden" in complaint(done)
    denied = rtc(command, "t", env=as_user(live_server, permissions=["write"]))
    assert denied.returncode == 1 and "the permission read" in complaint(denied)
