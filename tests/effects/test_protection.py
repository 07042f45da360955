"""`[security]` without TLS itself, and `[rate_limiting.headers]`: each key changes what a client sees.

Where https is needed, a trusted proxy on this machine says so.
"""

import http.client
import json
import socket

import pytest

from serving.certificates import shared_authority, shared_server
from serving.processes import free_port
from serving.raw import RawSocket, exchange, upgrade
from serving.tokens import token

HTTPS = {"X-Forwarded-For": "203.0.113.1", "X-Forwarded-Proto": "https"}
PROXIED = {"trusted_proxies": ["127.0.0.0/8"]}
JSON = {"Content-Type": "application/json"}
APP = "https://app.example.com"


def ask(running, method, path, headers=None, body=None):
    """Status and headers of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        answer.read()
        return answer.status, dict(answer.getheaders())
    finally:
        connection.close()


def upgraded(running, headers=None, **options):
    """The answer to a WebSocket upgrade."""
    lines = tuple(f"{name}: {value}" for name, value in (headers or {}).items())
    return exchange(running.port, upgrade(extra=lines, **options))


class TestEnforceTls:
    def test_http(self, serve):
        running = serve({"security": PROXIED | {"enforce_tls": True}})
        for method, path in (("GET", "/health"), ("POST", "/api/publish"), ("GET", "/nowhere"), ("OPTIONS", "/health")):
            status, headers = ask(running, method, path)
            assert (status, headers["Upgrade"], headers["Connection"]) == (426, "TLS/1.2, HTTP/1.1", "Upgrade")
        assert ask(running, "GET", "/health", HTTPS)[0] == 200
        assert ask(running, "GET", "/health", HTTPS | {"X-Forwarded-Proto": "http"})[0] == 426

    def test_upgrades(self, serve):
        running = serve({"security": PROXIED | {"enforce_tls": True}})
        answer = upgraded(running)
        assert (answer.status, answer.error_code) == (426, "forbidden")
        assert answer.headers["upgrade"] == "TLS/1.2, HTTP/1.1"
        assert "Upgrade" in answer.headers["connection"]
        assert upgraded(running, HTTPS).status == 101
        assert upgraded(running, {"Forwarded": "for=203.0.113.1;proto=https"}).status == 101
        # Credentials are not looked at before.
        assert upgraded(running, authorization="Bearer wrong").status == 426

    def test_the_echo_endpoint(self, serve):
        running = serve({"security": PROXIED | {"enforce_tls": True}, "development": {"enable_debug_endpoints": True}})
        answer = upgraded(running, target="/debug/echo")
        assert (answer.status, answer.error_code) == (426, "forbidden")
        assert upgraded(running, HTTPS, target="/debug/echo").status == 101

    def test_off(self, serve):
        running = serve({"security": {"enforce_tls": False}})
        assert ask(running, "GET", "/health")[0] == 200
        assert upgraded(running).status == 101


@pytest.mark.parametrize(
    ("proxies", "trusted"),
    [
        ([], False),
        (["127.0.0.1"], True),
        (["127.0.0.0/8"], True),
        (["10.0.0.0/8", "::1", "127.0.0.1"], True),
        (["10.0.0.0/8"], False),
        (["unix"], False),
    ],
)
def test_trusted_proxies(serve, proxies, trusted):
    running = serve({"security": {"enforce_tls": True, "trusted_proxies": proxies}})
    assert ask(running, "GET", "/health", HTTPS)[0] == (200 if trusted else 426)
    assert upgraded(running, HTTPS).status == (101 if trusted else 426)


@pytest.mark.parametrize(("proxies", "trusted"), [(["unix"], True), (["127.0.0.1"], False), ([], False)])
def test_a_proxy_on_a_unix_socket(serve, tmp_path, proxies, trusted):
    path = str(tmp_path / "rtc.sock")
    serve({"server": {"host": f"unix:{path}"}, "security": {"enforce_tls": True, "trusted_proxies": proxies}})
    lines = "".join(f"{name}: {value}\r\n" for name, value in HTTPS.items())
    plain = f"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n".encode()
    for request, status in ((plain, b"200"), (upgrade(extra=tuple(lines.split("\r\n")[:-1])), b"101")):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(path)
            sock.sendall(request)
            assert sock.recv(65536).startswith(b"HTTP/1.1 " + (status if trusted else b"426"))


@pytest.mark.parametrize("enabled", [True, False])
def test_strict_transport_security(serve, enabled):
    running = serve({"security": PROXIED | {"strict_transport_security": enabled}})
    said = ask(running, "GET", "/health", HTTPS)[1].get("Strict-Transport-Security")
    assert said == ("max-age=31536000; includeSubDomains" if enabled else None)
    assert "Strict-Transport-Security" not in ask(running, "GET", "/health")[1]


@pytest.mark.parametrize("policy", ["", "default-src 'self'"])
def test_content_security_policy(serve, policy):
    running = serve({"security": {"content_security_policy": policy}})
    for path in ("/health", "/nowhere"):
        assert ask(running, "GET", path)[1].get("Content-Security-Policy", "") == policy


REFUSED = [
    upgrade(method="POST"),
    upgrade(sec_websocket_version="8"),
    upgrade(sec_websocket_protocol="mqtt"),
    upgrade(authorization="Bearer wrong"),
    upgrade(origin="https://evil.example.com"),
    b"GET /ws HTTP/1.1\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nX: " + b"a" * 20_000,
]


@pytest.mark.parametrize("request_bytes", REFUSED)
def test_refusals_before_an_upgrade_carry_the_same_headers(serve, request_bytes):
    cors = {"enabled": True, "allowed_origins": [APP]}
    security = {"content_security_policy": "default-src 'none'", "strict_transport_security": True, "cors": cors}
    answer = exchange(serve({"security": security}).port, request_bytes)
    assert 400 <= answer.status < 500 and answer.error_code
    expected = {
        "cache-control": "no-store",
        "content-security-policy": "default-src 'none'",
        "referrer-policy": "no-referrer",
        "server": "realtime_communication",
        "x-content-type-options": "nosniff",
    }
    assert expected.items() <= answer.headers.items()
    assert "strict-transport-security" not in answer.headers


def test_refusals_over_tls_tell_of_it(serve):
    pair = shared_server()
    tls = {"enabled": True, "cert_file": str(pair.cert_file), "key_file": str(pair.key_file)}
    running = serve({"security": {"tls": tls, "strict_transport_security": True}})
    with RawSocket(running.port, tls=shared_authority().client_context()) as raw:
        raw.send(upgrade(authorization="Bearer wrong"))
        answer = raw.answer()
    assert (answer.status, answer.headers["strict-transport-security"]) == (401, "max-age=31536000; includeSubDomains")
    plain = exchange(running.port, b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
    assert plain.status == 400
    assert "strict-transport-security" not in plain.headers, "RFC 6797 section 7.2"


def test_the_page_of_the_dev_profile_has_its_own_policy(serve):
    settings = {"server": {"port": free_port()}, "security": {"content_security_policy": "default-src 'none'"}}
    running = serve(settings, profile="dev")
    assert "script-src 'self'" in ask(running, "GET", "/")[1]["Content-Security-Policy"]


class TestCors:
    def preflight(self, running, origin, path="/api/publish"):
        return ask(running, "OPTIONS", path, {"Origin": origin, "Access-Control-Request-Method": "POST"})

    @pytest.mark.parametrize("enabled", [True, False])
    def test_enabled(self, serve, enabled):
        running = serve({"security": {"cors": {"enabled": enabled, "allowed_origins": [APP]}}})
        assert self.preflight(running, APP)[0] == (204 if enabled else 405)
        granted = ask(running, "GET", "/health", {"Origin": APP})[1].get("Access-Control-Allow-Origin")
        assert granted == (APP if enabled else None)

    @pytest.mark.parametrize(
        "origin",
        [
            "https://evil.example.com",
            "null",
            "https://app.example.com.evil-site.com",
            "https://evil-app.example.com",
            "http://app.example.com",
            "https://app.example.com:8443",
        ],
    )
    def test_allowed_origins(self, serve, origin):
        running = serve(
            {"security": {"cors": {"enabled": True, "allowed_origins": [APP, "https://admin.example.com"]}}}
        )
        assert self.preflight(running, APP)[1]["Access-Control-Allow-Origin"] == APP
        assert upgraded(running, origin=APP).status == 101
        status, headers = self.preflight(running, origin)
        assert (status, headers.get("Access-Control-Allow-Origin")) == (403, None)
        status, headers = ask(running, "GET", "/health", {"Origin": origin, "Cookie": "session=valid"})
        assert (status, headers.get("Access-Control-Allow-Origin")) == (200, None)
        assert upgraded(running, origin=origin, cookie="session=valid").status == 403

    def test_what_a_preflight_grants(self, serve):
        cors = {
            "enabled": True,
            "allowed_origins": [APP],
            "allowed_methods": ["PUT", "GET"],
            "allowed_headers": ["X-API-Key"],
            "allow_credentials": True,
            "max_age_secs": 60,
        }
        running = serve({"security": {"cors": cors}})
        for path in ("/api/publish", "/nowhere"):
            status, headers = self.preflight(running, APP, path)
            assert status == 204
            assert headers["Access-Control-Allow-Methods"] == "PUT, GET"
            assert headers["Access-Control-Allow-Headers"] == "X-API-Key"
            assert headers["Access-Control-Allow-Credentials"] == "true"
            assert headers["Access-Control-Max-Age"] == "60"
        without = serve({"security": {"cors": cors | {"allow_credentials": False}}})
        assert "Access-Control-Allow-Credentials" not in self.preflight(without, APP)[1]


NAMES = {
    "limit_header": "X-Depth",
    "remaining_header": "X-Left",
    "reset_header": "X-Full-At",
    "retry_after_header": "X-Wait",
}
DEFAULT_NAMES = {
    "limit_header": "X-RateLimit-Limit",
    "remaining_header": "X-RateLimit-Remaining",
    "reset_header": "X-RateLimit-Reset",
    "retry_after_header": "Retry-After",
}


class TestRateLimitHeaders:
    def requests(self, running):
        """A publication, a direct message, one that is refused, and one too many: statuses and headers."""
        headers = {"Authorization": "Bearer " + token("alice")} | JSON
        for path, body in (
            ("/api/publish", {"topic": "t", "payload": 1}),
            ("/api/send", {"to": "bob", "payload": 1}),
            ("/api/publish", {"topic": "*bad*", "payload": 1}),
            ("/api/publish", {"topic": "t", "payload": 1}),
        ):
            yield ask(running, "POST", path, headers, json.dumps(body))

    def limited(self, names):
        bucket = {"requests_per_second": 0.001, "burst_size": 3}
        return {"rate_limiting": {"enabled": True, "user": bucket, "headers": names}}

    @pytest.mark.parametrize("names", [{}, NAMES, {"limit_header": "X-Depth"}])
    def test_their_names(self, serve, names):
        used = DEFAULT_NAMES | names
        answers = list(self.requests(serve(self.limited(names))))
        assert [status for status, _ in answers] == [200, 200, 400, 429]
        assert [headers[used["limit_header"]] for _, headers in answers] == ["3"] * 4
        assert [headers[used["remaining_header"]] for _, headers in answers] == ["2", "1", "0", "0"]
        assert all(int(headers[used["reset_header"]]) > 0 for _, headers in answers)
        assert [int(headers.get(used["retry_after_header"], 0)) > 0 for _, headers in answers] == [False] * 3 + [True]
        gone = set(DEFAULT_NAMES.values()) - set(used.values())
        assert not any(gone & set(headers) for _, headers in answers)

    def test_off(self, serve):
        answers = list(self.requests(serve(self.limited({"enabled": False} | NAMES))))
        assert answers[-1][0] == 429
        assert not any(set(NAMES.values()) & set(headers) for _, headers in answers)
        assert int(answers[-1][1]["Retry-After"]) > 0, "when to come back is told by the standard's own header"

    def test_the_bucket_of_everybody_leaves_nothing_to_a_user(self, serve):
        bucket = {"requests_per_second": 0.001, "burst_size": 1}
        answers = list(self.requests(serve({"rate_limiting": {"enabled": True, "global": bucket}})))
        assert [status for status, _ in answers] == [200, 429, 429, 429]
        assert answers[1][1]["X-RateLimit-Remaining"] == "0"

    def test_limits_of_request_types_are_for_connections(self, serve):
        limit = {"name": "one", "pattern": "*", "requests_per_second": 0.001, "burst_size": 1}
        answers = list(self.requests(serve({"rate_limiting": {"enabled": True, "custom_limits": [limit]}})))
        assert [status for status, _ in answers] == [200, 200, 400, 200]


class TestWrongCredentials:
    def test_too_many_of_one_client(self, serve):
        # Faster than they come back, on any machine: five times what is allowed.
        running = serve({"security": PROXIED, "rate_limiting": {"enabled": True}})
        running.worker.parts.services.attempts._rate = 0.001
        client = {"X-Forwarded-For": "203.0.113.1"}
        statuses = [upgraded(running, client, authorization="Bearer wrong").status for _ in range(30)]
        statuses += [ask(running, "GET", "/api/topics", client | {"X-API-Key": "wrong"})[0] for _ in range(12)]
        assert statuses == [401] * 40 + [429] * 2
        refused = upgraded(running, client)
        assert (refused.status, refused.error_code) == (429, "rate_limited")
        assert int(refused.headers["retry-after"]) > 0
        assert upgraded(running, {"X-Forwarded-For": "203.0.113.2"}).status == 101
        assert upgraded(running).status == 101

    def test_without_rate_limiting(self, serve):
        running = serve({"security": PROXIED, "rate_limiting": {"enabled": False}})
        client = {"X-Forwarded-For": "203.0.113.1"}
        assert {upgraded(running, client, authorization="Bearer wrong").status for _ in range(60)} == {401}


class TestAdministration:
    def admin(self):
        return {"Authorization": "Bearer " + token("root", roles=["admin"])} | JSON

    def test_a_user_is_disconnected(self, serve):
        running = serve()
        with running.raw("mallory") as raw, running.peer("bob") as bob:
            connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
            connection.request("GET", "/api/connections?user_id=mallory", headers=self.admin())
            (row,) = json.loads(connection.getresponse().read())["connections"]
            connection.request("POST", "/api/disconnect", json.dumps({"session_id": row["session_id"]}), self.admin())
            assert json.loads(connection.getresponse().read()) == {"disconnected": 1}
            connection.close()
            assert raw.closed_with() == 4403
            assert bob.request("Ping")["type"] == "Pong"

    def test_topics_are_listed(self, serve):
        running = serve()
        with running.peer("alice") as alice:
            alice.ok("Subscribe", topic="room:1")
            connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
            connection.request("GET", "/api/topics", headers={"Authorization": "Bearer " + token("bob")})
            rows = json.loads(connection.getresponse().read())["topics"]
            connection.close()
        assert [(row["topic"], row["subscribers"]) for row in rows] == [("room:1", 1)]

    def test_statistics(self, serve):
        running = serve()
        assert ask(running, "GET", "/admin/stats", self.admin())[0] == 200
        assert ask(running, "GET", "/admin/stats")[0] == 401
