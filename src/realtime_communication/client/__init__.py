"""The Python client: ``connect`` and the values and errors it speaks in."""

from realtime_communication.client.backoff import Backoff
from realtime_communication.client.client import Client
from realtime_communication.client.connecting import connect
from realtime_communication.client.credentials import TokenProvider
from realtime_communication.client.delivery import Callback
from realtime_communication.client.errors import (
    AuthenticationFailed,
    ClientClosed,
    ClientError,
    ConnectionLost,
    HandshakeRejected,
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
    DirectMessage,
    Disconnected,
    HistoryMessage,
    HistoryPage,
    InboxEvent,
    Join,
    Lagged,
    Leave,
    Member,
    Message,
    Payload,
    Position,
    PresenceState,
    Recovered,
    SubscriptionEvent,
    TokenExpiring,
)
from realtime_communication.client.subscription import Subscription
from realtime_communication.client.typed import TypedMessage, TypedPage, TypedSubscription, TypedTopic

__all__ = [
    "AuthenticationFailed",
    "Backoff",
    "Callback",
    "Client",
    "ClientClosed",
    "ClientError",
    "Closing",
    "Connected",
    "ConnectionEvent",
    "ConnectionLost",
    "Delivery",
    "DirectMessage",
    "Disconnected",
    "HandshakeRejected",
    "HistoryMessage",
    "HistoryPage",
    "InboxEvent",
    "Join",
    "Lagged",
    "Leave",
    "Member",
    "Message",
    "Payload",
    "PayloadMismatch",
    "Position",
    "PresenceState",
    "ProtocolViolation",
    "Recovered",
    "RequestError",
    "RequestTimeout",
    "Subscription",
    "SubscriptionEvent",
    "TokenExpiring",
    "TokenProvider",
    "TypedMessage",
    "TypedPage",
    "TypedSubscription",
    "TypedTopic",
    "connect",
]
