"""Who is connected and which topics live, in all workers: `/api/connections`, `/api/topics`; and `/api/disconnect`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from realtime_communication.auth.identity import MAX_LOGIN_BYTES, MAX_USER_ID_BYTES
from realtime_communication.http.admin import require_admin
from realtime_communication.http.answers import FieldError, json_response
from realtime_communication.http.api import require_reader
from realtime_communication.http.fields import limit_in, name_in, public_query_of, query_of, read_object
from realtime_communication.http.fleet import Gathered
from realtime_communication.http.orders import Kind
from realtime_communication.http.services import FLEET, SERVICES
from realtime_communication.observability.logs import get_logger

MAX_ROWS: Final = 1000
MAX_SESSION_ID_BYTES: Final = 64
MAX_REASON_BYTES: Final = 123  # RFC 6455 section 5.5: the payload of a close frame, without the code
DEFAULT_REASON: Final = "disconnected by an administrator"

_log = get_logger(__name__)


def add_routes(application: web.Application) -> None:
    """The endpoints of this module."""
    application.router.add_get("/api/connections", connections)
    application.router.add_post("/api/disconnect", disconnect)
    application.router.add_get("/api/topics", topics)


async def connections(request: web.Request) -> web.Response:
    """`?user_id=&limit=` → {count, connections, complete}, newest first; with several workers each row names its own.

    `count` is how many there are in all, or of the user. `complete` is false when there may be more than rows given.
    """
    await require_admin(request)
    parameters = query_of(request, ("user_id", "limit"))
    limit = limit_in(parameters, MAX_ROWS)
    try:
        user_id = name_in(parameters, "user_id", MAX_USER_ID_BYTES)
    except FieldError as error:
        error.status = 400
        raise
    found = await request.app[FLEET].gather("connections", {"user_id": user_id, "limit": limit})
    return json_response(found.told(merged_connections(found, limit)))


async def disconnect(request: web.Request) -> web.Response:
    """{user_id or session_id, reason?} → {disconnected}: how many connections were closed, with 4403.

    `session_id` is that of one connection, or of a login: the claim in the tokens of all its connections.
    """
    identity = await require_admin(request)
    query_of(request, ())
    fields = await read_object(request, ("user_id", "session_id", "reason"))
    user_id = name_in(fields, "user_id", MAX_USER_ID_BYTES)
    session_id = name_in(fields, "session_id", MAX_LOGIN_BYTES)
    reason = name_in(fields, "reason", MAX_REASON_BYTES) or DEFAULT_REASON
    if (user_id is None) is (session_id is None):
        raise FieldError("user_id", "exactly one of user_id and session_id must be given")
    asked = {"user_id": user_id, "session_id": session_id, "reason": reason}
    found = await request.app[FLEET].gather("disconnect", asked)
    tell_nodes(request, "disconnect", asked)
    count = sum(found.answers.values())
    _log.warning(
        "connections closed by an administrator",
        by=identity.user_id,
        user_id=user_id,
        session_id=session_id,
        reason=reason,
        count=count,
        workers_missing=list(found.missing),
    )
    return json_response(found.told({"disconnected": count}))


def tell_nodes(request: web.Request, kind: Kind, asked: Mapping[str, Any]) -> None:
    """Have the other nodes do, too, what the workers of this one were asked to do to sessions."""
    orders = request.app[SERVICES].orders
    if orders is not None:
        orders.tell(kind, asked)


async def topics(request: web.Request) -> web.Response:
    """`?limit=` → {topics, complete}: the topics this identity may subscribe to, inboxes and system topics left out.

    `complete` is false when there may be more than the rows given.
    """
    identity = await require_reader(request)
    limit = limit_in(public_query_of(request, ("limit",)), MAX_ROWS)
    found = await request.app[FLEET].gather("topics", {"patterns": identity.subscribe_patterns, "limit": limit})
    return json_response(found.told(merged_topics(found, limit)))


def merged_connections(found: Gathered, limit: int) -> dict[str, Any]:
    """One list of those of all workers, newest first."""
    lists = found.answers
    rows = [row for answer in lists.values() for row in answer["rows"]]
    if found.several:
        rows = [row | {"worker": slot} for slot, answer in lists.items() for row in answer["rows"]]
        rows.sort(key=lambda row: row.get("connected_ms", 0))
    return {
        "count": sum(answer["count"] for answer in lists.values()),
        "connections": rows[:limit],
        "complete": _complete(found, len(rows), limit),
    }


def merged_topics(found: Gathered, limit: int) -> dict[str, Any]:
    """One row for each topic, with the subscribers of all workers and the newest position any of them knows."""
    rows: dict[str, Mapping[str, Any]] = {}
    for answer in found.answers.values():
        for row in answer["rows"]:
            known = rows.get(row["topic"])
            rows[row["topic"]] = row if known is None else _joined(known, row)
    return {"topics": list(rows.values())[:limit], "complete": _complete(found, len(rows), limit)}


def _joined(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    newer = max(one, other, key=lambda row: (row.get("offset", 0), row.get("cached", 0)))
    return {**newer, "subscribers": one["subscribers"] + other["subscribers"]}


def _complete(found: Gathered, rows: int, limit: int) -> bool:
    return rows <= limit and not found.missing and all(answer["complete"] for answer in found.answers.values())
