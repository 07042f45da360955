"""Where the truth about a topic's attendance goes."""

from realtime_communication._core.hub.attendance import Attendance

class Handover(Attendance): ...
