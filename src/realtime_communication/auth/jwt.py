"""JSON Web Tokens signed with a shared secret (RFC 7519, RFC 7515), verified strictly (RFC 8725).

PyJWT supplies the signature algorithms. The token's structure, header and claims are checked here, because each
`validate_*` switch must turn off exactly its own check, and because nothing in a header may choose the key, the
algorithm family or an address to fetch from.

Order: size and shape, header, signature, claims. Nothing of the payload is looked at before the signature holds.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from typing import Any, Final

import msgspec
from jwt.algorithms import HMACAlgorithm

from realtime_communication.auth.identity import (
    MAX_TIMESTAMP,
    ClaimError,
    Identity,
    identity_from_claims,
)
from realtime_communication.errors import AuthenticationFailed

MAX_TOKEN_BYTES: Final = 8192
MIN_SECRET_BYTES: Final = 32
# Clocks of issuer and server may differ. Applied to `nbf` and `iat` only: a connection ends at `exp`, so one that
# were let in after it would have to be closed at once.
LEEWAY_SECS: Final = 5
MAX_KEY_ID_BYTES: Final = 64

_HASHES: Final = {
    "HS256": HMACAlgorithm.SHA256,
    "HS384": HMACAlgorithm.SHA384,
    "HS512": HMACAlgorithm.SHA512,
}
ALGORITHMS: Final = tuple(_HASHES)

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-]+")
_KEY_ID: Final = re.compile(r"(?!.*\.\.)[A-Za-z0-9._:-]+")
_KEYS_IN_HEADER: Final = ("jwk", "jku", "x5u", "x5c")
_TYPES: Final = ("jwt", "at+jwt")
_PUBLIC_KEY_MARKS: Final = (b"-----BEGIN ", b"ssh-rsa ", b"ssh-ed25519 ", b"ecdsa-sha2-")


class JwtRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a token is held against. `secret` is never shown."""

    secret: str
    issuer: str
    audience: str
    algorithms: tuple[str, ...] = ALGORITHMS
    validate_issuer: bool = True
    validate_audience: bool = True
    validate_exp: bool = True
    validate_nbf: bool = True

    def __repr__(self) -> str:
        return f"JwtRules(issuer={self.issuer!r}, audience={self.audience!r}, secret=<redacted>)"


class JwtVerifier:
    """Verifies tokens against one secret.

    Raises ValueError when the secret is too short, looks like a public key (the classic confusion of RS256 with
    HS256), or an algorithm is not HS256, HS384 or HS512.
    """

    def __init__(self, rules: JwtRules) -> None:
        secret = rules.secret.encode()
        if len(secret) < MIN_SECRET_BYTES:
            raise ValueError(f"auth.jwt_secret must have at least {MIN_SECRET_BYTES} bytes")
        if any(mark in secret for mark in _PUBLIC_KEY_MARKS):
            raise ValueError("auth.jwt_secret must be a random secret, not a PEM or SSH key")
        unknown = [name for name in rules.algorithms if name not in _HASHES]
        if unknown or not rules.algorithms:
            raise ValueError(f"auth.jwt_algorithms may only name {', '.join(ALGORITHMS)}")
        self._rules = rules
        self._keys = {name: HMACAlgorithm(_HASHES[name]) for name in rules.algorithms}
        self._secret = secret

    def verify(self, token: str, now: float) -> Identity:
        """The identity of `token` at `now` (seconds since the epoch). Raises AuthenticationFailed (`unauthorized` or
        `token_expired`) and nothing else; its text is for people and contains nothing of the token."""
        claims = self._verified_claims(token)
        try:
            expires_at = self._check_times(claims, now)
            self._check_parties(claims)
            return identity_from_claims(claims, expires_at=expires_at)
        except ClaimError as error:
            raise AuthenticationFailed(f"the token's claims are refused: {error}") from None

    def _verified_claims(self, token: str) -> dict[str, Any]:
        if len(token) > MAX_TOKEN_BYTES:
            raise AuthenticationFailed(f"the token is longer than {MAX_TOKEN_BYTES} bytes")
        parts = token.split(".", 3)
        if len(parts) != 3:
            raise AuthenticationFailed("the token is no signed JWT: it must have three parts")
        header = _json_object(_decoded(parts[0]), "header")
        algorithm = self._algorithm_of(header)
        signed = f"{parts[0]}.{parts[1]}".encode("ascii", "replace")
        if not algorithm.verify(signed, self._secret, _decoded(parts[2])):
            raise AuthenticationFailed("the token's signature does not match")
        return _json_object(_decoded(parts[1]), "payload")

    def _algorithm_of(self, header: dict[str, Any]) -> HMACAlgorithm:
        name = header.get("alg")
        algorithm = self._keys.get(name) if isinstance(name, str) else None
        if algorithm is None:
            raise AuthenticationFailed(f"the token's algorithm is not one of {', '.join(self._keys)}")
        # RFC 7515 section 4.1.11: an extension that is not understood makes the token invalid. None is understood.
        if "crit" in header or "b64" in header:
            raise AuthenticationFailed("the token demands an extension (`crit`) that is not supported")
        # A key or an address of one that the token brings along proves nothing; it is never used, never fetched.
        if any(name in header for name in _KEYS_IN_HEADER):
            raise AuthenticationFailed("the token brings its own key (`jwk`, `jku`, `x5u`, `x5c`), which is refused")
        key_id = header.get("kid", "none")
        if not isinstance(key_id, str) or len(key_id) > MAX_KEY_ID_BYTES or not _KEY_ID.fullmatch(key_id):
            raise AuthenticationFailed("the token's key id (`kid`) is malformed")
        kind = header.get("typ", "JWT")
        if not isinstance(kind, str) or kind.lower() not in _TYPES:
            raise AuthenticationFailed("the token's type (`typ`) is not JWT")
        return algorithm

    def _check_times(self, claims: dict[str, Any], now: float) -> int | None:
        issued_at = _numeric_date(claims, "iat")
        if issued_at is not None and issued_at > now + LEEWAY_SECS:
            raise AuthenticationFailed("the token was issued in the future (`iat`)")
        if self._rules.validate_nbf:
            not_before = _numeric_date(claims, "nbf")
            if not_before is not None and not_before > now + LEEWAY_SECS:
                raise AuthenticationFailed("the token is not valid yet (`nbf`)")
        if not self._rules.validate_exp:
            return None
        expires_at = claims.get("exp")
        if type(expires_at) is not int or not 0 <= expires_at <= MAX_TIMESTAMP:
            raise AuthenticationFailed("the token's expiry (`exp`) must be a time in whole seconds since the epoch")
        if expires_at <= now:
            raise AuthenticationFailed("the token has expired", code="token_expired")
        return expires_at

    def _check_parties(self, claims: dict[str, Any]) -> None:
        # Compared exactly: no prefix, no member of a list, no coercion.
        if self._rules.validate_issuer and claims.get("iss") != self._rules.issuer:
            raise AuthenticationFailed("the token is from another issuer (`iss`)")
        if self._rules.validate_audience and claims.get("aud") != self._rules.audience:
            raise AuthenticationFailed("the token is for another audience (`aud`)")


def _decoded(segment: str) -> bytes:
    """Base64url without padding (RFC 7515 section 2), strictly: one text per value."""
    if not _SEGMENT.fullmatch(segment):
        raise AuthenticationFailed("a part of the token is not base64url")
    try:
        decoded = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except (binascii.Error, ValueError):
        raise AuthenticationFailed("a part of the token is not base64url") from None
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != segment.encode():
        raise AuthenticationFailed("a part of the token is not canonical base64url")
    return decoded


def _json_object(document: bytes, what: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(document)
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise AuthenticationFailed(f"the token's {what} is not JSON") from None
    if not isinstance(value, dict):
        raise AuthenticationFailed(f"the token's {what} is not a JSON object")
    return value


def _numeric_date(claims: dict[str, Any], name: str) -> float | None:
    """A time claim that may have a fraction (RFC 7519 section 2, NumericDate); None when it is absent."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 <= value <= MAX_TIMESTAMP:
        raise AuthenticationFailed(f"the token's `{name}` must be a time in seconds since the epoch")
    return float(value)
