"""Connections: the upgrade, authentication, and one handler per request."""

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit
from weakref import WeakKeyDictionary

import msgspec
from msgspec import UNSET, Struct
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response
from websockets.typing import Subprotocol

from . import envelopes
from .envelopes import ENCODINGS, JSON, RequestError
from .hub import Hub, Session
from .tokens import Identity, Verifier
from .topics import check_topic, now_ms

AUTH_TIMEOUT_SECS = 10
HEARTBEAT_INTERVAL_SECS = 30
CLIENT_TIMEOUT_SECS = 60
MAX_FRAME_BYTES = 64 * 1024
MAX_MESSAGE_BYTES = 1024 * 1024
MAX_TARGETS = 1000
DEFAULT_ISSUER = "ai-system-rust"
DEFAULT_AUDIENCE = "realtime-communication"

logger = logging.getLogger("benchmarks.baseline")


class Settings(Struct, frozen=True):
    secret: str
    issuer: str = DEFAULT_ISSUER
    audience: str = DEFAULT_AUDIENCE


def refusal(status: HTTPStatus, code: str, message: str) -> Response:
    """An HTTP answer with the protocol's error body."""
    return json_response(status, {"error": {"code": code, "message": message}})


def json_response(status: HTTPStatus, content: object) -> Response:
    body = msgspec.json.encode(content)
    headers = Headers(
        {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"},
    )
    return Response(status.value, status.phrase, headers, body)


def offered_subprotocols(headers: Headers) -> list[str]:
    values = headers.get_all("Sec-WebSocket-Protocol")
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


class RtcServer:
    """One process that speaks `rtc.v1` on `/ws`."""

    def __init__(self, settings: Settings) -> None:
        self._verifier = Verifier(settings.secret, settings.issuer, settings.audience)
        self._hub = Hub()
        self._node_id = secrets.token_hex(8)
        self._identities: WeakKeyDictionary[ServerConnection, Identity] = WeakKeyDictionary()

    async def listen(self, host: str, port: int) -> Server:
        """Starts to serve; port 0 picks a free one."""
        return await serve(
            self._serve_connection,
            host,
            port,
            process_request=self._process_request,
            select_subprotocol=self._select_subprotocol,
            compression=None,
            extensions=[
                ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True),
            ],
            max_size=(MAX_MESSAGE_BYTES, MAX_FRAME_BYTES),
            ping_interval=HEARTBEAT_INTERVAL_SECS,
            ping_timeout=CLIENT_TIMEOUT_SECS - HEARTBEAT_INTERVAL_SECS,
            server_header=None,
            backlog=4096,
        )

    async def announce_shutdown(self) -> None:
        """Tells every client that the server goes, and when to come back."""
        for session in list(self._hub.sessions):
            after_ms = secrets.randbelow(5000)
            closing = envelopes.Closing(code=1001, reason="server shutting down", reconnect=True, after_ms=after_ms)
            try:
                await session.connection.send(session.encoding.encode(closing), text=session.encoding.text)
            except ConnectionClosed:
                continue

    # --- upgrade

    def _process_request(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """Refuses what is no acceptable upgrade, and remembers who the credentials name."""
        url = urlsplit(request.path)
        if url.path == "/health":
            return json_response(HTTPStatus.OK, {"status": "healthy", "connections": len(self._hub.sessions)})
        if url.path != "/ws":
            return refusal(HTTPStatus.NOT_FOUND, "bad_request", "no such path")
        offered = offered_subprotocols(request.headers)
        if offered and not any(name in ENCODINGS for name in offered):
            supported = ", ".join(ENCODINGS)
            return refusal(HTTPStatus.BAD_REQUEST, "unsupported", f"none of the subprotocols is one of {supported}")
        token = presented_token(request.headers, url.query)
        if token is not None:
            try:
                self._identities[connection] = self._verifier.verify(token)
            except RequestError as problem:
                return refusal(HTTPStatus.UNAUTHORIZED, problem.code, problem.message)
        elif "X-API-Key" in request.headers or "api_key" in parse_qs(url.query):
            return refusal(HTTPStatus.UNAUTHORIZED, "unauthorized", "API keys are not configured")
        return None

    def _select_subprotocol(self, _connection: ServerConnection, offered: object) -> Subprotocol | None:
        assert isinstance(offered, (list, tuple))
        return next((name for name in offered if name in ENCODINGS), None)

    # --- the life of a connection

    async def _serve_connection(self, connection: ServerConnection) -> None:
        encoding = ENCODINGS.get(connection.subprotocol or "", JSON)
        identity = self._identities.pop(connection, None)
        request_id: envelopes.OptionalId = UNSET
        try:
            if identity is None:
                identity, request_id = await self._authenticate(connection, encoding)
            if identity is not None:
                session = Session(connection, encoding, identity, secrets.token_urlsafe(12))
                await SessionHandler(self._hub, self._verifier, self._node_id, session).run(request_id)
        except ConnectionClosed:
            pass

    async def _authenticate(
        self, connection: ServerConnection, encoding: envelopes.Encoding
    ) -> tuple[Identity | None, envelopes.OptionalId]:
        """The identity in the first message; None after the connection was closed for want of one."""
        try:
            async with asyncio.timeout(AUTH_TIMEOUT_SECS):
                data = await connection.recv()
        except TimeoutError:
            await connection.close(4408, "no authentication in time")
            return None, UNSET
        request_id: envelopes.OptionalId = UNSET
        try:
            request = encoding.decode_request(data)
            request_id = request.id
            if not isinstance(request, envelopes.Authenticate) or request.token is None:
                raise RequestError("unauthorized", "the first message must be `Authenticate` with a `token`")
            return self._verifier.verify(request.token), request_id
        except RequestError as problem:
            request_id = request_id if request_id is not UNSET else encoding.request_id(data)
            error = envelopes.Error(id=request_id, code=problem.code, message=problem.message)
            await connection.send(encoding.encode(error), text=encoding.text)
            await connection.close(4401, "unauthorized")
            return None, UNSET


def presented_token(headers: Headers, query: str) -> str | None:
    """The token of an upgrade request, from its header or its query."""
    for value in headers.get_all("Authorization"):
        scheme, _, token = value.partition(" ")
        if scheme.lower() == "bearer":
            return token.strip()
    tokens = parse_qs(query, keep_blank_values=True).get("token")
    return tokens[0] if tokens else None


class SessionHandler:
    """Reads one session's requests and answers them."""

    def __init__(self, hub: Hub, verifier: Verifier, node_id: str, session: Session) -> None:
        self._hub = hub
        self._verifier = verifier
        self._node_id = node_id
        self._session = session
        self._connection = session.connection
        self._encoding = session.encoding
        self._timers: list[asyncio.TimerHandle] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, request_id: envelopes.OptionalId) -> None:
        """Serves the session until its connection ends. Raises ConnectionClosed."""
        identity = self._session.identity
        self._hub.add(self._session)
        try:
            self._watch_expiry()
            await self._send(
                envelopes.Connected(
                    id=request_id,
                    session_id=self._session.session_id,
                    user_id=identity.user_id,
                    node_id=self._node_id,
                    heartbeat_interval_secs=HEARTBEAT_INTERVAL_SECS,
                    expires_at=identity.expires_at,
                    refresh_at=identity.refresh_at,
                )
            )
            async for data in self._connection:
                if isinstance(data, str) is not self._encoding.text:
                    await self._connection.close(1003, f"{self._encoding.subprotocol} uses the other frame type")
                    return
                reply = self._answer(data)
                if reply is not None:
                    await self._send(reply)
        finally:
            self._hub.remove(self._session)
            for timer in self._timers:
                timer.cancel()

    async def _send(self, envelope: object) -> None:
        await self._connection.send(self._encoding.encode(envelope), text=self._encoding.text)

    def _answer(self, data: str | bytes) -> envelopes.Reply | None:
        """The reply a message calls for: one to a request with an `id`, an error in any case."""
        request_id: envelopes.OptionalId = UNSET
        try:
            request = self._encoding.decode_request(data)
            request_id = request.id
            reply = self._act(request)
        except RequestError as problem:
            request_id = request_id if request_id is not UNSET else self._encoding.request_id(data)
            return envelopes.Error(id=request_id, code=problem.code, message=problem.message)
        except Exception:
            logger.exception("a request failed")
            return envelopes.Error(id=request_id, code="internal", message="the request failed")
        return msgspec.structs.replace(reply, id=request_id) if request_id is not UNSET else None

    def _act(self, request: envelopes.AnyRequest) -> envelopes.Reply:
        match request:
            case envelopes.Broadcast():
                return self._broadcast(request)
            case envelopes.DirectMessage():
                return self._direct_message(request)
            case envelopes.Subscribe():
                return self._subscribe(request)
            case envelopes.Unsubscribe():
                topic = self._hub.topics.get(request.topic)
                if topic is not None:
                    self._hub.unsubscribe(self._session, topic)
                return envelopes.Unsubscribed(topic=request.topic)
            case envelopes.Presence():
                return self._presence(request)
            case envelopes.History():
                return self._history(request)
            case envelopes.Refresh():
                return self._refresh(request)
            case envelopes.Ping():
                return envelopes.Pong(ts=now_ms())
            case envelopes.Authenticate():
                raise RequestError("bad_request", "the connection is authenticated; send `Refresh` for a new token")

    # --- requests

    def _broadcast(self, request: envelopes.Broadcast) -> envelopes.Reply:
        identity = self._session.identity
        identity.require("write")
        if request.topic == "*":
            if not identity.admin:
                raise RequestError("forbidden", "a broadcast to `*` needs the role `admin`")
        else:
            check_topic(request.topic, identity.publish_patterns)
        return self._hub.publish(
            self._session,
            request.topic,
            request.payload,
            exclude_self=request.exclude_self,
            key=request.idempotency_key,
        )

    def _direct_message(self, request: envelopes.DirectMessage) -> envelopes.Reply:
        self._session.identity.require("write")
        users = [request.to] if isinstance(request.to, str) else list(dict.fromkeys(request.to))
        if not users or not all(1 <= len(user.encode()) <= 128 for user in users):
            raise RequestError("bad_request", "`to` must name users of 1 to 128 bytes")
        if len(users) > MAX_TARGETS:
            raise RequestError("too_many_targets", f"`to` may name at most {MAX_TARGETS} users")
        return self._hub.send(self._session, users, request.payload, request.idempotency_key)

    def _subscribe(self, request: envelopes.Subscribe) -> envelopes.Reply:
        identity = self._session.identity
        identity.require("subscribe")
        check_topic(request.topic, identity.subscribe_patterns)
        topic = self._hub.topics[request.topic]
        missed = topic.since(request.recover) if request.recover is not None else None
        found = topic.last(request.history) if missed is None else missed
        self._hub.subscribe(self._session, topic, presence=request.presence)
        return envelopes.Subscribed(
            topic=topic.name,
            epoch=topic.epoch,
            offset=topic.offset,
            recovered=missed is not None,
            messages=[publication.entry(self._encoding) for publication in found],
        )

    def _presence(self, request: envelopes.Presence) -> envelopes.Reply:
        self._session.identity.require("read")
        check_topic(request.topic, self._session.identity.subscribe_patterns)
        topic = self._hub.topics.get(request.topic)
        joined_at = topic.joined_at if topic is not None else {}
        members = [
            envelopes.Member(session.user_id, session.session_id, joined) for session, joined in joined_at.items()
        ]
        return envelopes.PresenceState(topic=request.topic, count=len(members), members=members)

    def _history(self, request: envelopes.History) -> envelopes.Reply:
        self._session.identity.require("read")
        if request.topic != f"@{self._session.user_id}":
            check_topic(request.topic, self._session.identity.subscribe_patterns)
        topic = self._hub.topics[request.topic]
        page = topic.page(request.after, request.limit, reverse=request.reverse)
        return envelopes.HistoryPage(
            topic=topic.name,
            epoch=topic.epoch,
            offset=topic.offset,
            messages=[publication.entry(self._encoding) for publication in page],
        )

    def _refresh(self, request: envelopes.Refresh) -> envelopes.Reply:
        identity = self._verifier.verify(request.token)
        if identity.user_id != self._session.user_id:
            raise RequestError("unauthorized", "`token` belongs to another user")
        self._session.identity = identity
        self._watch_expiry()
        return envelopes.Refreshed(expires_at=identity.expires_at, refresh_at=identity.refresh_at)

    # --- expiry

    def _watch_expiry(self) -> None:
        """Sets the timers of the current token, in place of an earlier one's."""
        for timer in self._timers:
            timer.cancel()
        loop = asyncio.get_running_loop()
        identity, now = self._session.identity, now_ms() / 1000
        self._timers = [loop.call_later(max(identity.expires_at - now, 0), self._spawn_expire)]
        if identity.refresh_at is not None and now < identity.refresh_at < identity.expires_at:
            self._timers.append(loop.call_later(identity.refresh_at - now, self._spawn_warning))

    def _spawn_expire(self) -> None:
        self._spawn(self._expire())

    def _spawn_warning(self) -> None:
        self._spawn(self._warn())

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _warn(self) -> None:
        await self._send(envelopes.TokenExpiring(expires_at=self._session.identity.expires_at))

    async def _expire(self) -> None:
        await self._send(envelopes.Error(code="token_expired", message="the token has expired"))
        await self._connection.close(4401, "token expired")
