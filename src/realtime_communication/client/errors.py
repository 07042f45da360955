"""Everything the client raises on purpose, in one tree.

::

    ClientError
    ├── RequestError            the server answered with ``Error``; ``code`` is stable, ``message`` is for people
    ├── RequestTimeout          no answer in time; also a builtin ``TimeoutError``
    ├── QueueFull               too many requests wait for their answers; nothing was sent
    ├── ConnectionLost          the connection ended and this cannot be repaired by itself; also a ``ConnectionError``
    │   └── HandshakeRejected   the server refused the WebSocket upgrade for good (``status``)
    ├── AuthenticationFailed    the credentials were refused, or no fresh ones could be had
    ├── PayloadMismatch         a payload is not of the type that a typed topic asks for
    ├── ClientClosed            used before it was opened or after it was closed: a mistake of the caller
    └── ProtocolViolation       the server sent what rtc.v1 does not allow: a mistake of the peer

A wrong argument raises the usual ``ValueError`` or ``TypeError`` before anything is sent.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = [
    "AuthenticationFailed",
    "ClientClosed",
    "ClientError",
    "ConnectionLost",
    "HandshakeRejected",
    "PayloadMismatch",
    "ProtocolViolation",
    "QueueFull",
    "RequestError",
    "RequestTimeout",
]


_FIELD = re.compile(r"([a-z][a-z0-9_.\[\]]{0,63}): ")


class ClientError(Exception):
    """Base of all errors of this client."""


class RequestError(ClientError):
    """The server refused a request.

    ``code`` is one of the error codes of the protocol (``forbidden``, ``topic_invalid``, ``rate_limited``, …),
    ``retry_after_ms`` says when it is worth trying again, where the server knows; ``retry_after`` is the same in
    seconds. ``field`` names the part of the request that is at fault, where the server names one, and ``status`` is
    that of an answer over HTTP.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retry_after_ms: int | None = None,
        scope: str | None = None,
        field: str | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms
        self.scope = scope
        self.field = field or _field_in(message)
        self.status = status

    @property
    def retry_after(self) -> float | None:
        """Seconds until it is worth trying again; None where the server does not know."""
        return None if self.retry_after_ms is None else self.retry_after_ms / 1000


def _field_in(message: str) -> str | None:
    """The field that the server's words begin with: ``topic: must be …``."""
    match = _FIELD.match(message)
    return match[1] if match is not None else None


class RequestTimeout(ClientError, TimeoutError):
    """No answer came within the time-out.

    Whether the request had its effect is not known. Repeating ``publish`` or ``direct`` with the same
    ``idempotency_key`` is safe.
    """


class QueueFull(ClientError):
    """More requests wait for their answers than ``max_pending`` or ``max_pending_bytes`` allow. Nothing was sent."""


class ConnectionLost(ClientError, ConnectionError):
    """The connection is gone. ``code`` is the close code (1006 when there was none), ``reason`` the server's words."""

    def __init__(self, message: str, *, code: int = 1006, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class HandshakeRejected(ConnectionLost):
    """The server answered the WebSocket upgrade with an HTTP error that another attempt would meet again."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class AuthenticationFailed(ClientError):
    """The server does not accept the credentials. ``code`` is the server's error or close code, as text."""

    def __init__(self, message: str, *, code: str = "unauthorized") -> None:
        super().__init__(message)
        self.code = code


class ClientClosed(ClientError):
    """The client is not open."""


class ProtocolViolation(ClientError):
    """The server sent something that is not rtc.v1."""


class PayloadMismatch(ClientError):
    """The ``payload`` at ``offset`` of ``topic`` is not of the type asked for."""

    def __init__(self, topic: str, offset: int, payload: Any, reason: str) -> None:
        super().__init__(f"the payload at offset {offset} of {topic!r} does not fit: {reason}")
        self.topic = topic
        self.offset = offset
        self.payload = payload
        self.reason = reason
