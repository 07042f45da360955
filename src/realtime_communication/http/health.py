"""`/health`, and its two short forms for load balancers and process managers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from aiohttp import web

from realtime_communication import __version__
from realtime_communication.http.answers import RETRY_AFTER_SECS, json_response
from realtime_communication.http.fleet import Gathered
from realtime_communication.http.services import FLEET, SERVICES, Check, Services
from realtime_communication.observability.logs import get_logger
from realtime_communication.resilience.breaker import BreakerStatus

REDIS: Final = "redis"
"""Name of the check that `check_redis` switches off."""

_SEVERITY: Final = {"ok": 0, "degraded": 1, "timeout": 2, "failed": 3}
_OPENNESS: Final = {"closed": 0, "half_open": 1, "open": 2}
_WORKERS_SHARE: Final = 0.8  # of the time for an answer: the rest is for gathering it

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
    found = await _ask_workers(request)
    dependencies = merged_dependencies(found)
    breakers = merged_breakers([answer["circuit_breakers"] for answer in found.answers.values()])
    well = (
        not found.missing
        and all(part["status"] == "ok" for part in dependencies.values())
        # One whose time is over waits for a call to try: that nobody calls says nothing bad.
        and not any(each["state"] == "open" and each.get("retry_in_secs") for each in breakers.values())
    )
    draining = _all_drain(found)
    status: dict[str, object] = {"status": "draining" if draining else "ok" if well else "degraded"}
    if check.detailed:
        status |= {
            "version": __version__,
            "profile": services.profile,
            "node_id": services.node_id,
            "port": services.port,
            "metrics_port": services.metrics_port,
            "connections": sum(answer["connections"] for answer in found.answers.values()),
            "uptime_secs": round(max((each["uptime_secs"] for each in found.answers.values()), default=0.0), 3),
            "workers": services.workers,
        }
        if check.check_dependencies:
            status["dependencies"] = dependencies
        if services.breakers is not None:
            status["circuit_breakers"] = breakers
        status = found.told(status)
    return json_response(status)


async def _ask_workers(request: web.Request) -> Gathered:
    """What the workers say of themselves, within the configured time, also when some of them say nothing."""
    seconds = request.app[SERVICES].config.monitoring.health_check.timeout_secs
    several = request.app[SERVICES].workers > 1
    # A worker whose own parts are late still has to tell so in time.
    asked = {"timeout_secs": seconds * _WORKERS_SHARE if several else seconds}
    return await request.app[FLEET].gather("health", asked, timeout_secs=seconds)


def _all_drain(found: Gathered) -> bool:
    return bool(found.answers) and all(answer["draining"] for answer in found.answers.values())


def merged_dependencies(found: Gathered) -> dict[str, dict[str, Any]]:
    """Each dependency as the worker sees it that is worst off; with several workers also what each of them says."""
    merged: dict[str, dict[str, Any]] = {}
    for slot, answer in found.answers.items():
        for name, part in answer["dependencies"].items():
            shown = {"status": part["status"], **part["detail"]}
            known = merged.get(name)
            if known is None or _SEVERITY[part["status"]] > _SEVERITY[known["status"]]:
                shown_by = known["workers"] if known is not None and found.several else {}
                merged[name] = shown | ({"workers": shown_by} if found.several else {})
            if found.several:
                merged[name]["workers"][str(slot)] = part["status"]
    return merged


def merged_breakers(rows: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Each breaker as the worker sees it in which it is most open; what was rejected is counted over all of them."""
    merged: dict[str, dict[str, Any]] = {}
    for row in rows:
        for name, shown in row.items():
            known = merged.get(name)
            worst = shown if known is None or _OPENNESS[shown["state"]] > _OPENNESS[known["state"]] else known
            rejected = shown["rejected"] + (known["rejected"] if known is not None else 0)
            merged[name] = {**worst, "rejected": rejected}
    return merged


class Part(msgspec.Struct, frozen=True):
    """What a check found: `status` is ok, degraded, failed (it raised) or timeout."""

    status: str
    required: bool
    detail: dict[str, object] = {}


async def ask_all(services: Services, timeout_secs: float) -> dict[str, Part]:
    """Every part's answer in this worker, at the latest after that time; nothing of those that are not to be asked."""
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
            await asyncio.wait(tasks.values(), timeout=timeout_secs)
        return {name: _answer(services, name, task) for name, task in tasks.items()}
    finally:  # the late ones, and all of them when the client has gone
        for task in tasks.values():
            task.cancel()


async def _ask(services: Services, name: str, check: Callable[[], Awaitable[Check]]) -> Part:
    try:
        found = await check()
    except Exception:
        _log.exception("a health check failed", part=name)
        return _silent(services, name, "failed")
    (services.required.add if found.required else services.required.discard)(name)
    return Part("ok" if found.ok else "degraded", found.required, found.detail)


def _answer(services: Services, name: str, task: asyncio.Future[Part]) -> Part:
    if not task.done():
        return _silent(services, name, "timeout")
    return _silent(services, name, "failed") if task.cancelled() else task.result()


def _silent(services: Services, name: str, status: str) -> Part:
    """A part that cannot say itself whether it is required: what it said last counts; for Redis, the configuration."""
    return Part(status, name in services.required or (name == REDIS and services.config.redis.required))


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
    retry = {"Retry-After": str(RETRY_AFTER_SECS)}
    found = await _ask_workers(request)
    if _all_drain(found):
        return json_response({"status": "draining"}, 503, retry)
    parts = [part for answer in found.answers.values() for part in answer["dependencies"].items()]
    missing = sorted({name for name, part in parts if part["required"] and part["status"] != "ok"})
    if missing or not found.answers:
        return json_response(found.told({"status": "unavailable", "dependencies": missing}), 503, retry)
    return json_response({"status": "ok"})
