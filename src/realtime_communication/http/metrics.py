"""How long HTTP requests take, by method, route and class of status."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from realtime_communication.http.services import BEGUN
from realtime_communication.observability.metrics import UNMATCHED, Metrics

CLIENT_GONE: Final = 499  # what nginx calls it: the client left before its answer was ready


def measuring(metrics: Metrics) -> Middleware:
    """The outermost middleware: it sees every answer as the peer gets it."""

    @web.middleware
    async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.perf_counter()
        status = 500
        try:
            response = await handler(request)
            status = response.status
            return response
        except web.HTTPException as answer:
            status = answer.status
            raise
        except asyncio.CancelledError:
            status = CLIENT_GONE
            raise
        finally:
            seconds = time.perf_counter() - started
            if BEGUN in request:  # a stream: how long it went on says nothing about this server
                seconds -= asyncio.get_running_loop().time() - request[BEGUN]
            metrics.observe_http(request.method, _route(request), status, max(0.0, seconds))

    return measure


def _route(request: web.Request) -> str:
    """The template of the route; aiohttp makes one up for requests that none matches."""
    route = request.match_info.route
    return route.resource.canonical if route.resource is not None else UNMATCHED
