"""How far sessions that move have come in their topics."""

from realtime_communication._core.hub.beliefs import Beliefs

class Places(Beliefs): ...
