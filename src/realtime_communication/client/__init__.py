"""The Python client: ``connect`` and the values and errors it speaks in.

A name is loaded when it is first used: the blocking client of ``client.http`` needs neither asyncio nor WebSockets.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
        QueueFull,
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
    "QueueFull",
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

_MODULES = ("errors", "events", "backoff", "credentials", "delivery", "subscription", "typed", "client", "connecting")
"""Where the names are, those first that load the least."""


def __getattr__(name: str) -> Any:
    if name in __all__:
        for part in _MODULES:
            module = importlib.import_module(f"{__name__}.{part}")
            if name in module.__all__:
                found = globals()[name] = getattr(module, name)
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
