"""The client's side of rtc.v1 without I/O: messages and the time go in, messages and outputs come out.

Theory of operation
-------------------
One ``ClientProtocol`` lives as long as the client and sees many connections::

    IDLE ── connection_made ──▶ GREETING ── Connected ──▶ OPEN
      ▲                            │                        │
      └──────────── connection_lost ────────────────────────┘

A request keeps its id over connections. What has no answer when a connection is lost is sent again on the next one:
every request is either harmless to repeat or carries an idempotency key. On each new connection go out, in this order:

1. unanswered requests: the offsets of our own ``exclude_self`` publications must be known before recovery hands these
   messages back to us;
2. a ``Subscribe`` with the last position for each topic (``topic.Topic``);
3. a ``History`` of the user's own inbox after its last position (``inbox.Inbox``).

After the server's ``Closing`` publications wait for the next connection, as the server would refuse them.

Rules: no clock, no loop, no socket here. The caller takes ``outputs`` and ``data_to_send`` after each call.
"""

from __future__ import annotations

import enum
from typing import Any

from realtime_communication.client import encoding, events
from realtime_communication.client.encoding import Codec, ServerEnvelope
from realtime_communication.client.errors import ClientError, ConnectionLost, QueueFull, RequestError
from realtime_communication.client.inbox import Inbox
from realtime_communication.client.outputs import (
    ConnectionOutput,
    Output,
    RefreshDue,
    RequestAnswered,
    RequestFailed,
    SubscriptionEnded,
    TopicOutput,
)
from realtime_communication.client.topic import Topic

__all__ = ["ClientProtocol", "State"]

MAX_PENDING = 10_000
MAX_PENDING_BYTES = 16 * 1024 * 1024
"""Requests without an answer, and their bytes."""

RETRY_AT_LEAST_SECS = 0.5
"""Shortest wait before a subscription that the server refused for a passing reason is tried again."""

_PASSING_ERRORS = frozenset({"rate_limited", "backpressure", "unavailable", "internal"})
_BLAMED_ON_REQUEST = frozenset({1002, 1003, 1007, 1009, 4429})
"""Close codes after which what was in flight is not sent again: it may be what broke the connection."""


class State(enum.Enum):
    """Of the present connection."""

    IDLE = "idle"
    GREETING = "greeting"
    OPEN = "open"


class _Request:
    """An unanswered request. ``internal``: the protocol's own, nobody else waits for its answer."""

    __slots__ = ("body", "internal", "sent", "size")

    def __init__(self, body: dict[str, Any], internal: bool) -> None:
        self.body = body
        self.internal = internal
        self.sent = False
        self.size = 0  # bytes

    @property
    def is_publication(self) -> bool:
        """A message to others, with an idempotency key."""
        return self.body["type"] in ("Broadcast", "DirectMessage")

    @property
    def excluded_topic(self) -> str | None:
        """The topic of a publication that leaves us out."""
        is_excluded = self.body["type"] == "Broadcast" and self.body.get("exclude_self", False)
        return str(self.body["topic"]) if is_excluded else None


class ClientProtocol:
    """See the module's text. ``closing`` is the server's announcement that the present connection will end.

    At most ``max_pending`` requests, of ``max_pending_bytes`` together, may be without an answer.
    """

    def __init__(
        self,
        *,
        format: encoding.Format = "json",
        recover_inbox: bool = True,
        max_pending: int = MAX_PENDING,
        max_pending_bytes: int = MAX_PENDING_BYTES,
    ) -> None:
        self.state = State.IDLE
        self.closing: events.Closing | None = None
        self._codec: Codec | None = None
        self._rehearsal = Codec(format, None, 0)
        self._recover_inbox = recover_inbox
        self._max_pending = max_pending
        self._max_pending_bytes = max_pending_bytes
        self._pending_bytes = 0
        self._connections = 0
        self._next_id = 1
        self._requests: dict[int, _Request] = {}
        self._topics: dict[str, Topic] = {}
        self._inbox = Inbox(self._emit)
        self._to_send: list[tuple[bool, bytes]] = []
        self._outputs: list[Output] = []

    # The connection's life

    def connection_made(self, codec: Codec) -> None:
        """A WebSocket connection stands; the server's ``Connected`` comes next."""
        self.state = State.GREETING
        self._codec = codec
        self.closing = None

    def connection_lost(self, code: int, reason: str) -> None:
        """The connection is gone. What was in flight waits for the next one, unless it may be what broke this one."""
        self.state = State.IDLE
        self._to_send.clear()
        for request_id, request in list(self._requests.items()):
            if request.internal:
                self._remove(request_id)
            elif request.sent and code in _BLAMED_ON_REQUEST:
                words = f"the server closed the connection with {code} {reason}".rstrip()
                self._fail(request_id, ConnectionLost(words, code=code, reason=reason))
            else:
                request.sent = False
        for topic in self._topics.values():
            topic.connection_lost()
            if topic.request_id not in self._requests:
                topic.request_id = None
        self._inbox.connection_lost()

    def fail_all(self, error: ClientError) -> None:
        """There will be no further connection: every request fails with ``error``."""
        for request_id, request in self._requests.items():
            if not request.internal:
                self._emit(RequestFailed(request_id, error))
        self._requests.clear()
        self._topics.clear()
        self._pending_bytes = 0

    def receive_message(self, data: bytes, now: float) -> None:
        """One WebSocket message of the server, at ``now`` (seconds of a monotonic clock). Raises ProtocolViolation."""
        assert self._codec is not None, "receive_message before connection_made"
        envelope = self._codec.decode(data)
        if envelope is not None:
            self._dispatch(envelope, now)

    def next_deadline(self) -> float | None:
        """When ``tick`` wants to be called, on the clock of ``now``; None when there is no need."""
        return min((topic.retry_at for topic in self._topics.values() if topic.retry_at is not None), default=None)

    def tick(self, now: float) -> None:
        """Time has passed: subscriptions that waited out a refusal are tried again."""
        for topic in self._topics.values():
            if topic.retry_at is not None and topic.retry_at <= now and self.state is State.OPEN:
                topic.retry_at = None
                topic.request_id = self._add_request(topic.body(), internal=True)

    def data_to_send(self) -> list[tuple[bool, bytes]]:
        """Messages for the wire: (text frame?, bytes)."""
        data, self._to_send = self._to_send, []
        return data

    def outputs(self) -> list[Output]:
        """What happened since the last call, in order."""
        outputs, self._outputs = self._outputs, []
        return outputs

    # Requests

    def request(self, body: dict[str, Any]) -> int:
        """Send ``body`` (type and fields, without id) now or as soon as a connection stands. Returns the id.

        Raises QueueFull, and TypeError or ValueError when the payload cannot be encoded.
        """
        return self._add_request(body, internal=False)

    def forget(self, request_id: int) -> None:
        """Nobody waits for the answer any more."""
        request = self._remove(request_id)
        if request is None:
            return
        self._settle(request, None)
        if request.body["type"] == "Subscribe" and request.sent and self.state is State.OPEN:
            self._add_request({"type": "Unsubscribe", "topic": request.body["topic"]}, internal=True)

    def subscribe(
        self, name: str, *, history: int = 0, presence: bool = False, recover: events.Position | None = None
    ) -> int:
        """Want the topic ``name`` from now on. Returns the request's id.

        Raises ValueError when it already is, and QueueFull.
        """
        if name in self._topics:
            raise ValueError(f"there is a subscription of {name!r} already")
        topic = Topic(name, history=history, presence=presence, recover=recover, emit=self._emit)
        topic.request_id = self._add_request(topic.body(), internal=False)
        self._topics[name] = topic
        return topic.request_id

    def unsubscribe(self, name: str) -> int | None:
        """Want the topic no longer. Returns the request's id, or None when the server need not be told."""
        topic = self._topics.pop(name, None)
        if topic is None:
            return None
        if topic.request_id is not None:
            self._remove(topic.request_id)
        if self.state is not State.OPEN:
            return None
        return self._add_request({"type": "Unsubscribe", "topic": name}, internal=False)

    def position(self, name: str) -> events.Position | None:
        """The last position seen of a subscribed topic."""
        topic = self._topics.get(name)
        return topic.cursor.position if topic is not None else None

    def _add_request(self, body: dict[str, Any], *, internal: bool) -> int:
        request_id = self._next_id
        request = _Request({"type": body["type"], "id": request_id, **body}, internal)
        # What cannot be encoded fails now, in its caller's hands.
        codec = self._codec if self.state is State.OPEN and self._codec is not None else self._rehearsal
        message = codec.encode(request.body)
        if not internal:
            self._reserve(request, len(message[1]))
        if self.state is State.OPEN and not self._waits(request):
            self._to_send.append(message)
            request.sent = True
        self._next_id += 1
        self._requests[request_id] = request
        excluded = self._topics.get(request.excluded_topic or "")
        if excluded is not None:
            excluded.cursor.publishing_excluded()
        return request_id

    def _reserve(self, request: _Request, size: int) -> None:
        if len(self._requests) >= self._max_pending:
            raise QueueFull(f"{len(self._requests)} requests wait for answers, max_pending is {self._max_pending}")
        if self._pending_bytes + size > self._max_pending_bytes:
            raise QueueFull(
                f"{self._pending_bytes + size} bytes of requests would wait, max_pending_bytes is"
                f" {self._max_pending_bytes}"
            )
        request.size = size
        self._pending_bytes += size

    def _remove(self, request_id: int) -> _Request | None:
        request = self._requests.pop(request_id, None)
        if request is not None:
            self._pending_bytes -= request.size
        return request

    def _waits(self, request: _Request) -> bool:
        """Whether it is for the next connection."""
        return self.closing is not None and self.closing.reconnect and request.is_publication

    def _send(self, request: _Request) -> None:
        assert self._codec is not None, "sending without a connection"
        self._to_send.append(self._codec.encode(request.body))
        request.sent = True

    def _fail(self, request_id: int, error: ClientError) -> None:
        request = self._remove(request_id)
        if request is not None:
            self._settle(request, None)
        self._emit(RequestFailed(request_id, error))

    def _settle(self, request: _Request, offset: int | None) -> None:
        """``request`` is over; ``offset`` is what an acknowledged publication got, None when it came to nothing."""
        topic = self._topics.get(request.excluded_topic or "")
        if topic is not None:
            topic.excluded_settled(offset)
        if request.body["type"] == "Subscribe" and not request.internal:
            wanted = self._topics.get(request.body["topic"])
            if wanted is not None and not wanted.answered:
                del self._topics[wanted.name]

    def _emit(self, output: Output) -> None:
        self._outputs.append(output)

    # What the server says

    def _dispatch(self, envelope: ServerEnvelope, now: float) -> None:
        match envelope:
            case encoding.MessageEnvelope():
                self._message(envelope)
            case encoding.DirectMessageEnvelope():
                self._inbox.message(envelope)
            case encoding.JoinEnvelope(topic=name, user_id=user_id, session_id=session_id, info=info):
                self._presence(events.Join(name, user_id, session_id, info))
            case encoding.LeaveEnvelope(topic=name, user_id=user_id, session_id=session_id):
                self._presence(events.Leave(name, user_id, session_id))
            case encoding.LaggedEnvelope():
                self._lagged(envelope)
            case encoding.ConnectedEnvelope():
                self._connected(envelope)
            case encoding.TokenExpiringEnvelope(expires_at=expires_at):
                self._emit(RefreshDue(expires_at))
            case encoding.ClosingEnvelope(code=code, reason=reason, reconnect=reconnect, after_ms=after_ms):
                self.closing = events.Closing(code, reason, reconnect, after_ms)
                self._emit(ConnectionOutput(self.closing))
            case encoding.ErrorEnvelope():
                self._error(envelope, now)
            case _:
                self._reply(envelope)

    def _message(self, envelope: encoding.MessageEnvelope) -> None:
        name = envelope.topic
        if name in self._topics:
            self._topics[name].message(envelope)
        elif name == "*":  # an administrator's word to every connection; no topic to recover
            message = events.Message(name, envelope.offset, envelope.ts, envelope.sender, envelope.payload)
            self._emit(ConnectionOutput(message))

    def _lagged(self, envelope: encoding.LaggedEnvelope) -> None:
        if envelope.topic == self._inbox.name:
            self._inbox.lagged(envelope)
        elif envelope.topic in self._topics:
            self._topics[envelope.topic].lagged(envelope)

    def _presence(self, event: events.Join | events.Leave) -> None:
        if event.topic in self._topics:
            self._emit(TopicOutput(event.topic, event))

    def _connected(self, envelope: encoding.ConnectedEnvelope) -> None:
        reconnected = self._connections > 0
        self._connections += 1
        self.state = State.OPEN
        session = events.Connected(
            envelope.session_id, envelope.user_id, envelope.node_id, envelope.expires_at, reconnected
        )
        self._emit(ConnectionOutput(session))
        subscribing = {topic.request_id for topic in self._topics.values()}
        for request_id, request in list(self._requests.items()):
            if request_id not in subscribing:
                self._send(request)
        for topic in self._topics.values():
            if topic.request_id is None:
                topic.request_id = self._add_request(topic.body(), internal=True)
            else:
                self._send(self._requests[topic.request_id])
        self._inbox.connection_made(envelope.user_id, reconnected=reconnected, readable=self._recover_inbox)
        if self._recover_inbox:
            self._ask_inbox()

    def _ask_inbox(self) -> None:
        self._inbox.asked = self._add_request(self._inbox.body(), internal=True)

    def _reply(self, envelope: ServerEnvelope) -> None:
        request = self._remove(envelope.id) if isinstance(envelope.id, int) else None
        if request is None or not isinstance(envelope.id, int):
            return  # answered after its time-out
        offset = None
        match envelope:
            case encoding.SubscribedEnvelope(topic=name) if name in self._topics:
                self._topics[name].request_id = None
                self._topics[name].subscribed(envelope)
            case encoding.HistoryPageEnvelope() if envelope.id == self._inbox.asked:
                if self._inbox.page(envelope):
                    self._ask_inbox()
            case encoding.AckEnvelope():
                offset = envelope.offset
            case _:
                pass
        self._settle(request, offset)
        if not request.internal:
            self._emit(RequestAnswered(envelope.id, envelope))

    def _error(self, envelope: encoding.ErrorEnvelope, now: float) -> None:
        request_id = envelope.id
        if not isinstance(request_id, int) or request_id not in self._requests:
            return
        error = RequestError(
            envelope.code, envelope.message, retry_after_ms=envelope.retry_after_ms, scope=envelope.scope
        )
        request = self._requests[request_id]
        if error.code == "unavailable" and self._waits(request):
            request.sent = False  # sent before we heard that the server closes; the next connection takes it
            return
        if not request.internal:
            self._fail(request_id, error)
            return
        self._remove(request_id)
        if request_id == self._inbox.asked:
            self._inbox.unavailable()
        elif request.body["type"] == "Subscribe" and request.body["topic"] in self._topics:
            self._resubscription_refused(self._topics[request.body["topic"]], error, now)

    def _resubscription_refused(self, topic: Topic, error: RequestError, now: float) -> None:
        topic.request_id = None
        if error.code in _PASSING_ERRORS:
            topic.retry_at = now + max(RETRY_AT_LEAST_SECS, (error.retry_after_ms or 0) / 1000)
        else:
            del self._topics[topic.name]
            self._emit(SubscriptionEnded(topic.name, error))
