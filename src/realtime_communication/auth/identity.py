"""Who a connection or a request belongs to, and what it may do.

An `Identity` is made from claims whose signature has been verified, or from the configuration's API keys. What is
malformed is refused, never repaired: a claim of the wrong type may mean something else to the one who issued it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

Credential = Literal["token", "api_key", "bypass"]

READ: Final = 1
WRITE: Final = 2
SUBSCRIBE: Final = 4
ADMIN: Final = 8
ALL_PERMISSIONS: Final = READ | WRITE | SUBSCRIBE | ADMIN

MAX_USER_ID_BYTES: Final = 128
MAX_LOGIN_BYTES: Final = 128
MAX_PATTERN_BYTES: Final = 255  # the longest topic name
MAX_TIMESTAMP: Final = 2**32 - 1  # seconds; the year 2106. Catches milliseconds and "the year 9999".

_PERMISSION_BITS: Final = {"read": READ, "write": WRITE, "subscribe": SUBSCRIBE}


class ClaimError(ValueError):
    """A claim or a configured value that cannot be part of an identity. The text names the claim, never its value."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """The holder of a verified credential.

    The compiled core reads these attributes by name.
    """

    user_id: str  # 1..128 bytes of UTF-8, no control characters
    login: str | None = None  # the token's `session_id`, or the entry of an API key: every connection of one login
    permissions: int = 0  # READ | WRITE | SUBSCRIBE | ADMIN
    expires_at: int | None = None  # seconds since the epoch; None: never
    refresh_at: int | None = None  # seconds since the epoch; when the client should ask for a new token
    subscribe_patterns: tuple[str, ...] | None = None  # None: every topic; "room:*" is a prefix, else exact
    publish_patterns: tuple[str, ...] | None = None
    presence_info: bytes | None = None  # a JSON object shown with the user's presence
    # What follows is for the control plane; the core does not read it.
    credential: Credential = "token"
    issued_at: float | None = None  # seconds since the epoch, the token's `iat`: what a revocation is held against
    claims: Mapping[str, Any] | None = None  # the verified claims of a token
    key_roles: tuple[str, ...] = ()  # of an API key

    @property
    def roles(self) -> Sequence[str]:
        """Roles of the holder; the core reads them where rules of topics name some."""
        return self.key_roles if self.claims is None else self.claims.get("roles") or ()

    def may(self, permission: int) -> bool:
        """Whether all bits of `permission` are held."""
        return self.permissions & permission == permission


def identity_from_claims(
    claims: Mapping[str, Any], *, expires_at: int | None, issued_at: float | None = None
) -> Identity:
    """The identity that verified `claims` describe.

    `user_id` names the user, `sub` does where there is none. `expires_at` is the verified `exp`, None when expiry is
    not checked; `issued_at` the verified `iat`, None when there is none. Raises ClaimError.
    """
    subscribe, publish = _patterns_of(claims.get("topics"))
    return Identity(
        user_id=_user_of(claims),
        login=_optional_name(claims.get("session_id"), "session_id", MAX_LOGIN_BYTES),
        permissions=permissions_of(claims.get("roles"), claims.get("permissions")),
        expires_at=expires_at,
        refresh_at=_refresh_at(claims.get("refresh_threshold"), expires_at),
        subscribe_patterns=subscribe,
        publish_patterns=publish,
        issued_at=issued_at,
        claims=claims,
    )


def permissions_of(roles: object, permissions: object) -> int:
    """Permission bits of the claims `roles` and `permissions`; names that are not known grant nothing.

    Raises ClaimError when either is neither absent nor a list of strings.
    """
    if "admin" in _strings(roles, "roles"):
        _strings(permissions, "permissions")
        return ALL_PERMISSIONS
    bits = 0
    for name in _strings(permissions, "permissions"):
        bits |= _PERMISSION_BITS.get(name, 0)
    return bits


def checked_name(value: object, claim: str, most_bytes: int) -> str:
    """`value` as a name of 1 to `most_bytes` bytes of UTF-8 without control characters. Raises ClaimError."""
    if not isinstance(value, str) or not value:
        raise ClaimError(f"`{claim}` must be a string that is not empty")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ClaimError(f"`{claim}` is no valid Unicode text") from None
    if size > most_bytes:
        raise ClaimError(f"`{claim}` is longer than {most_bytes} bytes")
    if any(character < " " or "\x7f" <= character <= "\x9f" for character in value):
        raise ClaimError(f"`{claim}` contains control characters")
    return value


def _user_of(claims: Mapping[str, Any]) -> str:
    names = [checked_name(claims[name], name, MAX_USER_ID_BYTES) for name in ("user_id", "sub") if name in claims]
    if not names:
        raise ClaimError("neither `user_id` nor `sub` is present")
    return names[0]


def _optional_name(value: object, claim: str, most_bytes: int) -> str | None:
    return None if value is None else checked_name(value, claim, most_bytes)


def _refresh_at(value: object, expires_at: int | None) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= MAX_TIMESTAMP:
        raise ClaimError("`refresh_threshold` must be a time in whole seconds since the epoch")
    return value if expires_at is None else min(value, expires_at)


def _strings(value: object, claim: str) -> Sequence[str]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ClaimError(f"`{claim}` must be a list of strings")
    return value


def _patterns_of(topics: object) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    if topics is None:
        return None, None
    if not isinstance(topics, dict):
        raise ClaimError("`topics` must be an object")
    # A key that is not understood was meant to narrow something: refusing is the only safe reading.
    if not topics.keys() <= {"subscribe", "publish"}:
        raise ClaimError("`topics` may only contain `subscribe` and `publish`")
    return (
        _optional_patterns(topics.get("subscribe"), "topics.subscribe"),
        _optional_patterns(topics.get("publish"), "topics.publish"),
    )


def _optional_patterns(value: object, claim: str) -> tuple[str, ...] | None:
    return None if value is None else checked_patterns(value, claim)


def checked_patterns(value: object, claim: str) -> tuple[str, ...]:
    """`value` as topic patterns: exact names, or prefixes that end in `*`. Raises ClaimError."""
    patterns = tuple(checked_name(item, claim, MAX_PATTERN_BYTES) for item in _strings(value, claim))
    if any("*" in pattern[:-1] for pattern in patterns):
        raise ClaimError(f"`{claim}`: `*` may only end a pattern")
    return patterns
