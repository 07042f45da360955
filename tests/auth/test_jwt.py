"""Tokens that must be refused, and the few that must not (RFC 8725)."""

import base64
import hashlib
import hmac
import json

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication.auth.jwt import JwtRules, JwtVerifier
from realtime_communication.auth.token_rules import LEEWAY_SECS, MAX_TOKEN_BYTES
from realtime_communication.errors import AuthenticationFailed

NOW = 1_700_000_000
SECRET = "a secret of the tests, which is 64 bytes long or longer than that"
GOOD = {"sub": "alice", "exp": NOW + 60, "iss": "issuer", "aud": "audience", "permissions": ["read"]}
HEADER = {"alg": "HS256", "typ": "JWT"}


def segment(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(claims, header=HEADER, secret=SECRET, digest=hashlib.sha256):
    """A token made by hand: every malformed header and claim must be possible, with a signature that is right."""
    text = f"{segment(header)}.{segment(claims)}"
    return f"{text}.{segment(hmac.digest(secret.encode(), text.encode(), digest))}"


def verifier(**rules):
    return JwtVerifier(JwtRules(**{"secret": SECRET, "issuer": "issuer", "audience": "audience", **rules}))


def refused(token, **rules):
    with pytest.raises(AuthenticationFailed) as caught:
        verifier(**rules).verify(token, NOW)
    assert SECRET not in str(caught.value)
    return caught.value.code


def test_a_good_token():
    identity = verifier().verify(signed(GOOD), NOW)
    assert (identity.user_id, identity.expires_at) == ("alice", NOW + 60)


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_tokens_of_pyjwt(algorithm):
    token = pyjwt.encode(GOOD, SECRET, algorithm=algorithm)
    assert verifier().verify(token, NOW).user_id == "alice"
    others = tuple(name for name in ("HS256", "HS384", "HS512") if name != algorithm)
    assert refused(token, algorithms=others) == "unauthorized"


class TestHeader:
    @pytest.mark.parametrize("name", ["none", "None", "NONE", "", "RS256", "ES256", "hs256", "HS1", None, 7, ["HS256"]])
    def test_algorithms(self, name):
        refused(signed(GOOD, {"alg": name, "typ": "JWT"}))
        refused(f"{segment({'alg': name})}.{segment(GOOD)}.")

    def test_no_algorithm(self):
        refused(signed(GOOD, {"typ": "JWT"}))

    @pytest.mark.parametrize("crit", [["exp"], ["b64"], ["x"], [], None])
    def test_extensions(self, crit):
        refused(signed(GOOD, {**HEADER, "crit": crit}))

    @pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c"])
    @pytest.mark.parametrize("value", ["http://127.0.0.1:1/jwks", {"kty": "oct", "k": "AAAA"}, ["MII"], None])
    def test_embedded_keys(self, name, value):
        refused(signed(GOOD, {**HEADER, name: value}))

    @pytest.mark.parametrize(
        "key_id", ["../../../dev/null", "/etc/passwd", "' OR 1=1 --", "", "a" * 65, "a\x00", "..", 7, None, {}]
    )
    def test_key_ids(self, key_id):
        refused(signed(GOOD, {**HEADER, "kid": key_id}))

    def test_a_plain_key_id_is_no_matter(self):
        assert verifier().verify(signed(GOOD, {**HEADER, "kid": "2024-01"}), NOW).user_id == "alice"

    @pytest.mark.parametrize("kind", ["rt+jwt", "JWE", 7, None])
    def test_types(self, kind):
        refused(signed(GOOD, {**HEADER, "typ": kind}))

    @pytest.mark.parametrize("header", [b"", b"[]", b'"HS256"', b"{", b"\xff", b"[" * 5000])
    def test_what_is_no_object(self, header):
        refused(signed(GOOD, header))


class TestShape:
    @pytest.mark.parametrize("parts", [0, 1, 2, 4, 5])
    def test_parts(self, parts):
        refused(".".join(["eyJhbGciOiJIUzI1NiJ9"] * parts))

    def test_a_fourth_part_behind_a_good_token(self):
        refused(signed(GOOD) + ".")

    @pytest.mark.parametrize("size", [MAX_TOKEN_BYTES + 1, 1 << 20])
    def test_size(self, size):
        refused("a" * size)
        refused("." * size)

    @pytest.mark.parametrize("tail", ["=", "==", "!", " ", "\n", "+", "/", "é", "\ud800"])
    def test_alphabet_and_padding(self, tail):
        refused(signed(GOOD) + tail)

    def test_a_second_spelling_of_the_signature(self):
        # The last character of 32 bytes carries two bits that decoders ignore.
        token = signed(GOOD)
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        refused(token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1])

    @pytest.mark.parametrize("payload", [b"", b"[]", b"7", b"null", b"{", b"\xff", b"[" * 5000, b'{"exp":NaN}'])
    def test_what_is_no_object(self, payload):
        refused(signed(payload))


class TestSignature:
    def test_another_secret(self):
        refused(signed(GOOD, secret="another secret, which is also long enough"))

    def test_the_wrong_digest(self):
        refused(signed(GOOD, digest=hashlib.sha512))

    def test_changed_claims(self):
        header, _, signature = signed(GOOD).split(".")
        refused(f"{header}.{segment({**GOOD, 'roles': ['admin']})}.{signature}")

    def test_hmac_with_a_public_key(self):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
        pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
        refused(signed(GOOD, secret=pem))
        with pytest.raises(ValueError, match="PEM"):
            verifier(secret=pem)
        ssh = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
        with pytest.raises(ValueError, match="PEM"):
            verifier(secret=ssh)

    def test_the_claims_stay_unread_without_a_signature(self):
        token = signed({**GOOD, "exp": NOW - 5}, secret="another secret, which is also long enough")
        assert refused(token) == "unauthorized"


class TestTimes:
    def test_an_expired_token_says_so(self):
        assert refused(signed({**GOOD, "exp": NOW - 1})) == "token_expired"
        assert refused(signed({**GOOD, "exp": NOW})) == "token_expired"

    @pytest.mark.parametrize(
        "expiry", ["1700000060", NOW + 60.5, None, True, -1, 253402300799, NOW * 1000, 10**40, [], 1e400]
    )
    def test_expiries_that_are_no_time(self, expiry):
        assert refused(signed({**GOOD, "exp": expiry})) == "unauthorized"

    def test_an_expiry_is_required(self):
        assert refused(signed({name: value for name, value in GOOD.items() if name != "exp"})) == "unauthorized"

    @pytest.mark.parametrize("claim", ["nbf", "iat"])
    @pytest.mark.parametrize("value", [NOW + 60, "1", None, True, -1, 10**40, [], 1e400, float("nan")])
    def test_not_yet(self, claim, value):
        refused(signed({**GOOD, claim: value}))

    @pytest.mark.parametrize("claim", ["nbf", "iat"])
    @pytest.mark.parametrize("value", [NOW + LEEWAY_SECS, NOW - 0.5, 0])
    def test_leeway(self, claim, value):
        assert verifier().verify(signed({**GOOD, claim: value}), NOW).user_id == "alice"


class TestParties:
    @pytest.mark.parametrize("audience", [["audience"], ["other", "audience"], "audienc", "audience2", 7, None])
    def test_audiences(self, audience):
        refused(signed({**GOOD, "aud": audience}))

    @pytest.mark.parametrize("issuer", ["issue", "issuer2", "Issuer", ["issuer"], "", 7, None])
    def test_issuers(self, issuer):
        refused(signed({**GOOD, "iss": issuer}))

    @pytest.mark.parametrize("subject", ["", 7, None, ["alice"]])
    def test_subjects(self, subject):
        refused(signed({**GOOD, "sub": subject}))


BREAKS = {
    "validate_issuer": {"iss": "other"},
    "validate_audience": {"aud": ["other"]},
    "validate_exp": {"exp": NOW - 60},
    "validate_nbf": {"nbf": NOW + 60},
}


@pytest.mark.parametrize("switch", BREAKS)
@pytest.mark.parametrize("broken", BREAKS)
def test_each_switch_is_exactly_its_own_check(switch, broken):
    token = signed({**GOOD, **BREAKS[broken]})
    if switch == broken:
        assert verifier(**{switch: False}).verify(token, NOW).user_id == "alice"
    else:
        refused(token, **{switch: False})


def test_without_the_expiry_check_nothing_expires():
    claims = {name: value for name, value in GOOD.items() if name != "exp"}
    assert verifier(validate_exp=False).verify(signed(claims), NOW).expires_at is None


@pytest.mark.parametrize("secret", ["", "short", "x" * 31])
def test_short_secrets(secret):
    with pytest.raises(ValueError, match="32 bytes"):
        verifier(secret=secret)


@pytest.mark.parametrize("algorithms", [(), ("none",), ("HS256", "RS256")])
def test_algorithms_that_cannot_be_configured(algorithms):
    with pytest.raises(ValueError, match="HS256"):
        verifier(algorithms=algorithms)


def test_the_rules_do_not_show_their_secret():
    assert SECRET not in repr(JwtRules(secret=SECRET, issuer="i", audience="a"))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=200) | st.builds(".".join, st.lists(st.text(max_size=40), max_size=5)))
def test_any_text_is_refused_with_the_one_exception(token):
    refused(token)
