"""The stand-in signs tokens that PyJWT and this server accept."""

import asyncio

import jwt as pyjwt
import pytest

from realtime_communication.auth.identity import Identity
from realtime_communication.auth.mock_issuer import MockIssuer
from realtime_communication.auth.oidc import OidcVerifier

NOW = 1_700_000_000
FIRST, SECOND = "https://first.example", "https://second.example/realm"


@pytest.fixture(scope="module")
def mock():
    return MockIssuer({FIRST: "us", SECOND: "them"})


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_tokens(mock, algorithm):
    token = mock.token("alice", NOW, algorithm=algorithm, claims={"scope": "read"})
    keys = pyjwt.PyJWKSet.from_dict(mock.key_set())
    key = keys[pyjwt.get_unverified_header(token)["kid"]]
    claims = pyjwt.decode(token, key, [algorithm], audience="us", issuer=FIRST, options={"verify_exp": False})
    assert (claims["sub"], claims["scope"]) == ("alice", "read")
    identity = OidcVerifier(mock.keys_for(FIRST), "us").verify(token, NOW)
    assert isinstance(identity, Identity)  # at once: the keys were there from the start
    assert identity.user_id == "alice"


def test_another_process_with_the_same_keys_is_the_same_issuer(mock):
    other = MockIssuer({FIRST: "us"}, mock.private_keys())
    assert other.key_set() == mock.key_set()
    assert OidcVerifier(mock.keys_for(FIRST), "us").verify(other.token("alice", NOW), NOW).user_id == "alice"
    assert MockIssuer({FIRST: "us"}).key_set() != mock.key_set()


def test_another_issuer(mock):
    token = mock.token("alice", NOW, issuer=SECOND)
    assert OidcVerifier(mock.keys_for(SECOND), "them").verify(token, NOW).user_id == "alice"


@pytest.mark.parametrize("change", [{"issuer": "https://other.example"}, {"algorithm": "HS256"}, {"user_id": ""}])
def test_what_it_does_not_sign(mock, change):
    with pytest.raises(ValueError):
        mock.token(**{"user_id": "alice", "now": NOW} | change)


def test_a_mock_of_nobody():
    with pytest.raises(ValueError, match="issuer"):
        MockIssuer({})


def test_a_fetch_is_the_same(mock):
    fetched = asyncio.run(mock.fetch())
    assert fetched.keys.left_out == ()
    assert len(fetched.keys.keys) == 2
