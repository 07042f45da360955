"""`/health`, and its two short forms for load balancers and process managers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import web

from realtime_communication import __version__
from realtime_communication.http.answers import RETRY_AFTER_SECS, json_response
from realtime_communication.http.services import SERVICES, Check, Services
from realtime_communication.observability.logs import get_logger
from realtime_communication.resilience.breaker import BreakerState, BreakerStatus

REDIS: Final = "redis"
"""Name of the check that `check_redis` switches off."""

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
    found = await _ask_all(services)
    breakers = services.breakers.statuses() if services.breakers is not None else []
    well = all(part.status == "ok" for part in found.values()) and not any(
        # One whose time is over waits for a call to try: that nobody calls says nothing bad.
        breaker.state is BreakerState.OPEN and breaker.retry_in_secs
        for breaker in breakers
    )
    status: dict[str, object] = {"status": "draining" if services.draining else "ok" if well else "degraded"}
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
            status["dependencies"] = {name: {"status": part.status, **part.detail} for name, part in found.items()}
        if services.breakers is not None:
            status["circuit_breakers"] = {breaker.name: shown_breaker(breaker) for breaker in breakers}
    return json_response(status)


class _Part(msgspec.Struct, frozen=True):
    """What a check found: `status` is ok, degraded, failed (it raised) or timeout."""

    status: str
    required: bool
    detail: dict[str, object] = {}


async def _ask_all(services: Services) -> dict[str, _Part]:
    """Every part's answer, at the latest after `timeout_secs`; nothing of those that are not to be asked."""
    check = services.config.monitoring.health_check
    if not check.check_dependencies:
        return {}
    tasks = {
        name: asyncio.ensure_future(_ask(services, name, ask))
        for name, ask in services.checks.items()
        if check.check_redis or name != REDIS
    }
    try:
        if tasks:
            await asyncio.wait(tasks.values(), timeout=check.timeout_secs)
        return {name: _answer(services, name, task) for name, task in tasks.items()}
    finally:  # the late ones, and all of them when the client has gone
        for task in tasks.values():
            task.cancel()


async def _ask(services: Services, name: str, check: Callable[[], Awaitable[Check]]) -> _Part:
    try:
        found = await check()
    except Exception:
        _log.exception("a health check failed", part=name)
        return _silent(services, name, "failed")
    (services.required.add if found.required else services.required.discard)(name)
    return _Part("ok" if found.ok else "degraded", found.required, found.detail)


def _answer(services: Services, name: str, task: asyncio.Future[_Part]) -> _Part:
    if not task.done():
        return _silent(services, name, "timeout")
    return _silent(services, name, "failed") if task.cancelled() else task.result()


def _silent(services: Services, name: str, status: str) -> _Part:
    """A part that cannot say itself whether it is required: what it said last counts; for Redis, the configuration."""
    return _Part(status, name in services.required or (name == REDIS and services.config.redis.required))


def shown_breaker(breaker: BreakerStatus) -> dict[str, object]:
    """A circuit breaker as JSON shows it."""
    shown: dict[str, object] = {
        "state": breaker.state.value,
        "failures": breaker.failures,
        "successes": breaker.successes,
        "rejected": breaker.rejected,
    }
    for name in ("opened_secs_ago", "retry_in_secs"):
        seconds = getattr(breaker, name)
        if seconds is not None:
            shown[name] = round(seconds, 3)
    return shown


async def live(request: web.Request) -> web.Response:
    """200 whenever the loop turns."""
    return json_response({"status": "ok"})


async def ready(request: web.Request) -> web.Response:
    """200 while new connections are welcome, else 503: when draining, and when a required part is not well."""
    services = request.app[SERVICES]
    retry = {"Retry-After": str(RETRY_AFTER_SECS)}
    if services.draining:
        return json_response({"status": "draining"}, 503, retry)
    missing = [name for name, part in (await _ask_all(services)).items() if part.required and part.status != "ok"]
    if missing:
        return json_response({"status": "unavailable", "dependencies": missing}, 503, retry)
    return json_response({"status": "ok"})
