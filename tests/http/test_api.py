"""Publishing over HTTP."""

import asyncio

import pytest

from realtime_communication.auth.chain import AuthenticationChain
from realtime_communication.auth.identity import WRITE, Identity
from realtime_communication.errors import AuthenticationFailed, AuthenticationUnavailable
from realtime_communication.http.attempts import Attempts

JSON = {"Content-Type": "application/json"}


def test_publish_and_send(server, bearer, api_key):
    answer = server.request("POST", "/api/publish", b'{"topic":"t"}', bearer() | JSON)
    assert (answer.status, answer.json) == (200, {"epoch": "e", "offset": 1})
    answer = server.request(
        "POST", "/api/send", b'{"to":"bob"}', api_key | {"Content-Type": "application/json; charset=UTF-8"}
    )
    assert (answer.status, answer.json) == (200, {"delivered": ["bob"], "offline": []})
    assert server.hub.asked == [("publish", b'{"topic":"t"}', "alice"), ("send", b'{"to":"bob"}', "service")]


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer x"}, {"Authorization": "Basic YTpi"}, {"X-API-Key": "x"}]
)
def test_without_credentials(server, headers):
    answer = server.request("POST", "/api/publish", b"{}", headers | JSON)
    assert (answer.status, answer.json["error"]["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert server.hub.asked == []


def test_without_permission(server, bearer):
    answer = server.request("POST", "/api/publish", b"{}", bearer(permissions=["read"]) | JSON)
    assert (answer.status, answer.json["error"]["code"]) == (403, "forbidden")
    assert answer.json["error"]["message"] == "this needs the permission write"


class Later:
    """A provider that has to wait for its answer."""

    name, priority = "later", 0

    def __init__(self, answer):
        self.answer = answer

    def find(self, headers, query):
        return "credential"

    def verify(self, credential, now):
        async def wait():
            await asyncio.sleep(0)
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        return wait()


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (Identity(user_id="alice", permissions=WRITE), 200, None),
        (Identity(user_id="alice"), 403, "forbidden"),
        (AuthenticationFailed("no"), 401, "unauthorized"),
        (AuthenticationUnavailable("later", retry_after_ms=2100), 503, "unavailable"),
        (RuntimeError("internals"), 500, "internal"),
    ],
)
def test_credentials_that_take_a_while(server, answer, status, code):
    server.services.chain = AuthenticationChain([Later(answer)])
    answer = server.request("POST", "/api/publish", b'{"topic":"t"}', JSON)
    assert answer.status == status
    assert code is None or answer.json["error"]["code"] == code
    assert answer.headers.get("Retry-After") == ("3" if status == 503 else None)


def test_an_expired_token(server, bearer):
    answer = server.request("POST", "/api/publish", b"{}", bearer(lifetime_secs=-1) | JSON)
    assert (answer.status, answer.json["error"]["code"]) == (401, "token_expired")


def test_a_broken_query(server, bearer):
    assert server.request("POST", "/api/publish?a=%zz", b"{}", bearer() | JSON).status == 400


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/jsonx"},
        {"Content-Type": "application/json; charset=utf-16"},
        JSON | {"Content-Encoding": "gzip"},
    ],
)
def test_other_content_types(server, bearer, headers):
    answer = server.request("POST", "/api/publish", b"{}", bearer() | headers)
    assert answer.status == 415
    assert server.hub.asked == []


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("bad_request", 400),
        ("unauthorized", 401),
        ("token_expired", 401),
        ("forbidden", 403),
        ("topic_invalid", 400),
        ("too_many_targets", 400),
        ("too_large", 413),
        ("backpressure", 503),
        ("unavailable", 503),
        ("internal", 500),
    ],
)
def test_what_the_hub_refuses(server, bearer, code, status):
    server.hub.refuse(code, "why not", 1500 if status == 503 else None)
    answer = server.request("POST", "/api/send", b"{}", bearer() | JSON)
    assert answer.status == status
    assert answer.json == {"error": {"code": code, "message": "why not"}}
    assert answer.headers.get("Retry-After") == ("2" if status == 503 else None)


def test_limits_are_told_in_the_configured_headers(make_server, bearer):
    server = make_server(changes={"rate_limiting.headers.limit_header": "X-Depth"})
    server.hub.limit = (7, 0, 2500)
    server.hub.refuse("rate_limited", "slow down", 2100)
    answer = server.request("POST", "/api/publish", b"{}", bearer() | JSON)
    assert answer.status == 429
    assert (answer.headers["X-Depth"], answer.headers["X-RateLimit-Remaining"]) == ("7", "0")
    assert answer.headers["Retry-After"] == "3"
    assert int(answer.headers["X-RateLimit-Reset"]) > 0


@pytest.mark.parametrize("path", ["/api/topics", "/api/topics/room:1/presence", "/api/topics/room:1/history"])
def test_what_reads_counts_against_the_limits(make_server, bearer, path):
    server = make_server()
    server.hub.limit = (7, 0, 2500)
    assert server.request("GET", path, headers=bearer("bob")).status == 200
    assert server.request("GET", path, headers=bearer("bob", permissions=["write"])).status == 403
    server.hub.refuse("rate_limited", "slow down", 2100)
    answer = server.request("GET", path, headers=bearer("bob"))
    assert (answer.status, answer.json["error"]["code"]) == (429, "rate_limited")
    assert (answer.headers["X-RateLimit-Remaining"], answer.headers["Retry-After"]) == ("0", "3")
    assert server.hub.counted == ["bob", "bob"]


def test_an_answer_under_a_limit_says_what_is_left(make_server, bearer):
    server = make_server()
    server.hub.limit = (9, 8, 100)
    answer = server.request("POST", "/api/publish", b"{}", bearer() | JSON)
    assert answer.status == 200
    assert (answer.headers["X-RateLimit-Limit"], answer.headers["X-RateLimit-Remaining"]) == ("9", "8")


OTHERS = [
    ("POST", "/api/publish", b"{", {"Content-Type": "text/plain"}, 415),
    ("GET", "/api/topics", b"", {}, 200),
    ("GET", "/api/connections", b"", {}, 403),
    ("GET", "/admin/stats", b"", {}, 403),
]


@pytest.mark.parametrize(("method", "path", "body", "headers", "status"), OTHERS)
def test_so_does_every_answer_to_somebody_known(make_server, bearer, method, path, body, headers, status):
    server = make_server()
    server.hub.limit = (9, 8, 100)
    answer = server.request(method, path, body, bearer() | headers)
    assert answer.status == status
    assert (answer.headers["X-RateLimit-Limit"], answer.headers["X-RateLimit-Remaining"]) == ("9", "8")


@pytest.mark.parametrize("path", ["/api/publish", "/admin/config/log-level"])
def test_wrong_credentials_are_told_how_many_more_there_may_be(make_server, path):
    server = make_server(changes={"security.trusted_proxies": ("127.0.0.1",)})
    headers = JSON | {"Authorization": "Bearer x", "X-Forwarded-For": "203.0.113.1"}
    method = "PUT" if path.startswith("/admin") else "POST"
    for left in ("39", "38"):
        answer = server.request(method, path, b"{}", headers)
        assert (answer.status, answer.headers["X-RateLimit-Remaining"]) == (401, left)


def test_nobody_is_told_of_a_limit_of_nobody(make_server):
    answer = make_server().request("GET", "/health")
    assert not [name for name in answer.headers if name.lower().startswith("x-ratelimit")]


def test_without_a_limit_there_are_no_headers(make_server, bearer):
    answer = make_server().request("POST", "/api/publish", b"{}", bearer() | JSON)
    assert not [name for name in answer.headers if name.lower().startswith("x-ratelimit")]


def test_wrong_credentials_are_counted_by_address_and_right_ones_are_not(make_server, bearer):
    attempts = Attempts(rate=0.001, burst=3)
    server = make_server(changes={"security.trusted_proxies": ("127.0.0.1",)}, attempts=attempts)
    client = {"X-Forwarded-For": "203.0.113.1"} | JSON

    def status(headers):
        return server.request("POST", "/api/publish", b"{}", client | headers).status

    assert [status(bearer()) for _ in range(5)] == [200] * 5
    assert [status({}) for _ in range(5)] == [401] * 5, "no credentials are no wrong ones"
    assert [status({"Authorization": "Bearer x"}) for _ in range(2)] == [401] * 2
    assert status(bearer(lifetime_secs=-1)) == 401
    assert [status(headers) for headers in ({"X-API-Key": "x"}, bearer(), {})] == [429] * 3
    assert status(bearer() | {"X-Forwarded-For": "203.0.113.2"}) == 200
