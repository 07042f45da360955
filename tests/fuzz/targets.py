"""Every fuzz target by name. Each takes any bytes and raises when what has to hold for them does not."""

from collections.abc import Callable

from fuzz import hub, wire

TARGETS: dict[str, Callable[[bytes], None]] = {**wire.TARGETS, **hub.TARGETS}
