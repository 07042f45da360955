"""HTTP/1.1 connections that are kept open between requests, for any number of threads, on `http.client`.

Rules: a connection is used by one thread at a time; what a process inherits by a fork is left to its parent. Nothing is
retried here but a request that went out on a kept connection which the server had closed meanwhile.
"""

from __future__ import annotations

import http.client
import os
import select
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from realtime_communication.client.errors import ConnectionLost, ProtocolViolation, RequestTimeout

__all__ = ["Answer", "Endpoint", "HttpPool"]

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
_CHUNK: Final = 65_536
_WEBSOCKET_PATH: Final = "/ws"
_SCHEMES: Final = {"http": False, "ws": False, "https": True, "wss": True}


class Endpoint(NamedTuple):
    """Where the server's HTTP API is: ``prefix`` comes before each path."""

    host: str
    port: int
    secure: bool
    prefix: str

    @classmethod
    def of(cls, url: str) -> Endpoint:
        """The endpoint of ``http(s)://host:port[/prefix]``, or of the WebSocket's URL, ``ws(s)://host:port/ws``.

        Raises ValueError.
        """
        if any(not "!" <= letter <= "~" for letter in url):
            raise ValueError("the URL must be printable ASCII without blanks")
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise ValueError("the URL must look like http://host:port or ws://host:port/ws")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("the URL must have neither a user nor a query nor a fragment: credentials go elsewhere")
        secure = _SCHEMES[parts.scheme]
        port = parts.port if parts.port is not None else (443 if secure else 80)
        if port == 0:
            raise ValueError("the URL's port must be from 1 to 65535")
        path = parts.path.rstrip("/")
        if parts.scheme.startswith("ws"):
            path = path.removesuffix(_WEBSOCKET_PATH)
        return cls(parts.hostname, port, secure, path)

    @property
    def url(self) -> str:
        """As people write it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}{self.prefix}"


class Answer(NamedTuple):
    """What the server answered; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Stale(Exception):
    """A kept connection turned out to be closed before anything of an answer came."""


class HttpPool:
    """Connections to one endpoint, of which up to ``max_idle`` are kept while nobody uses them."""

    def __init__(self, endpoint: Endpoint, *, max_idle: int, ssl_context: ssl.SSLContext | None) -> None:
        self.endpoint = endpoint
        self._max_idle = max_idle
        self._context = ssl_context
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []
        self._closed = False
        _pools.add(self)

    def exchange(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, deadline: float
    ) -> Answer:
        """One request and its answer, until ``deadline`` of the monotonic clock.

        Raises ConnectionLost, RequestTimeout and ProtocolViolation.
        """
        while True:
            connection, kept = self._take()
            try:
                return self._exchange(connection, kept, method, path, headers, body, deadline)
            except _Stale:
                continue  # each time one less is kept

    def close(self) -> None:
        """Close what nobody uses; what is in use is closed as soon as it is not."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        kept: bool,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        deadline: float,
    ) -> Answer:
        reusable = False
        try:
            if not kept:
                connection.timeout = _left(deadline)
                connection.connect()
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sock.settimeout(_left(deadline))
            response = _ask(connection, kept, method, self.endpoint.prefix + path, headers, body)
            data = _read(connection, response, deadline)
            reusable = not response.will_close
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, data)
        except TimeoutError as error:
            raise RequestTimeout(f"no answer of {self.endpoint.url} in time") from error
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that no host can have
            raise ConnectionLost(f"no connection to {self.endpoint.url}: {error}") from error
        except http.client.HTTPException as error:
            raise ProtocolViolation(f"{self.endpoint.url} sent no valid HTTP answer: {error!r}") from error
        finally:
            self._give_back(connection, reusable)

    def _take(self) -> tuple[http.client.HTTPConnection, bool]:
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._new(), False
            if _is_quiet(connection):
                return connection, True
            connection.close()

    def _new(self) -> http.client.HTTPConnection:
        host, port, secure, _ = self.endpoint
        if not secure:
            return http.client.HTTPConnection(host, port)
        with self._lock:
            if self._context is None:
                self._context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, context=self._context)

    def _give_back(self, connection: http.client.HTTPConnection, reusable: bool) -> None:
        with self._lock:
            if reusable and not self._closed and len(self._idle) < self._max_idle:
                self._idle.append(connection)
                return
        connection.close()

    def _forked(self) -> None:
        """In a child: the connections are the parent's, and its threads may have held the lock."""
        self._lock = threading.Lock()
        for connection in self._idle:
            connection.close()  # closes this process's copy of the descriptor, and sends nothing
        self._idle = []


def _ask(
    connection: http.client.HTTPConnection,
    kept: bool,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes | None,
) -> http.client.HTTPResponse:
    try:
        connection.request(method, path, body, dict(headers))
        return connection.getresponse()
    except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
        if kept:
            raise _Stale from error
        raise


def _read(connection: http.client.HTTPConnection, response: http.client.HTTPResponse, deadline: float) -> bytes:
    data = bytearray()
    while True:
        if connection.sock is not None:  # None once the last byte of an answer that ends the connection is there
            connection.sock.settimeout(_left(deadline))
        piece = response.read(_CHUNK)
        data += piece
        if not piece:
            if response.length:  # of a body whose length was told, what did not come
                raise http.client.IncompleteRead(bytes(data), response.length)
            return bytes(data)
        if len(data) > MAX_ANSWER_BYTES:
            raise http.client.HTTPException(f"an answer of more than {MAX_ANSWER_BYTES} bytes")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _is_quiet(connection: http.client.HTTPConnection) -> bool:
    """Whether nothing has come on a connection that is not used: what comes then is its end."""
    if connection.sock is None:
        return False
    poll = select.poll()  # select() knows no descriptor above 1023
    poll.register(connection.sock, select.POLLIN)
    return not poll.poll(0)


_pools: weakref.WeakSet[HttpPool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_pools):
        pool._forked()


os.register_at_fork(after_in_child=_after_fork)
