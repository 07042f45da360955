"""Where credentials are looked for, in what order, and what a wrong one is answered."""

import logging
import time

import pytest

from realtime_communication.auth.api_key import ApiKeyVerifier, hashed
from realtime_communication.auth.chain import (
    ApiKeyProvider,
    AuthenticationChain,
    BypassProvider,
    JwtProvider,
    MalformedRequestError,
    chain_of,
    issuer_of,
    parse_query,
)
from realtime_communication.auth.jwt import JwtRules, JwtVerifier
from realtime_communication.auth.tokens import TokenIssuer
from realtime_communication.config.schema import ApiKey, Auth, AuthProvider

SECRET = "a secret of the tests, 32 bytes or longer"
NOW = 1_700_000_000.0
ISSUER = TokenIssuer(secret=SECRET, issuer="i", audience="a", lifetime_secs=60)
TOKEN = ISSUER.access_token("alice", NOW)
RULES = JwtRules(secret=SECRET, issuer="i", audience="a")


class Clock:
    now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def chain(clock):
    keys = ApiKeyVerifier([ApiKey(key=hashed("key"), user="service", permissions=("write",))])
    return AuthenticationChain([ApiKeyProvider(keys), JwtProvider(JwtVerifier(RULES))], clock)


def upgrade(chain, headers=(), query=b""):
    return chain.authenticate_upgrade([(name, value) for name, value in headers], query, "127.0.0.1:1")


def bearer(token):
    return (b"authorization", b"Bearer " + token.encode())


class TestUpgrade:
    def test_the_places(self, chain):
        assert upgrade(chain, [bearer(TOKEN)]).user_id == "alice"
        assert upgrade(chain, [(b"authorization", b"bearer  " + TOKEN.encode())]).user_id == "alice"
        assert upgrade(chain, query=b"token=" + TOKEN.encode()).user_id == "alice"
        assert upgrade(chain, [(b"x-api-key", b"key")]).user_id == "service"
        assert upgrade(chain, query=b"x=1&api_key=k%65y").user_id == "service"

    def test_no_credential_is_no_error(self, chain):
        assert upgrade(chain) is None
        assert upgrade(chain, [(b"host", b"h")], b"room=1") is None

    def test_the_first_by_priority_decides(self, chain):
        assert upgrade(chain, [bearer(TOKEN), (b"x-api-key", b"wrong")]).user_id == "alice"
        assert upgrade(chain, [bearer("wrong"), (b"x-api-key", b"key")])[0] == 401

    def test_the_header_comes_before_the_query(self, chain):
        assert upgrade(chain, [bearer("wrong")], b"token=" + TOKEN.encode())[0] == 401

    @pytest.mark.parametrize("value", [b"Bearer", b"Bearer ", b"Basic YTpi", b"", b"Bearer \xff", b"Bearer a b c"])
    def test_wrong_authorization_headers(self, chain, value):
        status, code, _, headers = upgrade(chain, [(b"authorization", value)])
        assert (status, code) == (401, "unauthorized")
        assert headers[0][0] == "WWW-Authenticate"

    @pytest.mark.parametrize("query", [b"token=", b"token", b"api_key=", b"api_key=wrong"])
    def test_wrong_parameters(self, chain, query):
        assert upgrade(chain, query=query)[:2] == (401, "unauthorized")

    def test_two_authorization_headers(self, chain):
        assert upgrade(chain, [bearer(TOKEN), bearer(TOKEN)])[:2] == (400, "bad_request")

    @pytest.mark.parametrize("query", [b"token=%", b"a=%4", b"a=%zz", b"%u0041=1", b"a=%ff", b"a=%+1", b"a=1&a=2"])
    def test_malformed_queries(self, chain, query):
        assert upgrade(chain, query=query)[:2] == (400, "bad_request")

    def test_an_expired_token(self, chain, clock):
        clock.now = NOW + 60
        assert upgrade(chain, [bearer(TOKEN)])[:2] == (401, "token_expired")

    def test_no_answer_shows_the_credential(self, chain):
        for answer in (upgrade(chain, [bearer("hunter2.a.b")]), upgrade(chain, [(b"x-api-key", b"hunter2")])):
            assert "hunter2" not in repr(answer)

    def test_an_error_of_its_own_is_answered_and_logged(self, chain, monkeypatch, caplog):
        monkeypatch.setattr(JwtVerifier, "verify", lambda *_: 1 / 0)
        with caplog.at_level(logging.ERROR):
            assert upgrade(chain, [bearer("x" + TOKEN)])[:2] == (500, "internal")
        assert len(caplog.records) == 1
        assert TOKEN not in caplog.text


class TestMessage:
    def test_both_kinds(self, chain):
        assert chain.authenticate_message(TOKEN, None, "peer").user_id == "alice"
        assert chain.authenticate_message(None, "key", "peer").user_id == "service"

    @pytest.mark.parametrize(("token", "key"), [("wrong", None), (None, "wrong"), ("", None), (None, None)])
    def test_wrong_ones(self, chain, token, key):
        assert chain.authenticate_message(token, key, "peer")[0] == "unauthorized"

    def test_an_expired_token(self, chain, clock):
        clock.now = NOW + 60
        assert chain.authenticate_message(TOKEN, None, "peer")[0] == "token_expired"

    def test_a_kind_without_provider(self, clock):
        only_tokens = AuthenticationChain([JwtProvider(JwtVerifier(RULES))], clock)
        assert only_tokens.authenticate_message(None, "key", "peer")[0] == "unauthorized"


def test_a_token_that_was_good_is_refused_once_it_has_expired(chain, clock):
    assert upgrade(chain, [bearer(TOKEN)]).user_id == "alice"
    clock.now = NOW + 61
    assert upgrade(chain, [bearer(TOKEN)])[1] == "token_expired"


def test_bypass_believes_the_query(clock):
    chain = AuthenticationChain([JwtProvider(JwtVerifier(RULES)), BypassProvider()], clock)
    assert upgrade(chain, query=b"user_id=bob").user_id == "bob"
    assert upgrade(chain, [bearer(TOKEN)], b"user_id=bob").user_id == "alice"
    assert upgrade(chain, query=b"user_id=")[0] == 401
    assert upgrade(chain, query=b"user_id=a%0Ab")[0] == 401


def test_configured_names(clock):
    keys = ApiKeyVerifier([ApiKey(key=hashed("key"), user="service")])
    chain = AuthenticationChain([ApiKeyProvider(keys, header="X-Service-Key", query_param="k")], clock)
    assert upgrade(chain, [(b"x-service-key", b"key")]).user_id == "service"
    assert upgrade(chain, query=b"k=key").user_id == "service"
    assert upgrade(chain, [(b"x-api-key", b"key")], b"api_key=key") is None


def test_queries():
    assert parse_query(b"a=1&b=%C3%A9+x&&c") == {"a": "1", "b": "é x", "c": ""}
    with pytest.raises(MalformedRequestError):
        parse_query(b"a=%C3")


class TestConfigured:
    def test_a_kind_that_is_not_enabled_is_refused_not_overlooked(self):
        auth = Auth(jwt_secret=SECRET)
        chain = chain_of(auth, bypass=False)
        token = issuer_of(auth).access_token("alice", time.time())
        assert upgrade(chain, [bearer(token)]).user_id == "alice"
        assert upgrade(chain, [(b"x-api-key", b"key")])[:2] == (401, "unauthorized")
        assert chain.authenticate_message(None, "key", "peer")[0] == "unauthorized"

    def test_only_keys(self):
        keys = (ApiKey(key=hashed("key"), user="service"),)
        provider = AuthProvider(type="api_key", header="X-Service-Key", query_param="k", keys=keys)
        auth = Auth(jwt_secret=SECRET, providers=(provider, AuthProvider(type="jwt", enabled=False)))
        chain = chain_of(auth, bypass=False)
        assert upgrade(chain, [(b"x-service-key", b"key")]).user_id == "service"
        token = issuer_of(auth).access_token("alice", time.time())
        assert upgrade(chain, [bearer(token)])[:2] == (401, "unauthorized")
        assert upgrade(chain) is None

    def test_the_bypass_comes_last_of_those_that_accept(self):
        auth = Auth(jwt_secret=SECRET)
        chain = chain_of(auth, bypass=True)
        assert upgrade(chain, query=b"user_id=bob").user_id == "bob"
        token = issuer_of(auth).access_token("alice", time.time())
        assert upgrade(chain, [bearer(token)], b"user_id=bob").user_id == "alice"

    def test_an_issuer_whose_keys_nobody_has(self):
        providers = (AuthProvider(type="oauth2", issuer="https://issuer.example"),)
        with pytest.raises(ValueError, match="keys of oauth2"):
            chain_of(Auth(jwt_secret=SECRET, providers=providers), bypass=False, key_sources=())
