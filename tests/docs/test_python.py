"""The examples of docs/python.md do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings
from django.test import RequestFactory

import realtime_communication.client
import realtime_communication.client.http
from serving.asking import ask, bearer
from serving.commands import environment
from serving.documents import blocks
from serving.peer import unique
from serving.processes import ROOT, ServerProcess
from serving.tokens import ADMIN_KEY, token

TEXT = (ROOT / "docs" / "python.md").read_text()
EXAMPLES = [block.text for block in blocks("python", path="docs/python.md")]


def example(words: str) -> str:
    """The one that holds these, in rooms of its own: other examples speak in those of the page."""
    (found,) = (text for text in EXAMPLES if words in text)
    return found.replace('"room:', f'"{unique()}:')


def output(server: ServerProcess, code: str, tmp_path: Path, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(RTC_URL=server.url, **variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_asyncio_client(server: ServerProcess, tmp_path: Path) -> None:
    said = output(server, example("case Message("), tmp_path, RTC_TOKEN=token("alice"))
    assert said == "alice {'text': 'hello'}\n"


def test_payloads_of_one_type(server: ServerProcess, tmp_path: Path) -> None:
    assert output(server, example("class Move"), tmp_path, RTC_TOKEN=token("alice")) == "rook (3, 4)\n"


def test_the_blocking_client(server: ServerProcess, tmp_path: Path) -> None:
    assert output(server, example("with Publisher("), tmp_path, RTC_API_KEY=ADMIN_KEY) == "0\n[1]\n"


def module(server: ServerProcess, words: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What an example defines."""
    monkeypatch.setenv("RTC_URL", server.http_url)
    monkeypatch.setenv("RTC_API_KEY", ADMIN_KEY)
    made: dict[str, Any] = {"__name__": "example"}
    exec(compile(example(words), "docs/python.md", "exec"), made)
    return made


def history(server: ServerProcess, topic: str) -> list[Any]:
    answer = ask(server.port, "GET", f"/api/topics/{topic}/history", bearer())
    return [message["payload"] for message in answer.json["messages"]]


def test_flask(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    made = module(server, "from flask import", monkeypatch)
    answer = made["app"].test_client().post("/orders/1/status", json={"status": "sent"})
    assert (answer.status_code, answer.json) == (200, {"offset": 1})
    assert history(server, "orders:1") == [{"status": "sent"}]
    made["publisher"].close()


def test_django(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"])
        django.setup()
    made = module(server, "from django.http import", monkeypatch)
    request = RequestFactory().post("/", {"status": "sent"}, content_type="application/json")
    answer = made["change_status"](request, 2)
    assert (answer.status_code, answer.content) == (200, b'{"offset": 1}')
    assert history(server, "orders:2") == [{"status": "sent"}]
    refused = made["change_status"](RequestFactory().post("/", "{}", content_type="application/json"), "x" * 300)
    assert refused.status_code == 400 and b"topic_invalid" in refused.content
    made["publisher"].close()


def test_what_it_names_is_exported() -> None:
    exported = {*realtime_communication.client.__all__, *realtime_communication.client.http.__all__}
    named = set(re.findall(r"`([A-Z][A-Za-z]+)`", TEXT))
    assert named - exported <= {"GET", "Struct"}
    client = realtime_communication.client.Client
    assert all(hasattr(client, name) for name in re.findall(r"^\| `(\w+)\(", TEXT, re.MULTILINE))
