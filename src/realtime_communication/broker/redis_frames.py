"""What is published on the channel of a topic. All numbers are little endian.

A frame begins with the version (u8, VERSION), its kind (u8), and two bytes that are 0::

    PUBLICATIONS   u32 count, u64 epoch, u64 offset of the first, u32 size of the last body with its size in front,
                   u32 size of all that follows; then `count` bodies, each with its size (u32) in front
    PRESENCE       u32 size of all that follows; then b"0" (came) or b"1" (left), the user, the session, the info and
                   the run of the node that saw it, each with its size in front
    RESET          nothing: the history was lost, and who cares reads the stream

Scripts in Redis write them (see `redis_scripts.py`). Anybody who can write to Redis can put anything on a channel:
`parse_frame` takes whatever comes, and tells why it was nothing.
"""

from __future__ import annotations

import enum
import struct
import zlib
from collections.abc import Iterator
from typing import Final

import msgspec

VERSION: Final = 1
PUBLICATIONS: Final = 1
PRESENCE: Final = 2
RESET: Final = 3

_HEAD: Final = struct.Struct("<BBH")
_PUBLICATIONS: Final = struct.Struct("<BBHIQQII")
_SIZE: Final = struct.Struct("<I")


class Unreadable(enum.Enum):
    """Why a frame was skipped: labels of a counter."""

    GARBAGE = "garbage"
    TRUNCATED = "truncated"
    NEWER = "newer_version"


class Publications(msgspec.Struct, frozen=True):
    """Messages with consecutive offsets from `first` on; `bodies` has them one after the other, with their sizes."""

    epoch: int
    first: int
    count: int
    bodies: bytes
    mark: int  # of the last of them: see `mark_of`

    @property
    def last(self) -> int:
        """The offset of the last message."""
        return self.first + self.count - 1

    def after(self, offset: int) -> Publications:
        """Those with an offset above `offset`. Raises ValueError when the sizes of the bodies make no sense."""
        skipped = max(0, offset + 1 - self.first)
        if not skipped:
            return self
        at = 0
        for _ in range(skipped):
            at = _end_of_body(self.bodies, at)
        return Publications(self.epoch, self.first + skipped, self.count - skipped, self.bodies[at:], self.mark)


class PresenceChange(msgspec.Struct, frozen=True):
    """The first session of a user came, or the last one went, over all nodes. `node` is the run that saw it."""

    leave: bool
    user: bytes
    session: bytes
    info: bytes
    node: bytes


class Reset(msgspec.Struct, frozen=True):
    """The history of the topic was lost."""


Frame = Publications | PresenceChange | Reset


def parse_frame(data: bytes) -> Frame | Unreadable:
    """The frame in a message of the channel."""
    if len(data) < _HEAD.size:
        return Unreadable.GARBAGE
    version, kind, padding = _HEAD.unpack_from(data)
    if version != VERSION or padding:
        return Unreadable.NEWER if version > VERSION and not padding else Unreadable.GARBAGE
    if kind == PUBLICATIONS:
        return _publications(data)
    if kind == PRESENCE:
        return _presence(data)
    if kind == RESET:
        return Reset() if len(data) == _HEAD.size else Unreadable.GARBAGE
    return Unreadable.NEWER


def framed(body: bytes) -> bytes:
    """A body with its size in front, as it lies in the stream."""
    return _SIZE.pack(len(body)) + body


def mark_of(framed_body: bytes) -> int:
    """A checksum by which a message is known again: a Redis that lost its end gives the same offset to another one."""
    return zlib.crc32(framed_body)


def split_bodies(bodies: bytes) -> Iterator[bytes]:
    """Each body without its size. Raises ValueError when the sizes make no sense."""
    at = 0
    while at < len(bodies):
        end = _end_of_body(bodies, at)
        yield bodies[at + _SIZE.size : end]
        at = end


def _publications(data: bytes) -> Publications | Unreadable:
    if len(data) < _PUBLICATIONS.size:
        return Unreadable.TRUNCATED
    _, _, _, count, epoch, first, last_size, size = _PUBLICATIONS.unpack_from(data)
    bodies = data[_PUBLICATIONS.size :]
    if len(bodies) != size:
        return Unreadable.TRUNCATED if len(bodies) < size else Unreadable.GARBAGE
    if not (count and epoch and first and _SIZE.size <= last_size <= size):
        return Unreadable.GARBAGE
    return Publications(epoch, first, count, bodies, mark_of(bodies[-last_size:]))


def _presence(data: bytes) -> PresenceChange | Unreadable:
    start = _HEAD.size + _SIZE.size
    if len(data) < start:
        return Unreadable.TRUNCATED
    (size,) = _SIZE.unpack_from(data, _HEAD.size)
    if len(data) - start != size:
        return Unreadable.TRUNCATED if len(data) - start < size else Unreadable.GARBAGE
    try:
        leave, user, session, info, node = split_bodies(data[start:])
    except ValueError:
        return Unreadable.GARBAGE
    return PresenceChange(leave == b"1", user, session, info, node)


def _end_of_body(bodies: bytes, at: int) -> int:
    if at + _SIZE.size > len(bodies):
        raise ValueError("the size of a body is cut off")
    end = at + _SIZE.size + int(_SIZE.unpack_from(bodies, at)[0])
    if end > len(bodies):
        raise ValueError("a body is cut off")
    return end
