"""Publishing over HTTP: `POST /api/publish` and `POST /api/send`.

The hub reads the body itself, by the very rules of the WebSocket; here is only what HTTP adds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import hdrs, web

from realtime_communication._core.hub.hub import RequestError, UndecidedError
from realtime_communication.auth.chain import parse_query
from realtime_communication.auth.identity import ADMIN, READ, SUBSCRIBE, WRITE, Identity
from realtime_communication.config.schema import Auth
from realtime_communication.errors import AuthenticationFailed, AuthenticationMissing, RequestRefused
from realtime_communication.http.answers import json_response, refused_response
from realtime_communication.http.connection import HttpConnection
from realtime_communication.http.forwarding import client_of_request
from realtime_communication.http.later import settled
from realtime_communication.http.services import LIMIT, SERVICES, Services

# From the head to the last byte of the body; with what lingers behind the answer, ten seconds in all.
BODY_TIMEOUT_SECS: Final = 8.0

_NAMES: Final = {
    READ: "the permission read",
    WRITE: "the permission write",
    SUBSCRIBE: "the permission subscribe",
    ADMIN: "the role admin",
}
_WRONG: Final = ("unauthorized", "token_expired")  # other failures say nothing of the credentials


def add_routes(application: web.Application) -> None:
    """The endpoints of this module."""
    application.router.add_post("/api/publish", publish)
    application.router.add_post("/api/send", send)


async def publish(request: web.Request) -> web.Response:
    """{topic, payload, idempotency_key?} → {epoch, offset}."""
    services = request.app[SERVICES]
    return await _ask_hub(request, lambda body, identity: publish_allowed(services, body, identity))


async def send(request: web.Request) -> web.Response:
    """{to, payload, idempotency_key?} → {delivered, offline}."""
    hub = request.app[SERVICES].hub
    return await _ask_hub(request, lambda body, identity: settled(hub.send_request(body, identity)))


async def publish_allowed(services: Services, body: bytes, identity: Identity) -> dict[str, Any]:
    """What the hub answers to a publication, once it is known whether the sender may. Raises RequestError,
    RequestRefused."""
    try:
        return await settled(services.hub.publish_request(body, identity))
    except UndecidedError as undecided:
        if services.authorizer is None:
            raise
        await services.authorizer.decide(undecided.action, identity.user_id, undecided.topic)
    return await settled(services.hub.publish_request(body, identity, counted=True))


async def _ask_hub(request: web.Request, ask: Callable[[bytes, Identity], Awaitable[dict[str, Any]]]) -> web.Response:
    services = request.app[SERVICES]
    identity = await require_permission(request, WRITE)
    body = await read_json_body(request)
    try:
        return json_response(await ask(body, identity))
    except RequestError as error:
        limits, state = services.config.rate_limiting.headers, services.hub.user_limit(identity.user_id)
        return refused_response(error.code, error.message, error.retry_after_ms, limits, state)


async def identify(request: web.Request, *, in_url: bool = True) -> Identity:
    """Who sent the request. Without `in_url`, credentials in the URL, which gets into logs and histories, are refused.

    Raises AuthenticationFailed without or with wrong credentials, AuthenticationUnavailable when they cannot be
    checked, RateLimited where the client has sent too many wrong ones.
    """
    identity = await find_identity(request, in_url=in_url)
    if identity is None:
        raise AuthenticationMissing
    return identity


async def find_identity(request: web.Request, *, in_url: bool = True) -> Identity | None:
    """As `identify`, and None without credentials."""
    services = request.app[SERVICES]
    headers = [(name.lower(), value) for name, value in request.raw_headers]
    query = request.rel_url.raw_query_string.encode()
    address = client_of_request(request).address
    services.check_attempts(address)
    if not in_url and _has_credentials(query, services.config.auth):
        raise AuthenticationFailed("credentials in the URL are refused here: send them in a header")
    try:
        found = services.chain.identify(headers, query if in_url else b"")
        identity = found if found is None or isinstance(found, Identity) else await found
    except AuthenticationFailed as error:
        if error.code in _WRONG:
            services.attempts.fail(address)
            request[LIMIT] = lambda: services.attempts_left(address)
        raise
    if identity is not None:
        request[LIMIT] = lambda: services.hub.user_limit(identity.user_id)
        if isinstance(request.protocol, HttpConnection):
            request.protocol.settle()
    return identity


def credential_names(auth: Auth) -> set[str]:
    """The query parameters that may hold credentials."""
    return {"token", "api_key", *(provider.query_param for provider in auth.providers)}


def _has_credentials(query: bytes, auth: Auth) -> bool:
    return not credential_names(auth).isdisjoint(parse_query(query))


async def require_permission(request: web.Request, permission: int, *, in_url: bool = True) -> Identity:
    """As `identify`; raises RequestRefused, which names `permission`, when the identity lacks it."""
    identity = await identify(request, in_url=in_url)
    if not identity.may(permission):
        raise RequestRefused("forbidden", f"this needs {_NAMES[permission]}")
    return identity


async def require_reader(request: web.Request) -> Identity:
    """As `require_permission` of `read`, for what counts as a request against the sender's limits.

    Raises RequestRefused (`rate_limited`) when one of these is used up.
    """
    identity = await require_permission(request, READ)
    try:
        request.app[SERVICES].hub.count_request(identity.user_id)
    except RequestError as error:
        raise RequestRefused(error.code, error.message, retry_after_ms=error.retry_after_ms) from None
    return identity


async def read_json_body(request: web.Request) -> bytes:
    """The body, which claims to be JSON in UTF-8 and is not encoded.

    Raises HTTPUnsupportedMediaType, HTTPRequestTimeout; the guard of the connection has bounded its size.
    """
    charset = request.charset or "utf-8"
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "identity")
    if request.content_type != "application/json" or charset.lower() != "utf-8" or encoding.lower() != "identity":
        raise web.HTTPUnsupportedMediaType
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECS) as bound:
            return await request.read()
    except TimeoutError:
        if not bound.expired():
            raise
        raise web.HTTPRequestTimeout(headers={hdrs.CONNECTION: "close"}) from None
