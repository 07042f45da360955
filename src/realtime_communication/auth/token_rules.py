"""What every JSON Web Token is held against, whoever signed it (RFC 7515, RFC 7519, RFC 8725).

A token passes through here in two parts, with the signature in between: `split` takes it apart, `check_header` looks at
its header; once a verifier has found the signature good, `claims_of`, `check_times` and `check_parties` read the
payload. Nothing in a header chooses the key's family, and no address is ever made from a token.

`names_of` alone reads a payload that nobody has vouched for. What it finds decides only which verifier is asked, and
that one checks it again.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from realtime_communication.auth.identity import MAX_TIMESTAMP
from realtime_communication.errors import AuthenticationFailed

MAX_TOKEN_BYTES: Final = 8192
# Clocks of issuer and server may differ. Applied to `nbf` and `iat` only: a connection ends at `exp`, so one that
# were let in after it would have to be closed at once.
LEEWAY_SECS: Final = 5
ACCESS_TYPES: Final = ("jwt", "at+jwt")

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-]+")
_KEYS_IN_HEADER: Final = ("jwk", "jku", "x5u", "x5c")


class SignedToken(msgspec.Struct, frozen=True):
    """A token taken apart. Its signature has not been looked at."""

    header: dict[str, Any]
    signed: bytes  # what the signature is over
    payload: str  # base64url
    signature: bytes


class Names(msgspec.Struct, frozen=True):
    """Who a token says it comes from. Not verified: good for choosing whom to ask, and for nothing else."""

    algorithm: str
    issuer: str | None
    audience: str | None = None


class Times(msgspec.Struct, frozen=True):
    """The verified times of a token, in seconds since the epoch."""

    expires_at: int | None
    issued_at: float | None


def split(token: str) -> SignedToken:
    """The parts of `token`, its header read. Raises AuthenticationFailed."""
    if len(token) > MAX_TOKEN_BYTES:
        raise AuthenticationFailed(f"the token is longer than {MAX_TOKEN_BYTES} bytes")
    parts = token.split(".", 3)
    if len(parts) != 3:
        raise AuthenticationFailed("the token is no signed JWT: it must have three parts")
    header = _json_object(decoded(parts[0]), "header")
    signed = f"{parts[0]}.{parts[1]}".encode("ascii", "replace")
    return SignedToken(header, signed, parts[1], decoded(parts[2]))


def check_header(header: dict[str, Any], key_ids: re.Pattern[str], types: Sequence[str] = ACCESS_TYPES) -> None:
    """Refuse what a header may not bring along. `key_ids` is what a `kid`, where there is one, must match.

    Raises AuthenticationFailed.
    """
    # RFC 7515 section 4.1.11: an extension that is not understood makes the token invalid. None is understood.
    if "crit" in header or "b64" in header:
        raise AuthenticationFailed("the token demands an extension (`crit`) that is not supported")
    # A key or an address of one that the token brings along proves nothing; it is never used, never fetched.
    if any(name in header for name in _KEYS_IN_HEADER):
        raise AuthenticationFailed("the token brings its own key (`jwk`, `jku`, `x5u`, `x5c`), which is refused")
    key_id = header.get("kid", "none")
    if not isinstance(key_id, str) or not key_ids.fullmatch(key_id):
        raise AuthenticationFailed("the token's key id (`kid`) is malformed")
    kind = header.get("typ", "JWT" if "jwt" in types else None)
    if not isinstance(kind, str) or kind.lower() not in types:
        raise AuthenticationFailed(f"the token's type (`typ`) must be one of {', '.join(types)}")


def claims_of(token: SignedToken) -> dict[str, Any]:
    """The payload, to be read only once the signature is verified. Raises AuthenticationFailed."""
    return _json_object(decoded(token.payload), "payload")


def check_times(claims: dict[str, Any], now: float, *, validate_exp: bool = True, validate_nbf: bool = True) -> Times:
    """The times of `claims`, which must hold at `now` (seconds since the epoch). Raises AuthenticationFailed."""
    issued_at = _numeric_date(claims, "iat")
    if issued_at is not None and issued_at > now + LEEWAY_SECS:
        raise AuthenticationFailed("the token was issued in the future (`iat`)")
    if validate_nbf:
        not_before = _numeric_date(claims, "nbf")
        if not_before is not None and not_before > now + LEEWAY_SECS:
            raise AuthenticationFailed("the token is not valid yet (`nbf`)")
    if not validate_exp:
        return Times(None, issued_at)
    expires_at = claims.get("exp")
    if type(expires_at) is not int or not 0 <= expires_at <= MAX_TIMESTAMP:
        raise AuthenticationFailed("the token's expiry (`exp`) must be a time in whole seconds since the epoch")
    if expires_at <= now:
        raise AuthenticationFailed("the token has expired", code="token_expired")
    return Times(expires_at, issued_at)


def check_parties(claims: dict[str, Any], *, issuer: str | None, audience: str | None) -> None:
    """Compare `iss` and `aud` exactly: no prefix, no member of a list, no coercion; None leaves one out.

    Raises AuthenticationFailed.
    """
    if issuer is not None and claims.get("iss") != issuer:
        raise AuthenticationFailed("the token is from another issuer (`iss`)")
    if audience is not None and claims.get("aud") != audience:
        raise AuthenticationFailed("the token is for another audience (`aud`)")


def names_of(token: str) -> Names | None:
    """Who `token` says it comes from, None when it cannot be read. Never raises."""
    try:
        taken_apart = split(token)
        claims = claims_of(taken_apart)
    except AuthenticationFailed:
        return None
    algorithm = taken_apart.header.get("alg")
    issuer, audience = (value if isinstance(value := claims.get(name), str) else None for name in ("iss", "aud"))
    return Names(algorithm, issuer, audience) if isinstance(algorithm, str) else None


def decoded(segment: str) -> bytes:
    """Base64url without padding (RFC 7515 section 2), strictly: one text per value. Raises AuthenticationFailed."""
    if not _SEGMENT.fullmatch(segment):
        raise AuthenticationFailed("a part of the token is not base64url")
    try:
        value = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except (binascii.Error, ValueError):
        raise AuthenticationFailed("a part of the token is not base64url") from None
    if base64.urlsafe_b64encode(value).rstrip(b"=") != segment.encode():
        raise AuthenticationFailed("a part of the token is not canonical base64url")
    return value


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
