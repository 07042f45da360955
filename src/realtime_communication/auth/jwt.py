"""JSON Web Tokens signed with a shared secret, verified strictly (RFC 8725).

PyJWT supplies the signature algorithms. The token's structure, header and claims are checked by `token_rules`, because
each `validate_*` switch must turn off exactly its own check. Good tokens of HS256, nearly all there are, are accepted
by compiled code that says yes to nothing which these rules would refuse; whatever it is not sure of comes here.

Order: size and shape, header, signature, claims. Nothing of the payload is looked at before the signature holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from jwt.algorithms import HMACAlgorithm

from realtime_communication._core.wire.tokens import Hs256Tokens
from realtime_communication.auth.identity import ClaimError, Identity, identity_from_claims
from realtime_communication.auth.token_rules import (
    ACCESS_TYPES,
    SignedToken,
    check_header,
    check_parties,
    check_times,
    claims_of,
    split,
)
from realtime_communication.errors import AuthenticationFailed

MIN_SECRET_BYTES: Final = 32

_HASHES: Final = {
    "HS256": HMACAlgorithm.SHA256,
    "HS384": HMACAlgorithm.SHA384,
    "HS512": HMACAlgorithm.SHA512,
}
ALGORITHMS: Final = tuple(_HASHES)

_KEY_ID: Final = re.compile(r"(?!.*\.\.)[A-Za-z0-9._:-]{1,64}")
_PUBLIC_KEY_MARKS: Final = (b"-----BEGIN ", b"ssh-rsa ", b"ssh-ed25519 ", b"ecdsa-sha2-")


class JwtRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a token is held against. The secrets are never shown.

    `previous_secrets` are those before a rotation: what they signed is still accepted.
    """

    secret: str
    issuer: str
    audience: str
    algorithms: tuple[str, ...] = ALGORITHMS
    validate_issuer: bool = True
    validate_audience: bool = True
    validate_exp: bool = True
    validate_nbf: bool = True
    previous_secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"JwtRules(issuer={self.issuer!r}, audience={self.audience!r}, secret=<redacted>)"


class JwtVerifier:
    """Verifies tokens against the secret, and the secrets before it; `types` are the accepted `typ` in lower case.

    `accept` gives the identity of a token that is certainly good, None for what `verify` has to find out.

    Raises ValueError when a secret is too short, looks like a public key (the classic confusion of RS256 with
    HS256), or an algorithm is not HS256, HS384 or HS512.
    """

    def __init__(self, rules: JwtRules, types: Sequence[str] = ACCESS_TYPES) -> None:
        self._secrets = [_usable(secret) for secret in (rules.secret, *rules.previous_secrets)]
        unknown = [name for name in rules.algorithms if name not in _HASHES]
        if unknown or not rules.algorithms:
            raise ValueError(f"auth.jwt_algorithms may only name {', '.join(ALGORITHMS)}")
        self._rules = rules
        self._types = types
        self._algorithms = {name: HMACAlgorithm(_HASHES[name]) for name in rules.algorithms}
        self.accept: Callable[[str, float], Identity | None] = (
            self._hs256().accept if "HS256" in rules.algorithms else _unsure
        )

    def verify(self, token: str, now: float) -> Identity:
        """The identity of `token` at `now` (seconds since the epoch). Raises AuthenticationFailed (`unauthorized` or
        `token_expired`) and nothing else; its text is for people and contains nothing of the token."""
        return self.accept(token, now) or self.verify_by_rules(token, now)

    def verify_by_rules(self, token: str, now: float) -> Identity:
        """The same without the short cut for HS256."""
        claims = self.signed_claims(token)
        rules = self._rules
        try:
            times = check_times(claims, now, validate_exp=rules.validate_exp, validate_nbf=rules.validate_nbf)
            check_parties(
                claims,
                issuer=rules.issuer if rules.validate_issuer else None,
                audience=rules.audience if rules.validate_audience else None,
            )
            return identity_from_claims(claims, expires_at=times.expires_at, issued_at=times.issued_at)
        except ClaimError as error:
            raise AuthenticationFailed(f"the token's claims are refused: {error}") from None

    def signed_claims(self, token: str) -> dict[str, Any]:
        """The claims of `token`, whose signature is good; the claims themselves are not checked.

        Raises AuthenticationFailed.
        """
        taken_apart = split(token)
        algorithm = self._algorithm_of(taken_apart)
        # Every secret is tried every time, so that the time taken does not tell which of them has signed.
        matches = [algorithm.verify(taken_apart.signed, secret, taken_apart.signature) for secret in self._secrets]
        if not any(matches):
            raise AuthenticationFailed("the token's signature does not match")
        return claims_of(taken_apart)

    def _hs256(self) -> Hs256Tokens[Identity]:
        rules = self._rules
        return Hs256Tokens(
            self._secrets,
            Identity,
            types=self._types,
            issuer=rules.issuer if rules.validate_issuer else None,
            audience=rules.audience if rules.validate_audience else None,
            validate_exp=rules.validate_exp,
            validate_nbf=rules.validate_nbf,
        )

    def _algorithm_of(self, token: SignedToken) -> HMACAlgorithm:
        name = token.header.get("alg")
        algorithm = self._algorithms.get(name) if isinstance(name, str) else None
        if algorithm is None:
            raise AuthenticationFailed(f"the token's algorithm is not one of {', '.join(self._algorithms)}")
        check_header(token.header, _KEY_ID, self._types)
        return algorithm


def _unsure(token: str, now: float) -> Identity | None:
    return None


def _usable(text: str) -> bytes:
    secret = text.encode()
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"auth.jwt_secret must have at least {MIN_SECRET_BYTES} bytes")
    if any(mark in secret for mark in _PUBLIC_KEY_MARKS):
        raise ValueError("auth.jwt_secret must be a random secret, not a PEM or SSH key")
    return secret
