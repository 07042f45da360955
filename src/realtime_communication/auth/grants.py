"""Requests for a token: their shape, their bounds, and that nobody gives away more than they have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from realtime_communication.auth.identity import (
    ADMIN,
    MAX_LOGIN_BYTES,
    MAX_USER_ID_BYTES,
    READ,
    SUBSCRIBE,
    WRITE,
    ClaimError,
    Identity,
    checked_name,
    checked_patterns,
)
from realtime_communication.auth.tokens import DEFAULT_PERMISSIONS, DEFAULT_ROLES
from realtime_communication.errors import RequestRefused

MAX_NAMES: Final = 32  # roles, permissions
MAX_NAME_BYTES: Final = 64
MAX_PATTERNS: Final = 64
MAX_METADATA_BYTES: Final = 2048

_BITS: Final = {"read": READ, "write": WRITE, "subscribe": SUBSCRIBE}


class InvalidField(ValueError):
    """A field of a request that cannot be what it is. The text names it and what is allowed."""


class TopicRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`topics` of a request."""

    subscribe: list[str] | None = None
    publish: list[str] | None = None


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /auth/token`."""

    user_id: str
    roles: list[str] | None = None
    permissions: list[str] | None = None
    topics: TopicRequest | None = None
    session_id: str | None = None
    user_metadata: dict[str, Any] | None = None
    expires_in: int | None = None


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a token is to say, checked."""

    user_id: str
    roles: tuple[str, ...]
    permissions: tuple[str, ...]
    topics: dict[str, tuple[str, ...]] | None
    login: str | None
    user_metadata: dict[str, Any] | None
    lifetime_secs: int


def grant_of(request: TokenRequest, by: Identity, *, most_secs: int) -> Grant:
    """What `by` may have issued of what is asked for, for at most `most_secs` seconds.

    Left out, roles are `user`, and permissions the usual ones as far as `by` has them; topics are those of `by`. Raises
    InvalidField, and RequestRefused (`forbidden`) when `by` has less than is asked for.
    """
    lifetime = most_secs if request.expires_in is None else request.expires_in
    if not 1 <= lifetime <= most_secs:
        raise InvalidField(f"expires_in: must be a number of seconds from 1 to {most_secs}")
    try:
        return Grant(
            user_id=checked_name(request.user_id, "user_id", MAX_USER_ID_BYTES),
            roles=_roles(request.roles, by),
            permissions=_permissions(request.permissions, by),
            topics=_topics(request.topics, by),
            login=None
            if request.session_id is None
            else checked_name(request.session_id, "session_id", MAX_LOGIN_BYTES),
            user_metadata=_metadata(request.user_metadata),
            lifetime_secs=lifetime,
        )
    except ClaimError as error:
        raise InvalidField(str(error)) from None


def _roles(asked: Sequence[str] | None, by: Identity) -> tuple[str, ...]:
    if asked is None:
        return DEFAULT_ROLES
    _check_names(asked, "roles")
    if "admin" in asked and not by.may(ADMIN):
        raise RequestRefused("forbidden", "roles: only an admin may give the role admin")
    return tuple(asked)


def _permissions(asked: Sequence[str] | None, by: Identity) -> tuple[str, ...]:
    if asked is None:
        return tuple(name for name in DEFAULT_PERMISSIONS if by.may(_BITS[name]))
    _check_names(asked, "permissions")
    unknown = [name for name in asked if name not in _BITS]
    if unknown:
        raise InvalidField(f"permissions: must be a list of {', '.join(_BITS)}; what an admin may is the role admin")
    missing = [name for name in asked if not by.may(_BITS[name])]
    if missing:
        raise RequestRefused("forbidden", f"permissions: {missing[0]} cannot be given by who has not got it")
    return tuple(asked)


def _topics(asked: TopicRequest | None, by: Identity) -> dict[str, tuple[str, ...]] | None:
    held = {"subscribe": by.subscribe_patterns, "publish": by.publish_patterns}
    if by.may(ADMIN):
        held = dict.fromkeys(held)
    topics: dict[str, tuple[str, ...]] = {}
    for name, own in held.items():
        given = None if asked is None else getattr(asked, name)
        if given is not None:
            if len(given) > MAX_PATTERNS:
                raise InvalidField(f"topics.{name}: must have at most {MAX_PATTERNS} patterns")
            topics[name] = checked_patterns(given, f"topics.{name}")
            if own is not None and not all(any(covers(wide, narrow) for wide in own) for narrow in topics[name]):
                raise RequestRefused("forbidden", f"topics.{name}: a topic cannot be given by who has not got it")
        elif own is not None:
            topics[name] = own
    return topics or None


def covers(wide: str, narrow: str) -> bool:
    """Whether every topic that the pattern `narrow` names is named by `wide` too."""
    return narrow.startswith(wide[:-1]) if wide.endswith("*") else narrow == wide


def _metadata(given: dict[str, Any] | None) -> dict[str, Any] | None:
    if given is None:
        return None
    text = msgspec.json.encode(given)
    if len(text) > MAX_METADATA_BYTES:
        raise InvalidField(f"user_metadata: must be at most {MAX_METADATA_BYTES} bytes of JSON")
    # As it will be read: numbers that JSON cannot carry are null.
    made: dict[str, Any] = msgspec.json.decode(text)
    return made


def _check_names(names: Sequence[str], field: str) -> None:
    if len(names) > MAX_NAMES:
        raise InvalidField(f"{field}: must have at most {MAX_NAMES} entries")
    for name in names:
        checked_name(name, field, MAX_NAME_BYTES)
