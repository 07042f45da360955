"""Issuing access tokens: the claims of the configuration guide, signed with the server's secret."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import jwt
import msgspec

from realtime_communication.auth.identity import MAX_USER_ID_BYTES, checked_name

# The client is told to ask for a new token when this share of the lifetime has passed; a third is left for retries.
REFRESH_AFTER: Final = 2 / 3
DEFAULT_ROLES: Final = ("user",)
DEFAULT_PERMISSIONS: Final = ("read", "write", "subscribe")


class TokenIssuer(msgspec.Struct, frozen=True, kw_only=True):
    """Signs tokens that `JwtVerifier` with the same secret, issuer and audience accepts."""

    secret: str
    issuer: str
    audience: str
    lifetime_secs: int
    algorithm: str = "HS256"

    def __repr__(self) -> str:
        return f"TokenIssuer(issuer={self.issuer!r}, audience={self.audience!r}, secret=<redacted>)"

    def access_token(
        self,
        user_id: str,
        now: float,
        *,
        roles: Sequence[str] = DEFAULT_ROLES,
        permissions: Sequence[str] = DEFAULT_PERMISSIONS,
        topics: Mapping[str, Sequence[str]] | None = None,
        login: str | None = None,
        lifetime_secs: int | None = None,
    ) -> str:
        """A token for `user_id`, valid from `now` (seconds since the epoch).

        `login` becomes the claim `session_id`, a new one when None. Raises ClaimError when `user_id` cannot be one.
        """
        return self.sign(
            self.claims(
                user_id,
                now,
                roles=roles,
                permissions=permissions,
                topics=topics,
                login=login,
                lifetime_secs=lifetime_secs,
            )
        )

    def claims(
        self,
        user_id: str,
        now: float,
        *,
        roles: Sequence[str] = DEFAULT_ROLES,
        permissions: Sequence[str] = DEFAULT_PERMISSIONS,
        topics: Mapping[str, Sequence[str]] | None = None,
        login: str | None = None,
        lifetime_secs: int | None = None,
        further: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The claims of such a token; those of `further` never replace one of the server's own. Raises ClaimError."""
        checked_name(user_id, "user_id", MAX_USER_ID_BYTES)
        issued_at = int(now)
        lifetime = self.lifetime_secs if lifetime_secs is None else lifetime_secs
        claims: dict[str, Any] = {
            "sub": user_id,
            "iat": issued_at,
            "exp": issued_at + lifetime,
            "nbf": issued_at,
            "iss": self.issuer,
            "aud": self.audience,
            "user_id": user_id,
            "session_id": login or uuid.uuid4().hex,
            "roles": list(roles),
            "permissions": list(permissions),
            "refresh_threshold": issued_at + int(lifetime * REFRESH_AFTER),
        }
        if topics is not None:
            claims["topics"] = {name: list(patterns) for name, patterns in topics.items()}
        return {**(further or {}), **claims}

    def sign(self, claims: Mapping[str, Any]) -> str:
        """The token of `claims`."""
        return jwt.encode(dict(claims), self.secret, algorithm=self.algorithm)
