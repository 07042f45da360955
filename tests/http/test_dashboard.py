"""The files of the dashboard; `demo/test_dashboard.py` looks at it with a browser."""

import re
from importlib.resources import files
from pathlib import Path

import pytest

from realtime_communication.http.dashboard import ASSETS

FOLDER = Path(str(files("realtime_communication.static"))) / "dashboard"


def test_the_page_loads_nothing_from_elsewhere(server):
    answer = server.request("GET", "/admin/")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert answer.headers["X-Frame-Options"] == "DENY"
    text = answer.body.decode()
    assert not re.search(r"https?://| on\w+=| style=|<style|<script>", text)
    for address in re.findall(r'(?:src|href)="([^"#:]+)"', text):
        assert server.request("GET", f"/admin/{address}").status == 200, address


def test_its_address_without_the_slash(server):
    answer = server.request("GET", "/admin")
    assert (answer.status, answer.headers["Location"]) == (308, "admin/")


@pytest.mark.parametrize("name", ASSETS)
def test_its_files(server, name):
    answer = server.request("GET", f"/admin/{name}")
    assert answer.status == 200
    kind = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "txt": "text/plain"}
    assert answer.headers["Content-Type"] == f"{kind[name.rpartition('.')[2]]}; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_every_file_is_served_and_every_import_is_there():
    there = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}
    assert there == {*ASSETS, "index.html"}
    for name in ASSETS:
        if name.endswith(".js") and "/" not in name:
            for imported in re.findall(r'from "\./([^"]+)"', (FOLDER / name).read_text()):
                assert imported in ASSETS, name


@pytest.mark.parametrize("name", ["", "nothing.js", "../http/app.py", "uplot/", "dashboard.js.map"])
def test_nothing_else_is(server, name):
    assert server.request("GET", f"/admin/{name}x").status == 404
