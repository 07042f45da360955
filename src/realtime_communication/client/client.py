"""The asyncio client of rtc.v1: one object that stays connected; ``connecting.connect`` makes it.

A lost connection is opened again by itself, with jittered exponential back-off; subscriptions and direct messages
continue after the last position seen, each message comes once, and ``Recovered`` says whether anything is missing.
Requests made meanwhile wait for the new connection up to their time-out, and so do publications made after the
server's ``Closing``.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Self, TypeVar

from realtime_communication.client import encoding
from realtime_communication.client import outputs as out
from realtime_communication.client.backoff import Backoff
from realtime_communication.client.credentials import Credentials
from realtime_communication.client.delivery import Callback, EventQueue, pump
from realtime_communication.client.encoding import Format, ServerEnvelope
from realtime_communication.client.errors import (
    ClientClosed,
    ClientError,
    ConnectionLost,
    PayloadMismatch,
    ProtocolViolation,
    RequestError,
    RequestTimeout,
)
from realtime_communication.client.events import (
    Closing,
    Connected,
    ConnectionEvent,
    Delivery,
    Disconnected,
    HistoryPage,
    InboxEvent,
    Lagged,
    Payload,
    Position,
    PresenceState,
    SubscriptionEvent,
)
from realtime_communication.client.link import Dial, Link
from realtime_communication.client.protocol import ClientProtocol, State
from realtime_communication.client.renewal import TokenRenewal
from realtime_communication.client.subscription import Subscription
from realtime_communication.client.typed import TypedTopic

__all__ = ["Client"]

E = TypeVar("E", bound=ServerEnvelope)
T = TypeVar("T")

_CLOSE_UNAUTHORIZED = 4401
_CLOSE_TIMEOUT_SECS = 2.0

logger = logging.getLogger("realtime_communication.client")


class Client:
    """Made by ``connect``, whose arguments these are. All methods belong to the event loop it was opened in.

    Every request raises RequestError when the server refuses it, RequestTimeout when no answer comes in time, QueueFull
    when too many wait, ClientClosed when the client is not open, and what ended the client for good:
    AuthenticationFailed, ConnectionLost.
    """

    def __init__(
        self,
        url: str,
        *,
        credentials: Credentials,
        dial: Dial,
        format: Format,
        request_timeout: float,
        open_timeout: float,
        reconnect: bool,
        retry_open: bool,
        backoff: Backoff,
        queue_size: int,
        recover_inbox: bool,
        on_direct: Callback[InboxEvent] | None,
        on_event: Callback[ConnectionEvent] | None,
        max_message_size: int,
        max_pending: int,
        max_pending_bytes: int,
    ) -> None:
        self._url = url
        self._request_timeout = request_timeout
        self._open_timeout = open_timeout
        self._queue_size = queue_size
        self._on_direct = on_direct
        self._on_event = on_event
        self._protocol = ClientProtocol(
            format=format, recover_inbox=recover_inbox, max_pending=max_pending, max_pending_bytes=max_pending_bytes
        )
        self._credentials = credentials
        self._link = Link(
            self._protocol,
            credentials,
            dial,
            backoff,
            reconnect=reconnect,
            retry_open=retry_open,
            greeting_timeout=open_timeout,
            max_message_size=max_message_size,
            on_change=self._changed,
            on_lost=self._lost,
        )
        self._futures: dict[int, asyncio.Future[ServerEnvelope]] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._inbox: EventQueue[InboxEvent] = EventQueue(queue_size, self._inbox_overflow)
        self._events: EventQueue[ConnectionEvent] = EventQueue(queue_size, None)
        self._session: Connected | None = None
        self._opened: asyncio.Future[None] | None = None
        self._runner: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._tick_timer: asyncio.TimerHandle | None = None
        self._renewal = TokenRenewal(
            credentials,
            refresh=self.refresh,
            start=self._start,
            remind=self._events.put,
            give_up=self._link.drop_credentials,
        )
        self._closed = False
        self._key_prefix = uuid.uuid4().hex
        self._keys = 0

    # Life

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect; attempts are repeated up to the open time-out.

        Raises AuthenticationFailed, HandshakeRejected, ConnectionLost (with the reason of the last attempt).
        """
        if self._runner is not None:
            raise ClientClosed("a client is opened once")
        self._opened = asyncio.get_running_loop().create_future()
        if self._on_direct is not None:
            self._start(pump(self._inbox, self._on_direct, "direct messages"))
        if self._on_event is not None:
            self._start(pump(self._events, self._on_event, "connection events"))
        self._runner = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(self._open_timeout):
                await asyncio.shield(self._opened)
        except TimeoutError:
            last = self._link.last_error
            await self.close()
            raise ConnectionLost(f"no connection to {self._safe_url} within {self._open_timeout:g} s: {last}") from last
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection and end all iterations; waiting requests raise ClientClosed. May be repeated."""
        self._closed = True
        has_connection = self._link.connection is not None
        self._link.stop()
        if self._runner is not None:
            if not has_connection:
                self._runner.cancel()
            _, pending = await asyncio.wait({self._runner}, timeout=_CLOSE_TIMEOUT_SECS)
            for runner in pending:
                runner.cancel()
            await asyncio.wait({self._runner})
        self._finish(None)
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        if tasks:
            _, pending_tasks = await asyncio.wait(tasks, timeout=_CLOSE_TIMEOUT_SECS)
            for task in pending_tasks:
                task.cancel()
            await asyncio.gather(*pending_tasks, return_exceptions=True)

    @property
    def session(self) -> Connected | None:
        """The latest session, or None before the first."""
        return self._session

    @property
    def connected(self) -> bool:
        """Whether a connection stands right now."""
        return self._protocol.state is State.OPEN

    def direct_messages(self) -> AsyncIterator[InboxEvent]:
        """Direct messages to this user, with ``Recovered`` and ``Lagged`` where something may be missing."""
        if self._on_direct is not None:
            raise RuntimeError("the direct messages go to the callback")
        return aiter(self._inbox)

    def events(self) -> AsyncIterator[ConnectionEvent]:
        """What happens to the connection. When nobody reads them, only the latest are kept."""
        if self._on_event is not None:
            raise RuntimeError("the events go to the callback")
        return aiter(self._events)

    # Requests

    async def subscribe(
        self,
        topic: str,
        *,
        history: int = 0,
        presence: bool = False,
        recover: Position | None = None,
        callback: Callback[SubscriptionEvent] | None = None,
        queue_size: int | None = None,
        timeout: float | None = None,
    ) -> Subscription:
        """Receive the messages of ``topic`` from now on.

        Args:
            history: so many earlier messages come first.
            presence: ``Join`` and ``Leave`` come too.
            recover: continue after this position, of an earlier run; a ``Recovered`` comes first.
            callback: gets the events one by one; what it raises is logged and stops nothing.

        Raises ValueError when the topic is subscribed already, and what every request raises.
        """
        self._check_open()
        if topic in self._subscriptions:
            raise ValueError(f"there is a subscription of {topic!r} already")
        subscription = Subscription(self, topic, queue_size or self._queue_size, callback)
        self._subscriptions[topic] = subscription
        try:
            await self._ask(
                functools.partial(self._protocol.subscribe, topic, history=history, presence=presence, recover=recover),
                encoding.SubscribedEnvelope,
                timeout,
            )
        except BaseException as error:
            if self._subscriptions.get(topic) is subscription:
                del self._subscriptions[topic]
                self._protocol.unsubscribe(topic)
                self._flush()
            subscription._end(error if isinstance(error, ClientError) else None)
            raise
        return subscription

    def topic(
        self,
        name: str,
        *,
        type: type[T],
        on_mismatch: Callable[[PayloadMismatch], None] | None = None,
    ) -> TypedTopic[T]:
        """The topic ``name`` with payloads of one type that msgspec understands: a Struct, a dataclass, ``list[int]``.

        A payload that is not of ``type`` raises PayloadMismatch where it is read; with ``on_mismatch`` that gets the
        error and the message is left out. Nothing is sent by this call.
        """
        return TypedTopic(self, name, type, on_mismatch)

    async def unsubscribe(self, topic: str, *, timeout: float | None = None) -> None:
        """End the subscription of ``topic``; nothing happens when there is none."""
        self._check_open()
        subscription = self._subscriptions.pop(topic, None)
        if subscription is None:
            return
        subscription._end(None)
        request_id = self._protocol.unsubscribe(topic)
        if request_id is not None:
            try:
                await self._answer(request_id, encoding.UnsubscribedEnvelope, timeout)
            except RequestError as error:
                if error.code != "not_subscribed":
                    raise

    async def publish(
        self,
        topic: str,
        payload: Payload,
        *,
        exclude_self: bool = False,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Position:
        """Publish ``payload``; returns its position once it is ordered and in the topic's cache.

        Without a connection it waits for one. It is sent again after a lost connection, with the same idempotency
        key, so that it has its effect once. Raises TypeError or ValueError for a payload the encoding cannot express.
        """
        body: dict[str, Any] = {"type": "Broadcast", "topic": topic, "payload": payload}
        if exclude_self:
            body["exclude_self"] = True
        body["idempotency_key"] = idempotency_key or self._new_key()
        ack = await self._request(body, encoding.AckEnvelope, timeout)
        return Position(ack.epoch, ack.offset)

    async def direct(
        self,
        to: str | list[str],
        payload: Payload,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Delivery:
        """Send ``payload`` to one user or several; returns who has a live session. See ``publish``."""
        body = {
            "type": "DirectMessage",
            "to": to,
            "payload": payload,
            "idempotency_key": idempotency_key or self._new_key(),
        }
        ack = await self._request(body, encoding.AckEnvelope, timeout)
        return Delivery(ack.delivered, ack.offline)

    async def presence(self, topic: str, *, timeout: float | None = None) -> PresenceState:
        """Who is on ``topic``."""
        reply = await self._request({"type": "Presence", "topic": topic}, encoding.PresenceStateEnvelope, timeout)
        return PresenceState(reply.topic, reply.count, reply.members)

    async def history(
        self,
        topic: str,
        *,
        after: Position | None = None,
        limit: int | None = None,
        reverse: bool = False,
        timeout: float | None = None,
    ) -> HistoryPage:
        """A page of the topic's cache: ``limit`` messages (100, at most 1000) after a position, or from the end."""
        body: dict[str, Any] = {"type": "History", "topic": topic}
        if after is not None:
            body["after"] = {"epoch": after.epoch, "offset": after.offset}
        if limit is not None:
            body["limit"] = limit
        if reverse:
            body["reverse"] = True
        page = await self._request(body, encoding.HistoryPageEnvelope, timeout)
        return HistoryPage(page.topic, Position(page.epoch, page.offset), page.messages)

    async def ping(self, *, timeout: float | None = None) -> float:
        """Seconds to the server's request handling and back."""
        started = time.perf_counter()
        await self._request({"type": "Ping"}, encoding.PongEnvelope, timeout)
        return time.perf_counter() - started

    async def refresh(self, token: str, *, timeout: float | None = None) -> int | None:
        """Replace the token of this and later connections; returns its expiry in seconds since 1970."""
        reply = await self._request({"type": "Refresh", "token": token}, encoding.RefreshedEnvelope, timeout)
        self._credentials.token = token
        return reply.expires_at

    async def _request(self, body: dict[str, Any], reply: type[E], timeout: float | None) -> E:
        return await self._ask(functools.partial(self._protocol.request, body), reply, timeout)

    async def _ask(self, send: Callable[[], int], reply: type[E], timeout: float | None) -> E:
        self._check_open()
        deadline = asyncio.get_running_loop().time() + (self._request_timeout if timeout is None else timeout)
        connection = self._link.connection
        if connection is not None and not connection.writable.is_set():
            try:
                async with asyncio.timeout_at(deadline):
                    await connection.writable.wait()
            except TimeoutError as error:
                raise RequestTimeout("the server does not read") from error
            self._check_open()
        request_id = send()
        return await self._answer(request_id, reply, deadline - asyncio.get_running_loop().time())

    async def _answer(self, request_id: int, reply: type[E], timeout: float | None) -> E:
        if timeout is None:
            timeout = self._request_timeout
        future: asyncio.Future[ServerEnvelope] = asyncio.get_running_loop().create_future()
        self._futures[request_id] = future
        self._flush()
        try:
            async with asyncio.timeout(timeout):
                envelope = await future
        except TimeoutError as error:
            state = "no answer" if self.connected else "no connection"
            raise RequestTimeout(f"{state} within {timeout:g} s") from error
        finally:
            del self._futures[request_id]
            self._protocol.forget(request_id)
            self._changed()
        if not isinstance(envelope, reply):
            raise ProtocolViolation(f"the server answered with {type(envelope).__struct_config__.tag}")
        return envelope

    # Between protocol and application

    async def _run(self) -> None:
        failure: ClientError | None = None
        try:
            await self._link.run()
            failure = self._link.failure
        except Exception as error:
            logger.exception("the client failed")
            failure = self._link.failure = ConnectionLost(f"the client failed: {error!r}")
        finally:
            self._finish(failure)

    def _finish(self, error: ClientError | None) -> None:
        """No connection will follow. ``error`` is None when the application closed the client."""
        self._renewal.stop()
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        if error is not None and not self._closed:
            code = error.code if isinstance(error, ConnectionLost) else _CLOSE_UNAUTHORIZED
            self._events.put(Disconnected(code, str(error), None))
        failure = error or ClientClosed("the client was closed")
        self._protocol.fail_all(failure)
        self._take_outputs()
        for future in self._futures.values():
            if not future.done():
                future.set_exception(failure)
        for subscription in self._subscriptions.values():
            subscription._end(error)
        self._subscriptions.clear()
        self._inbox.close(error)
        self._events.close()
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(failure)
            self._opened.exception()  # whoever opened may be gone already

    def _check_open(self) -> None:
        if self._closed or self._runner is None:
            raise ClientClosed("the client is not open")
        if self._link.failure is not None:
            raise self._link.failure

    def _changed(self) -> None:
        self._take_outputs()
        self._flush()

    def _flush(self) -> None:
        connection = self._link.connection
        for is_text, data in self._protocol.data_to_send():
            if connection is not None:
                connection.send(is_text, data)
        deadline = self._protocol.next_deadline()
        if deadline is not None and self._tick_timer is None:
            self._tick_timer = asyncio.get_running_loop().call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._tick_timer = None
        self._protocol.tick(asyncio.get_running_loop().time())
        self._flush()

    def _take_outputs(self) -> None:
        for output in self._protocol.outputs():
            match output:
                case out.TopicOutput(topic=topic, event=event):
                    if topic in self._subscriptions:
                        self._subscriptions[topic]._put(event)
                case out.InboxOutput(event=inbox_event):
                    self._inbox.put(inbox_event)
                case out.RequestAnswered(id=request_id):
                    self._settle(request_id, output)
                case out.RequestFailed(id=request_id):
                    self._settle(request_id, output)
                case out.ConnectionOutput(event=connection_event):
                    self._connection_event(connection_event)
                case out.SubscriptionEnded(topic=topic, error=refusal):
                    subscription = self._subscriptions.pop(topic, None)
                    if subscription is not None:
                        subscription._end(refusal)
                case out.RefreshDue(expires_at=expires_at):
                    self._renewal.due(expires_at)

    def _settle(self, request_id: int, outcome: out.RequestAnswered | out.RequestFailed) -> None:
        future = self._futures.get(request_id)
        if future is None or future.done():
            return
        if isinstance(outcome, out.RequestAnswered):
            future.set_result(outcome.envelope)
        else:
            future.set_exception(outcome.error)

    def _connection_event(self, event: ConnectionEvent) -> None:
        match event:
            case Connected():
                self._session = event
                self._link.established()
                self._renewal.reset()
                if self._opened is not None and not self._opened.done():
                    self._opened.set_result(None)
            case Closing(after_ms=after_ms):
                self._link.stay_away(after_ms)
            case _:
                pass
        self._events.put(event)

    def _lost(self, event: Disconnected) -> None:
        self._events.put(event)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _inbox_overflow(self, count: int) -> InboxEvent:
        user_id = self._session.user_id if self._session is not None else ""
        return Lagged(f"@{user_id}", count, recovered=False, source="queue")

    def _position(self, topic: str) -> Position | None:
        return self._protocol.position(topic)

    def _new_key(self) -> str:
        self._keys += 1
        return f"{self._key_prefix}-{self._keys}"

    @property
    def _safe_url(self) -> str:
        return self._url.partition("?")[0]
