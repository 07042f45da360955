"""Where a subscription stands in its topic: drops what came before, notices what is missing.

Offsets of a topic grow by one with each message (protocol section 2, "Recovery"). Two things break the row on purpose:
messages published with ``exclude_self``, which the publisher never gets, and a hole the server announced by ``Lagged``.
"""

from __future__ import annotations

from realtime_communication.client.events import Position

__all__ = ["Cursor"]


class Cursor:
    """The last position seen. ``offset`` is None until a first message or reply fixed it."""

    def __init__(self) -> None:
        self.epoch: str | None = None
        self.offset: int | None = None
        self._own: set[int] = set()  # published with exclude_self, above `offset`
        self._own_pending = 0  # exclude_self publications without their Ack so far
        self._suspected: set[int] = set()  # holes that pending publications may explain
        self._hole_announced = False

    @property
    def position(self) -> Position | None:
        """What to recover from, or None when nothing is known yet."""
        if self.epoch is None or self.offset is None:
            return None
        return Position(self.epoch, self.offset)

    def reset(self, epoch: str, offset: int | None) -> None:
        """Another history begins, or the first one."""
        self.epoch = epoch
        self.offset = offset
        self._own.clear()
        self._suspected.clear()
        self._hole_announced = False

    def advance(self, offset: int) -> None:
        """Everything up to ``offset`` is accounted for."""
        if self.offset is None or offset > self.offset:
            self.offset = offset
        self._absorb_own()

    def announce_hole(self) -> None:
        """The next jump is known to the application already."""
        self._hole_announced = True

    def accept(self, offset: int) -> tuple[bool, int]:
        """A message came: (whether it is new and not our own, how many before it are missing unexplained)."""
        if self.offset is None:
            self.offset = offset
            return True, 0
        if offset <= self.offset:
            return False, 0
        own = offset in self._own
        holes = 0
        if offset > self.offset + 1:
            holes = self._unexplained(self.offset + 1, offset)
        self.offset = offset
        self._hole_announced = False
        self._absorb_own()
        return not own, holes

    def _unexplained(self, start: int, stop: int) -> int:
        """How many offsets of ``start`` … ``stop`` - 1 are neither our own nor announced."""
        if self._hole_announced:
            return 0
        count = stop - start - sum(1 for own in self._own if start <= own < stop)
        if count and count + len(self._suspected) <= self._own_pending:
            self._suspected.update(offset for offset in range(start, stop) if offset not in self._own)
            return 0
        return count

    def publishing_excluded(self) -> None:
        """A publication of ours that will not come back is on its way."""
        self._own_pending += 1

    def published_excluded(self, offset: int | None) -> int:
        """That publication got ``offset`` (None: it failed). Returns how many holes turn out to be unexplained."""
        self._own_pending = max(0, self._own_pending - 1)
        if offset is not None:
            if offset in self._suspected:
                self._suspected.discard(offset)
            elif self.offset is not None and offset > self.offset:
                self._own.add(offset)
                self._absorb_own()
        if self._own_pending:
            return 0
        unexplained = len(self._suspected)
        self._suspected.clear()
        return unexplained

    def _absorb_own(self) -> None:
        if self.offset is None:
            return
        while self.offset + 1 in self._own:
            self.offset += 1
        if self._own:
            self._own = {own for own in self._own if own > self.offset}
