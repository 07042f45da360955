"""Who is told of Joins and Leaves."""

from realtime_communication._core.hub.upstream import Upstream

class Watchers(Upstream):
    def tell_presence(self, topic: bytes, leave: bool, user: bytes, session_id: bytes, info: bytes) -> None: ...
