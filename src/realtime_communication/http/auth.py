"""Tokens over HTTP: `POST /auth/token`, `/auth/refresh` and `/auth/revoke`.

Credentials in the URL are refused: it is written down in too many places for what may make tokens. Whoever keeps
failing has to wait.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, TypeVar

import msgspec
from aiohttp import hdrs, web

from realtime_communication.auth.authority import RefreshRequest, Requester, RevokeRequest, TokenAuthority
from realtime_communication.auth.custom_claims import MAX_USER_AGENT
from realtime_communication.auth.grants import InvalidField, TokenRequest
from realtime_communication.errors import AuthenticationFailed
from realtime_communication.http.answers import FieldError, json_response
from realtime_communication.http.api import find_identity, identify, read_json_body
from realtime_communication.http.forwarding import client_of_request
from realtime_communication.http.services import FLEET, LIMIT, SERVICES

T = TypeVar("T")
Ask = Callable[[web.Request, TokenAuthority], Awaitable[object]]

MAX_BODY_BYTES: Final = 65_536

_UNKNOWN: Final = "Object contains unknown field `"  # msgspec's words


def add_routes(application: web.Application) -> None:
    """The endpoints, where there is somebody to issue tokens."""
    if application[SERVICES].authority is None:
        return
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
    with _counting_wrong_tokens(request):
        return await authority.refresh(asked, _requester(request), request.app[SERVICES].clock())


async def _revoke(request: web.Request, authority: TokenAuthority) -> object:
    by = await find_identity(request, in_url=False)
    asked = await _body(request, RevokeRequest)
    with _counting_wrong_tokens(request):
        revocation, closed = authority.revoke(asked, by, request.app[SERVICES].clock())
    found = await request.app[FLEET].gather("revoke", msgspec.to_builtins(revocation))
    others = sum(count for slot, count in found.answers.items() if slot != request.app[SERVICES].slot)
    return found.told({"revoked": closed + others})


@contextlib.contextmanager
def _counting_wrong_tokens(request: web.Request) -> Iterator[None]:
    """A token in the body is a credential: from whom too many wrong ones came has to wait. Raises RateLimited."""
    services, address = request.app[SERVICES], client_of_request(request).address
    services.check_attempts(address)
    try:
        yield
    except AuthenticationFailed:
        services.attempts.fail(address)
        request[LIMIT] = lambda: services.attempts_left(address)
        raise


async def _answer(request: web.Request, ask: Ask) -> web.Response:
    """What `ask` finds; its refusals are answered as everybody's are."""
    authority = request.app[SERVICES].authority
    assert authority is not None
    try:
        found = await ask(request, authority)
    except InvalidField as error:
        field, separator, message = str(error).partition(": ")
        raise (FieldError(field, message) if separator else FieldError("body", field)) from None
    return json_response(found, headers={hdrs.PRAGMA: "no-cache"})


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
    place = place.rstrip("`").lstrip(".")
    if what.startswith(_UNKNOWN):
        name = what.removeprefix(_UNKNOWN).rstrip("`").replace(": ", ":")
        return f"{place}.{name}: is unknown" if place else f"{name}: is unknown"
    return f"{place}: {what}" if place else what


def _requester(request: web.Request) -> Requester:
    agent = request.headers.get(hdrs.USER_AGENT, "")[:MAX_USER_AGENT]
    return Requester(agent.encode("utf-8", "replace").decode(), client_of_request(request).address)
