"""A bounded table whose entries expire: the one that would expire first gives way to a new one."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_SPARE_TIMES: Final = 64  # outdated times that are carried along before they are cleared out


class ExpiringTable(Generic[K, V]):
    """Keys, their values and until when they hold. Times are of the caller's clock, in seconds.

    Keys must be comparable with each other. What has expired is as good as gone, and goes with the next `put`.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: dict[K, tuple[V, float]] = {}
        self._times: list[tuple[float, K]] = []  # a heap; of a key that was put again, the outdated ones too

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: K, value: V, until: float, now: float) -> None:
        """Add or replace an entry."""
        self._entries[key] = (value, until)
        heapq.heappush(self._times, (until, key))
        while self._times and (self._times[0][0] <= now or len(self._entries) > self._most):
            time, first = heapq.heappop(self._times)
            if first in self._entries and self._entries[first][1] == time:
                del self._entries[first]
        if len(self._times) > 2 * len(self._entries) + _SPARE_TIMES:
            self._times = [(until, key) for key, (_, until) in self._entries.items()]
            heapq.heapify(self._times)

    def get(self, key: K, now: float) -> V | None:
        """The value of an entry that has not expired."""
        found = self._entries.get(key)
        return found[0] if found is not None and found[1] > now else None

    def pop(self, key: K) -> None:
        """Remove an entry, if it is there."""
        self._entries.pop(key, None)

    def items(self, now: float) -> Iterator[tuple[K, V, float]]:
        """Key, value and time of what has not expired. Not while the table changes."""
        for key, (value, until) in self._entries.items():
            if until > now:
                yield key, value, until
