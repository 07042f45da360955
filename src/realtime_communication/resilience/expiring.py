"""A table whose entries end by themselves, and that never holds more than its bound."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_SPARE: Final = 64  # stale entries of the queue that are not worth clearing away


class ExpiringTable(Generic[K, V]):
    """Values by key, each until a time. Beyond `most` entries the one that would end first goes.

    Keys must be comparable with each other. Times are the caller's, in one unit; `put` and `get` sweep what has ended
    by then, at a cost that is constant on average.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: dict[K, tuple[V, float]] = {}
        # By end. An entry that was put again or removed has stale ones here, which are told by their other end.
        self._queue: list[tuple[float, K]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K, now: float) -> V | None:
        """The value of `key`, None when there is none at `now`."""
        if not self._entries:
            return None
        self.sweep(now)
        found = self._entries.get(key)
        return None if found is None else found[0]

    def until(self, key: K) -> float:
        """When the entry of `key` ends; 0 when there is none."""
        found = self._entries.get(key)
        return 0.0 if found is None else found[1]

    def items(self, now: float) -> Iterator[tuple[K, V, float]]:
        """Key, value and end of what has not ended. The table must not be used before the iterator is done."""
        for key, (value, until) in self._entries.items():
            if until > now:
                yield key, value, until

    def put(self, key: K, value: V, until: float, now: float) -> None:
        """Add or replace the entry of `key`; nothing stays when `until` is not after `now`."""
        self._entries[key] = (value, until)
        heapq.heappush(self._queue, (until, key))
        self.sweep(now)
        while len(self._entries) > self._most:
            self._drop_first()
        if len(self._queue) > 2 * len(self._entries) + _SPARE:
            self._queue = [(end, name) for name, (_, end) in self._entries.items()]
            heapq.heapify(self._queue)

    def pop(self, key: K) -> None:
        """Remove the entry of `key`, if it is there."""
        self._entries.pop(key, None)

    def sweep(self, now: float) -> None:
        """Forget what has ended."""
        while self._queue and self._queue[0][0] <= now:
            self._drop_first()

    def _drop_first(self) -> None:
        until, key = heapq.heappop(self._queue)
        found = self._entries.get(key)
        if found is not None and found[1] == until:
            del self._entries[key]
