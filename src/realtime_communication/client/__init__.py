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

_MODULES = {
    "backoff": ("Backoff",),
    "client": ("Client",),
    "connecting": ("connect",),
    "credentials": ("TokenProvider",),
    "delivery": ("Callback",),
    "errors": (
        "AuthenticationFailed",
        "ClientClosed",
        "ClientError",
        "ConnectionLost",
        "HandshakeRejected",
        "PayloadMismatch",
        "ProtocolViolation",
        "RequestError",
        "RequestTimeout",
    ),
    "events": (
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
    ),
    "subscription": ("Subscription",),
    "typed": (
        "TypedMessage",
        "TypedPage",
        "TypedSubscription",
        "TypedTopic",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
