"""Where each kind of credential is found, and which tokens fit whom. `test_chain` has them all together."""

import pytest

from realtime_communication.auth.api_key import ApiKeyVerifier, hashed
from realtime_communication.auth.issuer_keys import IssuerKeys
from realtime_communication.auth.jwt import JwtRules, JwtVerifier
from realtime_communication.auth.oidc import OAuth2Provider, OidcVerifier
from realtime_communication.auth.providers import ApiKeyProvider, BypassProvider, JwtProvider, NoTokenProvider
from realtime_communication.auth.token_rules import Names
from realtime_communication.config.schema import ApiKey
from realtime_communication.errors import AuthenticationFailed

ISSUER = "https://issuer.example"


async def never():
    raise AssertionError


JWT = JwtProvider(JwtVerifier(JwtRules(secret="a secret of the tests, 32 bytes or longer", issuer="i", audience="a")))
OAUTH2 = OAuth2Provider(OidcVerifier(IssuerKeys(ISSUER, never), "a"))
KEYS = ApiKeyProvider(ApiKeyVerifier([ApiKey(key=hashed("key"), user="service")]))


@pytest.mark.parametrize("provider", [JWT, OAUTH2, NoTokenProvider()])
def test_tokens_are_found(provider):
    assert provider.find({b"authorization": b"Bearer x.y.z"}, {"token": "q"}) == "x.y.z"
    assert provider.find({b"authorization": b"bearer   x "}, {}) == "x"
    assert provider.find({}, {"token": "q"}) == "q"
    assert provider.find({}, {}) is None
    with pytest.raises(AuthenticationFailed, match="Bearer"):
        provider.find({b"authorization": b"Basic YTpi"}, {"token": "q"})


@pytest.mark.parametrize(
    ("algorithm", "issuer", "fits"),
    [
        ("HS256", "i", (True, False)),
        ("HS512", ISSUER, (True, False)),
        ("RS256", ISSUER, (False, True)),
        ("ES256", ISSUER, (False, True)),
        ("EdDSA", ISSUER, (False, True)),
        ("RS256", ISSUER + "/", (False, False)),
        ("RS256", None, (False, False)),
        ("none", ISSUER, (False, False)),
        ("", None, (False, False)),
    ],
)
def test_which_tokens_fit(algorithm, issuer, fits):
    assert (JWT.fits(Names(algorithm, issuer)), OAUTH2.fits(Names(algorithm, issuer))) == fits


def test_keys_are_found():
    assert KEYS.find({b"x-api-key": b"h"}, {"api_key": "q"}) == "h"
    assert KEYS.find({}, {"api_key": "q"}) == "q"
    assert KEYS.verify("key", 0).credential == "api_key"


def test_the_bypass_is_no_token():
    assert BypassProvider().verify("bob", 0).credential == "bypass"
