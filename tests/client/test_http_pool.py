"""Endpoints, and connections that are kept."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from realtime_communication.client.errors import ConnectionLost, ProtocolViolation, RequestTimeout
from realtime_communication.client.http_pool import Endpoint, HttpPool


@pytest.mark.parametrize(
    ("url", "endpoint", "shown"),
    [
        ("http://h:81", Endpoint("h", 81, False, ""), "http://h:81"),
        ("https://h/", Endpoint("h", 443, True, ""), "https://h:443"),
        ("http://h/rtc/", Endpoint("h", 80, False, "/rtc"), "http://h:80/rtc"),
        ("ws://h:81/ws", Endpoint("h", 81, False, ""), "http://h:81"),
        ("wss://h/rtc/ws", Endpoint("h", 443, True, "/rtc"), "https://h:443/rtc"),
        ("ws://[::1]:81/ws", Endpoint("::1", 81, False, ""), "http://[::1]:81"),
    ],
)
def test_endpoints(url: str, endpoint: Endpoint, shown: str) -> None:
    assert Endpoint.of(url) == endpoint
    assert endpoint.url == shown


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:81",
        "ftp://h",
        "http://",
        "http://u:p@h",
        "http://h?token=x",
        "http://h#x",
        "http://h:x",
        "http://h:0",
        "http://h/ü",
    ],
)
def test_no_endpoints(url: str) -> None:
    with pytest.raises(ValueError):
        Endpoint.of(url)


@contextmanager
def saying(*pieces: bytes) -> Iterator[HttpPool]:
    """A pool for a server that writes each piece on a connection of its own, after a request's head, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for piece in pieces:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65_536)
                    connection.sendall(piece)

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        pool = HttpPool(Endpoint("127.0.0.1", port, False, ""), max_idle=1, ssl_context=None)
        try:
            yield pool
        finally:
            pool.close()
            thread.join()


def ask(pool: HttpPool, secs: float = 10.0) -> bytes:
    return pool.exchange("GET", "/", {}, None, time.monotonic() + secs).body


def test_an_answer_and_headers_in_lower_case() -> None:
    with saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Thing: a\r\n\r\nhi") as pool:
        answer = pool.exchange("GET", "/", {}, None, time.monotonic() + 10)
    assert (answer.status, answer.body, answer.headers["x-thing"]) == (200, b"hi", "a")


def test_chunks_and_a_kept_connection_that_has_ended() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    with saying(chunked, chunked) as pool:
        assert [ask(pool), ask(pool)] == [b"hi", b"hi"]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"no HTTP at all\r\n\r\n", ProtocolViolation),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", ProtocolViolation),
        (b"", ConnectionLost),
    ],
)
def test_what_is_no_answer(said: bytes, error: type[Exception]) -> None:
    with saying(said) as pool, pytest.raises(error):
        ask(pool)


def test_an_answer_without_an_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime_communication.client.http_pool.MAX_ANSWER_BYTES", 10)
    with saying(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 11) as pool, pytest.raises(ProtocolViolation, match="more than"):
        ask(pool)


def test_no_time_left() -> None:
    pool = HttpPool(Endpoint("127.0.0.1", 1, False, ""), max_idle=1, ssl_context=None)
    with pytest.raises(RequestTimeout):
        ask(pool, -1)


def test_a_name_that_no_host_can_have() -> None:
    pool = HttpPool(Endpoint("x" * 70 + ".example", 80, False, ""), max_idle=1, ssl_context=None)
    with pytest.raises(ConnectionLost):
        ask(pool)
