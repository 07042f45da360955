"""One topic, over HTTP: who is on it, what was said, and who is to be on it, wherever the topic is at home.

`GET /api/topics/{topic}/presence` and `…/history` answer as the requests `Presence` and `History` do, under the same
permissions; `POST /api/subscribe` and `/api/unsubscribe` are for administrators.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

from realtime_communication._core.hub.hub import RequestError
from realtime_communication._core.hub.relay import Later
from realtime_communication.auth.identity import ADMIN, MAX_USER_ID_BYTES, Identity
from realtime_communication.errors import RequestRefused
from realtime_communication.http.admin import require_admin
from realtime_communication.http.answers import FieldError, json_response
from realtime_communication.http.api import require_reader
from realtime_communication.http.directory import tell_nodes
from realtime_communication.http.fields import limit_in, name_in, public_query_of, query_of, read_object
from realtime_communication.http.fleet import Gathered
from realtime_communication.http.later import settled
from realtime_communication.http.orders import Kind
from realtime_communication.http.services import FLEET, SERVICES
from realtime_communication.http.worker_answers import matches
from realtime_communication.observability.logs import get_logger

MAX_TOPIC_BYTES: Final = 255
MAX_MESSAGES: Final = 1000
DEFAULT_MESSAGES: Final = 100
MAX_EPOCH_BYTES: Final = 64
MAX_OFFSET: Final = (1 << 53) - 1

_RESERVED: Final = ("@", "$")

_log = get_logger(__name__)


def add_routes(application: web.Application) -> None:
    """The endpoints of this module."""
    application.router.add_get("/api/topics/{topic}/presence", presence)
    application.router.add_get("/api/topics/{topic}/history", history)
    application.router.add_post("/api/subscribe", subscribe)
    application.router.add_post("/api/unsubscribe", unsubscribe)


async def presence(request: web.Request) -> web.Response:
    """→ {topic, count, members}, as PresenceState."""
    topic = await _readable_topic(request, history=False)
    public_query_of(request, ())
    found = await _answered(lambda: request.app[SERVICES].hub.presence_request(topic))
    return json_response(found | {"members": msgspec.Raw(found["members"])})


async def history(request: web.Request) -> web.Response:
    """`?epoch=&offset=&limit=&reverse=` → {topic, epoch, offset, messages}, as HistoryPage."""
    topic = await _readable_topic(request, history=True)
    page = _position_in(public_query_of(request, ("epoch", "offset", "limit", "reverse")))
    found = await _answered(lambda: request.app[SERVICES].hub.history_request(topic, **page))
    return json_response(found | {"messages": msgspec.Raw(found["messages"])})


async def _answered(ask: Callable[[], dict[str, Any] | Later]) -> dict[str, Any]:
    """What the topic's home answers. Raises RequestRefused."""
    try:
        return await settled(ask())
    except RequestError as error:
        raise RequestRefused(error.code, error.message, retry_after_ms=error.retry_after_ms) from None


async def subscribe(request: web.Request) -> web.Response:
    """{user_id, topic} → {subscribed}: how many live sessions of the user now are, each of which was told."""
    return await _change_subscriptions(request, "subscribe", "subscribed")


async def unsubscribe(request: web.Request) -> web.Response:
    """{user_id, topic} → {unsubscribed}: how many live sessions of the user were, each of which was told."""
    return await _change_subscriptions(request, "unsubscribe", "unsubscribed")


async def _change_subscriptions(request: web.Request, method: Kind, name: str) -> web.Response:
    identity = await require_admin(request)
    query_of(request, ())
    fields = await read_object(request, ("user_id", "topic"))
    user_id = name_in(fields, "user_id", MAX_USER_ID_BYTES)
    topic = name_in(fields, "topic", MAX_TOPIC_BYTES)
    for field, value in (("user_id", user_id), ("topic", topic)):
        if value is None:
            raise FieldError(field, "is missing")
    asked = {"user_id": user_id, "topic": topic, "order": secrets.randbits(63) | 1}
    found = _checked(await request.app[FLEET].gather(method, asked))
    tell_nodes(request, method, asked)
    count = sum(answer["count"] for answer in found.answers.values())
    _log.warning(
        "subscriptions changed by an administrator",
        by=identity.user_id,
        change=method,
        user_id=user_id,
        topic=topic,
        count=count,
        workers_missing=list(found.missing),
    )
    return json_response(found.told({name: count}))


async def _readable_topic(request: web.Request, *, history: bool) -> str:
    """The topic in the path. Raises RequestRefused (`forbidden`) when its sender may not read it."""
    identity = await require_reader(request)
    topic = request.match_info["topic"]
    refused = _why_unreadable(identity, topic)
    if refused is None:
        refused = request.app[SERVICES].hub.reading_refused(identity, topic, history=history)
    if refused is not None:
        raise RequestRefused("forbidden", refused)
    await _check_authorization(request, identity, topic)
    return topic


async def _check_authorization(request: web.Request, identity: Identity, topic: str) -> None:
    """Raises RequestRefused when whoever is asked about users says no."""
    authorizer = request.app[SERVICES].authorizer
    if authorizer is None or identity.may(ADMIN) or topic.startswith(_RESERVED):
        return
    if not await authorizer.decide("subscribe", identity.user_id, topic):
        raise RequestRefused("forbidden", "topic: you are not allowed to subscribe to it")


def _why_unreadable(identity: Identity, topic: str) -> str | None:
    if topic == f"@{identity.user_id}":
        return None
    if topic.startswith(_RESERVED):
        return "topic: names that begin with @ or $ cannot be read"
    if not identity.may(ADMIN) and not matches(identity.subscribe_patterns, topic):
        return "topic: outside the topics that the token may subscribe to"
    return None


def _position_in(parameters: Mapping[str, str]) -> dict[str, Any]:
    """The page asked for. Raises FieldError."""
    try:
        epoch = name_in(parameters, "epoch", MAX_EPOCH_BYTES)
    except FieldError as error:
        error.status = 400
        raise
    limit = limit_in(parameters, MAX_MESSAGES, least=0) if "limit" in parameters else DEFAULT_MESSAGES
    offset, reverse = parameters.get("offset", "0"), parameters.get("reverse", "false")
    if not (offset.isascii() and offset.isdigit() and len(offset) <= 16 and int(offset) <= MAX_OFFSET):
        raise FieldError("offset", f"must be an integer from 0 to {MAX_OFFSET}", status=400)
    if ("offset" in parameters) is not (epoch is not None):
        raise FieldError("epoch" if epoch is None else "offset", "epoch and offset come together", status=400)
    if reverse not in ("true", "false"):
        raise FieldError("reverse", "must be true or false", status=400)
    return {"epoch": epoch, "offset": int(offset), "limit": limit, "reverse": reverse == "true"}


def _checked(found: Gathered) -> Gathered:
    """What was found. Raises RequestRefused when a worker refused the question, as all of them would."""
    for answer in found.answers.values():
        if "refused" in answer:
            raise RequestRefused(*answer["refused"])
    return found
