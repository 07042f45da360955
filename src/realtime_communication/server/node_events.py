"""Control events among the workers of one node and, where there is Redis, to the other nodes as well.

A worker tells its siblings through the supervisor, which loses nothing, and the other nodes as `broker/events.py` says.
An event that comes from Redis is handled once by each worker: every one of them listens there, and what a sibling sent
is not taken from it again (`EventCodec.server`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from realtime_communication.broker.events import MAX_EVENT_BYTES, EventBus, Handler
from realtime_communication.errors import MisuseError
from realtime_communication.observability.logs import get_logger
from realtime_communication.server.control import ControlChannel

_log = get_logger(__name__)


class NodeEvents:
    """An EventBus. `others` reaches the other nodes; None when there are none."""

    def __init__(self, channel: ControlChannel, others: EventBus | None) -> None:
        self._channel = channel
        self._others = others
        self._handlers: dict[str, list[Handler]] = {}
        channel.on("event", self._on_event)

    def publish(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Tell the other workers and nodes. Never waits; raises MisuseError when it is too large or no JSON."""
        try:
            encoded = msgspec.json.encode(payload)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise MisuseError(f"the payload of an event {kind!r} cannot be JSON: {type(error).__name__}") from None
        if len(encoded) > MAX_EVENT_BYTES:
            raise MisuseError(f"an event {kind!r} takes {len(encoded)} bytes, more than {MAX_EVENT_BYTES}")
        self._channel.notify("broadcast", {"kind": kind, "payload": encoded})
        if self._others is not None:
            self._others.publish(kind, payload)

    def subscribe(self, kind: str, handler: Handler) -> None:
        """Have `handler` called with the payload of each event of this kind from another worker or node."""
        self._handlers.setdefault(kind, []).append(handler)
        if self._others is not None:
            self._others.subscribe(kind, handler)

    @property
    def dropped(self) -> int:
        """Events for other nodes that found no room to wait."""
        return getattr(self._others, "dropped", 0)

    @property
    def skipped(self) -> Mapping[Any, int]:
        """Events of other nodes that were not handled, by the reason."""
        found: Mapping[Any, int] = getattr(self._others, "skipped", {})
        return found

    def _on_event(self, params: dict[str, Any]) -> None:
        payload = msgspec.json.decode(params["payload"])
        for handler in self._handlers.get(params["kind"], ()):
            try:
                handler(payload)
            except Exception:
                _log.exception("an event of another worker could not be handled", kind=params["kind"])
