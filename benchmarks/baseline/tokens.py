"""Identities from HS256 tokens."""

import jwt
import msgspec
from msgspec import Struct

from .envelopes import RequestError

PERMISSIONS = frozenset({"read", "write", "subscribe"})


class Identity(Struct, frozen=True):
    """Who is on the other side, and what they may do.

    `subscribe_patterns` and `publish_patterns` are None for all topics; `room:*` matches by prefix, anything else
    exactly. Times are seconds since the epoch.
    """

    user_id: str
    permissions: frozenset[str]
    admin: bool
    expires_at: int
    refresh_at: int | None
    subscribe_patterns: tuple[str, ...] | None
    publish_patterns: tuple[str, ...] | None

    def require(self, permission: str) -> None:
        """Raises RequestError (`forbidden`) unless the token grants `permission`."""
        if not self.admin and permission not in self.permissions:
            raise RequestError("forbidden", f"the token does not grant the permission `{permission}`")


class TopicClaims(Struct):
    subscribe: tuple[str, ...] | None = None
    publish: tuple[str, ...] | None = None


class Claims(Struct):
    sub: str
    exp: int
    roles: tuple[str, ...] = ()
    permissions: frozenset[str] = PERMISSIONS
    topics: TopicClaims | None = None
    refresh_threshold: int | None = None


class Verifier:
    """Checks tokens against one secret, issuer and audience."""

    def __init__(self, secret: str, issuer: str, audience: str) -> None:
        if len(secret.encode()) < 32:
            raise ValueError("the secret must have at least 32 bytes")
        self._secret = secret
        self._issuer = issuer
        self._audience = audience

    def verify(self, token: str) -> Identity:
        """The identity a token names. Raises RequestError (`unauthorized` or `token_expired`)."""
        try:
            decoded = jwt.decode(
                token,
                self._secret,
                algorithms=["HS256", "HS384", "HS512"],
                issuer=self._issuer,
                audience=self._audience,
                leeway=5,
                options={"require": ["exp", "sub"]},
            )
            claims = msgspec.convert(decoded, Claims)
        except jwt.ExpiredSignatureError as problem:
            raise RequestError("token_expired", "the token has expired") from problem
        except (jwt.InvalidTokenError, msgspec.ValidationError) as problem:
            raise RequestError("unauthorized", "the token is not valid") from problem
        if not 1 <= len(claims.sub.encode()) <= 128:
            raise RequestError("unauthorized", "the token's `sub` must have 1 to 128 bytes")
        topics = claims.topics or TopicClaims()
        return Identity(
            user_id=claims.sub,
            permissions=claims.permissions,
            admin="admin" in claims.roles,
            expires_at=claims.exp,
            refresh_at=claims.refresh_threshold,
            subscribe_patterns=topics.subscribe,
            publish_patterns=topics.publish,
        )
