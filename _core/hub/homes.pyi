"""Which workers are homes of topics."""

from collections.abc import Iterable

from realtime_communication._core.hub.asked import Asked

class Homes(Asked):
    @property
    def holding(self) -> bool: ...
    def set_members(self, me: int, members: Iterable[int], version: int = 0) -> None: ...
