"""What one worker answers for itself when all workers are asked; see `fleet.py`.

Whoever asks has checked the parameters: questions come from endpoints of this server only. Each list has a bound.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from realtime_communication._core.hub.hub import RequestError
from realtime_communication.auth.revocation import Revocation
from realtime_communication.http.fleet import Answer
from realtime_communication.http.health import ask_all, shown_breaker
from realtime_communication.http.services import Services
from realtime_communication.observability.process import resident_bytes

MAX_LOOKED_AT: Final = 10_000  # rows; nothing else is served while they are gathered, some 5 µs each

_UNLISTED: Final = ("@", "$", "*")  # begin inboxes, system topics, and what goes to every connection


def answers_of(services: Services) -> dict[str, Answer]:
    """The questions this worker answers, by method."""
    answers = WorkerAnswers(services)
    return {
        "connection": answers.connection,
        "connections": answers.connections,
        "disconnect": answers.disconnect,
        "drain": answers.drain,
        "health": answers.health,
        "memory": answers.memory,
        "metrics": answers.metrics,
        "overview": answers.overview,
        "revoke": answers.revoke,
        "stats": answers.stats,
        "subscribe": answers.subscribe,
        "tasks": answers.tasks,
        "topics": answers.topics,
        "unsubscribe": answers.unsubscribe,
    }


class WorkerAnswers:
    """The answers, from the parts in `services`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def connections(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """{user_id, limit} → {count, rows, complete}: newest first; `count` is of all there are, or of the user's."""
        hub, user_id, limit = self._services.hub, params.get("user_id"), int(params["limit"])
        if user_id is None:
            count, rows = hub.connection_count(), hub.connections(limit)
        else:
            count, rows = hub.connections_of(user_id, limit)
        return {"count": count, "rows": rows, "complete": len(rows) < limit or count <= limit}

    def connection(self, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """{session_id, limit} → the connection with so many of its topics; None where it is not here."""
        return self._services.hub.connection(params["session_id"], int(params["limit"]))

    def topics(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """{patterns, limit} → {rows, complete}: the topics that match, inboxes and system topics left out."""
        limit = int(params["limit"])
        looked_at = self._services.hub.topics(MAX_LOOKED_AT)
        found = [row for row in looked_at if may_see(params.get("patterns"), row["topic"])]
        return {"rows": found[:limit], "complete": len(found) <= limit and len(looked_at) < MAX_LOOKED_AT}

    def subscribe(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """{user_id, topic, order} → {count}; or {refused: [code, message]}. `order` is new each time, not 0."""
        return _unless_refused(lambda: {"count": self._services.hub.subscribe_user(**params)})

    def unsubscribe(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """As `subscribe`."""
        return _unless_refused(lambda: {"count": self._services.hub.unsubscribe_user(**params)})

    def disconnect(self, params: Mapping[str, Any]) -> int:
        """{user_id, session_id, reason} → how many were closed. `session_id` names a connection or a login."""
        hub, session_id, reason = self._services.hub, params.get("session_id"), params["reason"]
        closed = hub.disconnect(user_id=params.get("user_id"), session_id=session_id, reason=reason)
        return closed if session_id is None else closed + hub.disconnect(login=session_id, reason=reason)

    def drain(self, params: Mapping[str, Any]) -> int | None:
        """{worker, workers} → how many connections are told to go; None where another worker is meant."""
        services, worker = self._services, params.get("worker")
        if services.drain is None or worker not in (None, services.slot):
            return None
        return services.drain(max(1, int(params["workers"])))

    async def health(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """{timeout_secs} → {connections, draining, dependencies, circuit_breakers}, within that time."""
        services = self._services
        parts = await ask_all(services, float(params["timeout_secs"]))
        breakers = services.breakers.statuses() if services.breakers is not None else []
        return {
            "connections": services.hub.connection_count(),
            "draining": services.draining,
            "uptime_secs": services.uptime_secs,
            "dependencies": {
                name: {"status": part.status, "required": part.required, "detail": part.detail}
                for name, part in parts.items()
            },
            "circuit_breakers": {breaker.name: shown_breaker(breaker) for breaker in breakers},
        }

    def metrics(self, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """{} → this worker's metrics, as `Metrics.packed`; None while they are off."""
        metrics = self._services.metrics
        return metrics.packed() if metrics is not None else None

    def revoke(self, params: Mapping[str, Any]) -> int:
        """A Revocation → how many connections here it has closed, whichever way this worker heard of it first."""
        revocations = self._services.revocations
        if revocations is None:
            return 0
        revocation = msgspec.convert(params, Revocation)
        told = revocations.take_closed(revocation)
        return revocations.apply(revocation) if told is None else told

    def stats(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """{} → what this worker has done and holds."""
        services = self._services
        breakers = services.breakers.statuses() if services.breakers is not None else []
        return {
            "draining": services.draining,
            "uptime_secs": round(services.uptime_secs, 3),
            "connections": services.hub.connection_count(),
            "rss_bytes": resident_bytes(),
            "hub": services.hub.stats(),
            "circuit_breakers": {breaker.name: shown_breaker(breaker) for breaker in breakers},
        }

    async def overview(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """{rows, timeout_secs} → `stats` and `health`, and what somebody who watches wants; lists of so many rows.

        From now on, and as long as this is asked every few seconds, publications are timed and other nodes are asked.
        """
        services, rows = self._services, int(params["rows"])
        hub, window, nodes = services.hub, services.window, services.nodes
        seen: dict[str, Any] = {"latency": [], "topics": []}
        if window is not None:
            window.look()
            seen = window.read()
        if nodes is not None:
            nodes.look()
        depths, slowest = hub.mailboxes(rows)
        topics = {topic: (topic, subscribers, offset) for topic, subscribers, offset in hub.topic_counts(rows)}
        for name in seen["topics"]:
            row = hub.topic(name) if name not in topics else None
            if row is not None:
                topics[name] = (name, row["subscribers"], row["offset"])
        return {
            **self.stats({}),
            "dependencies": (await self.health(params))["dependencies"],
            "cpu_secs": round(time.process_time(), 3),
            "queued": hub.queued(),
            "depths": depths,
            "slowest": slowest,
            "latency": seen["latency"],
            "topics": [row for row in topics.values() if may_see(None, row[0])],
            "nodes": nodes.others(services.node_id) if nodes is not None else [],
            "troubles": services.troubles.newest(rows) if services.troubles is not None else [],
        }

    def tasks(self, params: Mapping[str, Any]) -> list[dict[str, str]]:
        """{limit} → the asyncio tasks and the line each waits in."""
        rows = []
        for task in list(asyncio.all_tasks())[: int(params["limit"])]:
            stack = task.get_stack(limit=1)
            where = f"{stack[-1].f_code.co_qualname}:{stack[-1].f_lineno}" if stack else ""
            rows.append({"name": task.get_name(), "where": where})
        return rows

    def memory(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """{} → resident memory in bytes, the collector's counts, the hub's counters."""
        return {
            "rss_bytes": resident_bytes(),
            "gc_counts": gc.get_count(),
            "gc_frozen": gc.get_freeze_count(),
            "hub": self._services.hub.stats(),
        }


def _unless_refused(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return ask()
    except RequestError as error:
        return {"refused": [error.code, error.message]}


def may_see(patterns: Sequence[str] | None, topic: str) -> bool:
    """Whether whoever may subscribe to `patterns` (None: to all) may be told that `topic` exists."""
    return not topic.startswith(_UNLISTED) and matches(patterns, topic)


def matches(patterns: Sequence[str] | None, topic: str) -> bool:
    """Whether one of `patterns` allows `topic`: `room:*` is a prefix, others are whole names; None allows all."""
    return patterns is None or any(
        topic.startswith(pattern[:-1]) if pattern.endswith("*") else topic == pattern for pattern in patterns
    )
