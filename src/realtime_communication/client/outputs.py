"""What the protocol hands to whoever drives it: answers, events with their addressee, and things that fall due."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from realtime_communication.client import events
from realtime_communication.client.encoding import ServerEnvelope
from realtime_communication.client.errors import ClientError, RequestError

__all__ = [
    "ConnectionOutput",
    "Emit",
    "InboxOutput",
    "Output",
    "RefreshDue",
    "RequestAnswered",
    "RequestFailed",
    "SubscriptionEnded",
    "TopicOutput",
]


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
    """The server says that the token, which ends at ``expires_at`` seconds since 1970, is to be replaced."""

    expires_at: int | None


Output: TypeAlias = (
    RequestAnswered | RequestFailed | TopicOutput | InboxOutput | ConnectionOutput | SubscriptionEnded | RefreshDue
)
Emit: TypeAlias = Callable[[Output], None]
