"""`[auth]`: who may come in."""

import time

import jwt
import msgspec
import pytest

from realtime_communication.auth.api_key import hashed
from realtime_communication.auth.chain import chain_of, issuer_of
from realtime_communication.auth.identity import ADMIN, READ, SUBSCRIBE, WRITE
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
