"""The demo page, in the dev profile only.

The page needs a token. Whoever can open the page gets one for the name they like, so the endpoint is kept to this
machine's own browsers: the peer must be the loopback, or the request must come from the page itself. A page of
another site, or a name of another site that was pointed at this machine, gets nothing.
"""

from __future__ import annotations

import ipaddress
import time
from importlib.resources import files
from typing import Final

from aiohttp import web

from realtime_communication.auth.identity import ClaimError
from realtime_communication.http.answers import error_response, json_response
from realtime_communication.http.forwarding import client_of_request
from realtime_communication.http.services import SERVICES

MAX_TOKENS_AT_ONCE: Final = 60
TOKENS_PER_SECOND: Final = 2.0
TOKEN_LIFETIME_SECS: Final = 3600

_FILES: Final = {
    "demo.html": "text/html",
    "demo.js": "text/javascript",
    "connection.js": "text/javascript",
    "demo.css": "text/css",
}


class _Allowance:
    """How many tokens may still be given away; refills with time."""

    def __init__(self) -> None:
        self._left = float(MAX_TOKENS_AT_ONCE)
        self._at = time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._left = min(float(MAX_TOKENS_AT_ONCE), self._left + (now - self._at) * TOKENS_PER_SECOND)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


_ALLOWANCE: web.AppKey[_Allowance] = web.AppKey("demo_allowance", _Allowance)


def add_routes(application: web.Application) -> None:
    """The page and its token, when there is an issuer in the dev profile."""
    services = application[SERVICES]
    if services.profile != "dev" or services.issuer is None:
        return
    application[_ALLOWANCE] = _Allowance()
    application.router.add_get("/", page)
    application.router.add_get("/demo", page)
    application.router.add_get("/demo/token", token)
    for name in _FILES.keys() - {"demo.html"}:
        application.router.add_get(f"/{name}", asset)


async def page(request: web.Request) -> web.Response:
    """The demo page, which may load nothing but its own two files."""
    response = _file("demo.html")
    host = request.host
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        f"connect-src 'self' ws://{host} wss://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


async def asset(request: web.Request) -> web.Response:
    """The page's script or style."""
    return _file(request.path.removeprefix("/"))


async def token(request: web.Request) -> web.Response:
    """`?user=` → {token, user_id}."""
    services = request.app[SERVICES]
    if services.issuer is None or not _own_page(request):
        return error_response(403, "forbidden", "demo tokens are only given to the demo page on this machine")
    if not request.app[_ALLOWANCE].take():
        return error_response(429, "rate_limited", "too many demo tokens", {"Retry-After": "1"})
    user = request.query.get("user", "")
    try:
        made = services.issuer.access_token(user, services.clock(), lifetime_secs=TOKEN_LIFETIME_SECS)
    except ClaimError as error:
        return error_response(400, "bad_request", str(error))
    return json_response({"token": made, "user_id": user})


def _own_page(request: web.Request) -> bool:
    site = request.headers.get("Sec-Fetch-Site", "none")
    if site not in ("same-origin", "none"):
        return False
    peer = _address(client_of_request(request).address)
    if peer is None or not peer.is_loopback:
        return site == "same-origin"
    name = request.url.host or ""
    return name == "localhost" or name.endswith(".localhost") or _address(name) is not None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _file(name: str) -> web.Response:
    content = files("realtime_communication.static").joinpath(name).read_text(encoding="utf-8")
    return web.Response(text=content, content_type=_FILES[name], charset="utf-8", headers={"Cache-Control": "no-cache"})
