"""URLs of servers under load."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from realtime_communication.cli.load import target
from realtime_communication.cli.load.target import Target
from serving.certificates import DAY, Authority, Pair


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
        ("wss://example.com", Target("example.com", "example.com", 443, "/ws", secure=True)),
    ],
)
def test_what_a_url_says(url: str, wanted: Target) -> None:
    assert target.read(url) == wanted


@pytest.mark.parametrize(
    ("url", "why"),
    [
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


@pytest.mark.parametrize(
    ("url", "options", "why"),
    [
        ("ws://localhost", {"insecure": True}, "they need a URL of wss"),
        ("ws://localhost", {"ca_file": Path("ca.pem")}, "they need a URL of wss"),
        ("wss://localhost", {"insecure": True, "ca_file": Path("ca.pem")}, "give one of"),
    ],
)
def test_options_of_tls_where_they_mean_nothing(url: str, options: dict[str, Any], why: str) -> None:
    with pytest.raises(click.UsageError, match=why):
        target.read(url, **options)


def secured(authority: Authority, pair: Pair) -> Iterator[int]:
    """A port that makes handshakes and hangs up behind them."""
    context = authority.server_context(pair)
    with socket.create_server(("0.0.0.0", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with contextlib.suppress(OSError), connection:
                        context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls_port(authority: Authority) -> Iterator[int]:
    yield from secured(authority, authority.issue())


@pytest.fixture(scope="module")
def expired_port(authority: Authority) -> Iterator[int]:
    yield from secured(authority, authority.issue("expired", ends=-DAY / 2))


class TestCertificates:
    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
    def test_one_of_a_trusted_authority(self, authority: Authority, tls_port: int, host: str) -> None:
        found = target.reached(target.read(f"wss://{host}:{tls_port}/ws", authority.ca_file))
        assert (found.address, found.url) == ("127.0.0.1", f"wss://{host}:{tls_port}/ws")

    def test_one_of_nobody_that_is_known(self, tls_port: int) -> None:
        with pytest.raises(click.ClickException, match=r"not accepted: .*issuer certificate; .*--ca-file") as caught:
            target.reached(target.read(f"wss://localhost:{tls_port}/ws"))
        assert "\n" not in caught.value.message
        target.reached(target.read(f"wss://localhost:{tls_port}/ws", insecure=True))

    def test_one_of_another_name(self, authority: Authority, tls_port: int) -> None:
        with pytest.raises(click.ClickException, match=r"not accepted: .*127\.0\.0\.2"):
            target.reached(target.read(f"wss://127.0.0.2:{tls_port}/ws", authority.ca_file))

    def test_one_that_has_expired(self, authority: Authority, expired_port: int) -> None:
        with pytest.raises(click.ClickException, match=r"not accepted: certificate has expired"):
            target.reached(target.read(f"wss://localhost:{expired_port}/ws", authority.ca_file))

    def test_a_file_without_any(self, tmp_path: Path) -> None:
        (tmp_path / "ca.pem").write_text("nothing\n")
        with pytest.raises(click.BadParameter, match="has no certificates in PEM"):
            target.reached(target.read("wss://localhost:1/ws", tmp_path / "ca.pem"))


@pytest.mark.parametrize("host", ["127.0.0.1", "nobody.invalid", "a" * 64 + ".invalid"])
def test_where_nobody_listens(host: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(click.ClickException, match="cannot be reached"):
            target.reached(target.read(f"ws://{host}:{unused.getsockname()[1]}/ws"))
