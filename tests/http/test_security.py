"""What every answer carries and every request must have: TLS, CORS, headers; and what the log may say."""

import logging

import pytest
from aiohttp import web

from realtime_communication.broker.redis_errors import RedisFailed
from realtime_communication.errors import CircuitOpen
from realtime_communication.http import app
from realtime_communication.http.attempts import Attempts
from realtime_communication.http.forwarding import Client
from realtime_communication.http.security import refuse_upgrade

from .conftest import changed

CORS = {"security.cors.enabled": True, "security.cors.allowed_origins": ("https://app.example",)}
PROXIED = {"security.trusted_proxies": ("127.0.0.1",)}
HTTPS = {"X-Forwarded-For": "203.0.113.1", "X-Forwarded-Proto": "https"}
HTTP = {"X-Forwarded-For": "203.0.113.1", "X-Forwarded-Proto": "http"}
PREFLIGHT = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
FOREIGN = [
    "null",
    "https://evil-app.example",
    "https://app.example.evil",
    "http://app.example",
    "https://app.example:8443",
    "https://app.example/",
    "https://APP.example",
    "",
]
POLICY = "default-src 'self'"


def preflight(server, origin, path="/api/publish"):
    return server.request("OPTIONS", path, headers=PREFLIGHT | {"Origin": origin})


class Streaming:
    @staticmethod
    def add_routes(application):
        application.router.add_get("/stream", Streaming.get)

    @staticmethod
    async def get(request):
        response = web.StreamResponse(headers={"Content-Type": "text/html"})
        await response.prepare(request)
        await response.write(b"piece")
        await response.write_eof()
        return response


class TestCors:
    def test_a_granted_preflight(self, make_server):
        server = make_server(changes=CORS | {"security.cors.allow_credentials": True})
        answer = preflight(server, "https://app.example")
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert answer.headers["Access-Control-Allow-Methods"] == "GET, POST, OPTIONS"
        assert answer.headers["Access-Control-Allow-Headers"] == "Authorization, Content-Type"
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
        assert answer.headers["Access-Control-Max-Age"] == "86400"
        assert answer.headers["Vary"] == "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"

    @pytest.mark.parametrize("path", ["/health", "/admin/config", "/nowhere", "/ws"])
    def test_every_path_has_a_preflight(self, make_server, path):
        server = make_server(changes=CORS)
        assert preflight(server, "https://app.example", path).status == 204
        assert preflight(server, "https://evil.example", path).status == 403

    @pytest.mark.parametrize("origin", FOREIGN)
    def test_other_origins(self, make_server, origin):
        server = make_server(changes=CORS)
        refused = preflight(server, origin)
        assert (refused.status, refused.json["error"]["code"]) == (403, "forbidden")
        for answer in (refused, server.request("GET", "/health", headers={"Origin": origin})):
            assert not [name for name in answer.headers if name.startswith("Access-Control")]
            assert answer.headers["Vary"].startswith("Origin")

    def test_two_origins_are_none(self, make_server):
        server = make_server(changes=CORS)
        twice = b"Origin: https://app.example\r\nOrigin: https://evil.example\r\n"
        answer = server.raw(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + twice + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"Access-Control" not in answer

    def test_answers_vary_even_for_requests_without_an_origin(self, make_server):
        assert make_server(changes=CORS).request("GET", "/health").headers["Vary"] == "Origin"

    def test_errors_can_be_read_by_a_granted_page(self, make_server):
        server = make_server(changes=CORS)
        for method, path, status in (("POST", "/api/publish", 401), ("GET", "/nowhere", 404), ("GET", "/ws", 426)):
            answer = server.request(method, path, headers={"Origin": "https://app.example"})
            assert answer.status == status
            assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"

    def test_a_page_can_read_what_is_said_of_limits(self, make_server):
        changes = CORS | {"rate_limiting.headers.limit_header": "X-Depth"}
        page = {"Origin": "https://app.example"}
        exposed = "Access-Control-Expose-Headers"
        answer = make_server(changes=changes).request("GET", "/health", headers=page)
        assert answer.headers[exposed] == "Retry-After, X-Depth, X-RateLimit-Remaining, X-RateLimit-Reset"
        changes = CORS | {"rate_limiting.headers.enabled": False}
        assert make_server(changes=changes).request("GET", "/health", headers=page).headers[exposed] == "Retry-After"

    def test_a_wildcard_never_grants_credentials(self, make_server):
        changes = CORS | {"security.cors.allowed_origins": ("*",), "security.cors.allow_credentials": True}
        answer = preflight(make_server(changes=changes), "https://any.example")
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in answer.headers

    def test_off_means_off(self, server):
        assert preflight(server, "https://app.example").status == 405
        answer = server.request("GET", "/health", headers={"Origin": "https://app.example"})
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Vary" not in answer.headers

    def test_streams_are_granted_too(self, make_server, monkeypatch):
        monkeypatch.setattr(app, "debug", Streaming)
        answer = make_server(changes=CORS).request("GET", "/stream", headers={"Origin": "https://app.example"})
        assert answer.body == b"piece"
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"


class TestTls:
    @pytest.mark.parametrize(
        ("method", "path"),
        [("GET", "/health"), ("POST", "/api/publish"), ("GET", "/nowhere"), ("GET", "/ws"), ("OPTIONS", "/health")],
    )
    def test_plain_http_is_told_to_upgrade(self, make_server, api_key, method, path):
        server = make_server(changes=CORS | PROXIED | {"security.enforce_tls": True})
        for headers in ({}, HTTP, PREFLIGHT, api_key):
            answer = server.request(method, path, headers=headers)
            assert (answer.status, answer.json["error"]["code"]) == (426, "forbidden")
            assert answer.headers["Upgrade"] == "TLS/1.2, HTTP/1.1"
            assert answer.headers["Connection"] == "Upgrade"
            assert server.request(method, path, headers=headers | HTTPS).headers.get("Upgrade") != "TLS/1.2, HTTP/1.1"
        assert server.hub.asked == []

    def test_nobody_else_is_believed(self, make_server):
        server = make_server(changes={"security.enforce_tls": True, "security.trusted_proxies": ("10.0.0.0/8",)})
        assert server.request("GET", "/health", headers=HTTPS).status == 426

    def test_a_reload_counts_at_once(self, make_server):
        server = make_server()
        assert server.request("GET", "/health").status == 200
        server.services.config = changed(server.services.config, "security.enforce_tls", True)
        assert server.request("GET", "/health").status == 426

    @pytest.mark.parametrize(
        ("enforced", "secure", "refused"),
        [(True, False, True), (True, True, False), (False, False, False), (False, True, False)],
    )
    def test_upgrades(self, server, enforced, secure, refused):
        server.services.config = changed(server.services.config, "security.enforce_tls", enforced)
        refusal = refuse_upgrade(server.services, Client("203.0.113.1", secure))
        assert (refusal is not None) is refused
        if refusal is not None:
            assert refusal[:2] == (426, "forbidden")
            assert refusal[3] == [("Upgrade", "TLS/1.2, HTTP/1.1")]

    def test_strict_transport_security_is_only_said_over_https(self, make_server):
        name, value = "Strict-Transport-Security", "max-age=31536000; includeSubDomains"
        server = make_server(changes=PROXIED | {"security.strict_transport_security": True})
        for path in ("/health", "/nowhere", "/api/publish"):
            assert server.request("GET", path, headers=HTTPS).headers[name] == value
            for headers in ({}, HTTP):
                assert name not in server.request("GET", path, headers=headers).headers
        assert name not in make_server(changes=PROXIED).request("GET", "/health", headers=HTTPS).headers


class TestUpgradesOfWhoGuesses:
    def test_too_many_failures(self, make_server):
        server = make_server(attempts=Attempts(rate=0.001))
        client = Client("203.0.113.1", False)
        for _ in range(40):
            assert refuse_upgrade(server.services, client) is None
            server.services.attempts.fail(client.address)
        status, code, _, headers = refuse_upgrade(server.services, client)
        assert (status, code) == (429, "rate_limited")
        assert {name for name, _ in headers} == {
            "X-RateLimit-Limit",
            "X-RateLimit-Remaining",
            "X-RateLimit-Reset",
            "Retry-After",
        }
        assert refuse_upgrade(server.services, Client("203.0.113.2", False)) is None


class TestHeaders:
    def test_of_every_answer(self, make_server):
        server = make_server(changes={"security.content_security_policy": POLICY})
        for method, path in (("GET", "/health"), ("GET", "/nowhere"), ("POST", "/api/send"), ("GET", "/ws")):
            headers = server.request(method, path).headers
            assert headers["Content-Security-Policy"] == POLICY
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["Cache-Control"] == "no-store"

    @pytest.mark.parametrize(
        "request_",
        [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"],
    )
    def test_of_answers_to_what_is_no_request(self, make_server, request_):
        answer = make_server(changes={"security.content_security_policy": POLICY}).raw(request_)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"X-Content-Type-Options: nosniff\r\n" in answer
        assert b"Content-Security-Policy: default-src 'self'\r\n" in answer

    def test_no_policy_by_itself(self, server):
        assert "Content-Security-Policy" not in server.request("GET", "/health").headers

    def test_pages_keep_their_own_policy_and_are_in_no_frame(self, make_server):
        server = make_server(profile="dev", changes={"security.content_security_policy": POLICY})
        page = server.request("GET", "/demo").headers
        assert page["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
        assert "frame-ancestors 'none'" in page["Content-Security-Policy"]
        assert page["X-Frame-Options"] == "DENY"
        script = server.request("GET", "/demo.js").headers
        assert script["Content-Security-Policy"] == POLICY
        assert "X-Frame-Options" not in script


def test_the_log_line_has_no_query_and_is_cut(server, bearer, caplog):
    with caplog.at_level(logging.DEBUG, "realtime_communication"):
        server.request("GET", "/health/live?token=hunter2&api_key=hunter3")
        server.request("GET", "/" + "a" * 5000)
        server.request("POST", "/api/publish", b"{}", bearer())
    lines = [record.event_fields for record in caplog.records if record.message == "HTTP request"]
    assert [line["status"] for line in lines] == [200, 404, 415]
    assert lines[0]["path"] == "/health/live"
    assert lines[0]["address"] == "127.0.0.1"
    assert len(lines[1]["path"]) <= 200
    assert "hunter" not in repr([vars(record) for record in caplog.records])
    assert bearer()["Authorization"] not in repr([vars(record) for record in caplog.records])


@pytest.mark.parametrize(
    ("error", "wait"), [(CircuitOpen("redis", 12.3), "13"), (CircuitOpen("redis", 0), "1"), (RedisFailed("OOM"), "1")]
)
def test_what_is_out_of_reach(server, bearer, caplog, error, wait):
    server.hub.refusal = error
    body = b'{"topic": "t", "payload": 1}'
    answer = server.request("POST", "/api/publish", body, bearer() | {"Content-Type": "application/json"})
    assert (answer.status, answer.json["error"]["code"]) == (503, "unavailable")
    assert answer.headers["Retry-After"] == wait
    assert answer.json["error"]["message"] == "a service that this needs is out of reach"
    (line,) = [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert (line.levelname, line.event_fields["reason"]) == ("WARNING", str(error))
