"""Where credentials are looked for, in what order, and what a wrong one is answered."""

import asyncio
import base64
import hashlib
import hmac
import inspect
import itertools
import json
import logging
import time

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives import serialization

from realtime_communication.auth.api_key import ApiKeyVerifier, hashed
from realtime_communication.auth.chain import (
    AuthenticationChain,
    MalformedRequestError,
    address_of,
    chain_of,
    issuer_of,
    key_sources_of,
    parse_query,
)
from realtime_communication.auth.identity import Identity
from realtime_communication.auth.jwt import JwtRules, JwtVerifier
from realtime_communication.auth.mock_issuer import MockIssuer
from realtime_communication.auth.providers import ApiKeyProvider, BypassProvider, JwtProvider
from realtime_communication.auth.revocation import Revocation, Revocations
from realtime_communication.auth.tokens import TokenIssuer
from realtime_communication.config.schema import ApiKey, Auth, AuthProvider, CustomClaims
from realtime_communication.errors import AuthenticationFailed, AuthenticationUnavailable
from serving.hand_clock import HandClock

SECRET = "a secret of the tests, 32 bytes or longer"
NOW = 1_700_000_000.0
ISSUER = TokenIssuer(secret=SECRET, issuer="i", audience="a", lifetime_secs=60)
TOKEN = ISSUER.access_token("alice", NOW)
RULES = JwtRules(secret=SECRET, issuer="i", audience="a")


@pytest.fixture
def clock():
    return HandClock(NOW)


@pytest.fixture
def chain(clock):
    keys = ApiKeyVerifier([ApiKey(key=hashed("key"), user="service", permissions=("write",))])
    return AuthenticationChain([ApiKeyProvider(keys), JwtProvider(JwtVerifier(RULES))], clock)


def upgrade(chain, headers=(), query=b""):
    return chain.authenticate_upgrade([(name, value) for name, value in headers], query, "127.0.0.1:1")


def bearer(token):
    return (b"authorization", b"Bearer " + token.encode())


class TestToken:
    """`accept_token` says what `authenticate_upgrade` would say, or nothing."""

    @pytest.fixture
    def tokens(self, clock):
        return AuthenticationChain([JwtProvider(JwtVerifier(RULES))], clock, revocations=Revocations(lambda **_: 0))

    def test_a_good_one(self, tokens):
        assert tokens.accept_token(TOKEN) == upgrade(tokens, [bearer(TOKEN)])
        assert tokens.accept_token(TOKEN).user_id == "alice"

    def test_of_others_it_says_nothing(self, tokens, clock):
        assert tokens.accept_token("x") is None
        assert tokens.accept_token(TOKEN[:-1]) is None
        clock.now += 60
        assert tokens.accept_token(TOKEN) is None

    @pytest.mark.parametrize("kind", ["login", "user"])
    def test_what_was_revoked(self, clock, kind):
        revoked = Revocations(lambda **_: 0, clock=clock)
        tokens = AuthenticationChain([JwtProvider(JwtVerifier(RULES))], clock, revocations=revoked)
        name = tokens.accept_token(TOKEN).login if kind == "login" else "alice"
        revoked.revoke(Revocation(kind, name, NOW, NOW + 60))
        assert tokens.accept_token(TOKEN) is None
        assert upgrade(tokens, [bearer(TOKEN)])[0] == 401

    def test_where_more_than_the_token_decides(self, chain, clock):
        jwt = JwtProvider(JwtVerifier(RULES))
        keys = ApiKeyProvider(ApiKeyVerifier([]), priority=0)
        two = [jwt, JwtProvider(JwtVerifier(RULES), priority=2)]
        shown = AuthenticationChain([jwt], clock, custom_claims=CustomClaims(include_device_info=True))
        others = [AuthenticationChain(providers, clock) for providers in ([], [keys, jwt], two)]
        assert [one.accept_token(TOKEN) for one in (shown, *others)] == [None] * 4
        assert AuthenticationChain([jwt, ApiKeyProvider(ApiKeyVerifier([]))], clock).accept_token(TOKEN) is not None

    def test_where_hs256_is_not_accepted(self, clock):
        rules = JwtRules(secret=SECRET, issuer="i", audience="a", algorithms=("HS512",))
        assert AuthenticationChain([JwtProvider(JwtVerifier(rules))], clock).accept_token(TOKEN) is None


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


ISSUER_URL = "https://issuer.example"


ORDERS = tuple(itertools.permutations(("jwt", "oauth2", "second", "api_key")))


@pytest.fixture(scope="module")
def mock():
    return MockIssuer({ISSUER_URL: "a", "https://second.example": "b"})


class TestSeveralProvidersForTokens:
    """A token goes to the one whose algorithm and issuer it names."""

    @pytest.fixture
    def chain(self, mock):
        def make(*order):
            priorities = {name: number for number, name in enumerate(order)}
            providers = (
                AuthProvider(type="jwt", priority=priorities.get("jwt", 9)),
                AuthProvider(type="oauth2", issuer=ISSUER_URL, audience="a", priority=priorities.get("oauth2", 9)),
                AuthProvider(
                    type="oauth2",
                    name="second",
                    issuer="https://second.example",
                    audience="b",
                    priority=priorities.get("second", 9),
                ),
                AuthProvider(
                    type="api_key",
                    keys=(ApiKey(key=hashed("key"), user="service"),),
                    priority=priorities.get("api_key", 9),
                ),
            )
            auth = Auth(jwt_secret=SECRET, jwt_issuer="i", jwt_audience="a", providers=providers)
            return chain_of(auth, bypass=False, key_sources=key_sources_of(auth, mock=mock), clock=lambda: NOW)

        return make

    @pytest.mark.parametrize("order", ORDERS)
    def test_the_order_does_not_matter_to_tokens(self, chain, mock, order):
        made = chain(*order)
        for token, user in (
            (TOKEN, "alice"),
            (mock.token("bob", NOW), "bob"),
            (mock.token("carol", NOW, issuer="https://second.example", algorithm="ES256"), "carol"),
        ):
            assert upgrade(made, [bearer(token)]).user_id == user
            assert upgrade(made, query=b"token=" + token.encode()).user_id == user
            assert made.authenticate_message(token, None, "peer").user_id == user

    @pytest.mark.parametrize("order", ORDERS)
    def test_between_a_token_and_a_key_the_order_decides(self, chain, mock, order):
        made, token = chain(*order), mock.token("bob", NOW)
        both = [bearer(token), (b"x-api-key", b"key")]
        expected = "bob" if order.index("oauth2") < order.index("api_key") else "service"
        assert upgrade(made, both).user_id == expected

    def test_a_token_of_nobody_here(self, chain, mock):
        made = chain("jwt", "oauth2", "second", "api_key")
        foreign = MockIssuer({"https://third.example": "a"}).token("eve", NOW)
        relabelled = MockIssuer({ISSUER_URL: "a"}).token("eve", NOW)
        for token in (foreign, "a.b.c", "", "x" * 9000, mock.token("eve", NOW, claims={"iss": ISSUER_URL + "/"})):
            assert upgrade(made, [bearer(token)])[:2] == (401, "unauthorized")
            assert made.authenticate_message(token, None, "peer")[0] == "unauthorized"
        answer = made.authenticate_upgrade([bearer(relabelled)], b"", "peer")
        assert inspect.isawaitable(answer)  # a key that is not known may be a new one

    @pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
    def test_the_public_key_is_no_secret(self, chain, mock, algorithm):
        """The classic confusion: the issuer's public key, which everybody has, as the key of an HMAC."""
        made = chain("oauth2", "jwt", "second", "api_key")
        digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[algorithm]
        good = mock.token("eve", NOW)
        _, payload, _ = good.split(".")
        key_id = pyjwt.get_unverified_header(good)["kid"]
        public = pyjwt.PyJWKSet.from_dict(mock.key_set())[key_id].key
        for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER):
            for form in (serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PublicFormat.PKCS1):
                head = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "kid": key_id}).encode()).rstrip(b"=")
                text = head + b"." + payload.encode()
                signature = hmac.digest(public.public_bytes(encoding, form), text, digest)
                token = (text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()
                assert upgrade(made, [bearer(token)])[:2] == (401, "unauthorized")

    def test_a_key_is_of_its_issuer(self, chain, mock):
        """The mock signs for both with the same key, under the same id; the audience of the other is refused."""
        token = mock.token("eve", NOW, issuer="https://second.example", claims={"iss": ISSUER_URL})
        assert upgrade(chain("jwt"), [bearer(token)])[:2] == (401, "unauthorized")

    def test_one_issuer_for_two_audiences(self, mock):
        providers = tuple(
            AuthProvider(type="oauth2", name=audience, issuer=ISSUER_URL, audience=audience) for audience in "ab"
        )
        auth = Auth(jwt_secret=SECRET, providers=providers)
        made = chain_of(auth, bypass=False, key_sources=key_sources_of(auth, mock=mock), clock=lambda: NOW)
        for audience in "ab":
            token = mock.token("bob", NOW, claims={"aud": audience})
            assert upgrade(made, [bearer(token)]).user_id == "bob"
        for audience in ("c", ["a", "b"]):
            token = mock.token("bob", NOW, claims={"aud": audience})
            assert "aud" in upgrade(made, [bearer(token)])[2]

    def test_only_an_issuer(self, mock):
        auth = Auth(jwt_secret=SECRET, providers=(AuthProvider(type="oauth2", issuer=ISSUER_URL, audience="a"),))
        made = chain_of(auth, bypass=False, key_sources=key_sources_of(auth, mock=mock), clock=lambda: NOW)
        assert upgrade(made, [bearer(mock.token("bob", NOW))]).user_id == "bob"
        assert upgrade(made, [bearer(TOKEN)])[0] == 401
        assert upgrade(made, [(b"x-api-key", b"key")])[0] == 401


class TestWaiting:
    """Where the network must be asked there is an Awaitable, which never raises from the reactor's two callbacks."""

    class Later:
        name, priority = "later", 0

        def __init__(self, answer):
            self.answer = answer

        def find(self, headers, query):
            return query.get("later")

        def verify(self, credential, now):
            async def wait():
                await asyncio.sleep(0)
                if isinstance(self.answer, Exception):
                    raise self.answer
                return self.answer

            return wait()

    def settle(self, answer, ask, **options):
        async def wait():
            found = ask(AuthenticationChain([self.Later(answer)], lambda: NOW, **options))
            assert inspect.isawaitable(found)
            return await found

        return asyncio.run(wait())

    def upgrade(self, answer, **options):
        return self.settle(answer, lambda chain: upgrade(chain, query=b"later=x"), **options)

    def message(self, answer):
        return self.settle(answer, lambda chain: chain.authenticate_message("x", None, "peer"))

    def test_an_identity(self):
        assert self.upgrade(Identity(user_id="alice")).user_id == "alice"
        assert self.message(Identity(user_id="alice")).user_id == "alice"

    def test_a_refusal(self):
        assert self.upgrade(AuthenticationFailed("no"))[:3] == (401, "unauthorized", "no")
        assert self.message(AuthenticationFailed("no")) == ("unauthorized", "no")

    def test_out_of_reach(self):
        error = AuthenticationUnavailable("later", retry_after_ms=2100)
        assert self.upgrade(error) == (503, "unavailable", "later", [("Retry-After", "3")])
        assert self.message(error) == ("unavailable", "later")

    def test_an_error_of_its_own(self, caplog):
        assert self.upgrade(RuntimeError("internals"))[:2] == (500, "internal")
        assert self.message(RuntimeError("internals"))[0] == "internal"
        assert len([record for record in caplog.records if record.exc_info]) == 2

    def test_what_was_revoked_meanwhile(self):
        revocations = Revocations(lambda **_: 0, clock=lambda: NOW)
        revocations.revoke(Revocation("user", "alice", int(NOW), int(NOW) + 60))
        identity = Identity(user_id="alice", issued_at=NOW - 5)
        assert "revoked" in self.upgrade(identity, revocations=revocations)[2]

    def test_identify_raises_when_awaited(self):
        async def check():
            chain = AuthenticationChain([self.Later(AuthenticationFailed("no"))])
            with pytest.raises(AuthenticationFailed):
                await chain.identify([], b"later=x")

        asyncio.run(check())


class TestRevocations:
    def test_only_tokens_are_held_against_them(self, clock):
        revocations = Revocations(lambda **_: 0, clock=clock)
        keys = ApiKeyVerifier([ApiKey(key=hashed("key"), user="alice")])
        chain = AuthenticationChain(
            [ApiKeyProvider(keys), JwtProvider(JwtVerifier(RULES)), BypassProvider()], clock, revocations=revocations
        )
        assert upgrade(chain, [bearer(TOKEN)]).user_id == "alice"
        revocations.revoke(Revocation("user", "alice", int(NOW), int(NOW) + 600))
        status, code, message, _ = upgrade(chain, [bearer(TOKEN)])
        assert (status, code) == (401, "unauthorized")
        assert "revoked" in message
        assert chain.authenticate_message(TOKEN, None, "peer") == ("unauthorized", message)
        assert upgrade(chain, [(b"x-api-key", b"key")]).user_id == "alice"
        assert upgrade(chain, query=b"user_id=alice").user_id == "alice"


class TestPresence:
    WANTED = CustomClaims(include_device_info=True, include_location=True)

    def test_upgrade_and_message(self, clock):
        chain = AuthenticationChain([JwtProvider(JwtVerifier(RULES))], clock, custom_claims=self.WANTED)
        identity = chain.authenticate_upgrade(
            [bearer(TOKEN), (b"user-agent", b"Fire\xfffox")], b"", "192.0.2.1:99", True
        )
        assert json.loads(identity.presence_info) == {
            "device_info": {"user_agent": "Fire\ufffdfox"},
            "location": {"address": "192.0.2.1"},
        }
        identity = chain.authenticate_message(TOKEN, None, "[2001:db8::1]:99")
        assert json.loads(identity.presence_info) == {"location": {"address": "2001:db8::1"}}

    def test_nothing_configured(self, chain):
        assert upgrade(chain, [bearer(TOKEN), (b"user-agent", b"x")]).presence_info is None

    @pytest.mark.parametrize(
        ("peer", "address"),
        [("1.2.3.4:5", "1.2.3.4"), ("[::1]:5", "::1"), ("1.2.3.4", "1.2.3.4"), ("::1", "::1"), ("", "")],
    )
    def test_addresses(self, peer, address):
        assert address_of(peer) == address
