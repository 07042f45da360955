"""Tokens over HTTP, on real sockets."""

import json

import jwt as pyjwt
import msgspec
import pytest

from realtime_communication.auth.api_key import hashed
from realtime_communication.auth.authority import TokenAuthority
from realtime_communication.auth.chain import chain_of
from realtime_communication.auth.refresh import Families
from realtime_communication.auth.revocation import Revocations
from realtime_communication.config.schema import ApiKey, AuthProvider, Config
from realtime_communication.http.attempts import Attempts

SECRET = "a secret of the tests, 32 bytes or longer"
JSON = {"Content-Type": "application/json"}
ROBOT = {"X-API-Key": "the robot's key"}
ADMIN = {"X-API-Key": "the admin's key"}
PROVIDERS = (
    AuthProvider(type="jwt", priority=1),
    AuthProvider(
        type="api_key",
        keys=(
            ApiKey(key=hashed(ROBOT["X-API-Key"]), user="robot"),
            ApiKey(key=hashed(ADMIN["X-API-Key"]), user="root", roles=("admin",)),
        ),
    ),
)


@pytest.fixture
def make(make_server):
    """A server with an authority: ``make(changes)``; ``disconnected`` is whom it closed."""

    def start(changes=(), auth=(), **services):
        made = msgspec.structs.replace(
            Config().auth, jwt_secret=SECRET, jwt_issuer="i", jwt_audience="a", providers=PROVIDERS, **dict(auth)
        )
        disconnected = []

        def disconnect(*, user_id=None, login=None, code, reason):
            disconnected.append((user_id, login, code, reason))
            return 1

        revocations = Revocations(disconnect)
        server = make_server(
            changes={"rate_limiting.enabled": False, **dict(changes)},
            authority=TokenAuthority(made, revocations, Families()),
            **services,
        )
        server.services.chain = chain_of(made, bypass=False, revocations=revocations)
        server.disconnected = disconnected
        return server

    return start


@pytest.fixture
def server(make):
    return make()


def post(server, path, body, headers=ROBOT):
    return server.request("POST", path, body if isinstance(body, bytes) else json.dumps(body), JSON | headers)


def issue(server, headers=ROBOT, **fields):
    answer = post(server, "/auth/token", {"user_id": "alice", **fields}, headers)
    assert answer.status == 200, answer.body
    return answer.json


def bearing(token):
    return {"Authorization": f"Bearer {token}"}


def publish(server, token):
    return post(server, "/api/publish", {"topic": "t", "payload": 1}, bearing(token))


def error(answer):
    return answer.status, answer.json["error"]["code"]


class TestToken:
    def test_a_pair(self, server):
        answer = post(server, "/auth/token", {"user_id": "alice"})
        assert answer.headers["Cache-Control"] == "no-store"
        assert list(answer.json) == [
            *("access_token", "token_type", "expires_in", "expires_at", "refresh_token", "refresh_expires_at"),
            *("session_id", "user_id"),
        ]
        claims = pyjwt.decode(answer.json["access_token"], SECRET, ["HS256"], audience="a", issuer="i")
        assert claims["exp"] == answer.json["expires_at"]
        assert publish(server, answer.json["access_token"]).status == 200

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({}, 401),
            ({"X-API-Key": "wrong"}, 401),
            (bearing("x.y.z"), 401),
            ({"Authorization": "Basic YTpi"}, 401),
        ],
    )
    def test_without_credentials(self, server, headers, status):
        assert error(post(server, "/auth/token", {"user_id": "alice"}, headers)) == (status, "unauthorized")

    def test_credentials_in_the_url_do_not_count(self, server):
        token = issue(server, ADMIN, roles=["admin"])["access_token"]
        for query in (f"api_key={ADMIN['X-API-Key'].replace(' ', '%20')}", f"token={token}"):
            assert error(post(server, f"/auth/token?{query}", {"user_id": "alice"}, {})) == (401, "unauthorized")
            assert error(post(server, f"/auth/revoke?{query}", {"user_id": "alice"}, {})) == (401, "unauthorized")

    def test_not_for_everybody(self, server):
        alice = issue(server)["access_token"]
        assert error(post(server, "/auth/token", {"user_id": "alice"}, bearing(alice))) == (403, "forbidden")
        assert error(post(server, "/auth/token", {"user_id": "eve", "roles": ["admin"]})) == (403, "forbidden")
        root = issue(server, ADMIN, roles=["admin"])["access_token"]
        assert post(server, "/auth/token", {"user_id": "alice", "roles": ["admin"]}, bearing(root)).status == 200

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "user_id"),
            ({"user_id": 7}, "user_id"),
            ({"user_id": None}, "user_id"),
            ({"user_id": ""}, "user_id"),
            ({"user_id": "a", "role": ["x"]}, "role"),
            ({"user_id": "a", "roles": "admin"}, "roles"),
            ({"user_id": "a", "roles": [7]}, "roles"),
            ({"user_id": "a", "permissions": ["fly"]}, "permissions"),
            ({"user_id": "a", "topics": []}, "topics"),
            ({"user_id": "a", "topics": {"read": []}}, "read"),
            ({"user_id": "a", "topics": {"subscribe": ["a*b"]}}, "topics.subscribe"),
            ({"user_id": "a", "session_id": 7}, "session_id"),
            ({"user_id": "a", "user_metadata": []}, "user_metadata"),
            ({"user_id": "a", "user_metadata": {"a": "x" * 3000}}, "user_metadata"),
            ({"user_id": "a", "expires_in": "60"}, "expires_in"),
            ({"user_id": "a", "expires_in": True}, "expires_in"),
            ({"user_id": "a", "expires_in": 1.5}, "expires_in"),
            ({"user_id": "a", "expires_in": 0}, "expires_in"),
            ({"user_id": "a", "expires_in": 10**9}, "expires_in"),
            ({"user_id": "a", "expires_in": 2**70}, "expires_in"),
            ([], "array"),
            (7, "int"),
        ],
    )
    def test_fields(self, server, body, field):
        answer = post(server, "/auth/token", body)
        assert error(answer) == (422, "bad_request")
        assert field in answer.json["error"]["message"]

    @pytest.mark.parametrize(
        "body",
        [b"", b"{", b"\xff", b'{"user_metadata":{"a":' + b"[" * 60_000, b'{"user_id":"a"}x', b'{"user_id":"\\ud800"}'],
    )
    def test_what_is_no_json(self, server, body):
        assert error(post(server, "/auth/token", body)) == (400, "bad_request")

    def test_sizes_and_types(self, server):
        answer = post(server, "/auth/token", {"user_id": "a", "x" * 60_000: 1})
        assert answer.status == 422
        assert len(answer.body) < 500
        assert post(server, "/auth/token", {"user_id": "a" * 70_000}).status == 413
        assert server.request("POST", "/auth/token", b"{}", ROBOT).status == 415
        assert server.request("GET", "/auth/token", headers=ROBOT).status == 405


class TestRefresh:
    def test_rotation_and_reuse(self, server):
        first = issue(server)
        second = post(server, "/auth/refresh", {"refresh_token": first["refresh_token"]}, {})
        assert second.status == 200
        assert second.json["session_id"] == first["session_id"]
        assert publish(server, second.json["access_token"]).status == 200
        again = post(server, "/auth/refresh", {"refresh_token": first["refresh_token"]}, {})
        assert error(again) == (401, "unauthorized")
        assert server.disconnected == [(None, first["session_id"], 4401, "token revoked")]
        for token in (first["access_token"], second.json["access_token"]):
            answer = publish(server, token)
            assert error(answer) == (401, "unauthorized")
            assert "revoked" in answer.json["error"]["message"]
        last = post(server, "/auth/refresh", {"refresh_token": second.json["refresh_token"]}, {})
        assert error(last) == (401, "unauthorized")

    def test_kinds_are_not_confused(self, server):
        pair = issue(server)
        assert error(post(server, "/auth/refresh", {"refresh_token": pair["access_token"]}, {}))[0] == 401
        assert error(publish(server, pair["refresh_token"]))[0] == 401

    @pytest.mark.parametrize("body", [{}, {"refresh_token": 7}, {"refresh_token": "x", "more": 1}, {"token": "x"}])
    def test_fields(self, server, body):
        assert error(post(server, "/auth/refresh", body, {})) == (422, "bad_request")

    @pytest.mark.parametrize("token", ["", "x", "a.b.c", "x" * 20_000])
    def test_wrong_ones(self, server, token):
        answer = post(server, "/auth/refresh", {"refresh_token": token}, {})
        assert error(answer) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


class TestRevoke:
    def test_by_the_owner(self, server):
        pair = issue(server)
        answer = post(server, "/auth/revoke", {"token": pair["access_token"]}, bearing(pair["access_token"]))
        assert (answer.status, answer.json) == (200, {"revoked": 1})
        assert server.disconnected == [(None, pair["session_id"], 4401, "token revoked")]
        assert error(publish(server, pair["access_token"])) == (401, "unauthorized")
        assert error(post(server, "/auth/refresh", {"refresh_token": pair["refresh_token"]}, {}))[0] == 401

    def test_by_others(self, server):
        alice, bob = issue(server), issue(server, user_id="bob")
        for body in ({"token": alice["access_token"]}, {"session_id": alice["session_id"]}, {"user_id": "alice"}):
            for headers in (bearing(bob["access_token"]), ROBOT):
                assert error(post(server, "/auth/revoke", body, headers)) == (403, "forbidden")
        assert post(server, "/auth/revoke", {"user_id": "alice"}, {}).status == 401
        assert publish(server, alice["access_token"]).status == 200

    def test_by_who_holds_the_token_and_nothing_else(self, server):
        pair = issue(server)
        assert post(server, "/auth/revoke", {"token": pair["refresh_token"]}, {}).json == {"revoked": 1}
        assert error(publish(server, pair["access_token"])) == (401, "unauthorized")
        assert error(post(server, "/auth/revoke", {"token": "x.y.z"}, {})) == (401, "unauthorized")
        # Credentials that are there and wrong are not overlooked.
        other = issue(server)
        assert post(server, "/auth/revoke", {"token": other["access_token"]}, bearing("x.y.z")).status == 401
        assert publish(server, other["access_token"]).status == 200

    def test_by_an_admin(self, server):
        alice, bob, carol = (issue(server, user_id=name) for name in ("alice", "bob", "carol"))
        for body in ({"user_id": "alice"}, {"session_id": bob["session_id"]}, {"token": carol["refresh_token"]}):
            assert post(server, "/auth/revoke", body, ADMIN).json == {"revoked": 1}
        for pair in (alice, bob, carol):
            assert error(publish(server, pair["access_token"])) == (401, "unauthorized")
        assert publish(server, issue(server)["access_token"]).status == 200

    @pytest.mark.parametrize(
        "body", [{}, {"user_id": "a", "token": "b"}, {"all": True}, {"token": "x"}, {"user_id": 7}]
    )
    def test_fields(self, server, body):
        assert error(post(server, "/auth/revoke", body, ADMIN)) == (422, "bad_request")


class TestAttempts:
    """The address is a proxy's word: one of this machine is not limited."""

    CLIENT = {"X-Forwarded-For": "203.0.113.1"}  # noqa: RUF012

    @pytest.fixture
    def limited(self, make):
        return make(
            {
                "rate_limiting.enabled": True,
                "rate_limiting.headers.remaining_header": "X-Left",
                "security.trusted_proxies": ("127.0.0.1",),
            },
            attempts=Attempts(rate=0.001, burst=3),
        )

    @pytest.mark.parametrize(
        ("path", "body"), [("/auth/refresh", {"refresh_token": "x"}), ("/auth/revoke", {"token": "x"})]
    )
    def test_an_address_that_keeps_failing_waits(self, limited, path, body):
        answers = [post(limited, path, body, self.CLIENT) for _ in range(4)]
        assert [answer.status for answer in answers] == [401, 401, 401, 429]
        assert [answer.headers["X-Left"] for answer in answers] == ["2", "1", "0", "0"]
        assert error(answers[3]) == (429, "rate_limited")
        assert int(answers[3].headers["Retry-After"]) >= 1
        assert (answers[3].headers["X-RateLimit-Limit"], answers[3].headers["X-Left"]) == ("3", "0")
        assert post(limited, path, body, {"X-Forwarded-For": "203.0.113.2"}).status == 401

    def test_wrong_credentials_for_issuing_count_too(self, limited):
        wrong = [post(limited, "/auth/token", {}, self.CLIENT | {"X-API-Key": "wrong"}).status for _ in range(4)]
        assert wrong == [401, 401, 401, 429]
        # The wait is for all of the address.
        assert post(limited, "/auth/token", {"user_id": "alice"}, self.CLIENT | ROBOT).status == 429

    def test_what_is_right_or_merely_malformed_does_not_count(self, limited):
        for _ in range(5):
            assert post(limited, "/auth/token", {"user_id": "alice"}, self.CLIENT | ROBOT).status == 200
            assert post(limited, "/auth/token", {}, self.CLIENT | ROBOT).status == 422
            assert post(limited, "/auth/token", b"", self.CLIENT | ROBOT).status == 400

    def test_without_rate_limits_there_are_none(self, server):
        assert {post(server, "/auth/refresh", {"refresh_token": "x"}, {}).status for _ in range(60)} == {401}


def test_custom_claims_are_of_the_request(make):
    wanted = msgspec.structs.replace(
        Config().auth.custom_claims,
        include_user_metadata=True,
        include_device_info=True,
        include_location=True,
        custom_fields={"tier": "gold"},
    )
    server = make(auth={"custom_claims": wanted})
    pair = issue(server, ROBOT | {"User-Agent": "robot/" + "x" * 500}, user_metadata={"team": "red"})
    claims = pyjwt.decode(pair["access_token"], options={"verify_signature": False})
    assert claims["device_info"] == {"user_agent": ("robot/" + "x" * 500)[:256]}
    assert claims["location"] == {"address": "127.0.0.1"}
    assert (claims["user_metadata"], claims["tier"]) == ({"team": "red"}, "gold")


def test_where_nobody_issues_there_is_nothing(make_server):
    assert make_server().request("POST", "/auth/token", b"{}", JSON).status == 404
