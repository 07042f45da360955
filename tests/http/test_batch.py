"""Many publications in one request."""

import json

import pytest

JSON = {"Content-Type": "application/json"}
PUBLISH, SEND = {"publish": {"topic": "room", "payload": 1}}, {"send": {"to": "bob", "payload": 2}}


@pytest.fixture
def post(server, bearer):
    def ask(entries, headers=None):
        body = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
        return server.request("POST", "/api/batch", body, (bearer() if headers is None else headers) | JSON)

    return ask


def test_an_answer_for_each_in_order(server, post):
    answer = post([PUBLISH, SEND, PUBLISH])
    assert answer.status == 200
    assert answer.json == [
        {"epoch": "e", "offset": 1},
        {"delivered": ["bob"], "offline": []},
        {"epoch": "e", "offset": 1},
    ]
    assert [asked[0] for asked in server.hub.asked] == ["publish", "send", "publish"]


def test_the_very_bytes_are_handed_on(server, post):
    post(b'[{"publish": {"topic": "room",  "payload": 1.50e1}}]')
    assert server.hub.asked == [("publish", b'{"topic": "room",  "payload": 1.50e1}', "alice")]


def test_one_that_is_refused_keeps_no_other_back(server, post):
    entries = [PUBLISH, {"publish": 1, "send": 2}, {}, {"delete": {}}, 5, [PUBLISH], None, SEND]
    answers = post(entries).json
    assert [answer.get("error", {}).get("code") for answer in answers] == [None, *["bad_request"] * 6, None]
    server.hub.refuse("rate_limited", "slow down", 1200)
    assert post([PUBLISH]).json == [{"error": {"code": "rate_limited", "message": "slow down", "retry_after_ms": 1200}}]
    server.hub.refuse("forbidden")
    assert post([PUBLISH]).json == [{"error": {"code": "forbidden", "message": "refused"}}]


def test_the_bound(server, post):
    assert len(post([PUBLISH] * 1000).json) == 1000
    answer = post([PUBLISH] * 1001)
    assert (answer.status, answer.json["error"]["code"]) == (413, "too_large")
    assert len(server.hub.asked) == 1000
    assert post(b"[" + b"1," * 400_000 + b"1]").status == 413


@pytest.mark.parametrize(
    ("body", "status"), [(b"", 400), (b"{}", 400), (b"[", 400), (b"[\xff]", 400), (b"[]", 422), (b"[" * 100_000, 400)]
)
def test_what_is_no_batch(post, body, status):
    answer = post(body)
    assert answer.status == status
    assert answer.json["error"]["message"].startswith("body: ")


def test_who_may(server, post, api_key, bearer):
    assert post([PUBLISH], {}).status == 401
    assert post([PUBLISH], bearer(permissions=["read"])).status == 403
    assert post([PUBLISH], api_key).status == 200
    assert len(server.hub.asked) == 1


def test_the_limit_is_told(server, post):
    server.hub.limit = (10, 4, 500)
    assert post([PUBLISH]).headers["X-RateLimit-Remaining"] == "4"
