"""Connections that move between the workers of a node."""

from realtime_communication._core.hub.upstream import Upstream

class Migration(Upstream):
    def give_sessions(self, slot: int, most: int) -> int: ...
