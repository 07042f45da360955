"""Looking after a running server: `/admin/config`, its rate limits and log level, `/admin/stats` and `/admin/drain`.

Everything here needs the role `admin`, by credentials in a header: those in a URL get into logs and histories. A change
is checked as a whole before any of it is in force, and each is logged with who made it.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from typing import Any, Final, cast

import aiohttp
import msgspec
from aiohttp import web

from realtime_communication import __version__
from realtime_communication.auth.identity import ADMIN, Identity
from realtime_communication.config.catalogue import KEYS
from realtime_communication.config.changes import value_of
from realtime_communication.config.log_filter import parse_filter
from realtime_communication.config.values import INVALID, convert
from realtime_communication.errors import ConfigurationError, RequestRefused
from realtime_communication.http.answers import FieldError, json_response
from realtime_communication.http.api import require_permission
from realtime_communication.http.fields import query_of, read_object
from realtime_communication.http.fleet import Gathered
from realtime_communication.http.health import merged_breakers
from realtime_communication.http.services import FLEET, SERVICES, ConfigControl
from realtime_communication.observability.logs import get_logger

_log = get_logger(__name__)

_SCOPES: Final = ("connection", "user", "global")
_RATE_FIELDS: Final = {
    f"{scope}_{short}": f"rate_limiting.{scope}.{name}"
    for scope in _SCOPES
    for short, name in (("rps", "requests_per_second"), ("burst", "burst_size"))
}
_LEVEL_FIELDS: Final = {"level": "logging.level"}
BURST_PER_RATE: Final = 2  # of a burst that is left out, as in the defaults


def add_routes(application: web.Application) -> None:
    """The endpoints of this module."""
    application.router.add_get("/admin/config", show_config)
    application.router.add_put("/admin/config/rate-limits", change_rate_limits)
    application.router.add_put("/admin/config/log-level", change_log_level)
    application.router.add_get("/admin/stats", stats)
    application.router.add_post("/admin/drain", drain)


async def require_admin(request: web.Request) -> Identity:
    """The administrator who sent the request. Raises as `require_permission` does."""
    return await require_permission(request, ADMIN, in_url=False)


async def show_config(request: web.Request) -> web.Response:
    """Every key with the value in force and where it came from, secrets redacted."""
    await require_admin(request)
    query_of(request, ())
    return json_response(_control_of(request).effective())


async def change_rate_limits(request: web.Request) -> web.Response:
    """{connection_rps?, connection_burst?, user_rps?, …} → the six limits now in force.

    A burst that is left out while its rate is given becomes twice the rate.
    """
    identity = await require_admin(request)
    query_of(request, ())
    fields = await read_object(request, _RATE_FIELDS)
    if not fields:
        raise FieldError("body", f"must hold at least one of {', '.join(_RATE_FIELDS)}")
    changes = _values_of(fields, _RATE_FIELDS)
    for scope in _SCOPES:
        rate, burst = (_RATE_FIELDS[f"{scope}_{short}"] for short in ("rps", "burst"))
        if rate in changes and burst not in changes:
            most = cast("float", KEYS[burst].maximum)
            changes[burst] = max(1, int(min(most, math.ceil(cast("float", changes[rate]) * BURST_PER_RATE))))
    return await _change(request, identity, changes, _RATE_FIELDS)


async def change_log_level(request: web.Request) -> web.Response:
    """{level}: a level or a filter as `logging.level` takes it → {level} now in force."""
    identity = await require_admin(request)
    query_of(request, ())
    fields = await read_object(request, _LEVEL_FIELDS)
    if "level" not in fields:
        raise FieldError("level", "is missing")
    changes = _values_of(fields, _LEVEL_FIELDS)
    try:
        parse_filter(str(changes[_LEVEL_FIELDS["level"]]))
    except ValueError as error:
        raise FieldError("level", str(error)) from None
    return await _change(request, identity, changes, _LEVEL_FIELDS)


async def stats(request: web.Request) -> web.Response:
    """What the workers have done and hold, together; with several of them also one by one under `per_worker`."""
    await require_admin(request)
    query_of(request, ())
    services = request.app[SERVICES]
    found = await request.app[FLEET].gather("stats")
    return json_response(
        {
            "node_id": services.node_id,
            "profile": services.profile,
            "workers": services.workers,
            **found.told(merged_stats(found)),
            "versions": {
                "realtime_communication": __version__,
                "python": platform.python_version(),
                "aiohttp": aiohttp.__version__,
                "msgspec": msgspec.__version__,
            },
        }
    )


def merged_stats(found: Gathered) -> dict[str, Any]:
    """The sums of what the workers answered; the server drains when all of them do."""
    rows = list(found.answers.values())
    hub: dict[str, int] = {}
    for row in rows:
        for name, number in row["hub"].items():
            hub[name] = hub.get(name, 0) + number
    merged: dict[str, Any] = {
        "draining": bool(rows) and all(row["draining"] for row in rows),
        "uptime_secs": max((row["uptime_secs"] for row in rows), default=0.0),
        "connections": sum(row["connections"] for row in rows),
        "rss_bytes": sum(row["rss_bytes"] for row in rows),
        "hub": hub,
        "circuit_breakers": merged_breakers([row["circuit_breakers"] for row in rows]),
    }
    if found.several:
        merged["per_worker"] = {str(slot): row for slot, row in found.answers.items()}
    return merged


async def drain(request: web.Request) -> web.Response:
    """{worker?} → {draining, connections}: how many clients of the worker, or of all, are told to connect elsewhere.

    They have `production.drain_timeout_secs`, then they are closed. The process goes on until it is stopped.
    """
    identity = await require_admin(request)
    query_of(request, ())
    fields = await read_object(request, ("worker",)) if request.body_exists else {}
    workers, worker = request.app[SERVICES].workers, fields.get("worker")
    if "worker" in fields and (type(worker) is not int or not 0 <= worker < workers):
        raise FieldError("worker", f"must be an integer from 0 to {workers - 1}")
    alone = worker is not None or workers == 1
    found = await request.app[FLEET].gather("drain", {"worker": worker, "workers": 1 if alone else workers})
    told = {slot: count for slot, count in found.answers.items() if count is not None}
    if not told:
        raise RequestRefused("unavailable", "no worker that could be drained has answered")
    _log.warning("draining by an administrator", by=identity.user_id, workers=sorted(told), clients=sum(told.values()))
    return json_response(found.told({"draining": sorted(told), "connections": sum(told.values())}))


def _control_of(request: web.Request) -> ConfigControl:
    control = request.app[SERVICES].control
    if control is None:
        raise RequestRefused("unavailable", "the configuration of this server cannot be reached while it runs")
    return control


def _values_of(fields: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, object]:
    """The values of the keys that `fields` name, in the keys' own types and ranges. Raises FieldError."""
    changes: dict[str, object] = {}
    for field, raw in fields.items():

        def complain(below: str, value: object, message: str, field: str = field) -> None:
            raise FieldError(field, message)

        changes[paths[field]] = convert(KEYS[paths[field]], raw, complain)
    assert INVALID not in changes.values(), "a complaint was raised for every one"
    return changes


async def _change(
    request: web.Request, identity: Identity, changes: Mapping[str, object], paths: Mapping[str, str]
) -> web.Response:
    """Put `changes` in force; the answer holds the values of all `paths` afterwards. Raises FieldError."""
    _control_of(request)
    try:
        await request.app[FLEET].change(changes, f"{request.method} {request.path} by {identity.user_id}")
    except ConfigurationError as error:
        _log.warning("a change of the configuration was refused", by=identity.user_id, reason=str(error))
        problem = error.problems[0]
        field = next((name for name, path in paths.items() if path == problem.key), problem.key)
        raise FieldError(field, problem.message) from None
    in_force = request.app[SERVICES].config
    return json_response({field: value_of(in_force, path) for field, path in paths.items()})
