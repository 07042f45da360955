"""Which node of a cluster owns which slots, and with them the sharded channels.

Source: https://redis.io/docs/latest/commands/cluster-slots/ and, for what MOVED says,
https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#moved-redirection.
"""

from __future__ import annotations

from typing import Any, Final

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import InvalidResponse

SLOTS: Final[int] = REDIS_CLUSTER_HASH_SLOTS


class SlotMap:
    """The owners, each as `host:port`. Empty at first."""

    def __init__(self) -> None:
        self._owners: list[str | None] = [None] * SLOTS

    def owner_of(self, key: bytes) -> str | None:
        """Who owns the slot of a key or a sharded channel; None when nobody is known to."""
        return self._owners[key_slot(key)]

    def learn(self, rows: Any, asked: str) -> bool:
        """Take over the reply to CLUSTER SLOTS of the node at host `asked`; whether anything is new.

        Raises InvalidResponse, and has learned nothing then.
        """
        owners: list[str | None] = [None] * SLOTS
        try:
            for first, last, master, *_ in rows:
                owner = _named(master[0], int(master[1]), asked)
                owners[int(first) : int(last) + 1] = [owner] * (int(last) + 1 - int(first))
        except (TypeError, ValueError, IndexError):
            raise InvalidResponse("no reply to CLUSTER SLOTS") from None
        if len(owners) != SLOTS:
            raise InvalidResponse("slots that do not exist")
        owners, self._owners = self._owners, owners
        return owners != self._owners

    def move(self, slot: int, server: str) -> None:
        """A slot belongs to `server` (`host:port`) now, as MOVED says. What makes no sense is ignored."""
        host, _, port = server.rpartition(":")
        if 0 <= slot < SLOTS and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536:
            self._owners[slot] = server


def _named(host: Any, port: int, asked: str) -> str:
    """The name of a node; one that says no host is where it was asked."""
    text = host.decode() if isinstance(host, bytes) else host
    return f"{text if text and text != '?' else asked}:{port}"
