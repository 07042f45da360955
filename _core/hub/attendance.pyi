"""Who is present on topics, over all workers and nodes."""

from realtime_communication._core.hub.watchers import Watchers

class Attendance(Watchers): ...
