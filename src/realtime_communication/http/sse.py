"""`GET /sse`: topics as Server-Sent Events, for whoever has HTTP and no WebSocket.

A stream is a connection of the data plane whose requests are made here (`_core/hub/stream.pxd`), so everything that
holds for a WebSocket holds for it: permissions, limits, recovery, slow consumers, the end of tokens. The answer begins
once all its topics are subscribed: what is refused is an HTTP error like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from typing import Any, Final

import msgspec
from aiohttp import hdrs, web

from realtime_communication._core.hub.hub import RequestError
from realtime_communication.auth.custom_claims import MAX_USER_AGENT
from realtime_communication.auth.identity import READ, SUBSCRIBE, ClaimError, Identity, checked_name
from realtime_communication.auth.presence_info import presence_info
from realtime_communication.http.answers import FieldError, refused_response
from realtime_communication.http.api import require_permission
from realtime_communication.http.connection import HttpConnection
from realtime_communication.http.event_ids import Position, positions_in
from realtime_communication.http.event_text import EventText
from realtime_communication.http.fields import public_query_of
from realtime_communication.http.forwarding import client_of_request
from realtime_communication.http.security import refuse_origin
from realtime_communication.http.services import BEGUN, SERVICES, StreamApi
from realtime_communication.http.topics import MAX_MESSAGES, MAX_TOPIC_BYTES

MAX_TOPICS: Final = 64
RETRY_MS: Final = (1000, 3000)  # each stream gets a time of its own, so that not all come back in the same moment
MAX_HELD_BYTES: Final = 262_144  # that wait for the last topic's answer; behind them the stream begins without it

_HEADERS: Final = {
    hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
    hdrs.CACHE_CONTROL: "no-store",
    "X-Accel-Buffering": "no",  # nginx would hold events back
}


def add_routes(application: web.Application) -> None:
    """The endpoint, where there are streams."""
    if application[SERVICES].streams is not None:
        application.router.add_get("/sse", events)


async def events(request: web.Request) -> web.StreamResponse:
    """`?topics=a,b&history=&presence=&last_event_id=` → an event stream."""
    services = request.app[SERVICES]
    refuse_origin(request)
    identity = await require_permission(request, SUBSCRIBE)
    inbox = f"@{identity.user_id}" if identity.may(READ) else ""
    asked = _asked(request, inbox)
    if request.method == hdrs.METH_HEAD:
        return web.Response(headers=_HEADERS)
    stream = EventStream(request, asked)
    try:
        stream.open(_presented(request, identity))
        first = await stream.begin()
        return await stream.serve(first)
    except RequestError as error:
        limits, state = services.config.rate_limiting.headers, services.hub.user_limit(identity.user_id)
        return refused_response(error.code, error.message, error.retry_after_ms, limits, state)
    finally:
        stream.close()


class Asked(msgspec.Struct, frozen=True):
    """What a request wants. `known` is what its last event id says, None for one that cannot be read.

    `inbox` is the topic of the user's inbox, "" for who may not read it.
    """

    topics: tuple[str, ...]
    inbox: str
    history: int
    presence: bool
    known: dict[str, Position] | None


class EventStream:
    """One stream: `open`, `begin`, `serve`, and in any case `close`."""

    def __init__(self, request: web.Request, asked: Asked) -> None:
        self._request = request
        self._services = services = request.app[SERVICES]
        self._text = EventText(asked.topics, asked.known, random.randint(*RETRY_MS), asked.inbox)  # noqa: S311
        self._asked = asked
        self._ready = asyncio.Event()
        self._writing = False
        client = client_of_request(request)
        assert services.streams is not None, "there is a route"
        self._stream: StreamApi = services.streams(client.address, self._on_ready, secure=client.secure)
        self._counted = False

    def open(self, identity: Identity) -> None:
        """Open the session. Raises RequestError when the server takes none."""
        self._stream.begin(identity)
        self._counted = True
        self._services.open_streams += 1
        connection = self._request.protocol
        if isinstance(connection, HttpConnection):
            connection.on_lost = self._ready.set
        for envelope in self._text.requests(history=self._asked.history, presence=self._asked.presence):
            self._stream.ask(envelope)

    async def begin(self) -> bytes:
        """The text that begins the stream, once its topics are answered. Raises RequestError when one is refused."""
        held = bytearray()
        while self._text.unanswered and not self._text.over and len(held) < MAX_HELD_BYTES:
            held += await self._next()
            if self._text.failure is not None:
                failure = self._text.failure
                raise RequestError(failure.code, failure.message, failure.retry_after_ms)
            if not self._stream.open or self._request.transport is None:
                raise RequestError("unavailable", "the connection was closed")
        return bytes(held)

    async def serve(self, first: bytes) -> web.StreamResponse:
        """Answer with `first` and whatever follows, until either side ends it."""
        request = self._request
        response = web.StreamResponse(headers=_HEADERS)
        try:
            await response.prepare(request)
            request[BEGUN] = asyncio.get_running_loop().time()
            _bound_silence(request, self._services.config.websocket.client_timeout_secs)
            await self._send(response, first)
            while not self._text.over and self._stream.open and request.transport is not None:
                await self._send(response, await self._next())
        except ConnectionError:
            response.force_close()
        return response

    def close(self) -> None:
        """Leave everything. What is not sent by now is not."""
        connection = self._request.protocol
        if isinstance(connection, HttpConnection):
            connection.on_lost = None
        self._stream.end()
        if self._counted:
            self._counted = False
            self._services.open_streams -= 1

    async def _next(self) -> bytes:
        await self._ready.wait()
        self._ready.clear()
        text = self._text.write(self._stream.take())
        for envelope in self._text.more_requests():
            self._stream.ask(envelope)
        return text

    async def _send(self, response: web.StreamResponse, text: bytes) -> None:
        if not text:
            return
        self._writing = True
        try:
            await response.write(text)
        finally:
            self._writing = False

    def _on_ready(self) -> None:
        self._ready.set()
        if self._writing and not self._stream.open and self._request.transport is not None:
            # The data plane has waited long enough for a peer that does not read.
            self._request.transport.abort()


def _asked(request: web.Request, inbox: str) -> Asked:
    """The query, and the reader's last id. Raises FieldError and MalformedRequestError."""
    parameters = public_query_of(request, ("topics", "history", "presence", "last_event_id"))
    topics = tuple(dict.fromkeys(parameters.get("topics", "").split(",")))
    if topics == ("",):
        raise FieldError("topics", "is missing: name at least one topic, several with commas between them", 400)
    if len(topics) > MAX_TOPICS:
        raise FieldError("topics", f"must be at most {MAX_TOPICS}", 400)
    for topic in topics:
        try:
            checked_name(topic, "topics", MAX_TOPIC_BYTES)
        except ClaimError as error:
            raise FieldError("topics", str(error).partition("` ")[2], 400) from None
    history, presence = parameters.get("history", "0"), parameters.get("presence", "false")
    if not (history.isascii() and history.isdigit() and len(history) <= 4 and int(history) <= MAX_MESSAGES):
        raise FieldError("history", f"must be an integer from 0 to {MAX_MESSAGES}", 400)
    if presence not in ("true", "false"):
        raise FieldError("presence", "must be true or false", 400)
    last_id = request.headers.get("Last-Event-ID", "") or parameters.get("last_event_id", "")
    known = positions_in(last_id, (*topics, inbox)) if last_id else {}
    return Asked(topics, inbox, int(history), presence == "true", known)


def _presented(request: web.Request, identity: Identity) -> Identity:
    """`identity` with what others see of it."""
    agent = request.headers.get(hdrs.USER_AGENT, "")[:MAX_USER_AGENT].encode("utf-8", "replace").decode()
    info = presence_info(
        identity.claims,
        request.app[SERVICES].config.auth.custom_claims,
        user_agent=agent,
        address=client_of_request(request).address,
    )
    return msgspec.structs.replace(identity, presence_info=info)


def _bound_silence(request: web.Request, seconds: float) -> None:
    """A peer that acknowledges nothing for that long is given up by the system: it has no other way to say it lives."""
    sock: Any = request.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    # The event loop's object may not let options be set; a descriptor of the same socket does.
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(sock.fileno())) as same:
        same.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
