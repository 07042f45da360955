"""The messages of rtc.v1 as types: the source of `/asyncapi.json`. `examples` has one or more of each.

The data plane reads and writes them itself, without these; tests hold what it sends against them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from realtime_communication.errors import ERROR_CODES
from realtime_communication.http.schemas import Count, Epoch, Key, Member, Offset, StoredMessage, Topic, UserId

Id = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)] | Annotated[str, Meta(max_length=64)]
"""Of a request; its reply carries it too."""

Millis = Annotated[int, Meta(ge=0, description="milliseconds since 1970")]
Seconds = Annotated[int, Meta(description="seconds since 1970")]
SessionId = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]


class Position(Struct):
    """The last message of a topic that somebody has."""

    epoch: Epoch
    offset: Offset


# From the client


class Authenticate(Struct, tag_field="type", tag="Authenticate", omit_defaults=True):
    """The first message of a connection that came without credentials: exactly one of the two."""

    id: Id | None = None
    token: str | None = None
    api_key: str | None = None


class Subscribe(Struct, tag_field="type", tag="Subscribe", omit_defaults=True, kw_only=True):
    """Get what is published on a topic from now on; `recover` asks for what was missed, `history` for the newest."""

    id: Id | None = None
    topic: Topic
    recover: Position | None = None
    history: Annotated[int, Meta(ge=0, le=1000)] | None = None
    presence: bool | None = None


class Unsubscribe(Struct, tag_field="type", tag="Unsubscribe", omit_defaults=True, kw_only=True):
    """Get it no more."""

    id: Id | None = None
    topic: Topic


class Broadcast(Struct, tag_field="type", tag="Broadcast", omit_defaults=True, kw_only=True):
    """Publish on a topic. `*` is every connection, for administrators."""

    id: Id | None = None
    topic: Topic
    payload: Any
    exclude_self: bool | None = None
    idempotency_key: Key | None = None


class SendDirectMessage(Struct, tag_field="type", tag="DirectMessage", omit_defaults=True, kw_only=True):
    """Send to the inboxes of users."""

    id: Id | None = None
    to: UserId | list[UserId]
    payload: Any
    idempotency_key: Key | None = None


class Presence(Struct, tag_field="type", tag="Presence", omit_defaults=True, kw_only=True):
    """Who is on a topic?"""

    id: Id | None = None
    topic: Topic


class History(Struct, tag_field="type", tag="History", omit_defaults=True, kw_only=True):
    """Messages of a topic that are in the cache."""

    id: Id | None = None
    topic: Topic
    after: Position | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] | None = None
    reverse: bool | None = None


class Refresh(Struct, tag_field="type", tag="Refresh", omit_defaults=True, kw_only=True):
    """A new token of the same user."""

    id: Id | None = None
    token: str


class Ping(Struct, tag_field="type", tag="Ping", omit_defaults=True):
    """Is somebody there?"""

    id: Id | None = None


# From the server, asked


class Connected(Struct, tag_field="type", tag="Connected", kw_only=True, omit_defaults=True):
    """The first message of every session."""

    id: Id | None = None
    session_id: SessionId
    user_id: str
    node_id: str
    protocol: Literal["rtc.v1"]
    heartbeat_interval_secs: float
    expires_at: Seconds | None
    refresh_at: Seconds | None


class Subscribed(Struct, tag_field="type", tag="Subscribed", kw_only=True, omit_defaults=True):
    """Where the topic stands, and what was missed: all of it when `recovered`, else the newest that were asked for.

    Without `id` when an administrator subscribed the session.
    """

    id: Id | None = None
    topic: str
    epoch: Epoch
    offset: Offset
    recovered: bool
    messages: list[StoredMessage]


class Unsubscribed(Struct, tag_field="type", tag="Unsubscribed", kw_only=True, omit_defaults=True):
    """Nothing of the topic follows."""

    id: Id | None = None
    topic: str


class PublicationAck(Struct, tag_field="type", tag="Ack", kw_only=True):
    """The message has its offset and is in the cache."""

    id: Id
    topic: str
    epoch: Epoch
    offset: Offset


class DirectMessageAck(Struct, tag_field="type", tag="Ack", kw_only=True):
    """Who has a live session, and who has none."""

    id: Id
    delivered: list[str]
    offline: list[str]


class PresenceState(Struct, tag_field="type", tag="PresenceState", kw_only=True):
    """Who is on a topic."""

    id: Id
    topic: str
    count: Count
    members: list[Member]


class HistoryPage(Struct, tag_field="type", tag="HistoryPage", kw_only=True):
    """Messages, and where the topic stands."""

    id: Id
    topic: str
    epoch: Epoch
    offset: Offset
    messages: list[StoredMessage]


class Refreshed(Struct, tag_field="type", tag="Refreshed", kw_only=True):
    """The new token counts."""

    id: Id
    expires_at: Seconds | None
    refresh_at: Seconds | None


class Pong(Struct, tag_field="type", tag="Pong", kw_only=True):
    """The server's time."""

    id: Id
    ts: Millis


class Error(Struct, tag_field="type", tag="Error", kw_only=True, omit_defaults=True):
    """A request failed; without `id` it is the connection's, or that of a request without one."""

    id: Id | None = None
    code: Annotated[str, Meta(description="one of " + ", ".join(row.name for row in ERROR_CODES))]
    message: str
    retry_after_ms: Count | None = None
    scope: Annotated[str, Meta(description="which limit: connection, user, global, or the name of a custom one")] = ""


# From the server, unasked


class Message(Struct, tag_field="type", tag="Message", kw_only=True, rename={"sender": "from"}):
    """Somebody published on a topic."""

    topic: str
    offset: Offset
    ts: Millis
    sender: str
    payload: Any


class DirectMessage(Struct, tag_field="type", tag="DirectMessage", kw_only=True, rename={"sender": "from"}):
    """Somebody wrote to this user."""

    offset: Offset
    ts: Millis
    sender: str
    payload: Any


class Join(Struct, tag_field="type", tag="Join", kw_only=True, omit_defaults=True):
    """A user's first session came to a topic."""

    topic: str
    user_id: str
    session_id: SessionId
    info: dict[str, Any] | None = None


class Leave(Struct, tag_field="type", tag="Leave", kw_only=True):
    """A user's last session has left a topic."""

    topic: str
    user_id: str
    session_id: SessionId


class Lagged(Struct, tag_field="type", tag="Lagged", kw_only=True):
    """Messages were skipped, up to `offset`; when `recovered` they follow now."""

    topic: str
    missed: Count
    epoch: Epoch
    offset: Offset
    recovered: bool


class TokenExpiring(Struct, tag_field="type", tag="TokenExpiring"):
    """Send a Refresh."""

    expires_at: Seconds


class Closing(Struct, tag_field="type", tag="Closing", kw_only=True):
    """The server is about to close; come back after `after_ms`."""

    code: Annotated[int, Meta(description="the close code that follows")]
    reason: str
    reconnect: bool
    after_ms: Count


REQUESTS: Final[tuple[tuple[type[Struct], tuple[type[Struct], ...]], ...]] = (
    (Authenticate, (Connected,)),
    (Subscribe, (Subscribed,)),
    (Unsubscribe, (Unsubscribed,)),
    (Broadcast, (PublicationAck,)),
    (SendDirectMessage, (DirectMessageAck,)),
    (Presence, (PresenceState,)),
    (History, (HistoryPage,)),
    (Refresh, (Refreshed,)),
    (Ping, (Pong,)),
)
"""What a client sends, with the replies to it; an Error may always come instead."""

UNASKED: Final[tuple[type[Struct], ...]] = (
    Connected,
    Message,
    DirectMessage,
    Join,
    Leave,
    Lagged,
    TokenExpiring,
    Closing,
    Error,
)

_EPOCH: Final = "6c1f0a9e2b7d4583"
_SESSION: Final = "0f8fad5bd9cb469fa16570867728950e"
_STORED: Final = StoredMessage(offset=17, ts=1767220000000, sender="bob", payload={"text": "hello"})

EXAMPLES: Final[tuple[Struct, ...]] = (
    Authenticate(id=0, token="eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl"),
    Subscribe(id=1, topic="room:42", recover=Position(_EPOCH, 16), presence=True),
    Unsubscribe(id=2, topic="room:42"),
    Broadcast(id=3, topic="room:42", payload={"text": "hello"}, idempotency_key="b1946ac9"),
    SendDirectMessage(id=4, to=["bob", "carol"], payload={"text": "psst"}),
    Presence(id=5, topic="room:42"),
    History(id=6, topic="room:42", limit=1, reverse=True),
    Refresh(id=7, token="eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl"),
    Ping(id="ping-1"),
    Connected(
        session_id=_SESSION,
        user_id="alice",
        node_id="node-1",
        protocol="rtc.v1",
        heartbeat_interval_secs=30,
        expires_at=1767225600,
        refresh_at=1767222000,
    ),
    Subscribed(id=1, topic="room:42", epoch=_EPOCH, offset=17, recovered=True, messages=[_STORED]),
    Unsubscribed(id=2, topic="room:42"),
    PublicationAck(id=3, topic="room:42", epoch=_EPOCH, offset=18),
    DirectMessageAck(id=4, delivered=["bob"], offline=["carol"]),
    PresenceState(
        id=5, topic="room:42", count=1, members=[Member(user_id="alice", session_id=_SESSION, joined_at=1767220000000)]
    ),
    HistoryPage(id=6, topic="room:42", epoch=_EPOCH, offset=18, messages=[_STORED]),
    Refreshed(id=7, expires_at=1767229200, refresh_at=1767225600),
    Pong(id="ping-1", ts=1767220000456),
    Error(id=8, code="rate_limited", message="more requests than the limit allows", retry_after_ms=120, scope="user"),
    Message(topic="room:42", offset=18, ts=1767220000123, sender="bob", payload={"text": "hello"}),
    DirectMessage(offset=3, ts=1767220000123, sender="bob", payload={"text": "psst"}),
    Join(topic="room:42", user_id="bob", session_id=_SESSION),
    Leave(topic="room:42", user_id="bob", session_id=_SESSION),
    Lagged(topic="room:42", missed=12, epoch=_EPOCH, offset=18, recovered=True),
    TokenExpiring(expires_at=1767225600),
    Closing(code=1001, reason="server shutting down", reconnect=True, after_ms=1730),
)
