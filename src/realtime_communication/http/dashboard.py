"""The dashboard for administrators, at `/admin/`: a page that draws what `/admin/events` and the API tell.

The page and its files hold nothing of the server, and anybody may load them; the data takes a token with the role
admin, which the page asks for and sends in a header. It loads nothing from elsewhere, and its policy allows no script
or style but its own files.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from aiohttp import web

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_KINDS: Final = {"js": "text/javascript", "css": "text/css", "txt": "text/plain", "svg": "image/svg+xml"}
ASSETS: Final = (
    "charts.js",
    "connections.js",
    "dashboard.css",
    "dashboard.js",
    "elements.js",
    "figures.js",
    "icon.svg",
    "overview.js",
    "series.js",
    "server.js",
    "settings.js",
    "tables.js",
    "theme.js",
    "topics.js",
    "uplot/LICENSE.txt",
    "uplot/uPlot.esm.js",
    "uplot/uPlot.min.css",
)


def add_routes(application: web.Application) -> None:
    """The page and its files."""
    application.router.add_get("/admin", to_page)
    application.router.add_get("/admin/", page)
    for name in ASSETS:
        application.router.add_get(f"/admin/{name}", asset)


async def to_page(request: web.Request) -> web.Response:
    """Relative addresses in the page need the slash."""
    raise web.HTTPPermanentRedirect("admin/")


async def page(request: web.Request) -> web.Response:
    """The page."""
    response = _file("index.html", "text/html")
    response.headers["Content-Security-Policy"] = _POLICY
    return response


async def asset(request: web.Request) -> web.Response:
    """A script, style or picture of the page."""
    name = request.path.removeprefix("/admin/")
    return _file(name, _KINDS[name.rpartition(".")[2]])


def _file(name: str, content_type: str) -> web.Response:
    text = files("realtime_communication.static").joinpath("dashboard", name).read_text(encoding="utf-8")
    return web.Response(text=text, content_type=content_type, charset="utf-8", headers={"Cache-Control": "no-cache"})
