"""Which server, and as whom: options, variables, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from realtime_communication.cli.remote import Remote, read, with_remote


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RTC_URL", "RTC_TOKEN", "RTC_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("url", "websocket", "http"),
    [
        ("ws://h:8081/ws", "ws://h:8081/ws", "http://h:8081"),
        ("http://h:8081", "ws://h:8081/ws", "http://h:8081"),
        ("https://h/chat", "wss://h:443/chat/ws", "https://h:443/chat"),
        ("wss://[::1]/ws", "wss://[::1]:443/ws", "https://[::1]:443"),
    ],
)
def test_one_url_for_both(url: str, websocket: str, http: str) -> None:
    found = read(url, token="t")
    assert (found.url, found.endpoint.url) == (websocket, http)


def test_a_token_or_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text(" abc \n")
    secret = tmp_path / "secret"
    for found, wanted in (
        (read("http://h", token="t"), ("t", None)),
        (read("http://h", token_file=secret), ("abc", None)),
        (read("http://h", api_key_file=secret), (None, "abc")),
    ):
        assert (found.token, found.api_key) == wanted
        assert "abc" not in repr(found)
    monkeypatch.setenv("RTC_TOKEN", "of-the-variable")
    assert read("http://h").token == "of-the-variable"
    assert read("http://h", api_key_file=secret).token is None
    monkeypatch.setenv("RTC_API_KEY", "k")
    with pytest.raises(click.UsageError, match="both set"):
        read("http://h")
    monkeypatch.delenv("RTC_TOKEN")
    assert read("http://h").api_key == "k"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "no credentials: set RTC_TOKEN or RTC_API_KEY"),
        ({"token": "t", "token_file": Path("x")}, "give one of"),
        ({"token": ""}, "is empty"),
        ({"token": "a b"}, "printable ASCII"),
        ({"token": "a\nb"}, "several lines"),
        ({"url": "h:80", "token": "t"}, "must look like"),
        ({"url": "http://h?token=x", "token": "t"}, "neither a user nor a query"),
    ],
)
def test_wrong_use(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(click.UsageError, match=told):
        read(**{"url": "http://h", **arguments})


def test_a_command_with_the_options(tmp_path: Path) -> None:
    @click.command()
    @click.option("--own", default="x")
    @with_remote
    def command(remote: Remote, own: str) -> None:
        """Its help."""
        click.echo(f"{remote.url} {own} {remote.timeout:g}")

    run = CliRunner().invoke
    assert run(command, ["--token=t", "--own=y"]).stdout == "ws://localhost:8081/ws y 10\n"
    assert run(command, ["--token=t", "--timeout=2"], env={"RTC_URL": "https://h"}).stdout == "wss://h:443/ws x 2\n"
    shown = run(command, ["--help"]).stdout
    assert "Its help." in shown and "RTC_URL" in shown and "others see it" in shown.lower()
    assert run(command, ["--token=t", "--ca-file", str(tmp_path / "none")]).exit_code == 2


def test_a_file_of_authorities_that_holds_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing\n")
    with pytest.raises(click.BadParameter, match="holds no certificates"):
        read("https://h", token="t", ca_file=tmp_path / "ca.pem").publisher()
