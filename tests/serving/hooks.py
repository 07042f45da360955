"""Functions for ``[[message_routing.transforms]]`` that behave badly in the server that imports them."""

import sys
import time


def fails(topic: str, payload: object) -> object:
    """Raises what names the payload."""
    raise RuntimeError(f"no use for {payload}")


def exits(topic: str, payload: object) -> object:
    """Wants the process to end."""
    sys.exit(3)


def recurses(topic: str, payload: object) -> object:
    """Calls itself without end."""
    return recurses(topic, payload)


def grows(topic: str, payload: object) -> object:
    """Makes more of the payload than a message may have."""
    return "x" * (1 << 21)


def unencodable(topic: str, payload: object) -> object:
    """Returns what is no JSON."""
    return object()


def endless(topic: str, payload: object) -> object:
    """Returns what contains itself."""
    made: list[object] = []
    made.append(made)
    return made


def out_of_memory(topic: str, payload: object) -> object:
    """Has no memory left."""
    raise MemoryError


def blocks(topic: str, payload: object) -> object:
    """Does nothing for so many seconds, and lets nobody else on the loop do anything."""
    time.sleep(float(str(payload)))
    return payload
