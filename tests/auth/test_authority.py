"""A login from its first pair of tokens to its end."""

import asyncio

import jwt as pyjwt
import msgspec
import pytest

from realtime_communication.auth.authority import RefreshRequest, Requester, RevokeRequest, TokenAuthority
from realtime_communication.auth.chain import chain_of
from realtime_communication.auth.grants import InvalidField, TokenRequest, TopicRequest
from realtime_communication.auth.identity import ALL_PERMISSIONS, READ, SUBSCRIBE, WRITE, Identity
from realtime_communication.auth.refresh import Families
from realtime_communication.auth.revocation import Revocations
from realtime_communication.auth.tokens import TokenIssuer
from realtime_communication.config.schema import Auth, CustomClaims
from realtime_communication.errors import AuthenticationFailed, RequestRefused

SECRET = "a secret of the tests, 32 bytes or longer"
OTHER = "the secret after the rotation, long enough"
NOW = 1_700_000_000
AUTH = Auth(jwt_secret=SECRET)
ADMIN = Identity(user_id="root", permissions=ALL_PERMISSIONS)
ROBOT = Identity(user_id="robot", permissions=READ | WRITE | SUBSCRIBE, credential="api_key")
HERE = Requester("curl/8", "192.0.2.1")


class Server:
    """The authority, what it remembers, and the chain that asks it; time stands still unless moved."""

    def __init__(self, auth=AUTH, **options):
        self.now = NOW
        self.disconnected = []
        self.revocations = Revocations(self.disconnect, clock=lambda: self.now)
        self.families = Families()
        self.configure(auth, **options)

    def configure(self, auth, previous_secrets=()):
        self.authority = TokenAuthority(auth, self.revocations, self.families, previous_secrets)
        self.chain = chain_of(
            auth,
            bypass=False,
            previous_secrets=previous_secrets,
            revocations=self.revocations,
            clock=lambda: self.now,
        )

    def disconnect(self, *, user_id=None, login=None, code, reason):
        self.disconnected.append(user_id or login)
        return 1

    def issue(self, by=ROBOT, **fields):
        return self.authority.issue(TokenRequest(**{"user_id": "alice", **fields}), by, HERE, self.now)

    def refresh(self, token):
        return asyncio.run(self.authority.refresh(RefreshRequest(token), HERE, self.now))

    def revoke(self, by=ADMIN, **fields):
        return self.authority.revoke(RevokeRequest(**fields), by, self.now)[1]

    def identity(self, token):
        """The identity, or the code and the message of the refusal."""
        return self.chain.authenticate_message(token, None, "peer")

    def is_in(self, token):
        return isinstance(self.identity(token), Identity)


@pytest.fixture
def server():
    return Server()


def claims_of(token):
    return pyjwt.decode(token, options={"verify_signature": False})


class TestIssuing:
    def test_the_pair(self, server):
        pair = server.issue()
        assert msgspec.structs.asdict(pair) == {
            "access_token": pair.access_token,
            "token_type": "Bearer",
            "expires_in": 86_400,
            "expires_at": NOW + 86_400,
            "refresh_token": pair.refresh_token,
            "refresh_expires_at": NOW + 30 * 86_400,
            "session_id": pair.session_id,
            "user_id": "alice",
        }
        identity = server.identity(pair.access_token)
        assert (identity.user_id, identity.login) == ("alice", pair.session_id)
        assert not server.is_in(pair.refresh_token)

    def test_what_is_asked_for(self, server):
        pair = server.issue(roles=["editor"], permissions=["read"], session_id="phone", expires_in=60)
        identity = server.identity(pair.access_token)
        assert (identity.permissions, identity.login, identity.expires_at) == (READ, "phone", NOW + 60)
        assert pair.expires_in == 60

    def test_who_may(self, server):
        assert server.issue(ADMIN, roles=["admin"])
        for by in (Identity(user_id="alice", permissions=READ | WRITE | SUBSCRIBE), Identity(user_id="x")):
            with pytest.raises(RequestRefused) as caught:
                server.issue(by)
            assert caught.value.code == "forbidden"

    def test_a_token_that_nobody_would_accept_is_not_made(self, server):
        with pytest.raises(InvalidField, match="8192"):
            server.issue(topics=TopicRequest(subscribe=["x" * 250] * 40))


class TestRefreshing:
    def test_the_next_pair_says_the_same(self, server):
        first = server.issue(roles=["editor"], permissions=["read"], session_id="phone", expires_in=600)
        server.now += 500
        second = server.refresh(first.refresh_token)
        before, after = claims_of(first.access_token), claims_of(second.access_token)
        moved = {"iat", "nbf", "exp", "refresh_threshold"}
        assert {name: after[name] - before[name] for name in moved} == dict.fromkeys(moved, 500)
        assert {name: value for name, value in after.items() if name not in moved} == {
            name: value for name, value in before.items() if name not in moved
        }
        assert second.refresh_expires_at == first.refresh_expires_at + 500

    def test_a_chain_of_pairs(self, server):
        pair = server.issue()
        for _ in range(5):
            pair = server.refresh(pair.refresh_token)
        assert server.is_in(pair.access_token)

    def test_using_one_twice_ends_the_login(self, server):
        first = server.issue()
        second = server.refresh(first.refresh_token)
        bystander = server.issue()
        with pytest.raises(AuthenticationFailed, match="used before"):
            server.refresh(first.refresh_token)
        assert server.disconnected == [first.session_id]
        for token in (first.access_token, second.access_token):
            assert server.identity(token)[0] == "unauthorized"
            assert "revoked" in server.identity(token)[1]
        with pytest.raises(AuthenticationFailed, match="revoked"):
            server.refresh(second.refresh_token)
        assert server.is_in(bystander.access_token)

    def test_a_second_first_pair_of_a_login_hurts_nobody(self, server):
        first = server.refresh(server.issue(session_id="phone").refresh_token)
        second = server.issue(session_id="phone")
        assert server.refresh(second.refresh_token)
        assert server.refresh(first.refresh_token)
        assert server.disconnected == []

    @pytest.mark.parametrize("token", ["", "a.b.c", "x" * 10_000])
    def test_what_is_none(self, server, token):
        with pytest.raises(AuthenticationFailed):
            server.refresh(token)

    def test_an_access_token_is_none(self, server):
        with pytest.raises(AuthenticationFailed, match="typ"):
            server.refresh(server.issue().access_token)

    def test_an_expired_one(self, server):
        pair = server.issue()
        server.now += 30 * 86_400
        with pytest.raises(AuthenticationFailed) as caught:
            server.refresh(pair.refresh_token)
        assert caught.value.code == "token_expired"

    def test_the_life_is_never_longer_than_configured_now(self, server):
        pair = server.issue()
        server.configure(msgspec.structs.replace(AUTH, access_token_expiry_hours=1.0))
        assert server.refresh(pair.refresh_token).expires_in == 3600


class TestRevoking:
    def test_by_token(self, server):
        pair = server.issue()
        assert server.revoke(token=pair.access_token) == 1
        assert server.disconnected == [pair.session_id]
        code, message = server.identity(pair.access_token)
        assert code == "unauthorized"
        assert "revoked" in message
        with pytest.raises(AuthenticationFailed):
            server.refresh(pair.refresh_token)

    def test_by_refresh_token(self, server):
        pair = server.issue()
        server.revoke(token=pair.refresh_token)
        assert not server.is_in(pair.access_token)

    def test_by_an_expired_token_what_is_left_of_its_login(self, server):
        pair = server.issue(expires_in=10)
        server.now += 20
        server.revoke(token=pair.access_token)
        with pytest.raises(AuthenticationFailed, match="revoked"):
            server.refresh(pair.refresh_token)

    def test_by_login(self, server):
        phone, desk = server.issue(session_id="phone"), server.issue(session_id="desk")
        server.revoke(session_id="phone")
        assert not server.is_in(phone.access_token)
        assert server.is_in(desk.access_token)

    def test_by_user_and_a_new_token_is_good_at_once(self, server):
        old = server.issue()
        server.revoke(user_id="alice")
        assert server.disconnected == ["alice"]
        assert not server.is_in(old.access_token)
        with pytest.raises(AuthenticationFailed):
            server.refresh(old.refresh_token)
        new = server.issue()
        assert server.is_in(new.access_token)
        assert server.refresh(new.refresh_token)

    def test_the_owner_may_end_the_own_login_only(self, server):
        pair, other = server.issue(session_id="phone"), server.issue(session_id="desk")
        owner = server.identity(pair.access_token)
        foreign = server.issue(user_id="bob")
        for fields in (
            {"session_id": "desk"},
            {"user_id": "alice"},
            {"user_id": "bob"},
            {"token": foreign.access_token},
        ):
            with pytest.raises(RequestRefused) as caught:
                server.revoke(owner, **fields)
            assert caught.value.code == "forbidden"
        assert server.revoke(owner, token=other.access_token) == 1
        assert server.revoke(owner, session_id="phone") == 1
        assert server.is_in(foreign.access_token)

    @pytest.mark.parametrize(
        "fields",
        [
            *(
                {},
                {"token": "x", "user_id": "y"},
                {"token": "x", "session_id": "y", "user_id": "z"},
                {"token": "a.b.c"},
            ),
            *({"session_id": ""}, {"user_id": "x" * 129}, {"session_id": "x" * 129}),
        ],
    )
    def test_malformed_requests(self, server, fields):
        with pytest.raises(InvalidField):
            server.revoke(**fields)

    def test_somebody_elses_token(self, server):
        forged = TokenIssuer(secret=OTHER, issuer=AUTH.jwt_issuer, audience=AUTH.jwt_audience, lifetime_secs=60)
        with pytest.raises(InvalidField, match="token"):
            server.revoke(token=forged.access_token("alice", NOW))

    def test_a_token_without_login(self, server):
        claims = claims_of(server.issue().access_token)
        del claims["session_id"]
        with pytest.raises(InvalidField, match="session_id"):
            server.revoke(token=pyjwt.encode(claims, SECRET))

    def test_a_revoked_login_is_not_given_new_tokens(self, server):
        server.revoke(session_id="phone")
        with pytest.raises(InvalidField, match="session_id"):
            server.issue(session_id="phone")

    def test_it_is_forgotten_when_the_last_token_would_have_expired(self, server):
        server.revoke(session_id="phone")
        server.now += 30 * 86_400 - 1
        with pytest.raises(InvalidField):
            server.issue(session_id="phone")
        server.now += 1
        assert server.issue(session_id="phone")
        assert len(server.revocations) == 0

    def test_where_tokens_never_expire_it_is_never_forgotten(self):
        server = Server(msgspec.structs.replace(AUTH, validate_exp=False))
        pair = server.issue()
        server.revoke(token=pair.access_token)
        server.now += 10 * 365 * 86_400
        assert not server.is_in(pair.access_token)


class TestRotatingTheSecret:
    def test_both_are_accepted_and_the_new_one_signs(self, server):
        old = server.issue()
        server.configure(msgspec.structs.replace(AUTH, jwt_secret=OTHER), previous_secrets=(SECRET,))
        assert server.is_in(old.access_token)
        new = server.refresh(old.refresh_token)
        pyjwt.decode(new.access_token, OTHER, ["HS256"], audience=AUTH.jwt_audience, options={"verify_exp": False})
        assert server.is_in(new.access_token)
        server.configure(msgspec.structs.replace(AUTH, jwt_secret=OTHER))
        assert not server.is_in(old.access_token)
        assert server.is_in(new.access_token)

    @pytest.mark.parametrize("secret", ["short", "-----BEGIN PUBLIC KEY-----" + "x" * 40])
    def test_an_older_secret_must_be_one_too(self, server, secret):
        with pytest.raises(ValueError, match="jwt_secret"):
            server.configure(AUTH, previous_secrets=(secret,))


def test_custom_claims_follow_the_login():
    wanted = CustomClaims(
        include_user_metadata=True, include_device_info=True, include_location=True, custom_fields={"tier": "gold"}
    )
    server = Server(msgspec.structs.replace(AUTH, custom_claims=wanted))
    first = server.issue(user_metadata={"team": "red"})
    second = asyncio.run(
        server.authority.refresh(RefreshRequest(first.refresh_token), Requester("Firefox", "192.0.2.9"), NOW)
    )
    for pair, agent, address in ((first, "curl/8", "192.0.2.1"), (second, "Firefox", "192.0.2.9")):
        claims = claims_of(pair.access_token)
        assert (claims["user_metadata"], claims["tier"]) == ({"team": "red"}, "gold")
        assert (claims["device_info"], claims["location"]) == ({"user_agent": agent}, {"address": address})


def test_no_token_gets_into_the_log(server, caplog):
    caplog.set_level("DEBUG")
    pair = server.issue()
    second = server.refresh(pair.refresh_token)
    with pytest.raises(AuthenticationFailed):
        server.refresh(pair.refresh_token)
    text = str([vars(record) for record in caplog.records])
    assert "used twice" in text
    for token in (pair.access_token, pair.refresh_token, second.access_token, second.refresh_token):
        assert token.rpartition(".")[2] not in text
