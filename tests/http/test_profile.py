"""`/debug/profile`."""

import base64
import hashlib
import json
import re
import socket
import threading

import pytest

ON = {"development.enable_profiling": True}
SHORT = "/debug/profile?seconds=0.2&hz=200"


@pytest.fixture
def server(make_server):
    return make_server(changes=ON)


def test_nothing_of_it_without_the_switch(make_server):
    assert make_server().request("GET", "/debug/profile").status == 404


def test_json(server):
    answer = server.request("GET", SHORT + "&format=json")
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json["hz"] == 200
    assert answer.json["samples"] > 0
    frames = {frame for row in answer.json["stacks"] for frame in row["frames"]}
    assert any("asyncio/runners.py" in frame for frame in frames)
    times = [row["microseconds"] for row in answer.json["stacks"]]
    assert times == sorted(times, reverse=True)


def test_collapsed(server):
    answer = server.request("GET", SHORT + "&format=collapsed")
    assert answer.headers["Content-Type"].startswith("text/plain")
    lines = answer.body.decode().splitlines()
    assert lines
    assert all(re.fullmatch(r"[^;]+(?:;[^;]+)+ [1-9]\d*", line) for line in lines)


def test_the_page_needs_nothing_but_itself(server):
    answer = server.request("GET", SHORT)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    page = answer.body.decode()
    urls = set(re.findall(r"""(?:https?:)?//[^\s"'<>)]+""", page)) - {"http://www.w3.org/2000/svg"}
    assert not any("." in url.partition("//")[2].partition("/")[0] for url in urls if url.startswith("http"))
    assert not re.search(r"\b(?:src|href)=(?![\"']?data:)", page)
    assert not re.search(r"\bstyle=|\bon[a-z]+=|@import|url\(|fetch\(|XMLHttpRequest|WebSocket\(", page)
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert data["samples"] > 0
    assert all(0 <= number < len(data["labels"]) for numbers, _ in data["stacks"] for number in numbers)


def test_its_policy_allows_exactly_its_own_script_and_style(server):
    answer = server.request("GET", SHORT)
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    page = answer.body.decode()
    for element, directive in (("script", "script-src"), ("style", "style-src")):
        (content,) = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[directive] == f"'sha256-{digest}'"
    assert (policy["default-src"], policy["base-uri"], policy["frame-ancestors"]) == ("'none'",) * 3


def test_names_cannot_break_out_of_the_page(server):
    stop = threading.Event()
    evil = threading.Thread(target=stop.wait, name="</script><script>alert(1)</script>{{script}}")
    evil.start()
    try:
        page = server.request("GET", SHORT).body.decode()
    finally:
        stop.set()
        evil.join()
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert page.count("</script>") == 2


@pytest.mark.parametrize(
    ("query", "said"),
    [
        *(
            (f"seconds={text}", "seconds must be a number from 0.1 to 60")
            for text in ("0", "0.09", "60.1", "-1", "nan")
        ),
        *((f"seconds={text}", "seconds must be a number from 0.1 to 60") for text in ("", "1e1", "%D9%A1", "9" * 5000)),
        *((f"hz={text}", "hz must be a number from 1 to 1000") for text in ("0", "0.9", "1001", "x", "inf")),
        *((f"format={text}", "format must be one of html, collapsed, json") for text in ("", "svg", "HTML")),
    ],
)
def test_bounds(server, query, said):
    answer = server.request("GET", f"/debug/profile?{query}")
    assert (answer.status, answer.json["error"]["message"]) == (400, said)


def test_one_at_a_time(server):
    with socket.create_connection(("127.0.0.1", server.port), 10) as first:
        first.sendall(b"GET /debug/profile?seconds=60 HTTP/1.1\r\nHost: x\r\n\r\n")
        while server.request("GET", "/debug/profile?seconds=0.1").status != 409:
            pass
        refused = server.request("GET", SHORT)
        assert (refused.status, refused.json["error"]["code"]) == (409, "conflict")
        server.close()  # waits ten seconds at most: the profile ends with the server


def test_the_next_one_after_that(server):
    for _ in range(2):
        assert server.request("GET", "/debug/profile?seconds=0.1").status == 200


def test_other_methods(server):
    assert server.request("HEAD", SHORT).status == 405
    assert server.request("POST", SHORT, b"").status == 405
