"""The end of a worker: refuse, announce, drain, close, leave.

On SIGTERM the listeners close, every client is told to come back after a delay of its own (so that they do not all
reconnect elsewhere in the same second), what is queued for them is sent for at most `drain_timeout_secs`, then the
connections are closed with 1001 and have `shutdown_timeout_secs` to go. A second signal ends the waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from realtime_communication.observability.logs import get_logger

POLL_SECS: Final = 0.02
# The others of a cluster, or this server's successor, should take the clients back at about this rate: a TLS handshake
# takes a core about a millisecond, all the rest of a sign-on a tenth of one (benchmarks/README.md).
RECONNECTS_PER_SECOND: Final = 10_000
TLS_RECONNECTS_PER_SECOND: Final = 1000
MIN_SPREAD_MS: Final = 1000
MAX_SPREAD_MS: Final = 60_000

_log = get_logger(__name__)


class Farewell(msgspec.Struct, frozen=True):
    """What clients are told: the close code and a reason."""

    code: int
    reason: str


GOING_AWAY: Final = Farewell(1001, "server shutting down")
RESTARTING: Final = Farewell(1012, "worker restarting")
"""Another process takes the connections from now on, at the same address."""


class DrainingHub(Protocol):
    """The part of the compiled hub that a shutdown uses."""

    def connection_count(self) -> int: ...
    def begin_drain(self, spread_ms: int, reason: str, code: int) -> None: ...
    def close_all(self, code: int, reason: str) -> None: ...
    def closing_count(self) -> int: ...
    def queued(self) -> int: ...


async def shut_down(
    hub: DrainingHub,
    stop_accepting: Callable[[], None],
    *,
    drain_secs: float,
    close_secs: float,
    at_once: asyncio.Event,
    farewell: Farewell = GOING_AWAY,
    tls: bool = False,
) -> None:
    """Bring every connection to its end; `tls` says what they speak. `at_once` ends all waiting.

    Never raises but for cancellation.
    """
    stop_accepting()
    connections = hub.connection_count()
    _log.info("shutting down", connections=connections, queued=hub.queued(), drain_timeout_secs=drain_secs)
    hub.begin_drain(spread_ms(connections, tls=tls), farewell.reason, farewell.code)
    # One turn of the loop, so that what was just queued for the clients counts as queued.
    await asyncio.sleep(0)
    if not await until(lambda: hub.queued() == 0, drain_secs, at_once):
        _log.warning("not everything was delivered before the end", queued=hub.queued())
    hub.close_all(farewell.code, farewell.reason)
    if not await until(lambda: hub.closing_count() == 0, close_secs, at_once):
        _log.warning("clients that did not answer the close are cut off", connections=hub.closing_count())


def spread_ms(connections: int, *, tls: bool) -> int:
    """Over how many milliseconds so many clients should come back."""
    per_second = TLS_RECONNECTS_PER_SECOND if tls else RECONNECTS_PER_SECOND
    return min(MAX_SPREAD_MS, max(MIN_SPREAD_MS, connections * 1000 // per_second))


async def until(reached: Callable[[], bool], timeout: float, at_once: asyncio.Event) -> bool:
    """Wait until `reached`, for `timeout` seconds at most, or until `at_once`; whether it was reached."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while not reached():
        if at_once.is_set() or loop.time() >= deadline:
            return False
        await asyncio.sleep(POLL_SECS)
    return True
