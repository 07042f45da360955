"""The whole server at a glance, for administrators: `/admin/overview`, and the same every second from `/admin/events`.

It is not published on a topic: to clients, topics that begin with `$` are forbidden without exception. So it is a
stream of Server-Sent Events of its own, whose credentials come in a header, and are looked at again while it goes on.

What all workers tell is gathered once a second at most, however many watch, and only while somebody does: the answers
also have publications timed and the other nodes tell of themselves (`worker_answers.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from aiohttp import hdrs, web

from realtime_communication import __version__
from realtime_communication.errors import RequestRefused
from realtime_communication.http.admin import merged_stats, require_admin
from realtime_communication.http.answers import FieldError, json_response
from realtime_communication.http.directory import MAX_SESSION_ID_BYTES
from realtime_communication.http.fields import name_in, query_of
from realtime_communication.http.fleet import Gathered
from realtime_communication.http.health import merged_dependencies
from realtime_communication.http.services import BEGUN, FLEET, SERVICES, Services
from realtime_communication.observability.publication_window import percentiles, summed

INTERVAL_SECS: Final = 1.0
FRESH_SECS: Final = 0.8  # so long an overview is good for others who ask
CHECK_SECS: Final = 5.0  # then the credentials of a stream are looked at again
SEND_SECS: Final = 10.0  # for a peer to take an event
GATHER_SECS: Final = 1.5  # for the workers to answer
PARTS_SECS: Final = 1.0  # for the parts of a worker to say how they are
ROWS: Final = 50  # of each list
MAX_TOPICS_SHOWN: Final = 1000  # of one connection
MAX_WATCHERS: Final = 32  # streams of one worker

_HEADERS: Final = {
    hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
    hdrs.CACHE_CONTROL: "no-store",
    "X-Accel-Buffering": "no",  # nginx would hold events back
}


def add_routes(application: web.Application) -> None:
    """The endpoints of this module."""
    application[_WATCH] = Watch(application)
    application.router.add_get("/admin/overview", overview)
    application.router.add_get("/admin/events", events)
    application.router.add_get("/admin/connections/{session_id}", connection)


async def overview(request: web.Request) -> web.Response:
    """What the dashboard shows, of this second."""
    await require_admin(request)
    query_of(request, ())
    return json_response(await request.app[_WATCH].latest())


async def events(request: web.Request) -> web.StreamResponse:
    """An event stream: `overview` every second; `refused`, with {code, message}, when the credentials are good no more,
    or cannot be checked, and then the end."""
    await require_admin(request)
    query_of(request, ())
    if request.method == hdrs.METH_HEAD:
        return web.Response(headers=_HEADERS)
    watch = request.app[_WATCH]
    if watch.watchers >= MAX_WATCHERS:
        raise RequestRefused("unavailable", f"{MAX_WATCHERS} watch this worker already, which is the most")
    watch.watchers += 1
    try:
        return await _stream(request, watch)
    finally:
        watch.watchers -= 1


async def connection(request: web.Request) -> web.Response:
    """→ the connection, with what it may and its topics. 404 when there is none of that id."""
    await require_admin(request)
    query_of(request, ())
    try:
        session_id = name_in(request.match_info, "session_id", MAX_SESSION_ID_BYTES)
    except FieldError as error:
        error.status = 400
        raise
    found = await request.app[FLEET].gather("connection", {"session_id": session_id, "limit": MAX_TOPICS_SHOWN})
    for slot, answer in found.answers.items():
        if answer is not None:
            return json_response(answer | ({"worker": slot} if found.several else {}))
    if found.missing:
        raise RequestRefused("unavailable", "not every worker has answered, and none of the others has this connection")
    raise web.HTTPNotFound


async def _stream(request: web.Request, watch: Watch) -> web.StreamResponse:
    loop = asyncio.get_running_loop()
    response = web.StreamResponse(headers=_HEADERS)
    await response.prepare(request)
    request[BEGUN] = checked = loop.time()
    try:
        while request.transport is not None:
            began = loop.time()
            if began - checked >= CHECK_SECS:
                await require_admin(request)
                checked = began
            await _send(response, "overview", await watch.latest())
            await asyncio.sleep(max(0.0, began + INTERVAL_SECS - loop.time()))
    except RequestRefused as error:
        await _send(response, "refused", {"code": error.code, "message": str(error)})
    except (ConnectionError, TimeoutError):
        response.force_close()
        if request.transport is not None:
            request.transport.abort()
    return response


async def _send(response: web.StreamResponse, name: str, value: Mapping[str, Any]) -> None:
    async with asyncio.timeout(SEND_SECS):
        await response.write(b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(value)))


class Watch:
    """Makes overviews for all who watch. `watchers` counts the streams."""

    def __init__(self, application: web.Application) -> None:
        self._application = application
        self._lock = asyncio.Lock()
        self._made_at = float("-inf")
        self._made: dict[str, Any] = {}
        self.watchers = 0

    async def latest(self) -> dict[str, Any]:
        """An overview of this moment, or of at most FRESH_SECS ago."""
        async with self._lock:
            now = time.monotonic()
            if now - self._made_at >= FRESH_SECS:
                self._made = await self._make()
                self._made_at = now
            return self._made

    async def _make(self) -> dict[str, Any]:
        fleet, services = self._application[FLEET], self._application[SERVICES]
        asked = {"rows": ROWS, "timeout_secs": PARTS_SECS}
        found, troubles = await asyncio.gather(
            fleet.gather("overview", asked, timeout_secs=GATHER_SECS), fleet.supervisor_troubles(ROWS)
        )
        made: dict[str, Any] = found.told(merged_overview(found, services, troubles))
        return made


_WATCH: web.AppKey[Watch] = web.AppKey("watch", Watch)


def merged_overview(found: Gathered, services: Services, troubles: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """One overview of what the workers answered, and of the supervisor's `troubles`."""
    rows = found.answers
    merged = merged_stats(found)
    merged.pop("per_worker", None)
    dependencies = merged_dependencies(found)
    latency = summed([row["latency"] for row in rows.values() if row["latency"]])
    return {
        "at": int(services.clock() * 1000),
        "node_id": services.node_id,
        "profile": services.profile,
        "version": __version__,
        "status": _status(found, merged, dependencies),
        **merged,
        "max_connections": services.config.websocket.max_connections,
        "cpu_secs": round(sum(row["cpu_secs"] for row in rows.values()), 3),
        "dependencies": dependencies,
        "queued": sum(row["queued"] for row in rows.values()),
        "latency": {"samples": sum(latency), **percentiles(latency)},
        "depths": _depths([row["depths"] for row in rows.values()]),
        "slowest": _slowest(found),
        "topics": _topics([row["topics"] for row in rows.values()]),
        "per_worker": [_worker(slot, row) for slot, row in rows.items()],
        "nodes": _nodes(found, services, merged),
        "troubles": _troubles([*(row["troubles"] for row in rows.values()), troubles]),
    }


def _status(found: Gathered, merged: Mapping[str, Any], dependencies: Mapping[str, Any]) -> str:
    if merged["draining"]:
        return "draining"
    well = not found.missing and all(part["status"] == "ok" for part in dependencies.values())
    opened = any(breaker["state"] == "open" for breaker in merged["circuit_breakers"].values())
    return "ok" if well and not opened else "degraded"


def _depths(rows: Sequence[Sequence[int]]) -> list[dict[str, int]]:
    """Connections by how much waits for each: at least `from`, and less than the next row's."""
    sums = [sum(column) for column in zip(*rows, strict=True)] if rows else []
    return [{"from": 0 if step == 0 else 1 << (step - 1), "connections": count} for step, count in enumerate(sums)]


def _slowest(found: Gathered) -> list[dict[str, Any]]:
    several = found.several
    rows = [
        row | ({"worker": slot} if several else {})
        for slot, answer in found.answers.items()
        for row in answer["slowest"]
    ]
    rows.sort(key=lambda row: -(row["queued"] + row["replies_queued"]))
    return rows[:ROWS]


def _topics(lists: Sequence[Sequence[Sequence[Any]]]) -> list[dict[str, Any]]:
    """The topics with most subscribers and those that are published on most, with the newest offset anybody knows."""
    known: dict[str, dict[str, Any]] = {}
    for topic, subscribers, offset in (row for rows in lists for row in rows):
        row = known.setdefault(topic, {"topic": topic, "subscribers": 0, "offset": 0})
        row["subscribers"] += subscribers
        row["offset"] = max(row["offset"], offset)
    return sorted(known.values(), key=lambda row: (-row["subscribers"], row["topic"]))[: 2 * ROWS]


def _worker(slot: int, row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("draining", "uptime_secs", "connections", "rss_bytes", "cpu_secs")
    counted = {name: row["hub"].get(name, 0) for name in ("publications", "deliveries", "requests")}
    return {"worker": slot, **{name: row[name] for name in names}, **counted, "queued": row["queued"]}


def _nodes(found: Gathered, services: Services, merged: Mapping[str, Any]) -> list[dict[str, Any]]:
    """This node first, its rates left to whoever compares two overviews, and then the others, by name."""
    others = {node["node_id"]: node for answer in found.answers.values() for node in answer["nodes"]}
    own = {
        "node_id": services.node_id,
        "here": True,
        "version": __version__,
        "workers": services.workers,
        "publications": None,
        "deliveries": None,
        **{name: merged[name] for name in ("draining", "uptime_secs", "connections", "rss_bytes")},
    }
    return [own, *(others[name] for name in sorted(others))]


def _troubles(lists: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The newest of all processes, newest first."""
    rows = [dict(row) for rows in lists for row in rows]
    rows.sort(key=lambda row: -int(row["at"]))
    return rows[:ROWS]
