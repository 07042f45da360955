"""`/debug/profile?seconds=5&hz=100&format=html`, only with `development.enable_profiling`.

The page needs nothing but itself: it can be saved, sent and opened anywhere. Its script and style are allowed by their
hashes, so that it works under the strictest policy.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import threading
import time
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

import msgspec
from aiohttp import web

from realtime_communication.http.answers import error_response, json_response
from realtime_communication.http.services import SERVICES
from realtime_communication.observability.logs import get_logger
from realtime_communication.observability.sampling_profiler import Profile, SamplingProfiler, by_time, collapsed

MIN_SECONDS: Final = 0.1
MAX_SECONDS: Final = 60.0
MIN_HZ: Final = 1.0
MAX_HZ: Final = 1000.0
FORMATS: Final = ("html", "collapsed", "json")

_log = get_logger(__name__)
_NUMBER: Final = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,6})?", re.ASCII)
_MARK: Final = re.compile(r"\{\{(style|script|data)\}\}")
_ONE_AT_A_TIME: Final = web.AppKey("profiling", threading.Lock)


class _BadParameter(ValueError):
    """The text names the parameter and what it may be."""


def add_routes(application: web.Application) -> None:
    """The endpoint, when the configuration asks for it."""
    if not application[SERVICES].config.development.enable_profiling:
        return
    application[_ONE_AT_A_TIME] = threading.Lock()
    application.router.add_get("/debug/profile", profile, allow_head=False)


async def profile(request: web.Request) -> web.Response:
    """Look at the server for `seconds`, `hz` times a second; the answer comes afterwards. 409 during another one."""
    try:
        seconds = _number(request.query, "seconds", 5.0, MIN_SECONDS, MAX_SECONDS)
        hz = _number(request.query, "hz", 100.0, MIN_HZ, MAX_HZ)
        form = request.query.get("format", FORMATS[0])
        if form not in FORMATS:
            raise _BadParameter(f"format must be one of {', '.join(FORMATS)}")
    except _BadParameter as error:
        return error_response(400, "bad_request", str(error))
    lock = request.app[_ONE_AT_A_TIME]
    if not lock.acquire(blocking=False):
        return error_response(409, "conflict", "another profile is being taken; one at a time")
    try:
        taken = await _take(seconds, hz)
    finally:
        lock.release()
    if form == "json":
        return json_response(_plain(taken))
    if form == "collapsed":
        return web.Response(text=collapsed(taken), headers={"Cache-Control": "no-store"})
    return _page(taken)


async def _take(seconds: float, hz: float) -> Profile:
    stop = threading.Event()
    profiler = SamplingProfiler(threading.get_ident())
    _log.info("profiling begins", seconds=seconds, hz=hz)
    try:
        taken = await asyncio.to_thread(profiler.run, seconds, hz, stop)
    finally:
        stop.set()  # also when the server ends meanwhile
    _log.info("profiling is over", samples=taken.samples, stacks=len(taken.stacks))
    return taken


def _number(query: Mapping[str, str], name: str, default: float, lowest: float, highest: float) -> float:
    text = query.get(name)
    if text is None:
        return default
    if _NUMBER.fullmatch(text) is None or not lowest <= float(text) <= highest:
        raise _BadParameter(f"{name} must be a number from {lowest:g} to {highest:g}")
    return float(text)


def _plain(taken: Profile) -> dict[str, object]:
    stacks = [{"frames": stack, "microseconds": value} for stack, value in by_time(taken)]
    return {"seconds": round(taken.seconds, 3), "hz": taken.hz, "samples": taken.samples, "stacks": stacks}


def _page(taken: Profile) -> web.Response:
    style, script = _asset("profile.css"), _asset("profile.js")
    parts = {"style": style, "script": script, "data": _embedded(taken)}
    text = _MARK.sub(lambda found: parts[found[1]], _asset("profile.html"))
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return web.Response(
        text=text,
        content_type="text/html",
        charset="utf-8",
        headers={
            "Cache-Control": "no-store",
            "Content-Security-Policy": policy,
            "Referrer-Policy": "no-referrer",
            "X-Frame-Options": "DENY",
        },
    )


def _embedded(taken: Profile) -> str:
    """The profile for the page: every label once, stacks as their numbers. Nothing in it can end the element."""
    numbers: dict[str, int] = {}
    stacks = [[[numbers.setdefault(label, len(numbers)) for label in stack], value] for stack, value in by_time(taken)]
    data = {
        "taken": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "seconds": round(taken.seconds, 3),
        "hz": taken.hz,
        "samples": taken.samples,
        "labels": list(numbers),
        "stacks": stacks,
    }
    return msgspec.json.encode(data).decode().replace("<", "\\u003c")


def _asset(name: str) -> str:
    return files("realtime_communication.static").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
