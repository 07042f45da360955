"""`/admin` and `/api` against a server process: limits that change at once, levels, statistics, disconnecting."""

import json

import pytest

from realtime_communication.config.services import BREAKER_NAMES
from serving.asking import JSON, admin, ask, bearer, until
from serving.deployments import listening
from serving.peer import Peer
from serving.raw import RawSocket, envelope

RATES, LEVEL = "/admin/config/rate-limits", "/admin/config/log-level"
LIMITED = {
    "rate_limiting": {
        "enabled": True,
        "connection": {"requests_per_second": 0.001, "burst_size": 5},
        "user": {"requests_per_second": 0.001, "burst_size": 1000},
    }
}
IN_FORCE = {
    "connection_rps": 0.001,
    "connection_burst": 5,
    "user_rps": 0.001,
    "user_burst": 1000,
    "global_rps": 10_000.0,
    "global_burst": 20_000,
}


@pytest.fixture
def server():
    with listening(LIMITED) as made:
        yield made


@pytest.fixture(scope="module")
def unchanged():
    """One for all tests that change nothing."""
    with listening(LIMITED) as made:
        yield made


@pytest.fixture
def restored(unchanged):
    """That one, whose limits are as before afterwards."""
    yield unchanged
    assert put(unchanged, RATES, IN_FORCE).json == IN_FORCE


def put(server, path, body, headers=None):
    return ask(server.port, "PUT", path, admin() if headers is None else headers, body)


def shown(server):
    """Value and origin of each key, as an administrator sees them."""
    return ask(server.port, "GET", "/admin/config", admin()).json["keys"]


def limits_of(server):
    keys = shown(server)
    return {
        f"{scope}_{short}": keys[f"rate_limiting.{scope}.{name}"]["value"]
        for scope in ("connection", "user", "global")
        for short, name in (("rps", "requests_per_second"), ("burst", "burst_size"))
    }


def pongs(peer, count):
    """How many of so many requests got through, and the last reply."""
    replies = [peer.request("Ping") for _ in range(count)]
    return sum(reply["type"] == "Pong" for reply in replies), replies[-1]


class TestRateLimits:
    def test_live_connections_are_under_lower_ones_at_once(self, restored):
        with Peer(restored.url, "alice") as alice:
            assert alice.ok("Ping")
            assert put(restored, RATES, {"connection_rps": 0.001, "connection_burst": 2}).status == 200
            count, error = pongs(alice, 4)
            assert (count, error["code"], error["scope"]) == (2, "rate_limited", "connection")

    def test_and_under_higher_ones(self, restored):
        with Peer(restored.url, "alice") as alice:
            assert pongs(alice, 7)[0] == 5
            answer = put(restored, RATES, {"connection_rps": 1000})
            assert answer.json == IN_FORCE | {"connection_rps": 1000.0, "connection_burst": 2000}
            until(lambda: alice.request("Ping")["type"] == "Pong")

    @pytest.mark.parametrize("scope", ["user", "global"])
    def test_those_that_connections_share(self, server, scope):
        user = "alice" if scope == "user" else "bob"
        with Peer(server.url, "alice") as first, Peer(server.url, user) as second:
            assert put(server, RATES, {f"{scope}_rps": 0.001, f"{scope}_burst": 3}).status == 200
            assert pongs(first, 2)[0] == 2
            count, error = pongs(second, 2)
            assert (count, error["scope"]) == (1, scope)

    @pytest.mark.parametrize(
        ("body", "changed"),
        [
            ({"user_rps": 5}, {"user_rps": 5.0, "user_burst": 10}),
            ({"user_rps": 5, "user_burst": 7}, {"user_rps": 5.0, "user_burst": 7}),
            ({"user_burst": 7}, {"user_burst": 7}),
            ({"connection_rps": 0.25, "global_rps": 3}, {"connection_burst": 1, "global_burst": 6}),
        ],
    )
    def test_a_burst_left_out_is_twice_the_rate(self, restored, body, changed):
        expected = IN_FORCE | body | changed
        assert put(restored, RATES, body).json == expected
        assert limits_of(restored) == expected

    @pytest.mark.parametrize(
        "body",
        [
            {"connection_rps": 1, "user_rps": 0},
            {"connection_rps": 1, "user_burst": 1.5},
            {"connection_rps": 1, "user_rps": "5"},
            {"connection_rps": 1, "no_such": 1},
            {},
            [],
        ],
    )
    def test_what_cannot_be_is_not_half_in_force(self, unchanged, body):
        with Peer(unchanged.url, "alice") as alice:
            answer = put(unchanged, RATES, body)
            assert (answer.status, answer.error_code) == (422, "bad_request")
            assert limits_of(unchanged) == IN_FORCE
            assert pongs(alice, 6)[0] == 5

    @pytest.mark.parametrize("path", [RATES, LEVEL])
    @pytest.mark.parametrize(
        ("headers", "status"),
        [({}, 401), ({"X-API-Key": "wrong"}, 401), ("wrong", 401), ("user", 403), ("claims", 403)],
    )
    def test_others_than_administrators(self, unchanged, path, headers, status):
        if headers == "wrong":
            headers = bearer("root", key="w" * 40, roles=["admin"])
        elif headers in ("user", "claims"):
            headers = bearer(permissions=["read", "write", "subscribe"] + ["admin"] * (headers == "claims"))
        answer = put(unchanged, path, {"user_rps": 5} if path == RATES else {"level": "off"}, headers)
        assert answer.status == status
        assert limits_of(unchanged) == IN_FORCE
        assert shown(unchanged)["logging.level"]["value"] == "info"

    def test_who_changed_it_is_shown_until_the_next_reload(self, server):
        assert put(server, RATES, {"user_rps": 5}).status == 200
        key = "rate_limiting.user.requests_per_second"
        assert shown(server)[key] == {"value": 5.0, "origin": f"changed by PUT {RATES} by root"}
        (line,) = [line for line in server.events("setting changed") if line["key"] == key]
        assert (line["before"], line["after"], line["by"]) == ("0.001", "5", f"PUT {RATES} by root")
        server.reload()
        until(lambda: server.events("configuration reloaded"))
        assert limits_of(server) == IN_FORCE
        assert shown(server)[key]["origin"].startswith(f"{server.configuration}:")

    def test_a_reload_that_fails_takes_nothing_back(self, server):
        assert put(server, RATES, {"user_rps": 5}).status == 200
        server.reload(text="[broken\n")
        until(lambda: server.events("the configuration was not reloaded: all stays as it was"))
        assert limits_of(server)["user_rps"] == 5.0

    def test_who_goes_on_is_closed(self, server):
        with RawSocket.upgraded(server.port, "mallory") as mallory, Peer(server.url, "bob") as bob:
            assert put(server, RATES, {"connection_rps": 0.001, "connection_burst": 1}).status == 200
            mallory.send(envelope(type="Ping", id=1) * 100)
            assert mallory.closed_with() == 4429
            assert bob.ok("Ping")

    def test_over_http(self, server):
        def publish():
            return ask(server.port, "POST", "/api/publish", bearer(), {"topic": "t", "payload": 1})

        assert publish().headers["x-ratelimit-limit"] == "1000"
        assert put(server, RATES, {"user_rps": 0.001, "user_burst": 2}).status == 200
        answers = [publish() for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
        assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {"2"}
        assert int(answers[-1].headers["retry-after"]) > 0
        assert answers[-1].error_code == "rate_limited"


class TestLogLevel:
    def test_turning_the_log_off_and_on_is_told_once_each(self, server):
        for number, level in enumerate(("off", "info", "error", "info"), 1):
            assert put(server, LEVEL, {"level": level}).status == 200
            until(lambda number=number: len(server.events("setting changed")) == number)
        assert server.stop() == 0
        assert [line["after"] for line in server.events("setting changed")] == ['"off"', '"info"', '"error"', '"info"']

    def test_a_filter(self, server):
        body = {"level": "off,realtime_communication::http::security=debug"}
        assert put(server, LEVEL, body).json == body
        assert ask(server.port, "GET", "/health/live").status == 200
        until(lambda: [line for line in server.events("HTTP request") if line["path"] == "/health/live"])
        assert put(server, LEVEL, {"level": "info"}).status == 200
        until(lambda: len(server.events("setting changed")) == 2)
        before = len(server.events("HTTP request"))
        assert ask(server.port, "GET", "/health/live").status == 200
        assert server.stop() == 0
        assert len(server.events("HTTP request")) == before
        assert server.events("shutting down")

    @pytest.mark.parametrize("level", ["loud", "", "info,=debug", "info,a=loud", 5, None])
    def test_what_is_none(self, unchanged, level):
        answer = put(unchanged, LEVEL, {"level": level})
        assert (answer.status, answer.error_code) == (422, "bad_request")
        assert shown(unchanged)["logging.level"]["value"] == "info"


class TestLooking:
    def test_statistics(self, server):
        with Peer(server.url, "alice") as alice:
            alice.ok("Subscribe", topic="t")
            stats = ask(server.port, "GET", "/admin/stats", admin()).json
        assert (stats["profile"], stats["draining"], stats["connections"]) == ("test", False, 1)
        assert stats["hub"]["subscriptions"] == 1
        assert set(stats["circuit_breakers"]) == set(BREAKER_NAMES)
        assert {breaker["state"] for breaker in stats["circuit_breakers"].values()} == {"closed"}

    def test_no_secret_is_shown(self, unchanged):
        body = ask(unchanged.port, "GET", "/admin/config", admin()).body
        assert json.loads(body)["keys"]["auth.jwt_secret"]["value"] == "[redacted]"
        assert b"black-box-tests" not in body

    def test_connections_and_their_end(self, server):
        with RawSocket.upgraded(server.port, "mallory") as one, RawSocket.upgraded(server.port, "mallory") as two:
            with Peer(server.url, "bob") as bob:
                answer = ask(server.port, "GET", "/api/connections?user_id=mallory", admin()).json
                assert (answer["count"], len(answer["connections"]), answer["complete"]) == (2, 2, True)
                newest = answer["connections"][0]["session_id"]
                assert self.disconnect(server, session_id=newest) == {"disconnected": 1}
                assert two.closed_with() == 4403
                assert self.disconnect(server, user_id="mallory", reason="no more") == {"disconnected": 1}
                assert one.closed_with() == 4403
                assert self.disconnect(server, user_id="mallory") == {"disconnected": 0}
                assert bob.ok("Ping")

    def disconnect(self, server, **body):
        return ask(server.port, "POST", "/api/disconnect", admin(), body).json

    @pytest.mark.parametrize("body", [{}, {"user_id": "a", "session_id": "b"}, {"user_id": 5}, {"user": "a"}])
    def test_a_disconnect_that_names_nobody(self, unchanged, body):
        assert ask(unchanged.port, "POST", "/api/disconnect", admin() | JSON, body).status == 422
