"""`[auth]`: who may come in."""

import json
import time

import jwt
import msgspec
import pytest

from realtime_communication.auth.api_key import hashed
from realtime_communication.auth.authority import Requester, TokenAuthority
from realtime_communication.auth.chain import chain_of, issuer_of
from realtime_communication.auth.grants import TokenRequest
from realtime_communication.auth.identity import ADMIN, READ, SUBSCRIBE, WRITE, Identity
from realtime_communication.auth.refresh import Families
from realtime_communication.auth.revocation import Revocation, Revocations
from serving.tokens import SECRET, token

OTHER = "another secret of at least thirty-two bytes, and more than sixty-four of them"


@pytest.fixture
def chain(configure):
    return lambda auth: chain_of(configure({"auth": auth}).config.auth, bypass=False)


def outcome(chain, text):
    """ "in", or the code of the refusal."""
    answer = chain.authenticate_upgrade([(b"authorization", b"Bearer " + text.encode())], b"", "peer")
    return answer[1] if isinstance(answer, tuple) else "in"


@pytest.mark.parametrize(
    ("settings", "good", "bad"),
    [
        ({"jwt_secret": OTHER}, {"key": OTHER}, {"key": SECRET}),
        ({"jwt_algorithms": ["HS384"]}, {"algorithm": "HS384"}, {"algorithm": "HS256"}),
        ({"jwt_issuer": "me"}, {"iss": "me"}, {"iss": "ai-system-rust"}),
        ({"jwt_audience": "us"}, {"aud": "us"}, {"aud": "realtime-communication"}),
    ],
    ids=["jwt_secret", "jwt_algorithms", "jwt_issuer", "jwt_audience"],
)
def test_what_a_token_must_have(chain, settings, good, bad):
    made = chain(settings)
    assert (outcome(made, token(**good)), outcome(made, token(**bad))) == ("in", "unauthorized")


@pytest.mark.parametrize(
    ("switch", "claims", "refusal"),
    [
        ("validate_issuer", {"iss": "somebody"}, "unauthorized"),
        ("validate_audience", {"aud": "others"}, "unauthorized"),
        ("validate_exp", {"exp": 1_000_000_000}, "token_expired"),
        ("validate_nbf", {"nbf": 4_000_000_000}, "unauthorized"),
    ],
)
def test_each_switch_turns_off_exactly_its_check(chain, switch, claims, refusal):
    assert outcome(chain({}), token(**claims)) == refusal
    open_to_it = chain({switch: False})
    assert outcome(open_to_it, token(**claims)) == "in"
    assert outcome(open_to_it, token(key=OTHER, **claims)) == "unauthorized"
    others = {"iss": "somebody", "aud": "others", "exp": 1_000_000_000, "nbf": 4_000_000_000}
    for name, value in others.items():
        if name not in claims:
            assert outcome(open_to_it, token(**{name: value})) != "in", name


def test_access_token_expiry_hours(configure):
    issuer = issuer_of(configure({"auth": {"access_token_expiry_hours": 1.5}}).config.auth)
    claims = jwt.decode(issuer.access_token("alice", time.time()), options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 5400


def authority_of(auth):
    return TokenAuthority(auth, Revocations(lambda **_: 0), Families())


def issued(auth, **fields):
    """A pair for alice, asked for by an API key with this user agent from this address, and its claims."""
    robot = Identity(user_id="robot", permissions=READ | WRITE | SUBSCRIBE, credential="api_key")
    request = TokenRequest(user_id="alice", **fields)
    pair = authority_of(auth).issue(request, robot, Requester("curl/8", "192.0.2.1"), time.time())
    return pair, jwt.decode(pair.access_token, options={"verify_signature": False})


def test_refresh_token_expiry_days(configure):
    pair, claims = issued(configure({"auth": {"refresh_token_expiry_days": 0.5}}).config.auth)
    assert pair.refresh_expires_at - claims["iat"] == 43_200
    assert jwt.decode(pair.refresh_token, options={"verify_signature": False})["exp"] == pair.refresh_expires_at


class TestCustomClaims:
    """`[auth.custom_claims]`: in issued tokens, and in what presence shows of a connection."""

    EFFECTS = {  # noqa: RUF012
        "include_user_metadata": (True, {"user_metadata": {"team": "red"}}, {"user_metadata": {"team": "red"}}),
        "include_device_info": (
            True,
            {"device_info": {"user_agent": "curl/8"}},
            {"device_info": {"user_agent": "Firefox"}},
        ),
        "include_location": (True, {"location": {"address": "192.0.2.1"}}, {"location": {"address": "192.0.2.7"}}),
        "custom_fields": ({"tier": "gold"}, {"tier": "gold"}, {"tier": "gold"}),
    }
    NAMES = {"user_metadata", "device_info", "location", "tier"}  # noqa: RUF012

    def shown(self, configure, wanted):
        """The further claims of a token, and what the presence of a connection with it shows."""
        auth = configure({"auth": {"custom_claims": wanted}}).config.auth
        pair, claims = issued(auth, user_metadata={"team": "red"})
        headers = [(b"authorization", b"Bearer " + pair.access_token.encode()), (b"user-agent", b"Firefox")]
        info = chain_of(auth, bypass=False).authenticate_upgrade(headers, b"", "192.0.2.7:1234").presence_info
        return {name: claims[name] for name in claims.keys() & self.NAMES}, info and json.loads(info)

    def check(self, configure, key):
        value, claims, info = self.EFFECTS[key]
        assert self.shown(configure, {}) == ({}, None)
        assert self.shown(configure, {key: value}) == (claims, info)

    def test_include_user_metadata(self, configure):
        self.check(configure, "include_user_metadata")

    def test_include_device_info(self, configure):
        self.check(configure, "include_device_info")

    def test_include_location(self, configure):
        self.check(configure, "include_location")

    def test_custom_fields(self, configure):
        self.check(configure, "custom_fields")


def test_revoking_closes_live_connections(serve):
    running = serve()
    hub = running.worker.parts.hub
    now = int(time.time())
    phone, desk, other = (
        running.raw(authorization="Bearer " + token(user, session_id=login))
        for user, login in (("alice", "phone"), ("alice", "desk"), ("bob", "b"))
    )
    revocations = Revocations(hub.disconnect)
    assert running.ask(lambda: revocations.revoke(Revocation("login", "phone", now, now + 60))) == 1
    assert phone.closed_with() == 4401
    assert desk.ping_works()
    assert running.ask(lambda: revocations.revoke(Revocation("user", "alice", now, now + 60))) == 1
    assert desk.closed_with() == 4401
    assert other.ping_works()


KEY = {"key": hashed("open sesame"), "user": "robot", "roles": ["worker"], "permissions": ["write"]}
API_KEY = {"type": "api_key", "name": "robots", "keys": [KEY]}


def identity(chain, *headers, query=b""):
    return chain.authenticate_upgrade(list(headers), query, "peer")


class TestProviders:
    """An entry of `[[auth.providers]]`."""

    GIVEN = (b"x-api-key", b"open sesame")

    def test_key_user_and_permissions(self, chain):
        found = identity(chain({"providers": [API_KEY]}), self.GIVEN)
        assert (found.user_id, found.permissions) == ("robot", WRITE)
        assert identity(chain({"providers": [API_KEY]}), (b"x-api-key", b"open barley"))[0] == 401

    def test_roles(self, chain):
        admin = API_KEY | {"keys": [KEY | {"roles": ["admin"]}]}
        assert identity(chain({"providers": [admin]}), self.GIVEN).permissions == READ | WRITE | SUBSCRIBE | ADMIN

    def test_type(self, chain):
        assert identity(chain({"providers": [{"type": "jwt"}]}), self.GIVEN)[0] == 401
        assert outcome(chain({"providers": [API_KEY]}), token()) == "unauthorized"

    def test_enabled(self, chain):
        providers = [{"type": "jwt"}, API_KEY | {"enabled": False}]
        assert identity(chain({"providers": providers}), self.GIVEN)[0] == 401

    def test_header_and_query_param(self, chain):
        made = chain({"providers": [API_KEY | {"header": "X-Robot", "query_param": "robot"}]})
        assert identity(made, (b"x-robot", b"open sesame")).user_id == "robot"
        assert identity(made, query=b"robot=open%20sesame").user_id == "robot"
        assert identity(made, self.GIVEN) is None
        assert identity(made, query=b"api_key=open%20sesame") is None

    @pytest.mark.parametrize(("first", "user"), [("jwt", "alice"), ("api_key", "robot")])
    def test_priority(self, chain, first, user):
        providers = [
            {"type": "jwt", "priority": 1 if first == "jwt" else 9},
            API_KEY | {"priority": 5},
        ]
        both = (self.GIVEN, (b"authorization", b"Bearer " + token("alice").encode()))
        assert identity(chain({"providers": providers}), *both).user_id == user

    def test_name_in_logs(self, chain, caplog):
        caplog.set_level("DEBUG")
        identity(chain({"providers": [API_KEY]}), (b"x-api-key", b"open barley"))
        assert "robots" in str(
            [msgspec.to_builtins(vars(record), str_keys=True, enc_hook=str) for record in caplog.records]
        )
        assert "barley" not in str([vars(record) for record in caplog.records])
