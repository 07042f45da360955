"""The demo page and its tokens."""

import pytest

from realtime_communication.http import demo


@pytest.fixture
def dev(make_server):
    return make_server(profile="dev")


def test_only_in_the_dev_profile(server):
    for path in ("/", "/demo", "/demo/token?user=a", "/demo.js"):
        assert server.request("GET", path).status == 404


def test_the_page_loads_nothing_from_elsewhere(dev):
    for path in ("/", "/demo"):
        answer = dev.request("GET", path)
        assert answer.status == 200
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert b"<script>" not in answer.body
        assert b"http://" not in answer.body
        assert b"https://" not in answer.body
    assert dev.request("GET", "/demo.js").headers["Content-Type"].startswith("text/javascript")
    assert dev.request("GET", "/demo.css").headers["Content-Type"].startswith("text/css")


def test_a_token(dev):
    answer = dev.request("GET", "/demo/token?user=alice")
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    token = answer.json["token"]
    published = dev.request(
        "POST", "/api/publish", b"{}", {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    )
    assert published.status == 200
    assert dev.hub.asked[0][2] == "alice"


@pytest.mark.parametrize("user", ["", "a%0Ab", "x" * 200])
def test_names_that_cannot_be(dev, user):
    assert dev.request("GET", f"/demo/token?user={user}").status == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "rebound.example"},
        {"Host": "localhost.example", "Sec-Fetch-Site": "same-origin"},
    ],
)
def test_pages_of_others_get_none(dev, headers):
    assert dev.request("GET", "/demo/token?user=alice", headers=headers).status == 403


def test_tokens_are_limited(dev, monkeypatch):
    monkeypatch.setattr(demo, "TOKENS_PER_SECOND", 0.0)
    answers = [dev.request("GET", "/demo/token?user=a").status for _ in range(demo.MAX_TOKENS_AT_ONCE + 1)]
    assert answers == [200] * demo.MAX_TOKENS_AT_ONCE + [429]
