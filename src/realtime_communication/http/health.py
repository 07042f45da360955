"""`/health`, and its two short forms for load balancers and process managers."""

from __future__ import annotations

from aiohttp import web

from realtime_communication import __version__
from realtime_communication.http.answers import RETRY_AFTER_SECS, json_response
from realtime_communication.http.services import SERVICES


def add_routes(application: web.Application) -> None:
    """The endpoints, when `monitoring.health_check.enabled`."""
    check = application[SERVICES].config.monitoring.health_check
    if not check.enabled:
        return
    application.router.add_get(check.path, report)
    application.router.add_get(f"{check.path}/live", live)
    application.router.add_get(f"{check.path}/ready", ready)


async def report(request: web.Request) -> web.Response:
    """The state of the server. 200 as long as it serves, while draining too: `ready` is for load balancers."""
    services = request.app[SERVICES]
    status: dict[str, object] = {"status": "draining" if services.draining else "ok"}
    if services.config.monitoring.health_check.detailed:
        status |= {
            "version": __version__,
            "profile": services.profile,
            "node_id": services.node_id,
            "port": services.port,
            "connections": services.hub.connection_count(),
            "uptime_secs": round(services.uptime_secs, 3),
            "workers": services.workers,
        }
    return json_response(status)


async def live(request: web.Request) -> web.Response:
    """200 whenever the loop turns."""
    return json_response({"status": "ok"})


async def ready(request: web.Request) -> web.Response:
    """200 while new connections are welcome, else 503."""
    if request.app[SERVICES].draining:
        return json_response({"status": "draining"}, 503, {"Retry-After": str(RETRY_AFTER_SECS)})
    return json_response({"status": "ok"})
