"""What stands between a request and its handler: TLS, CORS, the headers of every answer, the shape of errors.

The configuration is read for each request, so a reload counts from the next one on.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import hdrs, web

from realtime_communication.auth.chain import MalformedRequestError, Refusal, refusal_of
from realtime_communication.broker.redis_errors import RedisFailed
from realtime_communication.config.protection import Cors
from realtime_communication.config.traffic import RateLimitHeaders
from realtime_communication.errors import AuthenticationFailed, CircuitOpen, RateLimited, RequestRefused
from realtime_communication.http.answers import (
    FieldError,
    error_response,
    limit_headers,
    refusal_headers,
    refused_response,
    response_of,
    set_headers,
)
from realtime_communication.http.connection import BodyRefused
from realtime_communication.http.forwarding import Client, client_of_request
from realtime_communication.http.services import LIMIT, SERVICES, Services
from realtime_communication.observability.logs import get_logger

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_LOGGED_PATH: Final = 200  # characters
TOLD_STATUSES: Final = frozenset({401, 403, 413, 429})  # somebody wants what is not theirs: an operator should know
TLS_REQUIRED: Final = "this server is only to be used over TLS: use https or wss"
# RFC 2817 section 4.2: the answer that demands TLS names it, and the protocol the client may go on with.
TLS_PROTOCOLS: Final = "TLS/1.2, HTTP/1.1"

_log = get_logger(__name__)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure as JSON, and one line in the log for what is the server's own fault."""
    started = time.perf_counter()
    try:
        response = await handler(request)
    except RateLimited as error:
        response = _limited(request, error)
    except (AuthenticationFailed, MalformedRequestError) as error:
        status, code, message, headers = refusal_of(error)
        response = error_response(status, code, message, dict(headers))
    except RequestRefused as error:
        limits = request.app[SERVICES].config.rate_limiting.headers
        response = refused_response(error.code, error.message, error.retry_after_ms, limits, None)
    except (CircuitOpen, RedisFailed) as error:
        response = _out_of_reach(request, error)
    except FieldError as error:
        response = error.response()
    except BodyRefused as error:
        response = error_response(error.violation.status, error.violation.code, error.violation.message)
        response.force_close()
    except web.HTTPException as error:
        response = response_of(error)
    except Exception:
        _log.exception("an HTTP handler failed", method=request.method, path=_loggable_path(request))
        response = error_response(500, "internal", "the server failed to answer this request")
    if response.status in TOLD_STATUSES:
        request.app[SERVICES].refusals.tell(
            address=client_of_request(request).address,
            method=request.method,
            path=_loggable_path(request),
            status=response.status,
        )
    if _log.enabled_for(logging.DEBUG):
        # The query is left out: tokens and API keys may stand in it.
        _log.debug(
            "HTTP request",
            method=request.method,
            path=_loggable_path(request),
            status=response.status,
            address=client_of_request(request).address,
            duration_ms=round((time.perf_counter() - started) * 1000, 3),
        )
    return response


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what has to come over TLS and did not; answer preflights (Fetch Standard, CORS protocol)."""
    security = request.app[SERVICES].config.security
    if security.enforce_tls and not client_of_request(request).secure:
        return error_response(426, "forbidden", TLS_REQUIRED, {"Upgrade": TLS_PROTOCOLS, "Connection": "Upgrade"})
    cors = security.cors
    if (
        cors.enabled
        and request.method == hdrs.METH_OPTIONS
        and hdrs.ORIGIN in request.headers
        and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    ):
        return _preflight(cors, _granted_origin(cors, request))
    return await handler(request)


def refuse_upgrade(services: Services, client: Client) -> Refusal | None:
    """Why the credentials of a WebSocket upgrade are not even looked at: no TLS where it is demanded, or too many wrong
    ones from the same client. None when nothing speaks against it.

    Whoever refuses the credentials afterwards tells `services.attempts.fail(client.address)`.
    """
    config = services.config
    if config.security.enforce_tls and not client.secure:
        # The data plane adds `Connection: Upgrade`, as to every 426.
        return 426, "forbidden", TLS_REQUIRED, [("Upgrade", TLS_PROTOCOLS)]
    try:
        services.check_attempts(client.address)
    except RateLimited as error:
        state = services.attempts_left(client.address)
        headers = refusal_headers(429, error.retry_after_ms, config.rate_limiting.headers, state)
        return 429, error.code, error.message, list(headers.items())
    return None


def refuse_origin(request: web.Request) -> None:
    """Raises RequestRefused (`forbidden`) for a page that may not connect, as with the upgrade of a WebSocket."""
    cors = request.app[SERVICES].config.security.cors
    if cors.enabled and hdrs.ORIGIN in request.headers and _granted_origin(cors, request) is None:
        raise RequestRefused("forbidden", "Origin: not among security.cors.allowed_origins")


async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
    """Headers of every answer, of streams too."""
    config = request.app[SERVICES].config
    secure = config.security.strict_transport_security and client_of_request(request).secure
    set_headers(response, config.security, secure=secure)
    limits = config.rate_limiting.headers
    if LIMIT in request and limits.limit_header not in response.headers:
        response.headers.update(limit_headers(limits, request[LIMIT]()))
    if config.security.cors.enabled:
        _apply_cors(request, response, config.security.cors, limits)


def _apply_cors(request: web.Request, response: web.StreamResponse, cors: Cors, limits: RateLimitHeaders) -> None:
    # A shared cache must not give one origin's answer to another, nor the answer of a request without any.
    if "Origin" not in response.headers.get(hdrs.VARY, ""):
        response.headers.add(hdrs.VARY, "Origin")
    granted = _granted_origin(cors, request)
    if granted is None:
        return
    response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = granted
    if cors.allow_credentials and granted != "*":
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
    exposed = ["Retry-After"]
    if limits.enabled:
        exposed += [limits.limit_header, limits.remaining_header, limits.reset_header, limits.retry_after_header]
    response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = ", ".join(dict.fromkeys(exposed))


def _granted_origin(cors: Cors, request: web.Request) -> str | None:
    """What the answer grants; None for a foreign origin, or for a request that no page of another origin sent."""
    origins = request.headers.getall(hdrs.ORIGIN, [])
    # Compared as a whole: no suffix, no other scheme or port. `null` is only granted where every origin is.
    if len(origins) == 1 and origins[0] in cors.allowed_origins:
        return origins[0]
    return "*" if origins and "*" in cors.allowed_origins else None


def _preflight(cors: Cors, granted: str | None) -> web.Response:
    vary = {"Vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"}
    if granted is None:
        return error_response(403, "forbidden", "the origin is not among security.cors.allowed_origins", vary)
    grants = {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: ", ".join(cors.allowed_methods),
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: ", ".join(cors.allowed_headers),
        hdrs.ACCESS_CONTROL_MAX_AGE: str(cors.max_age_secs),
    }
    return web.Response(status=204, headers=vary | grants)


def _limited(request: web.Request, error: RateLimited) -> web.Response:
    """The answer where too many credentials from the client's address were wrong."""
    services = request.app[SERVICES]
    state, limits = services.attempts_left(client_of_request(request).address), services.config.rate_limiting.headers
    return refused_response(error.code, error.message, error.retry_after_ms, limits, state)


def _out_of_reach(request: web.Request, error: CircuitOpen | RedisFailed) -> web.Response:
    """The answer where something behind this server failed. Which it is, is the operator's to know."""
    _log.warning(
        "an HTTP request needs what is out of reach",
        method=request.method,
        path=_loggable_path(request),
        reason=str(error),
    )
    wait_ms = math.ceil(error.retry_after_secs * 1000) if isinstance(error, CircuitOpen) else None
    limits = request.app[SERVICES].config.rate_limiting.headers
    return refused_response(error.code, "a service that this needs is out of reach", wait_ms, limits, None)


def _loggable_path(request: web.Request) -> str:
    return request.rel_url.raw_path[:MAX_LOGGED_PATH]
