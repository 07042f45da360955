"""Tokens of an OpenID Connect issuer: signed with its private key, verified with the public one (OIDC Core 1.0).

The same rules as for the server's own tokens, with three differences. The key comes from the issuer, by the token's
`kid`, which must be there. All claims are always checked: the `validate_*` switches are about `auth.jwt_secret`, whose
holder the operator knows. And the claims are an issuer's, which may never have heard of this server's permissions.

An `aud` that is a list is refused, even when it holds the audience: such a token is meant for several services, any of
which could use it here. An issuer can be told to make one for this server alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Final

from realtime_communication.auth.identity import ClaimError, Identity, identity_from_claims
from realtime_communication.auth.issuer_keys import IssuerKeys
from realtime_communication.auth.jwks import ASYMMETRIC_ALGORITHMS, KEY_ID, VerificationKey
from realtime_communication.auth.providers import Deferred, TokenProvider
from realtime_communication.auth.token_rules import (
    Names,
    SignedToken,
    check_header,
    check_parties,
    check_times,
    claims_of,
    split,
)
from realtime_communication.errors import AuthenticationFailed

DEFAULT_PERMISSIONS: Final = ("read", "write", "subscribe")


class OidcVerifier:
    """Verifies tokens of the issuer that `keys` belong to, made for `audience`."""

    def __init__(self, keys: IssuerKeys, audience: str) -> None:
        self._keys = keys
        self.audience = audience

    @property
    def issuer(self) -> str:
        """The issuer's name."""
        return self._keys.issuer

    def verify(self, token: str, now: float) -> Identity | Awaitable[Identity]:
        """The identity of `token` at `now` (seconds since the epoch); an Awaitable of it when its key must be fetched.

        Both raise AuthenticationFailed, AuthenticationUnavailable among them, and nothing else.
        """
        taken_apart = split(token)
        header = taken_apart.header
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in ASYMMETRIC_ALGORITHMS:
            raise AuthenticationFailed(f"the token's algorithm is not one of {', '.join(ASYMMETRIC_ALGORITHMS)}")
        check_header(header, KEY_ID)
        key_id = header.get("kid")
        if key_id is None:
            raise AuthenticationFailed("the token does not name its key (`kid`)")
        # Not vouched for yet: it only spares the issuer a question about a key of somebody else.
        check_parties(claims_of(taken_apart), issuer=self._keys.issuer, audience=None)
        key = self._keys.find(key_id)
        if key is None:
            return Deferred(lambda: self._verify_later(taken_apart, key_id, algorithm, now))
        return self._identity(taken_apart, key, algorithm, now)

    async def _verify_later(self, token: SignedToken, key_id: str, algorithm: str, now: float) -> Identity:
        return self._identity(token, await self._keys.lookup(key_id), algorithm, now)

    def _identity(self, token: SignedToken, key: VerificationKey, algorithm: str, now: float) -> Identity:
        if algorithm not in key.algorithms:
            raise AuthenticationFailed("the token's algorithm is not the one of its key")
        if not key.verifies(algorithm, token.signed, token.signature):
            raise AuthenticationFailed("the token's signature does not match")
        claims = claims_of(token)
        try:
            times = check_times(claims, now)
            check_parties(claims, issuer=self._keys.issuer, audience=self.audience)
            return identity_from_claims(granted(claims), expires_at=times.expires_at, issued_at=times.issued_at)
        except ClaimError as error:
            raise AuthenticationFailed(f"the token's claims are refused: {error}") from None


def granted(claims: Mapping[str, Any]) -> dict[str, Any]:
    """An issuer's claims in this server's terms: `permissions` filled in, and `sid` as the login.

    `permissions` counts when it is there. Else the words read, write and subscribe of `scope` do (RFC 9068 section
    2.2.3), none of the others. A token with neither is an ID token or one of an issuer without scopes. It may read,
    write and subscribe: the operator named the issuer and the audience as the way in for users, the server's own tokens
    are like that by default, and who wants less says so in a claim. The role `admin` is never given by default.
    """
    filled = dict(claims)
    scope = claims.get("scope")
    if claims.get("permissions") is None:
        if scope is None:
            filled["permissions"] = list(DEFAULT_PERMISSIONS)
        elif isinstance(scope, str):
            filled["permissions"] = [word for word in scope.split(" ") if word in DEFAULT_PERMISSIONS]
        else:
            raise ClaimError("`scope` must be a string")
    if claims.get("session_id") is None and claims.get("sid") is not None:
        filled["session_id"] = claims["sid"]
    return filled


class OAuth2Provider(TokenProvider):
    """Bearer tokens of an OIDC issuer."""

    def __init__(self, verifier: OidcVerifier, *, name: str = "oauth2", priority: int = 3) -> None:
        super().__init__(name, priority)
        self._verifier = verifier

    def fits(self, names: Names) -> bool:
        """Signed with a private key, and by this issuer."""
        return names.algorithm in ASYMMETRIC_ALGORITHMS and names.issuer == self._verifier.issuer

    def serves(self, audience: str | None) -> bool:
        """Of several providers for one issuer, the one for this audience."""
        return audience == self._verifier.audience

    def verify(self, credential: str, now: float) -> Identity | Awaitable[Identity]:
        """Raises AuthenticationFailed, at once or when awaited."""
        return self._verifier.verify(credential, now)
