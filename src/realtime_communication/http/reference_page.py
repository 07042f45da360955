"""`GET /docs`: the reference of the API as a page, which draws what `/openapi.json` and `/asyncapi.json` say.

The page loads nothing but its own script and style, from here: it works without a network behind the server.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from aiohttp import web

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_ASSETS: Final = {"reference.js": "text/javascript", "reference.css": "text/css"}


def add_routes(application: web.Application) -> None:
    """The page and its two files."""
    application.router.add_get("/docs", page)
    for name in _ASSETS:
        application.router.add_get(f"/docs/{name}", asset)


async def page(request: web.Request) -> web.Response:
    """The page."""
    response = _file("reference.html", "text/html")
    response.headers["Content-Security-Policy"] = _POLICY
    return response


async def asset(request: web.Request) -> web.Response:
    """The page's script or style."""
    name = request.path.rpartition("/")[2]
    return _file(name, _ASSETS[name])


def _file(name: str, content_type: str) -> web.Response:
    text = files("realtime_communication.static").joinpath(name).read_text(encoding="utf-8")
    return web.Response(text=text, content_type=content_type, charset="utf-8", headers={"Cache-Control": "no-cache"})
