"""What the application receives: plain, immutable values."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

__all__ = [
    "Closing",
    "Connected",
    "ConnectionEvent",
    "Delivery",
    "DirectMessage",
    "Disconnected",
    "HistoryMessage",
    "HistoryPage",
    "InboxEvent",
    "Join",
    "Lagged",
    "Leave",
    "Member",
    "Message",
    "Payload",
    "Position",
    "PresenceState",
    "Recovered",
    "SubscriptionEvent",
    "TokenExpiring",
]

Payload: TypeAlias = Any
"""Any JSON or MessagePack value: None, bool, int, float, str, bytes (MessagePack only), list, dict."""


class Position(msgspec.Struct, frozen=True):
    """A place in a topic. Offsets count messages and only compare within one epoch; a new epoch is a lost history."""

    epoch: str
    offset: int


class Message(msgspec.Struct, frozen=True):
    """A publication on a topic. ``ts`` is the server's clock in milliseconds since 1970, ``sender`` a user id.

    ``epoch`` and ``offset`` are its position; the epoch is empty where the message belongs to no history.
    """

    topic: str
    offset: int
    ts: int
    sender: str
    payload: Payload
    epoch: str = ""


class DirectMessage(msgspec.Struct, frozen=True):
    """A message to this user. ``offset`` counts the messages of the user's inbox."""

    offset: int
    ts: int
    sender: str
    payload: Payload


class Join(msgspec.Struct, frozen=True):
    """The first session of a user came to the topic. ``info`` is what its token tells of the user."""

    topic: str
    user_id: str
    session_id: str
    info: dict[str, Any] | None = None


class Leave(msgspec.Struct, frozen=True):
    """The last session of a user left the topic."""

    topic: str
    user_id: str
    session_id: str


class Lagged(msgspec.Struct, frozen=True):
    """Messages were skipped on this connection.

    ``recovered``: they follow now, nothing is missing. Otherwise ``missed`` of them are lost to this subscription
    (``history`` may still have them). ``source`` says who skipped: the ``server`` for a slow connection, the client's
    full ``queue``, or the ``offsets`` that show a hole nobody announced.
    """

    topic: str
    missed: int
    recovered: bool
    source: str = "server"


class Recovered(msgspec.Struct, frozen=True):
    """The subscription lives again after a lost connection.

    ``recovered``: everything sent meanwhile follows, nothing is missing. Otherwise the application should reload its
    state: ``missed`` messages are gone, or an unknown number when it is None (the topic's history was lost).
    The topic of a user's own inbox is ``@`` and the user id.
    """

    topic: str
    recovered: bool
    missed: int | None = None


class Connected(msgspec.Struct, frozen=True):
    """A connection stands and is authenticated. ``reconnected`` is False the first time."""

    session_id: str
    user_id: str
    node_id: str
    expires_at: int | None
    reconnected: bool


class Disconnected(msgspec.Struct, frozen=True):
    """The connection is gone; the next attempt follows in ``retry_in`` seconds, or never when it is None."""

    code: int
    reason: str
    retry_in: float | None


class TokenExpiring(msgspec.Struct, frozen=True):
    """The token expires soon (seconds since 1970) and there is no token provider: call ``Client.refresh``."""

    expires_at: int | None


class Closing(msgspec.Struct, frozen=True):
    """The server is about to close this connection. The client reconnects by itself where ``reconnect`` says so."""

    code: int
    reason: str
    reconnect: bool
    after_ms: int


class Delivery(msgspec.Struct, frozen=True):
    """Who of the addressees has a live session now, and who will find the message in the inbox's history."""

    delivered: list[str]
    offline: list[str]


class HistoryMessage(msgspec.Struct, frozen=True):
    """One message of a topic's cache."""

    offset: int
    ts: int
    sender: str = msgspec.field(name="from")
    payload: Payload


class HistoryPage(msgspec.Struct, frozen=True):
    """A part of a topic's cache. ``position`` is where the topic stands now, not the end of the page."""

    topic: str
    position: Position
    messages: list[HistoryMessage]


class Member(msgspec.Struct, frozen=True):
    """One session on a topic. ``joined_at`` is in milliseconds since 1970, ``info`` what its token says of the user."""

    user_id: str
    session_id: str
    joined_at: int
    info: dict[str, Any] | None = None


class PresenceState(msgspec.Struct, frozen=True):
    """Who is on a topic."""

    topic: str
    count: int
    members: list[Member]


SubscriptionEvent: TypeAlias = Message | Join | Leave | Lagged | Recovered
InboxEvent: TypeAlias = DirectMessage | Lagged | Recovered
ConnectionEvent: TypeAlias = Connected | Disconnected | Recovered | TokenExpiring | Closing | Message
