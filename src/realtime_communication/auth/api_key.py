"""API keys: long random strings whose hashes stand in the configuration, each with a user and its rights.

The configuration holds `sha256:<64 hex digits>`; a key that leaks from a file or a dump is of no use. A fast hash is
right here: keys are random, not chosen by people. All entries are compared every time, in constant time, so that
neither the place of a key in the list nor how much of it is right can be measured.

All connections of one entry are one login. It is another one when the entry's user or rights have changed: whoever
reads the configuration again can end the logins that are gone.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from typing import Final

from realtime_communication.auth.identity import (
    ALL_PERMISSIONS,
    MAX_USER_ID_BYTES,
    Identity,
    checked_name,
    permissions_of,
)
from realtime_communication.config.schema import ApiKey

MAX_KEY_BYTES: Final = 512
GENERATED_KEY_BYTES: Final = 32  # of randomness

_STORED: Final = re.compile(r"sha256:([0-9a-fA-F]{64})")


class ApiKeyVerifier:
    """Finds the identity that belongs to a key.

    Raises ValueError when an entry's hash or user is malformed or a hash is listed twice; the text names the entry by
    its number and never contains the hash.
    """

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._keys: list[tuple[bytes, Identity]] = []
        for number, key in enumerate(keys):
            stored = _STORED.fullmatch(key.key)
            if stored is None:
                raise ValueError(f"API key {number}: `key` must be sha256:<64 hex digits>")
            digest = bytes.fromhex(stored[1])
            if any(hmac.compare_digest(digest, known) for known, _ in self._keys):
                raise ValueError(f"API key {number}: `key` is listed twice")
            self._keys.append((digest, _identity_of(key, digest)))

    @property
    def logins(self) -> frozenset[str]:
        """The logins of all entries."""
        return frozenset(identity.login for _, identity in self._keys if identity.login is not None)

    def verify(self, key: str) -> Identity | None:
        """The identity of `key`, or None. Takes the same time for every key of one length."""
        given = key.encode("utf-8", "surrogateescape")
        if len(given) > MAX_KEY_BYTES:
            return None
        digest = hashlib.sha256(given).digest()
        found: Identity | None = None
        for known, identity in self._keys:
            if hmac.compare_digest(digest, known):
                found = identity
        return found


def _identity_of(key: ApiKey, digest: bytes) -> Identity:
    permissions = permissions_of(list(key.roles), list(key.permissions))
    if "admin" in key.permissions:
        permissions = ALL_PERMISSIONS
    user = checked_name(key.user, "user", MAX_USER_ID_BYTES)
    rights = digest + bytes([permissions]) + b"".join(role.encode() + b"\0" for role in key.roles)
    return Identity(
        user_id=user,
        login="api-key:" + hashlib.sha256(rights + user.encode()).hexdigest(),
        permissions=permissions,
        credential="api_key",
        key_roles=key.roles,
    )


def hashed(key: str) -> str:
    """What the configuration stores for `key`."""
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def generate_key() -> str:
    """A new random key, to be shown once."""
    return "rtc_" + secrets.token_urlsafe(GENERATED_KEY_BYTES)
