"""Who is connected and which topics live, in this worker: `/api/connections`, `/api/topics`; and `/api/disconnect`."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from realtime_communication.auth.chain import parse_query
from realtime_communication.auth.identity import MAX_USER_ID_BYTES, READ, Identity
from realtime_communication.http.admin import require_admin
from realtime_communication.http.answers import FieldError, json_response
from realtime_communication.http.api import require_permission
from realtime_communication.http.fields import limit_in, name_in, query_of, read_object
from realtime_communication.http.services import SERVICES
from realtime_communication.observability.logs import get_logger

MAX_ROWS: Final = 1000
MAX_LOOKED_AT: Final = 10_000  # rows; nothing else is served while they are gathered, some 5 µs each
MAX_SESSION_ID_BYTES: Final = 64
MAX_REASON_BYTES: Final = 123  # RFC 6455 section 5.5: the payload of a close frame, without the code
DEFAULT_REASON: Final = "disconnected by an administrator"

_INBOX_OR_SYSTEM: Final = ("@", "$")  # first characters of the topics that are nobody's to list

_log = get_logger(__name__)


def add_routes(application: web.Application) -> None:
    """The endpoints of this module."""
    application.router.add_get("/api/connections", connections)
    application.router.add_post("/api/disconnect", disconnect)
    application.router.add_get("/api/topics", topics)


async def connections(request: web.Request) -> web.Response:
    """`?user_id=&limit=` → {count, connections, complete}, newest first.

    `count` is how many there are in all. `complete` is false when there may be more than the rows given.
    """
    await require_admin(request)
    parameters = query_of(request, ("user_id", "limit"))
    limit = limit_in(parameters, MAX_ROWS)
    hub = request.app[SERVICES].hub
    try:
        user_id = name_in(parameters, "user_id", MAX_USER_ID_BYTES)
    except FieldError as error:
        error.status = 400
        raise
    if user_id is None:
        rows = hub.connections(limit)
        complete = len(rows) < limit or hub.connection_count() <= limit
    else:
        looked_at = hub.connections(MAX_LOOKED_AT)
        found = [row for row in looked_at if row["user_id"] == user_id]
        rows, complete = found[:limit], len(found) <= limit and len(looked_at) < MAX_LOOKED_AT
    return json_response({"count": hub.connection_count(), "connections": rows, "complete": complete})


async def disconnect(request: web.Request) -> web.Response:
    """{user_id or session_id, reason?} → {disconnected}: how many connections were closed, with 4403."""
    identity = await require_admin(request)
    query_of(request, ())
    fields = await read_object(request, ("user_id", "session_id", "reason"))
    user_id = name_in(fields, "user_id", MAX_USER_ID_BYTES)
    session_id = name_in(fields, "session_id", MAX_SESSION_ID_BYTES)
    reason = name_in(fields, "reason", MAX_REASON_BYTES) or DEFAULT_REASON
    if (user_id is None) is (session_id is None):
        raise FieldError("user_id", "exactly one of user_id and session_id must be given")
    count = request.app[SERVICES].hub.disconnect(user_id=user_id, session_id=session_id, reason=reason)
    _log.warning(
        "connections closed by an administrator",
        by=identity.user_id,
        user_id=user_id,
        session_id=session_id,
        reason=reason,
        count=count,
    )
    return json_response({"disconnected": count})


async def topics(request: web.Request) -> web.Response:
    """`?limit=` → {topics, complete}: the topics this identity may subscribe to, inboxes and system topics left out.

    `complete` is false when there may be more than the rows given.
    """
    identity = await require_permission(request, READ)
    limit = limit_in(parse_query(request.rel_url.raw_query_string.encode()), MAX_ROWS)
    looked_at = request.app[SERVICES].hub.topics(MAX_LOOKED_AT)
    found = [row for row in looked_at if _may_see(identity, row["topic"])]
    complete = len(found) <= limit and len(looked_at) < MAX_LOOKED_AT
    return json_response({"topics": found[:limit], "complete": complete})


def _may_see(identity: Identity, topic: str) -> bool:
    patterns = identity.subscribe_patterns
    if topic.startswith(_INBOX_OR_SYSTEM):
        return False
    return patterns is None or any(
        topic.startswith(pattern[:-1]) if pattern.endswith("*") else topic == pattern for pattern in patterns
    )
