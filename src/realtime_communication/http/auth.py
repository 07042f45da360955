"""Tokens over HTTP: `POST /auth/token`, `/auth/refresh` and `/auth/revoke`.

Credentials count in headers only: a URL is written down in too many places for what may make tokens. An address that
keeps failing has to wait.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import msgspec
from aiohttp import hdrs, web

from realtime_communication.auth.attempts import Attempts
from realtime_communication.auth.authority import RefreshRequest, Requester, RevokeRequest, TokenAuthority
from realtime_communication.auth.chain import refusal_of
from realtime_communication.auth.custom_claims import MAX_USER_AGENT
from realtime_communication.auth.grants import InvalidField, TokenRequest
from realtime_communication.errors import AuthenticationFailed, AuthenticationUnavailable, RequestRefused
from realtime_communication.http.answers import error_response, json_response, limit_headers, refused_response
from realtime_communication.http.api import find_identity, identify, read_json_body
from realtime_communication.http.services import SERVICES

T = TypeVar("T")
Ask = Callable[[web.Request, TokenAuthority], Awaitable[object]]

MAX_BODY_BYTES: Final = 65_536
MAX_MESSAGE: Final = 300  # characters; a complaint may repeat the name of a field

_ATTEMPTS: web.AppKey[Attempts] = web.AppKey("auth_attempts", Attempts)


def add_routes(application: web.Application) -> None:
    """The endpoints, where there is somebody to issue tokens."""
    if application[SERVICES].authority is None:
        return
    application[_ATTEMPTS] = Attempts()
    application.router.add_post("/auth/token", token)
    application.router.add_post("/auth/refresh", refresh)
    application.router.add_post("/auth/revoke", revoke)


async def token(request: web.Request) -> web.Response:
    """{user_id, …} → a pair of tokens; for API keys and admins."""
    return await _answer(request, _issue)


async def refresh(request: web.Request) -> web.Response:
    """{refresh_token} → the next pair."""
    return await _answer(request, _refresh)


async def revoke(request: web.Request) -> web.Response:
    """{token | session_id | user_id} → {revoked: connections closed}; for admins, the owner, and who holds `token`."""
    return await _answer(request, _revoke)


async def _issue(request: web.Request, authority: TokenAuthority) -> object:
    by = await identify(request, in_url=False)
    asked = await _body(request, TokenRequest)
    return authority.issue(asked, by, _requester(request), request.app[SERVICES].clock())


async def _refresh(request: web.Request, authority: TokenAuthority) -> object:
    asked = await _body(request, RefreshRequest)
    return await authority.refresh(asked, _requester(request), request.app[SERVICES].clock())


async def _revoke(request: web.Request, authority: TokenAuthority) -> object:
    by = await find_identity(request, in_url=False)
    asked = await _body(request, RevokeRequest)
    return {"revoked": authority.revoke(asked, by, request.app[SERVICES].clock())}


async def _answer(request: web.Request, ask: Ask) -> web.Response:
    """What `ask` finds, or its refusal, under the limit of the peer's address."""
    services = request.app[SERVICES]
    authority, limits = services.authority, services.config.rate_limiting.headers
    assert authority is not None
    attempts = request.app[_ATTEMPTS] if services.config.rate_limiting.enabled else None
    address, now_ms = _address(request), int(time.monotonic() * 1000)
    if attempts is not None and (wait := attempts.begin(address, now_ms)) >= 0:
        state = attempts.state(address, now_ms)
        return refused_response("rate_limited", "too many failed attempts from this address", wait, limits, state)
    failed = False
    try:
        response = json_response(await ask(request, authority), headers={hdrs.PRAGMA: "no-cache"})
    except InvalidField as error:
        response = error_response(422, "bad_request", str(error)[:MAX_MESSAGE])
    except AuthenticationFailed as error:
        failed = not isinstance(error, AuthenticationUnavailable)
        status, code, message, headers = refusal_of(error)
        response = error_response(status, code, message, dict(headers))
    except RequestRefused as error:
        response = refused_response(error.code, error.message, error.retry_after_ms, limits, None)
    finally:
        # Only a refused credential counts.
        if attempts is not None and not failed:
            attempts.succeeded(address, int(time.monotonic() * 1000))
    if attempts is not None:
        response.headers.update(limit_headers(limits, attempts.state(address, int(time.monotonic() * 1000))))
    return response


async def _body(request: web.Request, shape: type[T]) -> T:
    """The body as `shape`. Raises InvalidField, HTTPBadRequest when it is no JSON, and as `read_json_body`."""
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, request.content_length or 0)
    text = await read_json_body(request)
    if len(text) > MAX_BODY_BYTES:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, len(text))
    try:
        return msgspec.json.decode(text, type=shape)
    except msgspec.ValidationError as error:
        raise InvalidField(_complaint(str(error))) from None
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise web.HTTPBadRequest from None


def _complaint(text: str) -> str:
    """msgspec's "Expected `str`, got `int` - at `$.user_id`" with the field first."""
    what, _, place = text.partition(" - at `$")
    return f"{place.rstrip('`').lstrip('.')}: {what}" if place.strip("`.") else what


def _requester(request: web.Request) -> Requester:
    agent = request.headers.get(hdrs.USER_AGENT, "")[:MAX_USER_AGENT]
    return Requester(agent.encode("utf-8", "replace").decode(), _address(request))


def _address(request: web.Request) -> str:
    return request.remote or ""
