"""Issued tokens are accepted by the verifier of the same configuration."""

import jwt as pyjwt
import pytest

from realtime_communication.auth.identity import ALL_PERMISSIONS, READ, SUBSCRIBE, WRITE, ClaimError
from realtime_communication.auth.jwt import JwtRules, JwtVerifier
from realtime_communication.auth.tokens import TokenIssuer

SECRET = "a secret of the tests, 32 bytes or longer"
NOW = 1_700_000_000.75
ISSUER = TokenIssuer(secret=SECRET, issuer="i", audience="a", lifetime_secs=3600)
VERIFIER = JwtVerifier(JwtRules(secret=SECRET, issuer="i", audience="a"))


def test_the_claims_of_the_guide():
    claims = pyjwt.decode(ISSUER.access_token("alice", NOW), options={"verify_signature": False})
    assert set(claims) == {
        *("sub", "iat", "exp", "nbf", "iss", "aud", "user_id", "session_id", "roles", "permissions"),
        "refresh_threshold",
    }
    assert claims["exp"] - claims["iat"] == 3600
    assert claims["iat"] < claims["refresh_threshold"] < claims["exp"]


def test_round_trip():
    token = ISSUER.access_token("alice", NOW, login="phone", topics={"publish": ["room:*"]})
    identity = VERIFIER.verify(token, NOW)
    assert (identity.user_id, identity.login) == ("alice", "phone")
    assert identity.permissions == READ | WRITE | SUBSCRIBE
    assert identity.publish_patterns == ("room:*",)
    assert identity.expires_at == 1_700_003_600


def test_admin_and_lifetime():
    identity = VERIFIER.verify(ISSUER.access_token("root", NOW, roles=["admin"], lifetime_secs=5), NOW)
    assert identity.permissions == ALL_PERMISSIONS
    assert identity.expires_at == 1_700_000_005


def test_logins_differ():
    logins = {VERIFIER.verify(ISSUER.access_token("alice", NOW), NOW).login for _ in range(5)}
    assert len(logins) == 5


def test_a_name_that_cannot_be_a_user():
    with pytest.raises(ClaimError):
        ISSUER.access_token("a\nb", NOW)


def test_the_secret_is_not_shown():
    assert SECRET not in repr(ISSUER)
