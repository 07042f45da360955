"""Refresh tokens: what passes for one, and that each works once."""

import asyncio
import time

import jwt as pyjwt
import pytest

from realtime_communication.auth.jwt import JwtRules, JwtVerifier
from realtime_communication.auth.refresh import REFRESH_TYPE, Families, RefreshTokens, Rotation
from realtime_communication.auth.tokens import TokenIssuer
from realtime_communication.errors import AuthenticationFailed

SECRET = "a secret of the tests, 32 bytes or longer"
NOW = 1_700_000_000
RULES = JwtRules(secret=SECRET, issuer="i", audience="a")
TOKENS = RefreshTokens(RULES)
ISSUER = TokenIssuer(secret=SECRET, issuer="i", audience="a", lifetime_secs=60)
ACCESS = ISSUER.claims("alice", NOW, login="phone", topics={"publish": ["room:*"]})
TOKEN = TOKENS.sign(ACCESS, family="f", generation=3, issued_at=NOW, lifetime_secs=600)


def rotate(families, generation, *, family="f", until=NOW + 600, now=NOW):
    return asyncio.run(families.rotate(family, generation, until, now))


def test_round_trip():
    held = TOKENS.verify(TOKEN, NOW)
    assert (held.user_id, held.login, held.family, held.generation) == ("alice", "phone", "f", 3)
    assert (held.expires_at, held.lifetime_secs) == (NOW + 600, 60)
    assert held.claims["topics"] == {"publish": ["room:*"]}


def test_families_differ():
    made = {TOKENS.sign(ACCESS, family=None, generation=0, issued_at=NOW, lifetime_secs=600) for _ in range(5)}
    assert len({TOKENS.verify(token, NOW).family for token in made}) == 5


def test_it_is_no_access_token_nor_the_other_way_round():
    assert pyjwt.get_unverified_header(TOKEN)["typ"] == REFRESH_TYPE
    with pytest.raises(AuthenticationFailed, match="typ"):
        JwtVerifier(RULES).verify(TOKEN, NOW)
    with pytest.raises(AuthenticationFailed, match="typ"):
        TOKENS.verify(ISSUER.sign(ACCESS), NOW)
    untyped = pyjwt.encode(pyjwt.decode(TOKEN, options={"verify_signature": False}), SECRET, headers={"typ": None})
    with pytest.raises(AuthenticationFailed, match="typ"):
        TOKENS.verify(untyped, NOW)


@pytest.mark.parametrize(
    "change",
    [
        *({"generation": value} for value in (-1, None, "0", 1.0, True, 2**60)),
        *({"lifetime": value} for value in (0, -5, None, "60", True)),
        *({"session_id": value} for value in (None, "", 7)),
        *({"family": value} for value in (None, "", 7, "x" * 65)),
        *({"user_id": ""}, {"iss": "other"}, {"aud": ["a"]}, {"exp": NOW}, {"nbf": NOW + 60}, {"iat": NOW + 60}),
    ],
    ids=str,
)
def test_malformed_ones(change):
    claims = pyjwt.decode(TOKEN, options={"verify_signature": False}) | change
    claims = {name: value for name, value in claims.items() if value is not None}
    with pytest.raises(AuthenticationFailed):
        TOKENS.verify(pyjwt.encode(claims, SECRET, headers={"typ": REFRESH_TYPE}), NOW)


def test_every_claim_is_checked_whatever_is_configured():
    lax = RefreshTokens(
        JwtRules(
            secret=SECRET,
            issuer="other",
            audience="other",
            validate_issuer=False,
            validate_audience=False,
            validate_exp=False,
            validate_nbf=False,
        )
    )
    with pytest.raises(AuthenticationFailed):
        lax.verify(TOKEN, NOW)


class TestFamilies:
    def test_each_generation_works_once(self):
        families = Families()
        assert [rotate(families, number) for number in (0, 1, 2)] == [Rotation.DONE] * 3
        assert [rotate(families, number) for number in (0, 1, 2)] == [Rotation.REUSED] * 3
        assert rotate(families, 3) is Rotation.DONE

    def test_of_two_at_once_one_wins(self):
        families = Families()

        async def race():
            return await asyncio.gather(*(families.rotate("f", 0, NOW + 600, NOW) for _ in range(10)))

        assert sorted(result.value for result in asyncio.run(race())) == ["done"] + ["reused"] * 9

    def test_a_family_that_is_not_known_starts_where_it_is(self):
        families = Families()
        assert rotate(families, 5) is Rotation.DONE
        assert rotate(families, 7) is Rotation.REUSED  # somebody used 5 a second time, while this was forgotten
        assert rotate(families, 6) is Rotation.DONE

    def test_families_do_not_mix(self):
        families = Families()
        assert rotate(families, 0, family="a") is rotate(families, 0, family="b") is Rotation.DONE

    def test_they_are_forgotten_when_their_last_token_has_expired(self):
        families = Families()
        rotate(families, 0, until=NOW + 10)
        rotate(families, 0, family="g", now=NOW + 11)
        assert len(families) == 1

    def test_the_bound(self):
        families = Families(most=3)
        for number in range(10):
            rotate(families, 0, family=str(number), until=NOW + 600 + number)
        assert len(families) == 3
        assert rotate(families, 0, family="9") is Rotation.REUSED


def test_the_time_to_verify_is_that_of_all_secrets(monkeypatch):
    """Each secret is tried whichever matches."""
    tried = []
    rules = JwtRules(secret=SECRET, issuer="i", audience="a", previous_secrets=("x" * 32, "y" * 32))
    verifier = JwtVerifier(rules)
    algorithm = verifier._algorithms["HS256"]
    real = algorithm.verify
    monkeypatch.setattr(algorithm, "verify", lambda *given: tried.append(given[1]) or real(*given))
    verifier.signed_claims(ISSUER.sign(ACCESS | {"exp": int(time.time()) + 60}))
    assert tried == [SECRET.encode(), b"x" * 32, b"y" * 32]
