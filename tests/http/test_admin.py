"""The administrator's endpoints, with a configuration that really changes."""

import pytest

from realtime_communication.config.schema import AuthProvider
from realtime_communication.http.attempts import Attempts

JSON = {"Content-Type": "application/json"}
RATES, LEVEL = "/admin/config/rate-limits", "/admin/config/log-level"
ENDPOINTS = [
    ("PUT", RATES, b'{"user_rps": 5}'),
    ("PUT", LEVEL, b'{"level": "debug"}'),
    ("GET", "/admin/config", None),
    ("GET", "/admin/stats", None),
    ("GET", "/admin/overview", None),
    ("GET", "/admin/connections/1", None),
    ("GET", "/api/connections", None),
    ("POST", "/api/disconnect", b'{"user_id": "bob"}'),
]
DEFAULTS = {
    "connection_rps": 100.0,
    "connection_burst": 200,
    "user_rps": 500.0,
    "user_burst": 1000,
    "global_rps": 10_000.0,
    "global_burst": 20_000,
}


@pytest.fixture
def put(operated, admin_key):
    return lambda path, body, headers=JSON: operated.request("PUT", path, body, admin_key | headers)


def limits_of(server):
    rates = server.services.config.rate_limiting
    return {
        f"{name}_{short}": getattr(bucket, field)
        for name, bucket in (("connection", rates.connection), ("user", rates.user), ("global", rates.global_))
        for short, field in (("rps", "requests_per_second"), ("burst", "burst_size"))
    }


@pytest.mark.parametrize(("method", "path", "body"), ENDPOINTS)
class TestWhoMay:
    def test_nobody_without_credentials(self, operated, method, path, body):
        answer = operated.request(method, path, body, JSON)
        assert (answer.status, answer.json["error"]["code"]) == (401, "unauthorized")
        assert limits_of(operated) == DEFAULTS
        assert operated.hub.closed == []

    def test_wrong_credentials(self, operated, method, path, body):
        for headers in ({"X-API-Key": "wrong"}, {"Authorization": "Bearer wrong"}):
            assert operated.request(method, path, body, headers | JSON).status == 401
        assert limits_of(operated) == DEFAULTS

    def test_others_than_administrators(self, operated, bearer, api_key, method, path, body):
        for headers in (bearer(), api_key, bearer(permissions=["read", "write", "subscribe", "admin"])):
            answer = operated.request(method, path, body, headers | JSON)
            assert (answer.status, answer.json["error"]["code"]) == (403, "forbidden")
            assert answer.json["error"]["message"] == "this needs the role admin"
        assert limits_of(operated) == DEFAULTS
        assert operated.hub.closed == []

    @pytest.mark.parametrize("query", ["api_key=the+key+of+the+operator", "%61pi_key=x", "token=x", "x=1&key=x"])
    def test_credentials_in_the_url_are_refused(self, make_server, admin_key, method, path, body, query):
        providers = (AuthProvider(type="api_key", query_param="key"),)
        server = make_server(changes={"auth.providers": providers})
        for headers in ({}, admin_key):
            answer = server.request(method, f"{path}?{query}", body, headers | JSON)
            assert answer.status == 401
            assert "URL" in answer.json["error"]["message"]
            assert b"operator" not in answer.body

    def test_administrators(self, operated, bearer, admin_key, method, path, body):
        for headers in (bearer(roles=["admin"]), admin_key):
            assert operated.request(method, path, body, headers | JSON).status == 200

    def test_other_methods(self, operated, admin_key, method, path, body):
        assert operated.request("DELETE", path, body, admin_key | JSON).status == 405


class TestRateLimits:
    def test_what_the_guide_shows(self, operated, put):
        answer = put(RATES, b'{"connection_rps": 200, "user_rps": 1000, "global_rps": 20000}')
        assert answer.status == 200
        expected = {
            "connection_rps": 200.0,
            "connection_burst": 400,
            "user_rps": 1000.0,
            "user_burst": 2000,
            "global_rps": 20_000.0,
            "global_burst": 40_000,
        }
        assert answer.json == expected
        assert limits_of(operated) == expected

    @pytest.mark.parametrize(
        ("body", "changed"),
        [
            (b'{"user_rps": 5, "user_burst": 7}', {"user_rps": 5, "user_burst": 7}),
            (b'{"user_burst": 7}', {"user_burst": 7}),
            (b'{"connection_rps": 0.25}', {"connection_rps": 0.25, "connection_burst": 1}),
            (b'{"connection_rps": 1.2}', {"connection_rps": 1.2, "connection_burst": 3}),
            (b'{"global_rps": 1e9}', {"global_rps": 1e9, "global_burst": 2_000_000_000}),
        ],
    )
    def test_the_burst_left_out(self, operated, put, body, changed):
        assert put(RATES, body).json == DEFAULTS | changed
        assert limits_of(operated) == DEFAULTS | changed

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            (b'{"user_rps": "5"}', "user_rps"),
            (b'{"user_rps": true}', "user_rps"),
            (b'{"user_rps": null}', "user_rps"),
            (b'{"user_rps": [5]}', "user_rps"),
            (b'{"user_rps": 0}', "user_rps"),
            (b'{"user_rps": -1}', "user_rps"),
            (b'{"user_rps": 1e400}', "user_rps"),
            (b'{"user_rps": 1000000001}', "user_rps"),
            (b'{"user_burst": 0}', "user_burst"),
            (b'{"user_burst": 1.5}', "user_burst"),
            (b'{"user_burst": 2147483648}', "user_burst"),
            (b'{"user_burst": 9223372036854775808}', "user_burst"),
            (b'{"requests_per_second": 5}', "requests_per_second"),
            (b'{"rate_limiting.user.burst_size": 5}', "rate_limiting.user.burst_size"),
            (b"{}", "body"),
            (b"[]", "body"),
        ],
    )
    def test_what_cannot_be_is_named_and_nothing_changes(self, operated, put, body, field):
        for given in (body, body.replace(b"{", b'{"connection_rps": 1, ', 1) if len(body) > 2 else body):
            answer = put(RATES, given)
            assert (answer.status, answer.json["error"]["code"]) == (422, "bad_request")
            assert answer.json["error"]["message"].startswith(f"{field}: ")
            assert limits_of(operated) == DEFAULTS

    def test_bodies(self, put):
        assert put(RATES, b"{").status == 400
        assert put(RATES, b'{"user_rps": 5}', {"Content-Type": "text/plain"}).status == 415
        assert put(RATES, b"{" + b" " * 20_000 + b"}").status == 413
        assert put(RATES, b"[" + b"{}," * 1_000_000 + b"{}]").status == 413
        assert put(RATES + "?user_rps=5", b"{}").status == 400

    def test_100_mb(self, operated, admin_key):
        head = "".join(f"{name}: {value}\r\n" for name, value in (admin_key | JSON).items())
        request = f"PUT {RATES} HTTP/1.1\r\nHost: a\r\n{head}Content-Length: 104857600\r\n\r\n"
        assert operated.raw(request.encode() + b" " * 100_000).startswith(b"HTTP/1.1 413 ")

    def test_who_wants_it_is_told_to_whoever_makes_the_change(self, operated, put):
        put(RATES, b'{"user_rps": 5}')
        keys = operated.services.control.effective()["keys"]
        assert keys["rate_limiting.user.burst_size"]["origin"] == f"PUT {RATES} by operator"

    def test_what_the_configuration_refuses_as_a_whole(self, operated, put, caplog):
        # The loader has rules over several keys; one that fails leaves everything as it was.
        control = operated.services.control
        control._words.append("--websocket.max_frame_size=1")
        answer = put(RATES, b'{"user_rps": 5}')
        assert answer.status == 422
        assert answer.json["error"]["message"].startswith("websocket.max_frame_size: must be")
        assert limits_of(operated) == DEFAULTS
        assert [record for record in caplog.records if "refused" in record.message]


class TestLogLevel:
    @pytest.mark.parametrize("level", ["debug", "WARN", "info,realtime_communication::auth=debug"])
    def test_a_level(self, operated, put, level):
        answer = put(LEVEL, f'{{"level": "{level}"}}'.encode())
        assert (answer.status, answer.json) == (200, {"level": level})
        assert operated.services.config.logging.level == level

    @pytest.mark.parametrize(
        "body",
        [
            b'{"level": "loud"}',
            b'{"level": ""}',
            b'{"level": 10}',
            b'{"level": null}',
            b'{"level": "\\ud800"}',
            b'{"level": "\\u001b[2J"}',
            b'{"level": "' + b"debug," * 2000 + b'"}',
        ],
    )
    def test_what_is_none(self, operated, put, body):
        answer = put(LEVEL, body)
        assert answer.status == 422
        assert answer.json["error"]["message"].startswith("level: ")
        assert b"\x1b" not in answer.body
        assert operated.services.config.logging.level == "info"

    def test_it_must_be_there_alone(self, put):
        assert put(LEVEL, b"{}").json["error"]["message"] == "level: is missing"
        assert put(LEVEL, b'{"level": "debug", "for": 5}').json["error"]["message"].startswith("for: ")


class TestLooking:
    def test_config(self, operated, put, admin_key):
        put(RATES, b'{"user_rps": 5}')
        answer = operated.request("GET", "/admin/config", headers=admin_key)
        assert answer.json["profile"] == "test"
        keys = answer.json["keys"]
        assert keys["rate_limiting.user.requests_per_second"] == {
            "value": 5.0,
            "origin": f"PUT {RATES} by operator",
        }
        assert keys["server.workers"]["origin"] == "default"
        assert keys["auth.jwt_secret"]["value"] == "[redacted]"
        assert b"a secret of the tests" not in answer.body
        assert answer.headers["Cache-Control"] == "no-store"

    def test_stats(self, server, admin_key):
        stats = server.request("GET", "/admin/stats", headers=admin_key).json
        assert (stats["node_id"], stats["connections"], stats["hub"]) == ("node-1", 3, {"connections": 3})
        assert stats["rss_bytes"] > 0
        assert stats["circuit_breakers"] == {}
        assert stats["uptime_secs"] >= 0
        assert set(stats["versions"]) == {"realtime_communication", "python", "aiohttp", "msgspec"}

    def test_without_a_configuration_that_can_change(self, server, admin_key):
        for method, path, body in ENDPOINTS[:3]:
            answer = server.request(method, path, body, admin_key | JSON)
            assert (answer.status, answer.json["error"]["code"]) == (503, "unavailable")
            assert answer.headers["Retry-After"] == "1"


def test_guessing_is_bounded_by_address(make_server):
    attempts = Attempts(rate=0.001)
    server = make_server(changes={"security.trusted_proxies": ("127.0.0.1",)}, attempts=attempts)

    def guess(address):
        return server.request("GET", "/admin/stats", headers={"X-API-Key": "guess", "X-Forwarded-For": address})

    answers = [guess("203.0.113.1") for _ in range(43)]
    assert [answer.status for answer in answers] == [401] * 40 + [429] * 3
    refused = answers[-1]
    assert refused.json["error"]["code"] == "rate_limited"
    assert (refused.headers["X-RateLimit-Limit"], refused.headers["X-RateLimit-Remaining"]) == ("40", "0")
    assert int(refused.headers["Retry-After"]) > 900
    assert guess("203.0.113.2").status == 401
    assert {guess("6.6.6.6, 203.0.113.3").status for _ in range(3)} == {401}


@pytest.mark.parametrize("changes", [{}, {"rate_limiting.enabled": False, "security.trusted_proxies": ("127.0.0.1",)}])
def test_guessing_is_not_bounded_on_this_machine_or_without_limits(make_server, changes):
    server = make_server(changes=changes)
    headers = {"X-API-Key": "guess", "X-Forwarded-For": "203.0.113.1"}
    assert {server.request("GET", "/admin/stats", headers=headers).status for _ in range(100)} == {401}
