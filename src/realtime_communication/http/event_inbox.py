"""Direct messages on an event stream: those that came while the reader was away are read from the inbox's history.

An inbox cannot be subscribed to: its messages come by themselves, without the epoch. So a stream asks once where the
inbox stands, or for what follows the reader's position, page by page; live messages wait until that is answered.

Rules: no I/O, no clock. `Told` comes in the order in which the reader shall have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from realtime_communication.http.event_ids import Position

INBOX_ID: Final = "inbox"
"""The id of its requests; those of topics are numbers."""

PAGE: Final = 1000  # messages of a History, the protocol's most
MOST_HELD: Final = 1000  # live messages that wait for its answer

_OPENING: Final = b'{"type":"DirectMessage",'


class Told(NamedTuple):
    """An event of that name with `data`; behind it the reader stands at `position`, when that is known."""

    name: str
    position: Position | None
    data: bytes


class _Offset(msgspec.Struct):
    offset: int


_offset: Final = msgspec.json.Decoder(_Offset)


class Inbox:
    """The inbox `topic` of one stream, whose reader has all up to `position` (None: nothing is known).

    `answered` says that its first question is. Once that failed, `position` is None and stays so.
    """

    def __init__(self, topic: str, position: Position | None) -> None:
        self.topic = topic
        self.position = position
        self.answered = False
        self._recovering = position is not None
        self._live = False
        self._told = False  # that messages are missing
        self._recovered_to = 0  # offsets up to here came from the history: live messages may repeat them
        self._skipped_to = 0  # before the history was read
        self._held: list[tuple[int, bytes]] = []

    def request(self) -> bytes:
        """The History to ask for: what follows the position, or merely where the inbox stands."""
        asked: dict[str, Any] = {"id": INBOX_ID, "type": "History", "topic": self.topic}
        if self._recovering and self.position is not None:
            asked |= {"after": self.position._asdict(), "limit": PAGE}
        else:
            asked |= {"limit": 1, "reverse": True}
        return msgspec.json.encode(asked)

    def page(self, epoch: str, offset: int, messages: Sequence[bytes | msgspec.Raw]) -> tuple[list[Told], bool]:
        """The answer to `request`: what it tells, and whether there is another request to make."""
        self.answered = True
        position = self.position
        if self._live:
            return [], False
        if not self._recovering or position is None:
            self.position = Position(epoch, self._held[0][0] - 1 if self._held else offset)
            return self._release(), False
        if epoch != position.epoch:  # nobody knows how many were lost; all of the new epoch is new to the reader
            self.position = Position(epoch, 0)
            return self._missing(0), True
        texts = [bytes(message) for message in messages]
        fresh = [(at, text) for text in texts if (at := _offset.decode(text).offset) > position.offset]
        missed = (fresh[0][0] if fresh else offset + 1) - position.offset - 1
        told = self._missing(missed) if missed > 0 else []
        told += [Told("DirectMessage", Position(epoch, at), _OPENING + text[1:]) for at, text in fresh]
        self._recovered_to = fresh[-1][0] if fresh else max(offset, position.offset)
        self.position = Position(epoch, self._recovered_to)
        if self._recovered_to < offset:
            return told, True
        return told + self._release(), False

    def failed(self) -> list[Told]:
        """The history cannot be read: whatever was missed stays missing."""
        if self._live:
            return []
        told = self._missing(0) if self._recovering else []
        self.answered = True
        self.position = None
        return told + self._release()

    def live(self, offset: int, text: bytes) -> list[Told]:
        """A DirectMessage that came by itself."""
        if not self._live:
            if len(self._held) < MOST_HELD:
                self._held.append((offset, text))
                return []
            return self.failed() + self.live(offset, text)
        if offset <= self._recovered_to:
            return []
        if self.position is not None:
            self.position = Position(self.position.epoch, offset)
        return [Told("DirectMessage", self.position, text)]

    def lagged(self, epoch: str, offset: int) -> bool:
        """The data plane skipped messages up to `offset`, or its history was lost. Whether that is news to the reader:

        what was skipped before the history was read, the history has, or tells that it is missing.
        """
        if not self._live:
            self._skipped_to = offset
            return False
        if self.position is None:
            return True
        if self.position.epoch != epoch:
            self.position = Position(epoch, offset)
            self._recovered_to = 0
            return True
        return offset > self.position.offset

    def _missing(self, missed: int) -> list[Told]:
        if self._told or self.position is None:
            return []
        self._told = True
        epoch, offset = self.position
        envelope = {"type": "Lagged", "topic": self.topic, "missed": missed, "epoch": epoch, "offset": offset}
        return [Told("Lagged", None, msgspec.json.encode(envelope | {"recovered": False}))]

    def _release(self) -> list[Told]:
        self._live = True
        held, self._held = self._held, []
        missed = self._skipped_to - self.position.offset if self.position is not None else 0
        gap = self._missing(missed) if missed > 0 else []
        return gap + [told for offset, text in held for told in self.live(offset, text)]
