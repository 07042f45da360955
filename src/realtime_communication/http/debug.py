"""Looking inside a running server: `/debug/*`, only with `development.enable_debug_endpoints`.

`/debug/echo` is a WebSocket and belongs to the reactor.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from realtime_communication.http.answers import json_response
from realtime_communication.http.directory import merged_connections
from realtime_communication.http.services import FLEET, SERVICES

MAX_ROWS: Final = 1000


def add_routes(application: web.Application) -> None:
    """The endpoints, when the configuration asks for them."""
    if not application[SERVICES].config.development.enable_debug_endpoints:
        return
    application.router.add_get("/debug/", index)
    application.router.add_get("/debug/tasks", tasks)
    application.router.add_get("/debug/connections", connections)
    application.router.add_get("/debug/routes", routes)
    application.router.add_get("/debug/memory", memory)


async def index(request: web.Request) -> web.Response:
    """What there is to look at."""
    resources = (resource.canonical for resource in request.app.router.resources())
    return json_response(
        {"endpoints": sorted({"/debug/echo", *(path for path in resources if path.startswith("/debug/"))})}
    )


async def tasks(request: web.Request) -> web.Response:
    """Every asyncio task and the line it waits in; with several workers each names its own."""
    found = await request.app[FLEET].gather("tasks", {"limit": _limit(request)})
    rows = [
        row | ({"worker": slot} if found.several else {}) for slot, answer in found.answers.items() for row in answer
    ]
    return json_response(found.told({"tasks": rows}))


async def connections(request: web.Request) -> web.Response:
    """The sessions of all workers."""
    limit = _limit(request)
    found = await request.app[FLEET].gather("connections", {"user_id": None, "limit": limit})
    merged = merged_connections(found, limit)
    return json_response(found.told({"count": merged["count"], "connections": merged["connections"]}))


async def routes(request: web.Request) -> web.Response:
    """Every path this server answers."""
    rows = sorted(
        {(route.method, route.resource.canonical) for route in request.app.router.routes() if route.resource}
        | {("GET", "/ws"), ("GET", "/debug/echo")}
    )
    return json_response({"routes": [{"method": method, "path": path} for method, path in rows]})


async def memory(request: web.Request) -> web.Response:
    """Resident memory in bytes, the collector's counts, and the hub's own counters; several workers one by one."""
    found = await request.app[FLEET].gather("memory")
    if not found.several:
        return json_response(found.answers[0])
    resident = sum(answer["rss_bytes"] for answer in found.answers.values())
    shown = {str(slot): answer for slot, answer in found.answers.items()}
    return json_response(found.told({"rss_bytes": resident, "per_worker": shown}))


def _limit(request: web.Request) -> int:
    given = request.query.get("limit", str(MAX_ROWS))
    if not given.isascii() or not given.isdigit() or len(given) > 4 or not 1 <= int(given) <= MAX_ROWS:
        raise web.HTTPBadRequest
    return int(given)
