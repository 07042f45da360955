"""`/health`, and its two short forms for load balancers and process managers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from realtime_communication import __version__
from realtime_communication.http.answers import RETRY_AFTER_SECS, json_response
from realtime_communication.http.services import SERVICES, Check
from realtime_communication.observability.logs import get_logger

_log = get_logger(__name__)


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
    check = services.config.monitoring.health_check
    parts: dict[str, dict[str, object]] = {}
    if check.check_dependencies:
        parts = await _ask_all(services.checks, check.timeout_secs)
    healthy = all(part["status"] == "ok" for part in parts.values())
    status: dict[str, object] = {"status": "draining" if services.draining else "ok" if healthy else "degraded"}
    if check.detailed:
        status |= {
            "version": __version__,
            "profile": services.profile,
            "node_id": services.node_id,
            "port": services.port,
            "metrics_port": services.metrics_port,
            "connections": services.hub.connection_count(),
            "uptime_secs": round(services.uptime_secs, 3),
            "workers": services.workers,
        }
        if check.check_dependencies:
            status["dependencies"] = parts
    return json_response(status)


async def _ask_all(
    checks: Mapping[str, Callable[[], Awaitable[Check]]], timeout_secs: float
) -> dict[str, dict[str, object]]:
    """Every part's answer; those that have not answered after `timeout_secs`, or that fail, are named as such."""
    tasks = {name: asyncio.ensure_future(_ask(name, check)) for name, check in checks.items()}
    if tasks:
        await asyncio.wait(tasks.values(), timeout=timeout_secs)
    parts: dict[str, dict[str, object]] = {}
    for name, task in tasks.items():
        if task.done():
            parts[name] = task.result()
        else:
            task.cancel()
            parts[name] = {"status": "timeout"}
    return parts


async def _ask(name: str, check: Callable[[], Awaitable[Check]]) -> dict[str, object]:
    try:
        found = await check()
    except Exception:
        _log.exception("a health check failed", part=name)
        return {"status": "failed"}
    return {"status": "ok" if found.ok else "degraded", **found.detail}


async def live(request: web.Request) -> web.Response:
    """200 whenever the loop turns."""
    return json_response({"status": "ok"})


async def ready(request: web.Request) -> web.Response:
    """200 while new connections are welcome, else 503."""
    if request.app[SERVICES].draining:
        return json_response({"status": "draining"}, 503, {"Retry-After": str(RETRY_AFTER_SECS)})
    return json_response({"status": "ok"})
