"""Tokens of an OpenID Connect issuer: the good ones, and those of attackers (RFC 8725)."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from realtime_communication.auth.identity import ALL_PERMISSIONS, READ, SUBSCRIBE, WRITE, ClaimError, Identity
from realtime_communication.auth.issuer_keys import Fetched, IssuerKeys
from realtime_communication.auth.jwks import key_set
from realtime_communication.auth.oidc import OidcVerifier, granted
from realtime_communication.errors import AuthenticationFailed, AuthenticationUnavailable

NOW = 1_700_000_000
ISSUER, AUDIENCE = "https://issuer.example/realm", "realtime"
GOOD = {"sub": "alice", "iss": ISSUER, "aud": AUDIENCE, "iat": NOW - 5, "exp": NOW + 60}
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EDWARDS = ed25519.Ed25519PrivateKey.generate()
PUBLIC = RSAAlgorithm.to_jwk(PRIVATE.public_key(), as_dict=True) | {"kid": "k1", "use": "sig"}
ENCODING, FORMAT = serialization.Encoding, serialization.PublicFormat
FORMS = {
    "PEM": (ENCODING.PEM, FORMAT.SubjectPublicKeyInfo),
    "PEM of PKCS 1": (ENCODING.PEM, FORMAT.PKCS1),
    "DER": (ENCODING.DER, FORMAT.SubjectPublicKeyInfo),
    "DER of PKCS 1": (ENCODING.DER, FORMAT.PKCS1),
}


async def never():
    raise AssertionError("the issuer was asked")


def verifier_of(*entries, fetch=never, audience=AUDIENCE, issuer=ISSUER):
    keys = IssuerKeys(issuer, fetch)
    keys.install(Fetched(key_set(json.dumps({"keys": list(entries or (PUBLIC,))}).encode()), 3600))
    return OidcVerifier(keys, audience)


def signed(claims=GOOD, algorithm="RS256", key=PRIVATE, **header):
    return pyjwt.encode(claims, key, algorithm=algorithm, headers={"kid": "k1"} | header)


def segment(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def by_hand(header, claims=GOOD, sign=None):
    """A token with a header that PyJWT would not write; signed with the good key unless told otherwise."""
    text = f"{segment(header)}.{segment(claims)}"
    signature = sign(text.encode()) if sign else RSAAlgorithm(RSAAlgorithm.SHA256).sign(text.encode(), PRIVATE)
    return f"{text}.{segment(signature)}"


def refused(token, verifier=None):
    """The code of the refusal, which comes at once and without a question to the issuer."""
    with pytest.raises(AuthenticationFailed) as caught:
        (verifier or verifier_of()).verify(token, NOW)
    return caught.value.code


def test_a_good_token():
    identity = verifier_of().verify(signed(), NOW)
    assert (identity.user_id, identity.expires_at, identity.issued_at) == ("alice", NOW + 60, NOW - 5)
    assert identity.permissions == READ | WRITE | SUBSCRIBE


def test_pyjwt_agrees_on_the_good_token():
    assert pyjwt.decode(
        signed(), PRIVATE.public_key(), ["RS256"], audience=AUDIENCE, issuer=ISSUER, options={"verify_exp": False}
    )


class TestAlgorithms:
    @pytest.mark.parametrize(
        "name", ["none", "None", "NONE", "", "rs256", "HS256", "HS384", "ES512", None, 7, ["RS256"]]
    )
    def test_other_names(self, name):
        refused(by_hand({"alg": name, "kid": "k1"}))
        refused(f"{segment({'alg': name, 'kid': 'k1'})}.{segment(GOOD)}.")

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("tail", [b"", b"\n"])
    def test_hmac_with_the_public_key(self, form, tail):
        secret = PRIVATE.public_key().public_bytes(*FORMS[form]).rstrip(b"\n") + tail
        token = by_hand({"alg": "HS256", "kid": "k1"}, sign=lambda text: hmac.digest(secret, text, hashlib.sha256))
        refused(token)

    def test_another_algorithm_than_the_keys(self):
        refused(signed(algorithm="PS256"))
        refused(signed(algorithm="RS384"), verifier_of(PUBLIC | {"alg": "RS256"}))
        assert verifier_of().verify(signed(algorithm="RS384"), NOW).user_id == "alice"
        assert verifier_of(PUBLIC | {"alg": "PS256"}).verify(signed(algorithm="PS256"), NOW).user_id == "alice"
        refused(signed(), verifier_of(PUBLIC | {"alg": "PS256"}))

    def test_another_family_than_the_keys(self):
        refused(signed(algorithm="EdDSA", key=EDWARDS))

    def test_another_key(self):
        other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        refused(signed(key=other))


class TestHeader:
    @pytest.mark.parametrize("crit", [["exp"], ["b64"], ["x"], [], None])
    def test_extensions(self, crit):
        refused(by_hand({"alg": "RS256", "kid": "k1", "crit": crit}))

    @pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c"])
    @pytest.mark.parametrize("value", ["http://127.0.0.1:1/jwks", PUBLIC, ["MII"], None])
    def test_embedded_keys(self, name, value):
        refused(by_hand({"alg": "RS256", "kid": "k1", name: value}))

    @pytest.mark.parametrize(
        "key_id",
        ["../../../dev/null", "' OR 1=1 --", "", "a" * 129, "a" * 4000, "a\x00", "..", "k1\n", 7, None, {}, ["k1"]],
    )
    def test_key_ids(self, key_id):
        refused(by_hand({"alg": "RS256", "kid": key_id}))

    def test_no_key_id(self):
        refused(by_hand({"alg": "RS256"}))

    def test_a_key_id_of_a_megabyte(self):
        refused(by_hand({"alg": "RS256", "kid": "a" * (1 << 20)}))

    @pytest.mark.parametrize("kind", ["rt+jwt", "logout+jwt", "JWE", 7, None])
    def test_types(self, kind):
        refused(by_hand({"alg": "RS256", "kid": "k1", "typ": kind}))

    @pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt"])
    def test_accepted_types(self, kind):
        assert verifier_of().verify(signed(typ=kind), NOW).user_id == "alice"


class TestShape:
    @pytest.mark.parametrize("parts", [0, 1, 2, 4, 5])
    def test_parts(self, parts):
        refused(".".join(["eyJhbGciOiJSUzI1NiIsImtpZCI6ImsxIn0"] * parts))

    def test_size(self):
        refused("a" * (1 << 20))

    @pytest.mark.parametrize("tail", ["=", "==", "!", " ", "\n", "+", "/"])
    def test_padding(self, tail):
        refused(signed() + tail)

    @pytest.mark.parametrize("signature", ["", "AA", "A" * 342])
    def test_signatures(self, signature):
        refused(signed().rpartition(".")[0] + "." + signature)


class TestClaims:
    @pytest.mark.parametrize(
        "change",
        [
            *({"aud": value} for value in ([AUDIENCE], ["other", AUDIENCE], "realtim", "realtime2", 7, None)),
            *({"iss": value} for value in (ISSUER[:-1], ISSUER + "/", ISSUER.upper(), [ISSUER], "", 7, None)),
            *({"sub": value} for value in ("", 7, None, ["alice"])),
            *({"exp": value} for value in (None, "1700000060", NOW + 60.5, True, 253402300799, -1)),
            *({name: NOW + 60} for name in ("nbf", "iat")),
            {"roles": "admin"},
            {"permissions": "read"},
            {"scope": ["read"]},
        ],
        ids=str,
    )
    def test_refused(self, change):
        claims = {name: value for name, value in (GOOD | change).items() if value is not None}
        text = by_hand({"alg": "RS256", "kid": "k1"}, claims)
        assert refused(text) == "unauthorized"

    def test_expired(self):
        assert refused(signed(GOOD | {"exp": NOW})) == "token_expired"

    def test_a_foreign_token_costs_no_question_to_the_issuer(self):
        refused(signed(GOOD | {"iss": "https://other.example"}, kid="unknown"))

    def test_the_same_key_id_from_another_issuer(self):
        other = verifier_of(issuer="https://other.example")
        refused(signed(), other)


class TestGranted:
    @pytest.mark.parametrize(
        ("claims", "permissions"),
        [
            ({}, READ | WRITE | SUBSCRIBE),
            ({"scope": "openid email"}, 0),
            ({"scope": "openid read subscribe"}, READ | SUBSCRIBE),
            ({"scope": "admin"}, 0),
            ({"scope": "write", "permissions": ["read"]}, READ),
            ({"permissions": []}, 0),
            ({"permissions": ["read:messages", "write"]}, WRITE),
            ({"roles": ["admin"], "scope": ""}, ALL_PERMISSIONS),
            ({"roles": ["editor"]}, READ | WRITE | SUBSCRIBE),
        ],
    )
    def test_permissions(self, claims, permissions):
        assert verifier_of().verify(signed(GOOD | claims), NOW).permissions == permissions

    def test_user_and_login(self):
        identity = verifier_of().verify(signed(GOOD | {"user_id": "al", "sid": "phone"}), NOW)
        assert (identity.user_id, identity.login) == ("al", "phone")
        assert granted({"sid": "a", "session_id": "b"})["session_id"] == "b"

    def test_a_scope_that_is_no_string(self):
        with pytest.raises(ClaimError, match="scope"):
            granted({"scope": 7})


VALUES = st.sampled_from(
    [None, 0, -1, 1.5, True, "", "x", [], {}, AUDIENCE, [AUDIENCE], ISSUER, NOW, NOW - 60, NOW + 60, str(NOW), 2**40]
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    claims=st.dictionaries(st.sampled_from(["exp", "nbf", "iat", "iss", "aud", "sub"]), VALUES, max_size=3),
    header=st.dictionaries(st.sampled_from(["typ", "crit", "kid", "b64", "jwk", "x"]), VALUES, max_size=1),
    algorithm=st.sampled_from(["RS256", "RS384", "none", "HS256", "PS256"]),
)
def test_what_is_accepted_pyjwt_accepts_too(claims, header, algorithm):
    token = by_hand({"alg": algorithm, "kid": "k1"} | header, GOOD | claims)
    try:
        identity = verifier_of().verify(token, NOW)
    except AuthenticationFailed:
        return
    if not isinstance(identity, Identity):
        return  # of a key that is not known: it would have to be asked for
    now = datetime.fromtimestamp(NOW, UTC)
    accepted = _decoded_at(now, token)
    assert (accepted["sub"], accepted["exp"]) == (identity.user_id, identity.expires_at)


def _decoded_at(now, token):
    """PyJWT's opinion at another time than now: its own clock is the machine's."""
    claims = pyjwt.decode(
        token,
        PRIVATE.public_key(),
        ["RS256", "RS384", "RS512"],
        audience=AUDIENCE,
        issuer=ISSUER,
        options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "require": ["exp"], "strict_aud": True},
    )
    assert claims["exp"] > now.timestamp()
    assert claims.get("nbf", 0) <= now.timestamp() + 5
    return claims


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=200) | st.builds(".".join, st.lists(st.text("AQe-_=", max_size=40), max_size=5)))
def test_any_text_is_refused_with_the_one_exception(token):
    refused(token)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_real_issuer(issuer, keys_of, algorithm):
    async def check():
        async with keys_of(issuer) as keys:
            verifier = OidcVerifier(keys, "realtime-communication")
            token = issuer.token("bob", algorithm)
            first = verifier.verify(token, time.time())
            assert not isinstance(first, Identity)
            assert (await first).user_id == "bob"
            # From now on nothing has to be waited for.
            assert verifier.verify(token, time.time()).user_id == "bob"

    asyncio.run(check())


def test_no_keys_yet_and_the_issuer_down(keys_of):
    class Nobody:
        url = "http://127.0.0.1:1"

    async def check():
        async with keys_of(Nobody) as keys:
            verifier = OidcVerifier(keys, AUDIENCE)
            token = signed(GOOD | {"iss": Nobody.url})
            for _ in range(3):
                with pytest.raises(AuthenticationUnavailable) as caught:
                    await verifier.verify(token, NOW)
                assert caught.value.retry_after_ms >= 1000

    asyncio.run(check())
