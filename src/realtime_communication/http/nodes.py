"""The nodes of a cluster, for somebody who looks at one of them.

Nobody keeps a list of nodes. Who wants to know asks by a control event, and every worker of every node answers with one
for KEEP_SECS; so nodes say nothing while nobody looks. An answer is forgotten after FORGET_SECS, and a node of whose
workers none has answered is not shown any more. Nothing is said while Redis is away: events would wait in its place
that matter more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from realtime_communication.observability.logs import get_logger

ASK: Final = "nodes.ask"
TELL: Final = "nodes.tell"
ASK_SECS: Final = 2.0  # between two questions of this worker
TELL_SECS: Final = 1.0  # between two answers, however many ask
FORGET_SECS: Final = 8.0
MAX_WORKERS: Final = 4096  # of all other nodes

_log = get_logger(__name__)


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker tells of itself. Rates are of the time since it last told, None the first time."""

    node_id: str
    worker: int
    version: str
    draining: bool
    uptime_secs: float
    connections: int
    rss_bytes: int
    publications: float | None
    deliveries: float | None


class Events(Protocol):
    """The part of `broker.events.EventBus` that is used here."""

    def publish(self, kind: str, payload: Mapping[str, Any]) -> None: ...
    def subscribe(self, kind: str, handler: Callable[[Mapping[str, Any]], None]) -> None: ...


class Nodes:
    """See the head of this module.

    `own` gives what this worker tells, but for the rates, and its counters of publications and deliveries; `reachable`
    says whether events reach anybody.
    """

    def __init__(
        self,
        events: Events,
        own: Callable[[], tuple[Told, int, int]],
        reachable: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._events = events
        self._own = own
        self._reachable = reachable
        self._clock = clock
        self._asked_at = self._told_at = float("-inf")
        self._counted = (0, 0)
        self._told: dict[tuple[str, int], tuple[float, Told]] = {}
        events.subscribe(ASK, self._on_ask)
        events.subscribe(TELL, self._on_tell)

    def look(self) -> None:
        """Somebody looks: have the others tell of themselves. To be said again every second or so."""
        now = self._clock()
        if now - self._asked_at >= ASK_SECS and self._reachable():
            self._asked_at = now
            self._events.publish(ASK, {})

    def others(self, node_id: str) -> list[dict[str, Any]]:
        """The other nodes than `node_id` that have told of themselves of late, by name, their workers summed up."""
        now = self._clock()
        self._told = {key: entry for key, entry in self._told.items() if now - entry[0] <= FORGET_SECS}
        nodes: dict[str, list[Told]] = {}
        for _, told in self._told.values():
            if told.node_id != node_id:
                nodes.setdefault(told.node_id, []).append(told)
        return [_joined(name, rows) for name, rows in sorted(nodes.items())]

    def _on_ask(self, payload: Mapping[str, Any]) -> None:
        now = self._clock()
        since = now - self._told_at
        if since < TELL_SECS or not self._reachable():
            return
        told, *counted = self._own()
        rates = [max(0, new - old) / since for new, old in zip(counted, self._counted, strict=True)]
        if since <= FORGET_SECS:
            told = msgspec.structs.replace(told, publications=rates[0], deliveries=rates[1])
        self._told_at, self._counted = now, (counted[0], counted[1])
        self._events.publish(TELL, msgspec.to_builtins(told))

    def _on_tell(self, payload: Mapping[str, Any]) -> None:
        try:
            told = msgspec.convert(payload, Told)
        except msgspec.ValidationError as error:
            _log.debug("a node of another version tells what is not understood", reason=str(error))
            return
        key = (told.node_id, told.worker)
        if key in self._told or len(self._told) < MAX_WORKERS:
            self._told[key] = (self._clock(), told)


def _joined(node_id: str, rows: list[Told]) -> dict[str, Any]:
    return {
        "node_id": node_id,
        "here": False,
        "version": max(row.version for row in rows),
        "workers": len(rows),
        "draining": all(row.draining for row in rows),
        "uptime_secs": max(row.uptime_secs for row in rows),
        "connections": sum(row.connections for row in rows),
        "rss_bytes": sum(row.rss_bytes for row in rows),
        "publications": _sum([row.publications for row in rows]),
        "deliveries": _sum([row.deliveries for row in rows]),
    }


def _sum(rates: list[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return sum(known) if known else None
