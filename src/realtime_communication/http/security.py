"""What stands between a request and its handler: CORS, the shape of errors, the log line."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import hdrs, web

from realtime_communication.auth.chain import MalformedRequestError, refusal_of
from realtime_communication.config.protection import Cors
from realtime_communication.errors import AuthenticationFailed
from realtime_communication.http.answers import SERVER_NAME, error_response, response_of
from realtime_communication.http.connection import BodyRefused
from realtime_communication.http.services import SERVICES
from realtime_communication.observability.logs import get_logger

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_LOGGED_PATH: Final = 200  # characters

_log = get_logger(__name__)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure as JSON, and one line in the log for what is the server's own fault."""
    started = time.perf_counter()
    try:
        response = await handler(request)
    except (AuthenticationFailed, MalformedRequestError) as error:
        status, code, message, headers = refusal_of(error)
        response = error_response(status, code, message, dict(headers))
    except BodyRefused as error:
        response = error_response(error.violation.status, error.violation.code, error.violation.message)
        response.force_close()
    except web.HTTPException as error:
        response = response_of(error)
    except Exception:
        _log.exception("an HTTP handler failed", method=request.method, path=_loggable_path(request))
        response = error_response(500, "internal", "the server failed to answer this request")
    if _log.enabled_for(logging.DEBUG):
        # The query is left out: tokens and API keys may stand in it.
        _log.debug(
            "HTTP request",
            method=request.method,
            path=_loggable_path(request),
            status=response.status,
            duration_ms=round((time.perf_counter() - started) * 1000, 3),
        )
    return response


@web.middleware
async def apply_cors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Preflights and answers for pages of other origins (Fetch Standard, CORS protocol)."""
    cors = request.app[SERVICES].config.security.cors
    origin = request.headers.get(hdrs.ORIGIN)
    if not cors.enabled or origin is None:
        return await handler(request)
    granted = _granted_origin(cors, origin)
    if request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers:
        return _preflight(cors, granted)
    response = await handler(request)
    response.headers.add(hdrs.VARY, "Origin")
    if granted is not None:
        _grant(response, cors, granted)
    return response


async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
    """Headers of every answer."""
    response.headers["Server"] = SERVER_NAME
    response.headers.setdefault("X-Content-Type-Options", "nosniff")


def _granted_origin(cors: Cors, origin: str) -> str | None:
    # Compared as a whole: no suffix, no other scheme or port. `null` is only granted where it is listed.
    if origin in cors.allowed_origins:
        return origin
    return "*" if "*" in cors.allowed_origins else None


def _grant(response: web.StreamResponse, cors: Cors, granted: str) -> None:
    response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = granted
    if cors.allow_credentials and granted != "*":
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"


def _preflight(cors: Cors, granted: str | None) -> web.Response:
    if granted is None:
        return error_response(403, "forbidden", "the origin is not allowed", {"Vary": "Origin"})
    response = web.Response(status=204, headers={"Vary": "Origin"})
    _grant(response, cors, granted)
    response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = ", ".join(cors.allowed_methods)
    response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = ", ".join(cors.allowed_headers)
    response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(cors.max_age_secs)
    return response


def _loggable_path(request: web.Request) -> str:
    return request.rel_url.raw_path[:MAX_LOGGED_PATH]
