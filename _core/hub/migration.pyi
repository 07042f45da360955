"""Connections that move between the workers of a node."""

from realtime_communication._core.hub.questions import Questions

class Migration(Questions):
    def give_sessions(self, slot: int, most: int) -> int: ...
