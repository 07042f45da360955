"""A topic's feed on this node: what came over the channel, put into order with what lies in the stream.

Theory of operation. Pub/sub loses messages, and the stream does not tell of new ones; together they are a feed without
gaps. A feed begins OPENING: its channel is subscribed to first, then the stream is read, and what came meanwhile is
kept and follows. It is LIVE as long as each frame continues the last one; what was there before is dropped. A frame
that does not continue it makes it BEHIND until the stream has been read again::

    OPENING ──settle──▶ LIVE ──a gap, or another epoch──▶ BEHIND ──settle──▶ LIVE
                          └────────── suspect ──────────────▲

Whoever owns the feed reads the stream when `receive`, `suspect` or `finish_read` says so, and calls in this order:
`begin_read`; when the page has come, `settle`, which brings the receiver up to the page; `extended`, for answers made
of the page, which have to end where the receiver is; and `finish_read`, after which frames that came meanwhile follow.
So frames that are delivered while anything is read are kept too. Sans I/O.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from realtime_communication.broker.redis_frames import Publications, framed, mark_of, split_bodies

KEPT_BYTES: Final = 8 << 20  # of frames kept for one topic while its stream is read

Position = tuple[int, int]
"""Epoch and offset."""

Known = tuple[int, int, int | None]
"""Epoch and offset, and the mark of the message there."""


class Page(msgspec.Struct, frozen=True):
    """What was read of a stream: its position, and messages up to it that follow each other from `first` on."""

    epoch: int
    offset: int
    first: int
    bodies: Sequence[bytes]  # each with its size in front

    def after(self, offset: int) -> Sequence[bytes] | None:
        """The messages after `offset`, up to the position of the page; None when one of them is missing."""
        if offset >= self.offset:
            return () if offset == self.offset else None
        return None if offset + 1 < self.first else self.bodies[offset + 1 - self.first :]


class Receiver(Protocol):
    """Who is told."""

    def deliver_upstream(self, topic: bytes, epoch: int, first: int, bodies: bytes, /) -> None: ...
    def reset_topic(self, topic: bytes, epoch: int, offset: int, /) -> None: ...


class FeedState(enum.Enum):
    """How the feed of a topic is."""

    OPENING = "opening"
    LIVE = "live"
    BEHIND = "behind"


class TopicFeed:
    """See the head of this module. The position is what the receiver has been brought to."""

    __slots__ = (
        *("_covered", "_kept", "_kept_bytes", "_overflowed", "_receiver"),
        *("_suspected", "epoch", "gaps", "mark", "offset", "reading", "resets", "state", "strays", "topic"),
    )

    def __init__(self, topic: bytes, receiver: Receiver, known: Known | None = None) -> None:
        """`known` is what an earlier feed of the topic had come to."""
        self.topic = topic
        self.state = FeedState.OPENING
        # The mark is that of the message at the position, where it is known.
        self.epoch, self.offset, self.mark = known or (0, 0, None)
        self.reading = False
        self.gaps = 0  # frames that did not continue the last one
        self.resets = 0  # times the receiver was told that something is missing
        self.strays = 0  # frames that belong to nothing in the stream
        self._receiver = receiver
        self._kept: list[Publications] = []
        self._kept_bytes = 0
        self._suspected = False  # since the read that is under way began: it does not prove that nothing is missing
        self._overflowed = False  # of what was kept, something had to go
        self._covered = 0  # so many of the kept frames came before the read began: the stream has to have them

    def receive(self, frame: Publications) -> bool:
        """A frame of the channel. True when the stream has to be read."""
        if self.state is not FeedState.LIVE:
            self._keep(frame)
            return False
        if frame.epoch == self.epoch:
            if frame.last <= self.offset:
                return False
            if frame.first <= self.offset + 1:
                if self.reading:
                    self._keep(frame)
                self._deliver(frame)
                return False
        self.gaps += 1
        self._keep(frame)
        return self._fall_behind()

    @property
    def known(self) -> Known | None:
        """What it has come to; None when it has not come to anything."""
        return (self.epoch, self.offset, self.mark) if self.epoch else None

    def suspect(self) -> bool:
        """Frames may have been lost. True when the stream has to be read."""
        self._suspected = self._suspected or self.reading
        return self._fall_behind()

    def _fall_behind(self) -> bool:
        if self.state is not FeedState.LIVE:
            return False
        self.state = FeedState.BEHIND
        return True

    def begin_read(self) -> None:
        """A read goes out. One at a time."""
        self.reading = True
        self._suspected = False
        self._covered = len(self._kept)

    def is_other_history(self, page: Page) -> bool:
        """Whether the stream has other messages under this epoch than those that were delivered."""
        if page.epoch != self.epoch or self.mark is None:
            return False
        at = self.offset - page.first
        return 0 <= at < len(page.bodies) and mark_of(page.bodies[at]) != self.mark

    def settle(self, page: Page) -> None:
        """The stream was read: bring the receiver up to it as far as nothing is missing."""
        was, self.state = self.state, FeedState.LIVE
        if was is FeedState.OPENING:
            self._go_to(page.epoch, page.offset, page.bodies)
        elif page.epoch != self.epoch:
            self._reset(page)
        elif page.offset > self.offset:
            missing = page.after(self.offset)
            if missing is not None:
                first = self.offset + 1
                self._go_to(page.epoch, page.offset, missing)
                self._receiver.deliver_upstream(self.topic, page.epoch, first, b"".join(missing))
            elif was is FeedState.BEHIND:
                self._reset(page)

    def extended(self, page: Page) -> Page | None:
        """The page as it would be, had it been read up to the position. After `settle`; None when that is not known."""
        if page.epoch != self.epoch:
            return None
        bodies, offset = list(page.bodies), page.offset
        if offset > self.offset:  # the frames that make it up have yet to come
            bodies = bodies[: max(0, len(bodies) - (offset - self.offset))]
            return Page(page.epoch, self.offset, min(page.first, self.offset + 1), tuple(bodies))
        for frame in self._kept:
            if offset < self.offset and frame.epoch == page.epoch and frame.first <= offset + 1 <= frame.last:
                bodies += map(framed, split_bodies(frame.after(offset).bodies))
                offset = frame.last
        return Page(page.epoch, offset, page.first, tuple(bodies)) if offset == self.offset else None

    def finish_read(self) -> bool:
        """Let what came meanwhile follow. True when the stream has to be read again."""
        self.reading = False
        kept, covered = self._kept, self._covered
        overflowed, self._overflowed = self._overflowed, False
        self._kept, self._kept_bytes = [], 0
        for number, frame in enumerate(kept):
            if number < covered and self.state is FeedState.LIVE and not self._continues(frame):
                self.strays += frame.epoch != self.epoch or frame.last > self.offset
            else:
                self.receive(frame)
        if overflowed or self._suspected:
            self._fall_behind()
        return self.state is FeedState.BEHIND

    def fail_read(self) -> None:
        """The read had no answer: whoever needed it has to read again."""
        self.reading = False

    def _continues(self, frame: Publications) -> bool:
        return frame.epoch == self.epoch and frame.first <= self.offset + 1 and frame.last > self.offset

    def _deliver(self, frame: Publications) -> None:
        try:
            fresh = frame.after(self.offset)
        except ValueError:
            self.strays += 1
            return
        self.offset, self.mark = fresh.last, fresh.mark
        self._receiver.deliver_upstream(self.topic, fresh.epoch, fresh.first, fresh.bodies)

    def _reset(self, page: Page) -> None:
        """Go on with what the page and the frames kept have, and tell that something is missing before it."""
        same_epoch = page.epoch == self.epoch
        kept = [
            frame.first
            for frame in self._kept
            if frame.epoch == page.epoch and not (same_epoch and frame.last <= self.offset)
        ]
        self.resets += 1
        self._go_to(page.epoch, min([page.offset, *(first - 1 for first in kept)]), ())
        self._receiver.reset_topic(self.topic, self.epoch, self.offset)

    def _go_to(self, epoch: int, offset: int, bodies: Sequence[bytes]) -> None:
        self.epoch, self.offset = epoch, offset
        self.mark = mark_of(bodies[-1]) if bodies else None

    def _keep(self, frame: Publications) -> None:
        self._kept.append(frame)
        self._kept_bytes += len(frame.bodies)
        if self._kept_bytes > KEPT_BYTES:
            self._kept, self._kept_bytes, self._covered, self._overflowed = [], 0, 0, True
