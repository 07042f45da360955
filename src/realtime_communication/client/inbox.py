"""Direct messages over many connections.

An inbox cannot be subscribed to: its messages come by themselves. What came while there was no connection is read
from its history, page by page; live messages wait until that is done. The epoch, which live messages do not carry, is
learned from a first, small page.
"""

from __future__ import annotations

from typing import Any

from realtime_communication.client import encoding, events
from realtime_communication.client.cursor import Cursor
from realtime_communication.client.errors import ProtocolViolation
from realtime_communication.client.outputs import ConnectionOutput, Emit, InboxOutput
from realtime_communication.client.topic import MOST_HELD, note_lag

__all__ = ["Inbox"]

PAGE = 1000
"""Messages per ``History`` while the inbox is recovered; the protocol's most."""


class Inbox:
    """The own inbox. ``asked`` is the id of the unanswered ``History``."""

    def __init__(self, emit: Emit) -> None:
        self.cursor = Cursor()
        self.asked: int | None = None
        self.name = "@"
        self._emit = emit
        self._recovering = False
        self._told = True
        self._may_be_overtaken = False
        self._held: list[encoding.DirectMessageEnvelope] = []

    def connection_made(self, user_id: str, *, reconnected: bool, readable: bool) -> None:
        """A session of ``user_id`` begins. ``readable``: the history will be asked for."""
        same_user = self.name == f"@{user_id}"
        self.name = f"@{user_id}"
        if not same_user or not readable:
            self.cursor = Cursor()
        self._recovering = reconnected and same_user and readable
        self._told = not (reconnected and same_user)
        if not readable:
            self._tell(False, None)

    def connection_lost(self) -> None:
        """The next connection asks again."""
        self.asked = None
        self._held.clear()

    def body(self) -> dict[str, Any]:
        """The ``History`` to ask for: what follows the position, or merely where the inbox stands."""
        body: dict[str, Any] = {"type": "History", "topic": self.name}
        position = self.cursor.position
        if self._recovering and position is not None:
            body["after"] = {"epoch": position.epoch, "offset": position.offset}
            body["limit"] = PAGE
        else:
            body["limit"] = 1
            body["reverse"] = True
        return body

    def page(self, page: encoding.HistoryPageEnvelope) -> bool:
        """The answer. Returns whether another page must be asked for."""
        self.asked = None
        position = self.cursor.position
        if not self._recovering or position is None:
            self._tell(False, None)
            self.cursor.reset(page.epoch, page.offset)
            self._may_be_overtaken = not self._held
            self._release(anew=True)
            return False
        if page.epoch != position.epoch:
            self._tell(False, None)
            self.cursor.reset(page.epoch, 0)
            return True
        new = [message for message in page.messages if message.offset > position.offset]
        first = new[0].offset if new else page.offset + 1
        missed = max(0, first - position.offset - 1)
        if not self._told:
            self._tell(missed == 0, missed)
            self.cursor.announce_hole()
        for message in new:
            self._deliver(message.offset, message.ts, message.sender, message.payload)
        if new and new[-1].offset < page.offset:
            return True
        self._release(anew=False)
        return False

    def unavailable(self) -> None:
        """The history cannot be read: without the ``read`` permission, for one."""
        self.asked = None
        self._tell(False, None)
        self.cursor = Cursor()
        self._release(anew=False)

    def message(self, envelope: encoding.DirectMessageEnvelope) -> None:
        """A live message. Raises ProtocolViolation."""
        if self.asked is not None:
            if len(self._held) >= MOST_HELD:
                raise ProtocolViolation(f"the server sent {MOST_HELD} direct messages before the inbox's HistoryPage")
            self._held.append(envelope)
            return
        if self._may_be_overtaken:
            # The reply that told the inbox's offset may have overtaken a message that was waiting already.
            self._may_be_overtaken = False
            if self.cursor.offset is not None and envelope.offset <= self.cursor.offset:
                self.cursor.offset = envelope.offset - 1
        self._deliver(envelope.offset, envelope.ts, envelope.sender, envelope.payload)

    def lagged(self, envelope: encoding.LaggedEnvelope) -> None:
        """The server skipped messages for this connection."""
        note_lag(self.cursor, envelope)
        self._emit(InboxOutput(events.Lagged(self.name, envelope.missed, envelope.recovered)))

    def _release(self, *, anew: bool) -> None:
        """Recovery is over, what was held follows. ``anew``: the row of offsets begins with it."""
        self._recovering = False
        held, self._held = self._held, []
        if anew and held:
            self.cursor.offset = held[0].offset - 1
        for live in held:
            self._deliver(live.offset, live.ts, live.sender, live.payload)

    def _deliver(self, offset: int, ts: int, sender: str, payload: Any) -> None:
        is_new, holes = self.cursor.accept(offset)
        if holes:
            self._emit(InboxOutput(events.Lagged(self.name, holes, recovered=False, source="offsets")))
        if is_new:
            self._emit(InboxOutput(events.DirectMessage(offset, ts, sender, payload)))

    def _tell(self, recovered: bool, missed: int | None) -> None:
        if self._told:
            return
        self._told = True
        event = events.Recovered(self.name, recovered, missed)
        self._emit(InboxOutput(event))
        self._emit(ConnectionOutput(event))
