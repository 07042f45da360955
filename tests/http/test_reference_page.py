"""The reference as a page; `demo/test_reference.py` looks at it with a browser."""

import re

import pytest


def test_the_page_loads_nothing_from_elsewhere(server):
    answer = server.request("GET", "/docs")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert answer.headers["X-Frame-Options"] == "DENY"
    text = answer.body.decode()
    assert not re.search(r"https?://", text)
    for address in re.findall(r'(?:src|href)="([^"#:]+)"', text):
        assert server.request("GET", f"/{address}").status == 200, address


@pytest.mark.parametrize(("name", "kind"), [("reference.js", "text/javascript"), ("reference.css", "text/css")])
def test_its_files(server, name, kind):
    answer = server.request("GET", f"/docs/{name}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, f"{kind}; charset=utf-8")
    assert server.request("GET", f"/docs/{name}x").status == 404
