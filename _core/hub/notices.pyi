from collections.abc import Callable, Collection
from typing import Any

from realtime_communication._core.hub.handover import Handover

NOTICES: dict[str, int]

class Notices(Handover):
    def notice(self, events: Collection[str], wake: Callable[[], None] | None) -> None: ...
    def take_notices(self) -> tuple[list[tuple[Any, ...]], int]: ...
