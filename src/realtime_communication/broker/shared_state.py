"""Small state that all nodes share: values that expire, generations of refresh tokens, and sets whose members expire.

Names are plain text. All times are seconds, `expires_at` Unix time. Every method
may be called again with the same arguments after a failure, without doing anything twice.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final, Protocol

MAX_MEMBERS: Final = 1_000_000
"""Most members of one set; the one that would expire first gives way."""


class Rotation(enum.Enum):
    """What became of a generation that was presented for rotation."""

    ROTATED = "rotated"  # it was the newest; the next one takes its place
    REUSED = "reused"  # it was used before: from now on the whole family is revoked
    REVOKED = "revoked"  # the family had been revoked


class SharedState(Protocol):
    """The operations. With Redis they raise RedisFailed and CircuitOpen: the caller decides what holds meanwhile."""

    async def put(self, name: str, value: bytes, ttl_secs: float) -> None:
        """Set a value that expires after `ttl_secs`."""

    async def get(self, name: str) -> bytes | None:
        """A value that has not expired, or None."""

    async def delete(self, name: str) -> None:
        """Remove a value, if it is there."""

    async def compare_and_rotate(self, family: str, presented: int, attempt: str, ttl_secs: float) -> Rotation:
        """Present generation `presented` (from 0) of a family; when it is the newest, `presented + 1` becomes that.

        Of several callers with one generation, on whatever nodes, one has it rotated. `attempt` is a random text of
        this caller: repeating it after an answer got lost is no reuse. A generation newer than the one known is
        rotated too: the caller has verified that this server issued it, so the state was lost and heals by that.
        """

    async def revoke_family(self, family: str, ttl_secs: float) -> None:
        """Make every later `compare_and_rotate` of the family answer REVOKED."""

    async def add_members(self, name: str, members: Sequence[tuple[bytes, float]]) -> None:
        """Add members with their `expires_at` to a set; one that is there keeps the later of both times."""

    async def members(self, name: str) -> list[tuple[bytes, float]]:
        """All members of a set that have not expired, with their `expires_at`."""
