"""From bytes to requests."""

from realtime_communication._core.hub.migration import Migration

class Dispatch(Migration): ...
