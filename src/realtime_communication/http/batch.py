"""`POST /api/batch`: many publications and direct messages in one request.

Each entry is what `POST /api/publish` or `/api/send` would have had as a body, is counted against the limits by itself,
and has an answer of its own, in order: one that is refused does not keep the others back.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from aiohttp import web

from realtime_communication._core.hub.hub import RequestError
from realtime_communication.auth.identity import WRITE, Identity
from realtime_communication.errors import RequestRefused
from realtime_communication.http.answers import FieldError, json_response, limit_headers
from realtime_communication.http.api import publish_allowed, read_json_body, require_permission
from realtime_communication.http.later import settled
from realtime_communication.http.services import SERVICES, Services

MAX_ENTRIES: Final = 1000
ENTRIES_AT_ONCE: Final = 50  # then the event loop gets its turn

_Entry = dict[str, msgspec.Raw]
_entries: Final = msgspec.json.Decoder(list[msgspec.Raw])
_entry: Final = msgspec.json.Decoder(_Entry)


def add_routes(application: web.Application) -> None:
    """The endpoint of this module."""
    application.router.add_post("/api/batch", batch)


async def batch(request: web.Request) -> web.Response:
    """[{publish: …} or {send: …}, …] → a list of their answers, `{"error": {code, message, …}}` for one refused."""
    services = request.app[SERVICES]
    identity = await require_permission(request, WRITE)
    entries = _read(await read_json_body(request))
    answers = []
    for number, entry in enumerate(entries):
        if number % ENTRIES_AT_ONCE == ENTRIES_AT_ONCE - 1:
            await asyncio.sleep(0)
        answers.append(await _answer(services, entry, identity))
    limits = services.config.rate_limiting.headers
    return json_response(answers, headers=limit_headers(limits, services.hub.user_limit(identity.user_id)))


def _read(body: bytes) -> list[msgspec.Raw]:
    try:
        entries = _entries.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise FieldError("body", "must be a JSON array of entries", status=400) from None
    if not entries:
        raise FieldError("body", "must hold at least one entry")
    if len(entries) > MAX_ENTRIES:
        raise FieldError("body", f"must hold at most {MAX_ENTRIES} entries", status=413)
    return entries


async def _answer(services: Services, raw: msgspec.Raw, identity: Identity) -> dict[str, Any]:
    try:
        entry = _entry.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        entry = {}
    if len(entry) != 1 or not entry.keys() <= {"publish", "send"}:
        return _refused("bad_request", "an entry must be an object with either publish or send")
    ((name, body),) = entry.items()
    try:
        if name == "publish":
            return await publish_allowed(services, bytes(body), identity)
        return await settled(services.hub.send_request(bytes(body), identity))
    except RequestError as error:
        return _refused(error.code, error.message, error.retry_after_ms)
    except RequestRefused as error:
        return _refused(error.code, str(error), error.retry_after_ms)


def _refused(code: str, message: str, retry_after_ms: int | None = None) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message}
    if retry_after_ms is not None:
        error["retry_after_ms"] = retry_after_ms
    return {"error": error}
