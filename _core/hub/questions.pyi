"""Who asks about a topic, and not to be subscribed to it."""

from collections.abc import Sequence
from typing import Any

from realtime_communication._core.hub.notices import Notices
from realtime_communication._core.hub.relay import Later

class Questions(Notices):
    def presence_request(self, topic: str) -> dict[str, Any] | Later: ...
    def history_request(
        self, topic: str, epoch: str | None = None, offset: int = 0, limit: int = 100, reverse: bool = False
    ) -> dict[str, Any] | Later: ...
    def presence_state(self, token: int, members: Sequence[tuple[bytes, bytes, int, bytes]]) -> None: ...
