"""What the data plane notes for others, on its way to the webhooks: connections, and topics that come into use."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping
from typing import Any, Final

from realtime_communication._core.hub.hub import Hub
from realtime_communication.config.schema import Config
from realtime_communication.resilience.event_webhooks import EventWebhooks
from realtime_communication.resilience.webhooks import key_of

_MEMBERS: Final = {
    "connect": ("user_id", "session_id", "transport"),
    "disconnect": ("user_id", "session_id", "transport", "duration_ms"),
    "topic_occupied": ("topic",),
    "topic_vacated": ("topic",),
}
"""What stands behind kind and time in a notice of the hub, by kind."""


class EventFeed:
    """Takes what `hub` notes to `webhooks`, as `configure` says."""

    def __init__(self, hub: Hub, webhooks: EventWebhooks) -> None:
        self._hub = hub
        self._webhooks = webhooks

    def configure(self, config: Config) -> None:
        """Let the hub note what the configuration asks for, and nothing else."""
        settings = config.webhooks
        self._webhooks.configure(settings, key_of(settings.secret, config.auth.jwt_secret))
        self._hub.notice(settings.events if settings.url else (), self._wake if settings.url else None)

    def take(self) -> None:
        """Take what there is."""
        notices, lost = self._hub.take_notices()
        self._webhooks.post(map(event_of, notices), lost)

    async def drain(self, seconds: float) -> None:
        """Send what there is, for up to so many seconds: the last thing a worker does."""
        self.take()
        await self._webhooks.drain(seconds)

    def _wake(self) -> None:
        asyncio.get_running_loop().call_soon(self.take)


def event_of(notice: tuple[Any, ...]) -> Mapping[str, object]:
    """A notice as it is sent; see `docs/webhooks.md`. `at` is RFC 3339, in UTC."""
    kind, at_ms, *values = notice
    at = datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC)
    members = dict(zip(_MEMBERS[kind], values, strict=True))
    return {"event": kind, "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"), **members}
