"""Who is present on topics, over all workers and nodes."""

from realtime_communication._core.hub.upstream import Upstream

class Attendance(Upstream):
    def tell_presence(self, topic: bytes, leave: bool, user: bytes, session_id: bytes, info: bytes) -> None: ...
