"""What operators want of sessions that are on their way."""

from realtime_communication._core.hub.places import Places

class Orders(Places): ...
