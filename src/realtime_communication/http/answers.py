"""The one shape of every answer: JSON, and `{"error":{"code":…,"message":…}}` for every failure.

Nothing of an exception that is not meant for the peer gets into an answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from aiohttp import web

from realtime_communication.config.protection import Security
from realtime_communication.config.traffic import RateLimitHeaders
from realtime_communication.errors import ERROR_CODE_BY_NAME, HTTP_ERROR_CODES
from realtime_communication.observability.redaction import escape

SERVER_NAME: Final = "realtime_communication"
# A year, the least that browsers' preload lists take (RFC 6797 section 6.1).
TRANSPORT_SECURITY: Final = "max-age=31536000; includeSubDomains"
_CODE_OF_STATUS: Final = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    413: "too_large",
    429: "rate_limited",
    431: "too_large",
    500: "internal",
    503: "unavailable",
} | {row.status: row.name for row in HTTP_ERROR_CODES}
_KEPT_HEADERS: Final = ("Allow", "Location", "WWW-Authenticate")
# The hosts of a load balancer ask again after this long when the server is full or draining.
RETRY_AFTER_SECS: Final = 1
_LONGEST_NAME: Final = 64  # characters of a name from outside
_LONGEST_MESSAGE: Final = 500


class FieldError(ValueError):
    """A field of a request, or its body, that is at fault. The text names it and says what is allowed.

    `field` may be a name that the peer made up: it is cut, and fit for logs and answers.
    """

    def __init__(self, field: str, message: str, status: int = 422) -> None:
        super().__init__(f"{escape(field[:_LONGEST_NAME])}: {escape(message[:_LONGEST_MESSAGE])}")
        self.status = status

    def response(self) -> web.Response:
        """The answer to the request."""
        return error_response(self.status, _CODE_OF_STATUS.get(self.status, "bad_request"), str(self))


def json_response(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """`value` as JSON, never stored by a cache."""
    return web.Response(
        body=msgspec.json.encode(value),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", "Server": SERVER_NAME, "X-Content-Type-Options": "nosniff"}
        | dict(headers or {}),
    )


def protecting_headers(security: Security, *, secure: bool) -> dict[str, str]:
    """Headers of every answer, also of those that the data plane makes; `secure`: the client's link is encrypted."""
    headers = {"Server": SERVER_NAME, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
    if security.content_security_policy:
        headers["Content-Security-Policy"] = security.content_security_policy
    # RFC 6797 section 7.2: never over plain HTTP.
    if secure and security.strict_transport_security:
        headers["Strict-Transport-Security"] = TRANSPORT_SECURITY
    return headers


def set_headers(response: web.StreamResponse, security: Security, *, secure: bool) -> None:
    """Gives an answer the headers of all that it has none of its own for."""
    headers = response.headers
    headers["Server"] = SERVER_NAME  # aiohttp's own would tell its version
    for name, value in protecting_headers(security, secure=secure).items():
        headers.setdefault(name, value)
    if response.content_type == "text/html":
        headers.setdefault("X-Frame-Options", "DENY")


def error_response(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """The answer to a request that failed. `message` is for people."""
    return json_response({"error": {"code": code, "message": message}}, status, headers)


def limit_headers(limits: RateLimitHeaders, state: tuple[int, int, int] | None) -> dict[str, str]:
    """What an answer under a limit says of it, in the configured headers.

    `state`: requests allowed at once, requests left, milliseconds until all are back; None when there is no limit.
    """
    if state is None or not limits.enabled:
        return {}
    depth, remaining, full_in_ms = state
    return {
        limits.limit_header: str(depth),
        limits.remaining_header: str(remaining),
        limits.reset_header: str(math.ceil(time.time() + full_in_ms / 1000)),
    }


def refused_response(
    code: str, message: str, retry_after_ms: int | None, limits: RateLimitHeaders, state: tuple[int, int, int] | None
) -> web.Response:
    """The answer to a request the hub refused with an error code of rtc.v1; `state` as for `limit_headers`."""
    row = ERROR_CODE_BY_NAME.get(code)
    status = row.status if row is not None else 500
    return error_response(status, code, message, refusal_headers(status, retry_after_ms, limits, state))


def refusal_headers(
    status: int, retry_after_ms: int | None, limits: RateLimitHeaders, state: tuple[int, int, int] | None
) -> dict[str, str]:
    """What the headers of a refusal say about limits, and about when to come back; `state` as for `limit_headers`."""
    if status == 429 and state is not None:
        # Another bucket may be the empty one: to the client nothing is left either way.
        state = (state[0], 0, max(state[2], retry_after_ms or 0))
    headers = limit_headers(limits, state)
    wait = str(max(1, math.ceil((retry_after_ms or RETRY_AFTER_SECS * 1000) / 1000)))
    if status == 503 or (status == 429 and not limits.enabled):
        headers["Retry-After"] = wait
    elif status == 429:
        headers[limits.retry_after_header] = wait
    return headers


def response_of(exception: web.HTTPException) -> web.Response:
    """aiohttp's own refusals (404, 405, 413, 417, …) in the shape of all others."""
    status = exception.status
    headers: dict[str, str] = {name: exception.headers[name] for name in _KEPT_HEADERS if name in exception.headers}
    if status < 400:
        return web.Response(status=status, headers=headers)
    code = _CODE_OF_STATUS.get(status, "bad_request" if status < 500 else "internal")
    return error_response(status, code, _message_of(status), headers)


def _message_of(status: int) -> str:
    messages: dict[int, Any] = {
        404: "there is nothing at this path",
        405: "this path does not support the method",
        413: "the body is too large",
        415: "the content type must be application/json",
        500: "the server failed to answer this request",
    }
    return str(messages.get(status, HTTPStatus(status).description or HTTPStatus(status).phrase))
