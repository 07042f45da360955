"""URLs of servers under load."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import click
import pytest

from realtime_communication.cli.load import target
from realtime_communication.cli.load.target import Target


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("ws://example.com:8080/ws", Target("example.com", "example.com", 8080, "/ws")),
        ("ws://example.com", Target("example.com", "example.com", 80, "/ws")),
        ("ws://10.0.0.1:1/a?b=c", Target("10.0.0.1", "10.0.0.1", 1, "/a?b=c")),
        ("ws://[::1]:65535/ws", Target("::1", "[::1]", 65535, "/ws")),
    ],
)
def test_what_a_url_says(url: str, wanted: Target) -> None:
    assert target.read(url) == wanted


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("wss://example.com/ws", "wss is not supported by rtc bench yet"),
        ("http://example.com/ws", "must look like ws://"),
        ("ws:///ws", "must look like ws://"),
        ("ws://example.com:0/ws", "must look like ws://"),
        ("ws://example.com:65536/ws", "Port out of range"),
        ("ws://[::1/ws", "Invalid IPv6 URL"),
        ("ws://a:b@example.com/ws", "neither a user"),
        ("ws://example.com/ws#a", "fragment"),
        ("ws://example.com/w s", "printable ASCII"),
        ("ws://example.com/ws\r\nA: b", "printable ASCII"),
        ("ws://exämple.com/ws", "printable ASCII"),
        ("ws://example.com/ws?token=abcdef", "must not carry credentials"),
        ("ws://example.com/ws?api_key=", "must not carry credentials"),
        ("ws://example.com/" + "a" * 2000, "at most 2000"),
        ("", "must look like ws://"),
    ],
)
def test_what_is_no_url_of_a_server(url: str, why: str) -> None:
    with pytest.raises(click.UsageError, match=why) as caught:
        target.read(url)
    assert "abcdef" not in str(caught.value)


def test_a_name_becomes_an_address_that_accepts(port: int) -> None:
    found = target.reached(target.read(f"ws://localhost:{port}/ws"))
    assert (found.address, found.host, found.url) == ("127.0.0.1", "localhost", f"ws://localhost:{port}/ws")


@pytest.mark.parametrize("host", ["127.0.0.1", "nobody.invalid", "a" * 64 + ".invalid"])
def test_where_nobody_listens(host: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(click.ClickException, match="cannot be reached"):
            target.reached(target.read(f"ws://{host}:{unused.getsockname()[1]}/ws"))
