"""Looking inside a running server: `/debug/*`, only with `development.enable_debug_endpoints`.

`/debug/echo` is a WebSocket and belongs to the reactor.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Final

from aiohttp import web

from realtime_communication.http.answers import json_response
from realtime_communication.http.services import SERVICES
from realtime_communication.observability.process import resident_bytes

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
    """Every asyncio task and the line it waits in."""
    rows = []
    for task in list(asyncio.all_tasks())[: _limit(request)]:
        stack = task.get_stack(limit=1)
        where = f"{stack[-1].f_code.co_qualname}:{stack[-1].f_lineno}" if stack else ""
        rows.append({"name": task.get_name(), "where": where})
    return json_response({"tasks": rows})


async def connections(request: web.Request) -> web.Response:
    """The sessions of this worker."""
    hub = request.app[SERVICES].hub
    return json_response({"count": hub.connection_count(), "connections": hub.connections(_limit(request))})


async def routes(request: web.Request) -> web.Response:
    """Every path this server answers."""
    rows = sorted(
        {(route.method, route.resource.canonical) for route in request.app.router.routes() if route.resource}
        | {("GET", "/ws"), ("GET", "/debug/echo")}
    )
    return json_response({"routes": [{"method": method, "path": path} for method, path in rows]})


async def memory(request: web.Request) -> web.Response:
    """Resident memory in bytes, the collector's counts, and the hub's own counters."""
    return json_response(
        {
            "rss_bytes": resident_bytes(),
            "gc_counts": gc.get_count(),
            "gc_frozen": gc.get_freeze_count(),
            "hub": request.app[SERVICES].hub.stats(),
        }
    )


def _limit(request: web.Request) -> int:
    given = request.query.get("limit", str(MAX_ROWS))
    if not given.isascii() or not given.isdigit() or len(given) > 4 or not 1 <= int(given) <= MAX_ROWS:
        raise web.HTTPBadRequest
    return int(given)
