"""A client that shows exactly what the server sends: one envelope after the other, keys in their order."""

import contextlib
import itertools
import json
import ssl
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import msgspec
from websockets.sync.client import ClientConnection, connect

from serving.certificates import trusted
from serving.tokens import token

CONNECT_SECS = 60.0  # a connection may wait for the worker that is to take it to start
RECEIVE_SECS = 20.0
JSON = "rtc.v1.json"
MSGPACK = "rtc.v1.msgpack"


def unique(prefix: str = "room") -> str:
    """A name no other test uses."""
    return f"{prefix}:{uuid.uuid4().hex[:12]}"


def unique_user(prefix: str = "user") -> str:
    """A user no other test uses."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


class Peer:
    """One connection. Replies are matched by id; what comes unasked waits in ``unasked``."""

    def __init__(
        self,
        url: str,
        user: str | None = None,
        *,
        subprotocol: str | None = JSON,
        token_text: str | None = None,
        greet: bool = True,
        compression: str | None = None,
        tls: ssl.SSLContext | None = None,
        **claims: Any,
    ) -> None:
        headers: dict[str, str] = {}
        if token_text is None and user is not None:
            token_text = token(user, **claims)
        if token_text is not None:
            headers["Authorization"] = f"Bearer {token_text}"
        self.user = user
        self.unasked: list[dict[str, Any]] = []
        self._ids = itertools.count(1)
        self._open = contextlib.ExitStack()
        self.connection: ClientConnection = self._open.enter_context(
            connect(
                url,
                additional_headers=headers,
                subprotocols=[subprotocol] if subprotocol else None,  # type: ignore[list-item]
                compression=compression,
                open_timeout=CONNECT_SECS,
                ping_interval=None,
                close_timeout=2,
                max_size=None,
                max_queue=None,
                proxy=None,
                ssl=tls or trusted(url),
            )
        )
        self.is_json = not (subprotocol or JSON).startswith(MSGPACK)
        self.connected: dict[str, Any] = self.receive() if greet else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection in the regular way."""
        self._open.close()

    def encode(self, envelope: Any) -> str | bytes:
        """In this connection's encoding."""
        return json.dumps(envelope) if self.is_json else msgspec.msgpack.encode(envelope)

    def send(self, envelope: Any) -> None:
        """Send an envelope; ``str`` and ``bytes`` go out as they are."""
        self.connection.send(envelope if isinstance(envelope, (str, bytes)) else self.encode(envelope))

    def receive(self, timeout: float = RECEIVE_SECS) -> dict[str, Any]:
        """The next envelope, whatever it is. Raises TimeoutError, ConnectionClosed."""
        data = self.connection.recv(timeout)
        assert isinstance(data, str) is self.is_json, f"wrong frame type for the encoding: {data!r}"
        envelope = json.loads(data) if isinstance(data, str) else msgspec.msgpack.decode(data)
        assert isinstance(envelope, dict)
        assert next(iter(envelope)) == "type", f"`type` must come first: {envelope}"
        return envelope

    def request(self, type: str, **fields: Any) -> dict[str, Any]:
        """Send a request with an id and return its reply; ``from_`` style names are not needed by any request."""
        request_id = next(self._ids)
        self.send({"type": type, "id": request_id, **fields})
        return self.reply(request_id)

    def reply(self, request_id: int | str) -> dict[str, Any]:
        """The reply to ``request_id``; other envelopes are kept in ``unasked``."""
        while True:
            envelope = self.receive()
            if "id" in envelope:
                assert envelope["id"] == request_id, f"a reply nobody waits for: {envelope}"
                return envelope
            self.unasked.append(envelope)

    def ok(self, type: str, **fields: Any) -> dict[str, Any]:
        """As ``request``; an ``Error`` fails the test."""
        reply = self.request(type, **fields)
        assert reply["type"] != "Error", reply
        return reply

    def error(self, type: str, **fields: Any) -> dict[str, Any]:
        """As ``request``; anything but an ``Error`` fails the test."""
        reply = self.request(type, **fields)
        assert reply["type"] == "Error", reply
        return reply

    def event(self, timeout: float = RECEIVE_SECS) -> dict[str, Any]:
        """The next envelope that is no reply."""
        return self.unasked.pop(0) if self.unasked else self.receive(timeout)

    def events(self, count: int) -> list[dict[str, Any]]:
        """The next ``count`` of them."""
        return [self.event() for _ in range(count)]

    def settle(self) -> list[dict[str, Any]]:
        """All that was sent to this connection so far.

        Replies may overtake data that waits, but leave in the same write: after the second reply nothing is behind.
        """
        self.ok("Ping")
        self.ok("Ping")
        unasked, self.unasked = self.unasked, []
        return unasked

    def close_code(self, timeout: float = RECEIVE_SECS) -> int:
        """Read until the server closes; its close code, 1006 when the TCP connection just ended."""
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                data = self.connection.recv(timeout)
                envelope = json.loads(data) if isinstance(data, str) else msgspec.msgpack.decode(data)
                self.unasked.append(envelope)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd is not None else 1006


Connect = Callable[..., Peer]
"""Connects a user: ``connect(user=None, **options)``."""
