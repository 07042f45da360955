"""Who may come in, from outside: an OIDC issuer, tokens issued over HTTP, and what a token says of its user."""

import contextlib
import hashlib
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest

from serving.asking import ask, bearer, health, until
from serving.oidc_issuer import ALGORITHMS, WELL_KNOWN, OidcIssuer
from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess, StartServer, assert_clean, merged
from serving.raw import Answer, RawSocket, envelope, exchange, upgrade
from serving.tokens import SECRET, token

from .conftest import running

OTHER_SECRET = "the secret after a rotation, of more than thirty-two bytes"
KEY_SET = "/jwks"


def answer_to(server: ServerProcess, text: str) -> Answer:
    """To an upgrade with this token."""
    return exchange(server.port, upgrade(authorization=f"Bearer {text}"))


@contextlib.contextmanager
def served(settings: dict[str, Any]) -> Iterator[ServerProcess]:
    """A server for several tests."""
    process = running("product", settings)
    try:
        yield process
        assert_clean(process)
    finally:
        process.dispose()


def trusting(issuer: OidcIssuer, **settings: Any) -> dict[str, Any]:
    """Settings that accept the issuer's tokens beside the server's own."""
    providers = [{"type": "jwt", "priority": 1}, {"type": "oauth2", "issuer": issuer.url, "priority": 2}]
    return merged({"auth": {"providers": providers}}, settings)


@pytest.fixture
def issuer() -> Iterator[OidcIssuer]:
    """One to mistreat."""
    with OidcIssuer() as made:
        yield made


@pytest.fixture(scope="module")
def well() -> Iterator[OidcIssuer]:
    """One that is left in peace."""
    with OidcIssuer() as made:
        yield made


@pytest.fixture(scope="module")
def trusting_server(well: OidcIssuer) -> Iterator[ServerProcess]:
    """Accepts the tokens of `well`."""
    with served(trusting(well)) as process:
        yield process


class TestIssuer:
    """An issuer that is well, and what its tokens must say."""

    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    def test_its_tokens_are_good_at_the_upgrade_and_in_a_message(
        self, trusting_server: ServerProcess, well: OidcIssuer, algorithm: str
    ) -> None:
        user = unique_user()
        text = well.token(user, algorithm)
        with Peer(trusting_server.url, token_text=text) as peer, Peer(f"{trusting_server.url}?token={text}") as other:
            assert peer.connected["user_id"] == other.connected["user_id"] == user
        with Peer(trusting_server.url, greet=False) as peer:
            assert peer.ok("Authenticate", token=text)["user_id"] == user
            assert peer.ok("Refresh", token=well.token(user, algorithm))["type"] == "Refreshed"

    @pytest.mark.parametrize(
        "claims",
        [{"aud": "others"}, {"aud": None}, {"iss": "https://issuer.invalid"}, {"iss": None}, {"exp": 1}, {"exp": None}],
        ids=["audience", "no audience", "issuer", "no issuer", "expired", "no expiry"],
    )
    def test_wrong_claims(self, trusting_server: ServerProcess, well: OidcIssuer, claims: dict[str, Any]) -> None:
        text = well.token(**claims)
        assert answer_to(trusting_server, text).status == 401
        with Peer(trusting_server.url, greet=False) as peer:
            assert peer.error("Authenticate", token=text)["code"] in ("unauthorized", "token_expired")
            assert peer.close_code() == 4401

    def test_tokens_of_the_server_itself_go_to_the_other_provider(
        self, trusting_server: ServerProcess, well: OidcIssuer
    ) -> None:
        user = unique_user()
        before = well.counts()
        with Peer(trusting_server.url, user) as peer:
            assert peer.connected["user_id"] == user
        assert answer_to(trusting_server, token(iss=well.url)).status == 401
        assert answer_to(trusting_server, token(key="no secret of this server, of thirty-two bytes")).status == 401
        assert well.counts() == before

    def test_the_connection_ends_with_its_token(self, trusting_server: ServerProcess, well: OidcIssuer) -> None:
        end = int(time.time()) + 2
        with Peer(trusting_server.url, token_text=well.token(exp=end)) as peer:
            assert peer.connected["expires_at"] == end
            assert peer.close_code() == 4401


def waiting_upgrade(server: ServerProcess, text: str) -> RawSocket:
    """A connection whose upgrade request has been sent."""
    raw = RawSocket(server.port)
    raw.send(upgrade(authorization=f"Bearer {text}"))
    return raw


def is_unanswered(raw: RawSocket) -> bool:
    """Whether nothing at all has come back."""
    raw.socket.setblocking(False)
    try:
        return not raw.read_more() and False
    except BlockingIOError:
        return True
    finally:
        raw.socket.settimeout(15)


class TestTroubledIssuer:
    """Keys that are not there yet, new, or out of reach; other clients must not notice."""

    def test_who_comes_before_the_keys_waits_for_them(self, issuer: OidcIssuer, start_server: StartServer) -> None:
        issuer.control(mode="hang")
        server = start_server(trusting(issuer))
        until(lambda: issuer.counts().get(WELL_KNOWN) == 1)
        with contextlib.ExitStack() as stack:
            early = [stack.enter_context(waiting_upgrade(server, issuer.token(f"user-{n}"))) for n in range(3)]
            late = stack.enter_context(Peer(server.url, greet=False))
            late.send({"type": "Authenticate", "id": 1, "token": issuer.token("by message")})
            other = stack.enter_context(Peer(server.url, unique_user()))
            for _ in range(20):
                other.ok("Ping")
            assert all(is_unanswered(raw) for raw in early)
            issuer.control(mode="ok")
            assert [raw.answer().status for raw in early] == [101] * 3
            assert [raw.json()["user_id"] for raw in early] == [f"user-{n}" for n in range(3)]
            assert late.reply(1)["user_id"] == "by message"
        assert issuer.counts() == {WELL_KNOWN: 1, KEY_SET: 1}

    def test_a_new_key_is_fetched_once_for_all(self, issuer: OidcIssuer, start_server: StartServer) -> None:
        server = start_server(trusting(issuer))
        assert answer_to(server, issuer.token()).status == 101
        assert issuer.counts()[KEY_SET] == 1
        issuer.control(rotate=True, key_mode="hang")
        with contextlib.ExitStack() as stack:
            waiting = [
                stack.enter_context(waiting_upgrade(server, issuer.token(algorithm=algorithm)))
                for algorithm in ALGORITHMS
            ]
            until(lambda: issuer.counts()[KEY_SET] == 2)
            issuer.control(key_mode="ok")
            answers = [raw.answer() for raw in waiting]
            assert [answer.status for answer in answers] == [101] * 3, answers
        assert issuer.counts()[KEY_SET] == 2

    def test_an_issuer_that_hangs_holds_up_nobody_else(self, issuer: OidcIssuer, start_server: StartServer) -> None:
        server = start_server(trusting(issuer))
        known = issuer.token("known")
        assert answer_to(server, known).status == 101
        issuer.control(rotate=True, key_mode="hang")
        with waiting_upgrade(server, issuer.token()) as waiting, Peer(server.url, unique_user()) as other:
            until(lambda: issuer.counts()[KEY_SET] == 2)
            for _ in range(20):
                other.ok("Ping")
                assert answer_to(server, known).status == 101
            assert is_unanswered(waiting)
            answer = waiting.answer()
            assert (answer.status, answer.error_code) == (503, "unavailable")
            assert int(answer.headers["retry-after"]) >= 1
            assert other.ok("Ping")["type"] == "Pong"

    def test_an_issuer_that_is_down_locks_nobody_out(self, issuer: OidcIssuer, start_server: StartServer) -> None:
        server = start_server(trusting(issuer))
        known = issuer.token("known")
        assert answer_to(server, known).status == 101
        issuer.control(rotate=True)
        unknown = issuer.token("unknown")
        issuer.kill()
        assert answer_to(server, unknown).status == 503
        with Peer(server.url, token_text=known) as peer, Peer(server.url, "alice") as own:
            assert (peer.connected["user_id"], own.connected["user_id"]) == ("known", "alice")

    def test_an_issuer_that_is_down_from_the_start(self, issuer: OidcIssuer, start_server: StartServer) -> None:
        text = issuer.token()
        issuer.kill()
        server = start_server(trusting(issuer, circuit_breaker={"failure_threshold": 1}))
        until(lambda: health(server.port)["circuit_breakers"]["auth_service"]["state"] == "open")
        assert health(server.port)["status"] == "degraded"
        answer = answer_to(server, text)
        assert (answer.status, answer.error_code) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        with Peer(server.url, greet=False) as peer:
            assert peer.error("Authenticate", token=text)["code"] == "unavailable"
        reply = ask(server.port, "GET", "/admin/stats", {"Authorization": f"Bearer {text}"})
        assert (reply.status, "retry-after" in reply.headers) == (503, True)
        with Peer(server.url, unique_user()) as own:
            assert own.ok("Ping")["type"] == "Pong"


def key_entry(key: str, user: str, **rights: Any) -> dict[str, Any]:
    return {"key": "sha256:" + hashlib.sha256(key.encode()).hexdigest(), "user": user, **rights}


ROBOT, READER, CHIEF = "a robot's key", "a reader's key", "an admin's key"
KEYS = [
    key_entry(ROBOT, "robot"),
    key_entry(READER, "reader", permissions=["read"]),
    key_entry(CHIEF, "chief", roles=["admin"]),
]
WITH_KEYS = {
    "auth": {"providers": [{"type": "jwt", "priority": 1}, {"type": "api_key", "priority": 2, "keys": KEYS}]},
}


def issue(server: ServerProcess, key: str | None = ROBOT, **fields: Any) -> Answer:
    return ask(server.port, "POST", "/auth/token", {"X-API-Key": key}, fields)


def refresh(server: ServerProcess, refresh_token: str) -> Answer:
    return ask(server.port, "POST", "/auth/refresh", body={"refresh_token": refresh_token})


def revoke(server: ServerProcess, by: str | None = None, *, key: str | None = None, **fields: Any) -> Answer:
    headers = {"Authorization": None if by is None else f"Bearer {by}", "X-API-Key": key}
    return ask(server.port, "POST", "/auth/revoke", headers, fields)


@pytest.fixture(scope="module")
def issuing() -> Iterator[ServerProcess]:
    """Knows the API keys."""
    with served(WITH_KEYS) as process:
        yield process


class TestTokens:
    """`/auth/token`, `/auth/refresh`, `/auth/revoke`."""

    def test_the_life_of_a_login(self, issuing: ServerProcess) -> None:
        user = unique_user()
        first = issue(issuing, user_id=user).json
        assert (first["user_id"], first["token_type"]) == (user, "Bearer")
        with Peer(issuing.url, token_text=first["access_token"]) as phone, Peer(issuing.url, user) as elsewhere:
            second = refresh(issuing, first["refresh_token"])
            assert second.status == 200
            assert second.json["session_id"] == first["session_id"]
            assert phone.ok("Refresh", token=second.json["access_token"])["expires_at"] == second.json["expires_at"]
            again = refresh(issuing, first["refresh_token"])
            assert (again.status, again.error_code) == (401, "unauthorized")
            assert phone.close_code() == 4401
            for text in (first["access_token"], second.json["access_token"]):
                assert answer_to(issuing, text).status == 401
            assert refresh(issuing, second.json["refresh_token"]).status == 401
            assert elsewhere.ok("Ping")["type"] == "Pong"  # another login of the user

    def test_a_chain_of_refreshes(self, issuing: ServerProcess) -> None:
        pair = issue(issuing, user_id=unique_user(), permissions=["read"], topics={"subscribe": ["room:*"]}).json
        for _ in range(5):
            pair = refresh(issuing, pair["refresh_token"]).json
        claims = jwt.decode(pair["access_token"], options={"verify_signature": False})
        assert (claims["permissions"], claims["topics"]) == (["read"], {"subscribe": ["room:*"]})
        with Peer(issuing.url, token_text=pair["access_token"]) as peer:
            assert peer.error("Broadcast", topic="room:1", payload=1)["code"] == "forbidden"

    def test_a_refresh_token_is_no_access_token_nor_the_other_way_round(self, issuing: ServerProcess) -> None:
        pair = issue(issuing, user_id=unique_user()).json
        assert answer_to(issuing, pair["refresh_token"]).status == 401
        assert refresh(issuing, pair["access_token"]).status == 401
        assert refresh(issuing, pair["refresh_token"]).status == 200

    def test_who_may_issue(self, issuing: ServerProcess) -> None:
        assert issue(issuing, None, user_id="alice").status == 401
        assert issue(issuing, "nobody's key", user_id="alice").status == 401
        for user, roles, status in (("alice", ["user"], 403), ("boss", ["admin"], 200)):
            headers = bearer(user, roles=roles)
            assert ask(issuing.port, "POST", "/auth/token", headers, {"user_id": "bob"}).status == status
        path = "/auth/token?api_key=" + ROBOT.replace(" ", "%20")
        in_url = ask(issuing.port, "POST", path, body={"user_id": "alice"})
        assert in_url.status == 401

    @pytest.mark.parametrize(
        ("key", "fields", "field"),
        [
            (READER, {"permissions": ["read", "write"]}, "permissions"),
            (READER, {"roles": ["admin"]}, "roles"),
            (ROBOT, {"roles": ["user", "admin"]}, "roles"),
        ],
    )
    def test_nobody_grants_more_than_they_have(
        self, issuing: ServerProcess, key: str, fields: dict[str, Any], field: str
    ) -> None:
        reply = issue(issuing, key, user_id="alice", **fields)
        assert (reply.status, reply.error_code) == (403, "forbidden")
        assert reply.error_message.startswith(f"{field}:")
        assert issue(issuing, CHIEF, user_id="alice", **fields).status == 200

    def test_permissions_left_out_are_those_the_key_has(self, issuing: ServerProcess) -> None:
        with Peer(issuing.url, token_text=issue(issuing, READER, user_id=unique_user()).json["access_token"]) as peer:
            assert peer.ok("Presence", topic="room")["type"] == "PresenceState"
            assert peer.error("Subscribe", topic="room")["code"] == "forbidden"
            assert peer.error("Broadcast", topic="room", payload=1)["code"] == "forbidden"

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({}, "user_id"),
            ({"user_id": 5}, "user_id"),
            ({"user_id": ""}, "user_id"),
            ({"user_id": "u" * 129}, "user_id"),
            ({"user_id": "alice", "colour": "red"}, "colour"),
            ({"user_id": "alice", "permissions": ["fly"]}, "permissions"),
            ({"user_id": "alice", "expires_in": 0}, "expires_in"),
            ({"user_id": "alice", "expires_in": 10**9}, "expires_in"),
            ({"user_id": "alice", "user_metadata": {"x": "y" * 3000}}, "user_metadata"),
            ({"user_id": "alice", "topics": {"subscribe": ["a*b"]}}, "topics.subscribe"),
        ],
    )
    def test_a_field_that_is_wrong_is_named(self, issuing: ServerProcess, fields: dict[str, Any], named: str) -> None:
        reply = issue(issuing, **fields)
        assert reply.status == 422
        assert named in reply.error_message
        assert not reply.error_message.endswith(": ")

    def test_bodies_that_are_no_requests(self, issuing: ServerProcess) -> None:
        for path in ("/auth/token", "/auth/refresh", "/auth/revoke"):
            for body, status in ((b"{", 400), (b'{"a":' * 10_000, 422), (b"[]", 422), (b"x" * 70_000, 413)):
                assert ask(issuing.port, "POST", path, {"X-API-Key": ROBOT}, body).status == status, (path, body[:9])
            text = ask(issuing.port, "POST", path, {"X-API-Key": ROBOT, "Content-Type": "text/plain"}, {})
            assert text.status == 415

    def test_owners_revoke_their_own_login(self, issuing: ServerProcess) -> None:
        user = unique_user()
        mine, other = issue(issuing, user_id=user).json, issue(issuing, user_id=user).json
        with (
            Peer(issuing.url, token_text=mine["access_token"]) as phone,
            Peer(issuing.url, token_text=other["access_token"]) as desk,
        ):
            assert revoke(issuing, mine["access_token"], session_id=other["session_id"]).status == 403
            assert revoke(issuing, mine["access_token"], user_id=user).status == 403
            assert revoke(issuing, token("eve"), token=mine["refresh_token"]).status == 403
            assert revoke(issuing, session_id=mine["session_id"]).status == 401
            assert revoke(issuing, mine["access_token"]).status == 422
            reply = revoke(issuing, mine["access_token"], session_id=mine["session_id"])
            assert (reply.status, reply.json) == (200, {"revoked": 1})
            assert phone.close_code() == 4401
            assert desk.ok("Ping")["type"] == "Pong"
            assert refresh(issuing, mine["refresh_token"]).status == 401
            # Who holds a token may end its login without any other credentials.
            assert revoke(issuing, token=other["refresh_token"]).json == {"revoked": 1}
            assert desk.close_code() == 4401

    def test_admins_revoke_all_of_a_user(self, issuing: ServerProcess) -> None:
        user = unique_user()
        pairs = [issue(issuing, user_id=user).json for _ in range(2)]
        with (
            Peer(issuing.url, token_text=pairs[0]["access_token"]) as phone,
            Peer(issuing.url, token_text=pairs[1]["access_token"]) as desk,
        ):
            assert revoke(issuing, key=ROBOT, user_id=user).status == 403
            assert revoke(issuing, key=CHIEF, user_id=user).json == {"revoked": 2}
            assert (phone.close_code(), desk.close_code()) == (4401, 4401)
        assert [answer_to(issuing, pair["access_token"]).status for pair in pairs] == [401, 401]
        assert [refresh(issuing, pair["refresh_token"]).status for pair in pairs] == [401, 401]
        # The user is not locked out for ever: a new login works, within the same second too.
        fresh = issue(issuing, user_id=user).json
        assert refresh(issuing, fresh["refresh_token"]).status == 200

    def test_no_token_gets_into_the_log(self, issuing: ServerProcess) -> None:
        pair = issue(issuing, user_id=unique_user()).json
        Peer(f"{issuing.url}?token={pair['access_token']}").close()
        refresh(issuing, pair["refresh_token"])
        refresh(issuing, pair["refresh_token"])
        until(lambda: pair["session_id"] in issuing.log)
        for secret in (pair["access_token"], pair["refresh_token"], ROBOT, SECRET):
            assert secret not in issuing.log


def test_a_secret_that_is_rotated_while_the_server_runs(start_server: StartServer) -> None:
    server = start_server(WITH_KEYS)
    before = issue(server, user_id="alice").json
    with Peer(server.url, token_text=before["access_token"]) as peer:
        server.reload_and_wait(merged(WITH_KEYS, {"auth": {"jwt_secret": OTHER_SECRET}}))
        assert peer.ok("Ping")["type"] == "Pong"
    after = issue(server, user_id="bob").json
    for text in (before["access_token"], after["access_token"], token(), token(key=OTHER_SECRET)):
        assert answer_to(server, text).status == 101
    refreshed = refresh(server, before["refresh_token"]).json
    for text in (after["access_token"], after["refresh_token"], refreshed["access_token"], refreshed["refresh_token"]):
        assert jwt.decode(text, OTHER_SECRET, ["HS256"], options={"verify_aud": False})
    assert refresh(server, before["refresh_token"]).status == 401
    assert answer_to(server, token(key="neither of the two, and thirty-two bytes long")).status == 401


CLAIMS = {
    "include_user_metadata": True,
    "include_device_info": True,
    "include_location": True,
    "custom_fields": {"tier": "gold"},
}


class TestWhatIsSaidOfAUser:
    """`auth.custom_claims`, in tokens and in presence."""

    def shown(self, server: ServerProcess) -> tuple[dict[str, Any], dict[str, Any]]:
        """The claims of an issued token, and the member that others see of its connection."""
        fields = {"user_id": unique_user(), "user_metadata": {"name": "Alice"}}
        forwarded = {"X-API-Key": ROBOT, "User-Agent": "issuing/1", "X-Forwarded-For": "203.0.113.9"}
        pair = ask(server.port, "POST", "/auth/token", forwarded, fields).json
        topic = unique()
        headers = {"authorization": f"Bearer {pair['access_token']}", "user_agent": "connecting/2"}
        extra = ("X-Forwarded-For: 198.51.100.1, 203.0.113.7",)
        with RawSocket(server.port) as raw, Peer(server.url, unique_user()) as other:
            raw.send(upgrade(extra=extra, **headers))
            assert (raw.answer().status, raw.json()["type"]) == (101, "Connected")
            raw.send(envelope(type="Subscribe", id=1, topic=topic))
            assert raw.json()["type"] == "Subscribed"
            (member,) = other.ok("Presence", topic=topic)["members"]
        return jwt.decode(pair["access_token"], options={"verify_signature": False}), member

    def test_all_of_it(self, start_server: StartServer) -> None:
        settings = {"auth": {"custom_claims": CLAIMS}, "security": {"trusted_proxies": ["127.0.0.1"]}}
        claims, member = self.shown(start_server(merged(WITH_KEYS, settings)))
        assert {name: claims.get(name) for name in ("user_metadata", "device_info", "location", "tier")} == {
            "user_metadata": {"name": "Alice"},
            "device_info": {"user_agent": "issuing/1"},
            "location": {"address": "203.0.113.9"},
            "tier": "gold",
        }
        assert member["info"] == {
            "user_metadata": {"name": "Alice"},
            "device_info": {"user_agent": "connecting/2"},
            "location": {"address": "203.0.113.7"},
            "tier": "gold",
        }

    def test_a_proxy_that_is_not_trusted_is_not_believed(self, start_server: StartServer) -> None:
        settings = {"auth": {"custom_claims": {"include_location": True}}}
        claims, member = self.shown(start_server(merged(WITH_KEYS, settings)))
        assert claims["location"] == {"address": "127.0.0.1"}
        assert member["info"] == {"location": {"address": "127.0.0.1"}}

    def test_nothing_of_it_by_default(self, start_server: StartServer) -> None:
        claims, member = self.shown(start_server(WITH_KEYS))
        assert not {"user_metadata", "device_info", "location", "tier"} & claims.keys()
        assert list(member) == ["user_id", "session_id", "joined_at"]


def test_bypass_auth_believes_a_name(start_server: StartServer) -> None:
    server = start_server({"testing": {"bypass_auth": True}})
    with Peer(f"{server.url}?user_id=alice") as peer:
        assert peer.connected["user_id"] == "alice"
        assert peer.ok("Broadcast", topic="room", payload=1)["offset"] == 1
        assert peer.error("Broadcast", topic="*", payload=1)["code"] == "forbidden"
    with Peer(f"{server.url}?user_id=alice", "bob") as peer:
        assert peer.connected["user_id"] == "bob"  # a credential goes before
    wrong = upgrade(target="/ws?user_id=alice", authorization="Bearer wrong")
    assert exchange(server.port, wrong).status == 401
    assert ask(server.port, "POST", "/auth/token?user_id=alice", body={"user_id": "bob"}).status in (401, 403)


def test_without_bypass_auth_a_name_is_no_credential(product: ServerProcess) -> None:
    with Peer(f"{product.url}?user_id=alice", greet=False) as peer:
        assert peer.error("Ping")["code"] == "unauthorized"
        assert peer.close_code() == 4401


def test_the_mock_issuer_of_the_dev_profile(start_server: StartServer) -> None:
    issuer = "https://issuer.invalid"
    providers = [{"type": "jwt"}, {"type": "oauth2", "issuer": issuer, "audience": "us"}]
    server = start_server({"auth": {"providers": providers}}, profile="dev")
    for algorithm in ("RS256", "ES256"):
        body = {"user_id": "carol", "algorithm": algorithm, "expires_in": 60, "claims": {"scope": "subscribe"}}
        made = ask(server.port, "POST", "/mock/oidc/token", body=body)
        assert made.status == 200, made
        claims = jwt.decode(made.json["access_token"], options={"verify_signature": False})
        assert (claims["iss"], claims["aud"]) == (issuer, "us")
        with Peer(server.url, token_text=made.json["access_token"]) as peer:
            assert peer.connected["user_id"] == "carol"
            assert peer.ok("Subscribe", topic="room")["type"] == "Subscribed"
            assert peer.error("Broadcast", topic="room", payload=1)["code"] == "forbidden"
    found = ask(server.port, "GET", "/mock/oidc/.well-known/openid-configuration").json
    keys = ask(server.port, "GET", found["jwks_uri"].partition(str(server.port))[2]).json["keys"]
    assert {key["alg"] for key in keys} == {"RS256", "ES256"}
    assert "d" not in {name for key in keys for name in key}
    foreign = ask(server.port, "POST", "/mock/oidc/token", {"Sec-Fetch-Site": "cross-site"}, {"user_id": "carol"})
    assert foreign.status == 403


def test_there_is_no_mock_issuer_in_other_profiles(product: ServerProcess) -> None:
    assert ask(product.port, "POST", "/mock/oidc/token", body={"user_id": "carol"}).status == 404
