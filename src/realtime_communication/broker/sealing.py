"""Marks by which the nodes know each other's words in Redis: whoever can write there cannot speak for a node."""

from __future__ import annotations

import hmac
from collections.abc import Sequence


class Seal:
    """HMAC-SHA256 under keys derived for one purpose from the server's signing secrets.

    `secrets` has the newest first: that one seals, and each of them is accepted, so that nodes whose secret is being
    changed understand each other. What is sealed for one purpose is worth nothing for another.
    """

    def __init__(self, secrets: Sequence[str], purpose: str) -> None:
        self._label = f"realtime_communication {purpose}".encode()
        self.renew(secrets)

    def renew(self, secrets: Sequence[str]) -> None:
        """Take over other secrets, the newest first. Raises ValueError without any."""
        if not secrets:
            raise ValueError("a seal needs a secret")
        self._keys = tuple(hmac.digest(secret.encode(), self._label, "sha256") for secret in secrets)

    def __repr__(self) -> str:
        return f"Seal(keys={len(self._keys)})"

    def mark(self, body: bytes) -> str:
        """The mark of `body`: 64 hexadecimal digits."""
        return hmac.digest(self._keys[0], body, "sha256").hex()

    def is_genuine(self, body: bytes, mark: str) -> bool:
        """Whether `mark` was made of `body` with one of the secrets. The time it takes does not tell which."""
        given = mark.encode(errors="replace")
        made = [hmac.digest(key, body, "sha256").hex().encode() for key in self._keys]
        return sum(hmac.compare_digest(each, given) for each in made) > 0
