"""Where a reader stands in several topics, as the one opaque id of an event (HTML, section 9.2: `Last-Event-ID`).

An id is base64url of a version and, for each topic of which something is known, a tag of its name, its epoch and the
offset of the last message that the reader has. So whoever comes back with other topics, or in another order, goes on
where that is possible. An id proves nothing and grants nothing: it is checked as the `recover` of a Subscribe.

Rules: no I/O; what is not an id of this server is read as None, never repaired.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from typing import Final, NamedTuple

MAX_ID_BYTES: Final = 2048
"""Bytes of a longer id are not looked at; 64 topics and the inbox take at most 1,737."""

_VERSION: Final = b"\x01"
_TAG_BYTES: Final = 4
_EPOCH_BYTES: Final = 8
_MAX_OFFSET_BYTES: Final = 8  # of 7 bits: offsets end at 2^53


class Position(NamedTuple):
    """The last message of a topic that somebody has. `epoch` is 16 hexadecimal digits."""

    epoch: str
    offset: int


class Positions:
    """The positions of one reader; those of topics that are not in `id` are unknown to it."""

    def __init__(self) -> None:
        self._known: dict[str, Position] = {}
        self._packed: dict[str, bytes] = {}

    def get(self, topic: str) -> Position | None:
        """Where the reader stands in `topic`."""
        return self._known.get(topic)

    def set(self, topic: str, position: Position) -> None:
        """The reader stands there now. Raises ValueError for an epoch that is none."""
        known = self._known.get(topic)
        if known is not None and known.epoch == position.epoch:
            begin = self._packed[topic][: _TAG_BYTES + _EPOCH_BYTES]
        else:
            epoch = bytes.fromhex(position.epoch)
            if len(epoch) != _EPOCH_BYTES:
                raise ValueError("an epoch has 16 hexadecimal digits")
            begin = _tag_of(topic) + epoch
        self._packed[topic] = begin + _packed_offset(position.offset)
        self._known[topic] = position

    def forget(self, topic: str) -> None:
        """Nothing is known of `topic` any more."""
        self._known.pop(topic, None)
        self._packed.pop(topic, None)

    @property
    def id(self) -> str:
        """All of them, fit for an event; empty while nothing is known."""
        if not self._packed:
            return ""
        return base64.urlsafe_b64encode(_VERSION + b"".join(self._packed.values())).rstrip(b"=").decode()


def positions_in(text: str, topics: Iterable[str]) -> dict[str, Position] | None:
    """What the id `text` says of `topics`; None when it is no id."""
    if not text.isascii() or len(text) > MAX_ID_BYTES:
        return None
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    if data[:1] != _VERSION:
        return None
    found: dict[bytes, Position] = {}
    at = 1
    while at < len(data):
        tag, epoch = data[at : at + _TAG_BYTES], data[at + _TAG_BYTES : at + _TAG_BYTES + _EPOCH_BYTES]
        offset, at = _offset_at(data, at + _TAG_BYTES + _EPOCH_BYTES)
        if offset is None:
            return None
        found[tag] = Position(epoch.hex(), offset)
    return {topic: found[tag] for topic in topics if (tag := _tag_of(topic)) in found}


def _tag_of(topic: str) -> bytes:
    return hashlib.blake2b(topic.encode(), digest_size=_TAG_BYTES).digest()


def _packed_offset(offset: int) -> bytes:
    """LEB128: seven bits a byte, the lowest first; the last byte is below 128."""
    packed = bytearray()
    while offset > 127:
        packed.append(128 | offset & 127)
        offset >>= 7
    packed.append(offset)
    return bytes(packed)


def _offset_at(data: bytes, at: int) -> tuple[int | None, int]:
    """The offset that begins at `at`, None when none does, and where it ends."""
    offset = 0
    for number, byte in enumerate(data[at : at + _MAX_OFFSET_BYTES]):
        offset |= (byte & 127) << 7 * number
        if byte < 128:
            return offset, at + number + 1
    return None, at
