"""What may stand in `[[monitoring.custom_metrics]]`: names, types and labels.

Data only. It stands here because the configuration is checked against it; what the numbers are is known further up.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

import msgspec

MetricType = Literal["counter", "gauge", "histogram"]

MAX_TOPICS: Final = 100
"""So many topics have a label of their own: those with the most subscribers."""

MAX_LABEL_BYTES: Final = 128
"""Longer values of labels are cut."""

OTHER: Final = "other"
"""The label of everything that has none of its own."""

INBOXES: Final = "@*"
"""The label of all inboxes together, which are named after users. No topic of a client begins with @."""


class CustomMetricSpec(msgspec.Struct, frozen=True):
    """A metric that is served when the configuration asks for it. `labels` are those that may be asked for."""

    name: str
    type: MetricType
    help: str
    labels: tuple[str, ...] = ()


_SPECS: Final = (
    CustomMetricSpec(
        "message_latency",
        "histogram",
        "Seconds from the receipt of a publication to the end of the writes to its subscribers",
        ("message_type", "topic"),
    ),
    CustomMetricSpec("active_subscriptions", "gauge", "Subscriptions of clients, inboxes not counted", ("topic",)),
    CustomMetricSpec("topic_messages", "gauge", "Messages a topic has had: the newest offset", ("topic",)),
    CustomMetricSpec("published_messages", "counter", "Messages that got an offset", ("topic",)),
    CustomMetricSpec("connected_users", "gauge", "Users with a connection, or gone a moment ago"),
    CustomMetricSpec("presence_members", "gauge", "Users present on a topic, summed over the topics"),
    CustomMetricSpec("open_sessions", "gauge", "Sockets of clients, those that are not authenticated yet included"),
    CustomMetricSpec("slow_consumers", "counter", "Connections closed because they did not read what they were sent"),
    CustomMetricSpec("rejected_requests", "counter", "Requests of clients that were not carried out", ("reason",)),
    CustomMetricSpec("undelivered_messages", "counter", "Deliveries that were left out or put off", ("reason",)),
    CustomMetricSpec("cached_bytes", "gauge", "Bytes in the message cache"),
    CustomMetricSpec("memory_arenas", "gauge", "Blocks of memory for outgoing messages", ("state",)),
    CustomMetricSpec("pending_timers", "gauge", "Timers that are set, such as those of heartbeats"),
    CustomMetricSpec("idempotency_keys", "gauge", "Idempotency keys that are remembered"),
)

CUSTOM_METRICS: Final[Mapping[str, CustomMetricSpec]] = MappingProxyType({spec.name: spec for spec in _SPECS})
