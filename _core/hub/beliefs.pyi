"""What sessions that watch believe."""

from realtime_communication._core.hub.questions import Questions

class Beliefs(Questions): ...
