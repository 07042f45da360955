"""The client's side of rtc.v1 without I/O: messages and the time go in, messages and outputs come out.

Theory of operation
-------------------
One ``ClientProtocol`` lives as long as the client and sees many connections::

    IDLE ── connection_made ──▶ GREETING ── Connected ──▶ OPEN
      ▲                            │                        │
      └──────────── connection_lost ────────────────────────┘

A request keeps its id over connections. What has no answer when a connection is lost is sent again on the next one:
every request is either harmless to repeat or carries an idempotency key. On each new connection go out, in this order:

1. unanswered requests, publications first of all: the offsets of our own ``exclude_self`` messages must be known
   before recovery hands these messages back to us;
2. a ``Subscribe`` with the last position for each topic;
3. a ``History`` of the user's own inbox after its last position: inboxes cannot be subscribed to.

Live messages that come before a topic's answer are held until the recovered ones are out, so that the application sees
each topic in offset order, every message once. ``Cursor`` decides both.

Rules: no clock, no loop, no socket, no callback here. The caller takes ``outputs`` and ``data_to_send`` after each call.
"""

from __future__ import annotations

import enum
from typing import Any, TypeAlias

import msgspec

from realtime_communication.client import encoding, events
from realtime_communication.client.cursor import Cursor
from realtime_communication.client.encoding import Codec, ServerEnvelope
from realtime_communication.client.errors import ClientError, ConnectionLost, RequestError

__all__ = [
    "ClientProtocol",
    "ConnectionOutput",
    "InboxOutput",
    "Output",
    "RefreshDue",
    "RequestAnswered",
    "RequestFailed",
    "State",
    "SubscriptionEnded",
    "TopicOutput",
]

INBOX_PAGE = 1000
"""Messages per ``History`` while the inbox is recovered; the protocol's most."""

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


class RequestAnswered(msgspec.Struct, frozen=True):
    """The reply to request ``id``."""

    id: int
    envelope: ServerEnvelope


class RequestFailed(msgspec.Struct, frozen=True):
    """Request ``id`` will get no reply."""

    id: int
    error: ClientError


class TopicOutput(msgspec.Struct, frozen=True):
    """For the subscriber of a topic."""

    topic: str
    event: events.SubscriptionEvent


class InboxOutput(msgspec.Struct, frozen=True):
    """For whoever reads the direct messages."""

    event: events.InboxEvent


class ConnectionOutput(msgspec.Struct, frozen=True):
    """About the connection as a whole."""

    event: events.ConnectionEvent


class SubscriptionEnded(msgspec.Struct, frozen=True):
    """The server refuses to restore a subscription."""

    topic: str
    error: RequestError


class RefreshDue(msgspec.Struct, frozen=True):
    """The token should be replaced now (or at ``at`` seconds since 1970)."""

    at: int | None
    expires_at: int | None


Output: TypeAlias = (
    RequestAnswered | RequestFailed | TopicOutput | InboxOutput | ConnectionOutput | SubscriptionEnded | RefreshDue
)


class _Request:
    """An unanswered request. ``topic_excluded`` is set for a publication that leaves us out."""

    __slots__ = ("body", "internal", "sent", "topic_excluded")

    def __init__(self, body: dict[str, Any], internal: bool, topic_excluded: str | None) -> None:
        self.body = body
        self.internal = internal
        self.topic_excluded = topic_excluded
        self.sent = False


class _Topic:
    """A subscription the application wants. ``retry_at`` is set while a passing refusal is waited out."""

    __slots__ = ("cursor", "held", "history", "live", "presence", "request_id", "retry_at", "seen")

    def __init__(self, history: int, presence: bool) -> None:
        self.history = history
        self.presence = presence
        self.cursor = Cursor()
        self.request_id: int | None = None
        self.live = False
        self.seen = False  # answered at least once
        self.retry_at: float | None = None
        self.held: list[encoding.MessageEnvelope] = []


class ClientProtocol:
    """See the module's text. All methods are synchronous and raise nothing but what they name."""

    def __init__(self, *, format: encoding.Format = "json", recover_inbox: bool = True) -> None:
        self._rehearsal = Codec(format, None, 0)
        self.state = State.IDLE
        self.session_id: str | None = None
        self.user_id: str | None = None
        self.closing: events.Closing | None = None
        self._recover_inbox = recover_inbox
        self._codec: Codec | None = None
        self._next_id = 1
        self._requests: dict[int, _Request] = {}
        self._topics: dict[str, _Topic] = {}
        self._inbox = Cursor()
        self._inbox_request: int | None = None
        self._inbox_recovering = False
        self._inbox_told = True
        self._inbox_tentative = False
        self._inbox_held: list[encoding.DirectMessageEnvelope] = []
        self._connections = 0
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
                del self._requests[request_id]
            elif request.sent and code in _BLAMED_ON_REQUEST:
                del self._requests[request_id]
                self._settle_excluded(request, None)
                error = ConnectionLost(
                    f"the server closed the connection with {code} {reason}".rstrip(), code=code, reason=reason
                )
                self._outputs.append(RequestFailed(request_id, error))
                self._drop_refused_subscription(request)
            else:
                request.sent = False
        for topic in self._topics.values():
            topic.live = False
            topic.retry_at = None
            topic.held.clear()
            if topic.request_id not in self._requests:
                topic.request_id = None
        self._inbox_request = None
        self._inbox_held.clear()

    def fail_all(self, error: ClientError) -> None:
        """There will be no further connection: every request fails with ``error``."""
        for request_id, request in self._requests.items():
            if not request.internal:
                self._outputs.append(RequestFailed(request_id, error))
        self._requests.clear()
        self._topics.clear()

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
        for name, topic in self._topics.items():
            if topic.retry_at is not None and topic.retry_at <= now and self.state is State.OPEN:
                topic.retry_at = None
                self._send_subscribe(name, topic)

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

        Raises TypeError or ValueError when the payload cannot be encoded.
        """
        excluded = body["topic"] if body["type"] == "Broadcast" and body.get("exclude_self") else None
        return self._add_request(body, internal=False, topic_excluded=excluded)

    def forget(self, request_id: int) -> None:
        """Nobody waits for the answer any more."""
        request = self._requests.pop(request_id, None)
        if request is not None:
            self._settle_excluded(request, None)
            self._drop_refused_subscription(request)

    def subscribe(
        self, topic: str, *, history: int = 0, presence: bool = False, recover: events.Position | None = None
    ) -> int:
        """Want ``topic`` from now on. Returns the request's id. Raises ValueError when it is wanted already."""
        if topic in self._topics:
            raise ValueError(f"there is a subscription of {topic!r} already")
        entry = self._topics[topic] = _Topic(history, presence)
        if recover is not None:
            entry.cursor.reset(recover.epoch, recover.offset)
        body = self._subscribe_body(topic, entry)
        entry.request_id = self._add_request(body, internal=False, topic_excluded=None)
        return entry.request_id

    def unsubscribe(self, topic: str) -> int | None:
        """Want ``topic`` no longer. Returns the request's id, or None when the server need not be told."""
        entry = self._topics.pop(topic, None)
        if entry is None:
            return None
        if entry.request_id is not None:
            self._requests.pop(entry.request_id, None)
        if self.state is not State.OPEN:
            return None
        return self._add_request({"type": "Unsubscribe", "topic": topic}, internal=False, topic_excluded=None)

    def position(self, topic: str) -> events.Position | None:
        """The last position seen of a subscribed topic."""
        entry = self._topics.get(topic)
        return entry.cursor.position if entry is not None else None

    def _add_request(self, body: dict[str, Any], *, internal: bool, topic_excluded: str | None) -> int:
        request_id = self._next_id
        request = _Request({"type": body["type"], "id": request_id, **body}, internal, topic_excluded)
        if self.state is State.OPEN:
            self._send(request)
        else:
            self._rehearsal.encode(request.body)  # what cannot be encoded fails now, in its caller's hands
        self._next_id += 1
        self._requests[request_id] = request
        if topic_excluded in self._topics:
            self._topics[topic_excluded].cursor.publishing_excluded()
        return request_id

    def _send(self, request: _Request) -> None:
        assert self._codec is not None, "sending without a connection"
        self._to_send.append(self._codec.encode(request.body))
        request.sent = True

    def _settle_excluded(self, request: _Request, offset: int | None) -> None:
        """A publication with ``exclude_self`` is over."""
        topic = request.topic_excluded
        if topic is None or topic not in self._topics:
            return
        missed = self._topics[topic].cursor.published_excluded(offset)
        if missed:
            lagged = events.Lagged(topic, missed, recovered=False, source="offsets")
            self._outputs.append(TopicOutput(topic, lagged))

    def _drop_refused_subscription(self, request: _Request) -> None:
        """A subscription whose first request came to nothing never existed."""
        topic = request.body.get("topic")
        if request.body["type"] == "Subscribe" and topic in self._topics and not self._topics[topic].seen:
            del self._topics[topic]

    # What the server says

    def _dispatch(self, envelope: ServerEnvelope, now: float) -> None:
        match envelope:
            case encoding.MessageEnvelope():
                self._message(envelope)
            case encoding.DirectMessageEnvelope():
                self._direct_message(envelope)
            case encoding.JoinEnvelope(topic=topic, user_id=user_id, session_id=session_id):
                self._topic_output(topic, events.Join(topic, user_id, session_id))
            case encoding.LeaveEnvelope(topic=topic, user_id=user_id, session_id=session_id):
                self._topic_output(topic, events.Leave(topic, user_id, session_id))
            case encoding.LaggedEnvelope():
                self._lagged(envelope)
            case encoding.ConnectedEnvelope():
                self._connected(envelope)
            case encoding.TokenExpiringEnvelope(expires_at=expires_at):
                self._outputs.append(RefreshDue(None, expires_at))
            case encoding.ClosingEnvelope(code=code, reason=reason, reconnect=reconnect, after_ms=after_ms):
                self.closing = events.Closing(code, reason, reconnect, after_ms)
                self._outputs.append(ConnectionOutput(self.closing))
            case encoding.ErrorEnvelope():
                self._error(envelope, now)
            case _:
                self._reply(envelope)

    def _connected(self, envelope: encoding.ConnectedEnvelope) -> None:
        reconnected = self._connections > 0
        same_user = self.user_id in (None, envelope.user_id)
        self._connections += 1
        self.state = State.OPEN
        self.session_id = envelope.session_id
        self.user_id = envelope.user_id
        if not same_user:
            self._inbox = Cursor()
        self._outputs.append(
            ConnectionOutput(
                events.Connected(
                    envelope.session_id, envelope.user_id, envelope.node_id, envelope.expires_at, reconnected
                )
            )
        )
        if envelope.refresh_at is not None:
            self._outputs.append(RefreshDue(envelope.refresh_at, envelope.expires_at))
        subscribing = {topic.request_id for topic in self._topics.values()}
        for request_id, request in list(self._requests.items()):
            if request_id not in subscribing:
                self._send(request)
        for name, topic in self._topics.items():
            self._send_subscribe(name, topic)
        if self._recover_inbox:
            self._inbox_recovering = reconnected and same_user
            self._inbox_told = not self._inbox_recovering
            self._ask_inbox()
        else:
            self._inbox = Cursor()

    def _reply(self, envelope: ServerEnvelope) -> None:
        if not isinstance(envelope.id, int) or envelope.id not in self._requests:
            return  # answered after its time-out
        request = self._requests.pop(envelope.id)
        match envelope:
            case encoding.SubscribedEnvelope() if envelope.topic in self._topics:
                self._subscribed(envelope)
            case encoding.HistoryPageEnvelope() if envelope.id == self._inbox_request:
                self._inbox_page(envelope)
            case encoding.AckEnvelope(offset=offset):
                self._settle_excluded(request, offset)
            case encoding.RefreshedEnvelope(refresh_at=refresh_at, expires_at=expires_at) if refresh_at is not None:
                self._outputs.append(RefreshDue(refresh_at, expires_at))
            case _:
                pass
        if not request.internal:
            self._outputs.append(RequestAnswered(envelope.id, envelope))

    def _error(self, envelope: encoding.ErrorEnvelope, now: float) -> None:
        if not isinstance(envelope.id, int) or envelope.id not in self._requests:
            return
        request = self._requests.pop(envelope.id)
        self._settle_excluded(request, None)
        error = RequestError(
            envelope.code, envelope.message, retry_after_ms=envelope.retry_after_ms, scope=envelope.scope
        )
        if not request.internal:
            self._drop_refused_subscription(request)
            self._outputs.append(RequestFailed(envelope.id, error))
        elif envelope.id == self._inbox_request:
            self._inbox_unavailable()
        elif request.body["type"] == "Subscribe":
            self._resubscription_refused(request.body["topic"], error, now)

    # Topics

    def _subscribe_body(self, name: str, topic: _Topic) -> dict[str, Any]:
        body: dict[str, Any] = {"type": "Subscribe", "topic": name}
        position = topic.cursor.position
        if position is not None:
            body["recover"] = {"epoch": position.epoch, "offset": position.offset}
        if topic.history:  # what an unsuccessful recovery falls back to
            body["history"] = topic.history
        if topic.presence:
            body["presence"] = True
        return body

    def _send_subscribe(self, name: str, topic: _Topic) -> None:
        request = self._requests.get(topic.request_id) if topic.request_id is not None else None
        if request is None:
            topic.request_id = self._add_request(self._subscribe_body(name, topic), internal=True, topic_excluded=None)
        else:
            self._send(request)

    def _subscribed(self, envelope: encoding.SubscribedEnvelope) -> None:
        name, topic = envelope.topic, self._topics[envelope.topic]
        cursor = topic.cursor
        before = cursor.position
        if before is not None:
            new = [m for m in envelope.messages if before.epoch != envelope.epoch or m.offset > before.offset]
            recovered = envelope.recovered and before.epoch == envelope.epoch
            missed: int | None = 0
            if not recovered:
                same = before.epoch == envelope.epoch
                missed = max(0, envelope.offset - before.offset - len(new)) if same else None
                first = new[0].offset if new else envelope.offset + 1
                cursor.reset(envelope.epoch, first - 1)
            self._outputs.append(TopicOutput(name, events.Recovered(name, recovered, missed)))
            self._outputs.append(ConnectionOutput(events.Recovered(name, recovered, missed)))
        else:
            offsets = [m.offset for m in envelope.messages] + [m.offset for m in topic.held] + [envelope.offset + 1]
            cursor.reset(envelope.epoch, min(offsets) - 1)
            new = envelope.messages
        for message in new:
            self._deliver(name, topic, message.offset, message.ts, message.sender, message.payload)
        if not topic.held:
            cursor.advance(envelope.offset)
        topic.live = topic.seen = True
        held, topic.held = topic.held, []
        for live in held:
            self._deliver(name, topic, live.offset, live.ts, live.sender, live.payload)

    def _resubscription_refused(self, name: str, error: RequestError, now: float) -> None:
        topic = self._topics.get(name)
        if topic is None:
            return
        topic.request_id = None
        if error.code in _PASSING_ERRORS:
            topic.retry_at = now + max(RETRY_AT_LEAST_SECS, (error.retry_after_ms or 0) / 1000)
        else:
            del self._topics[name]
            self._outputs.append(SubscriptionEnded(name, error))

    def _message(self, envelope: encoding.MessageEnvelope) -> None:
        topic = self._topics.get(envelope.topic)
        if topic is None:
            if envelope.topic == "*":  # an administrator's word to every connection; no topic to recover
                announcement = events.Message("*", envelope.offset, envelope.ts, envelope.sender, envelope.payload)
                self._outputs.append(ConnectionOutput(announcement))
        elif not topic.live:
            topic.held.append(envelope)
        else:
            self._deliver(envelope.topic, topic, envelope.offset, envelope.ts, envelope.sender, envelope.payload)

    def _deliver(self, name: str, topic: _Topic, offset: int, ts: int, sender: str, payload: Any) -> None:
        is_new, holes = topic.cursor.accept(offset)
        if holes:
            lagged = events.Lagged(name, holes, recovered=False, source="offsets")
            self._outputs.append(TopicOutput(name, lagged))
        if is_new:
            self._outputs.append(TopicOutput(name, events.Message(name, offset, ts, sender, payload)))

    def _topic_output(self, topic: str, event: events.Join | events.Leave) -> None:
        if topic in self._topics:
            self._outputs.append(TopicOutput(topic, event))

    def _lagged(self, envelope: encoding.LaggedEnvelope) -> None:
        event = events.Lagged(envelope.topic, envelope.missed, envelope.recovered)
        cursor: Cursor
        output: Output
        if self.user_id is not None and envelope.topic == f"@{self.user_id}":
            cursor, output = self._inbox, InboxOutput(event)
        elif envelope.topic in self._topics:
            cursor, output = self._topics[envelope.topic].cursor, TopicOutput(envelope.topic, event)
        else:
            return
        if cursor.epoch is not None and cursor.epoch != envelope.epoch:
            cursor.reset(envelope.epoch, None)
        elif not envelope.recovered:
            cursor.announce_hole()
        self._outputs.append(output)

    # The inbox

    def _ask_inbox(self) -> None:
        body: dict[str, Any] = {"type": "History", "topic": f"@{self.user_id}"}
        position = self._inbox.position
        if self._inbox_recovering and position is not None:
            body["after"] = {"epoch": position.epoch, "offset": position.offset}
            body["limit"] = INBOX_PAGE
        else:
            body["limit"] = 1
            body["reverse"] = True
        self._inbox_request = self._add_request(body, internal=True, topic_excluded=None)

    def _inbox_page(self, page: encoding.HistoryPageEnvelope) -> None:
        self._inbox_request = None
        position = self._inbox.position
        if not self._inbox_recovering or position is None:
            self._tell_inbox(False, None)
            self._inbox.reset(page.epoch, page.offset)
            self._inbox_tentative = not self._inbox_held
            self._release_inbox(restart_at=min((m.offset for m in self._inbox_held), default=None))
            return
        if page.epoch != position.epoch:
            self._tell_inbox(False, None)
            self._inbox.reset(page.epoch, 0)
            self._ask_inbox()
            return
        new = [message for message in page.messages if message.offset > position.offset]
        first = new[0].offset if new else page.offset + 1
        missed = max(0, first - position.offset - 1)
        if not self._inbox_told:
            self._tell_inbox(missed == 0, missed)
            self._inbox.announce_hole()
        for message in new:
            self._deliver_direct(message.offset, message.ts, message.sender, message.payload)
        last = self._inbox.offset
        if new and last is not None and last < page.offset:
            self._ask_inbox()
        else:
            self._release_inbox(restart_at=None)

    def _inbox_unavailable(self) -> None:
        """The history of the inbox cannot be read: without ``read``, for one."""
        self._inbox_request = None
        self._tell_inbox(False, None)
        self._inbox = Cursor()
        self._release_inbox(restart_at=None)

    def _tell_inbox(self, recovered: bool, missed: int | None) -> None:
        if self._inbox_told:
            return
        self._inbox_told = True
        event = events.Recovered(f"@{self.user_id}", recovered, missed)
        self._outputs.append(InboxOutput(event))
        self._outputs.append(ConnectionOutput(event))

    def _release_inbox(self, *, restart_at: int | None) -> None:
        """Recovery of the inbox is over. ``restart_at``: the first held offset, where the row begins anew."""
        self._inbox_recovering = False
        if restart_at is not None:
            self._inbox.offset = restart_at - 1
        held, self._inbox_held = self._inbox_held, []
        for live in held:
            self._deliver_direct(live.offset, live.ts, live.sender, live.payload)

    def _direct_message(self, envelope: encoding.DirectMessageEnvelope) -> None:
        if self._inbox_request is not None:
            self._inbox_held.append(envelope)
            return
        if self._inbox_tentative:
            # The reply that told the inbox's offset may have overtaken a message that was waiting already.
            self._inbox_tentative = False
            if self._inbox.offset is not None and envelope.offset <= self._inbox.offset:
                self._inbox.offset = envelope.offset - 1
        self._deliver_direct(envelope.offset, envelope.ts, envelope.sender, envelope.payload)

    def _deliver_direct(self, offset: int, ts: int, sender: str, payload: Any) -> None:
        is_new, holes = self._inbox.accept(offset)
        if holes:
            self._outputs.append(
                InboxOutput(events.Lagged(f"@{self.user_id}", holes, recovered=False, source="offsets"))
            )
        if is_new:
            self._outputs.append(InboxOutput(events.DirectMessage(offset, ts, sender, payload)))
