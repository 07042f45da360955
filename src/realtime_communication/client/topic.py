"""One subscription over many connections: what to ask for, what is new, what is missing.

Live messages that come before the topic's answer are held until the recovered ones are out, so that the application
sees the topic in offset order.
"""

from __future__ import annotations

from typing import Any

from realtime_communication.client import encoding, events
from realtime_communication.client.cursor import Cursor
from realtime_communication.client.errors import ProtocolViolation
from realtime_communication.client.outputs import ConnectionOutput, Emit, TopicOutput

__all__ = ["MOST_HELD", "Topic"]

MOST_HELD = 10_000
"""Messages that may wait for the answer before them. A server sends a handful."""


class Topic:
    """A subscription the application wants.

    ``request_id`` names the unanswered ``Subscribe``, ``answered`` tells that there was an answer at some time, and
    ``retry_at`` is set while a passing refusal is waited out.
    """

    def __init__(self, name: str, *, history: int, presence: bool, recover: events.Position | None, emit: Emit) -> None:
        self.name = name
        self.cursor = Cursor()
        self.request_id: int | None = None
        self.answered = False
        self.retry_at: float | None = None
        self._history = history
        self._presence = presence
        self._emit = emit
        self._live = False
        self._held: list[encoding.MessageEnvelope] = []
        if recover is not None:
            self.cursor.reset(recover.epoch, recover.offset)

    def body(self) -> dict[str, Any]:
        """The ``Subscribe`` that continues where this topic stands."""
        body: dict[str, Any] = {"type": "Subscribe", "topic": self.name}
        position = self.cursor.position
        if position is not None:
            body["recover"] = {"epoch": position.epoch, "offset": position.offset}
        if self._history:  # what an unsuccessful recovery falls back to
            body["history"] = self._history
        if self._presence:
            body["presence"] = True
        return body

    def connection_lost(self) -> None:
        """The next connection starts with a ``Subscribe`` again."""
        self._live = False
        self.retry_at = None
        self._held.clear()

    def subscribed(self, reply: encoding.SubscribedEnvelope) -> None:
        """The server's answer; everything held follows it."""
        before = self.cursor.position
        if before is None:
            offsets = [message.offset for message in reply.messages] + [message.offset for message in self._held]
            self.cursor.reset(reply.epoch, min([*offsets, reply.offset + 1]) - 1)
            new = reply.messages
        else:
            same_epoch = before.epoch == reply.epoch
            new = [message for message in reply.messages if not same_epoch or message.offset > before.offset]
            if reply.recovered and same_epoch:
                self._tell(events.Recovered(self.name, True, 0))
            else:
                missed = max(0, reply.offset - before.offset - len(new)) if same_epoch else None
                self.cursor.reset(reply.epoch, (new[0].offset if new else reply.offset + 1) - 1)
                self._tell(events.Recovered(self.name, False, missed))
        for message in new:
            self._deliver(message.offset, message.ts, message.sender, message.payload)
        if not self._held:
            self.cursor.advance(reply.offset)
        self._live = self.answered = True
        held, self._held = self._held, []
        for live in held:
            self._deliver(live.offset, live.ts, live.sender, live.payload)

    def message(self, envelope: encoding.MessageEnvelope) -> None:
        """A live message. Raises ProtocolViolation."""
        if self._live:
            self._deliver(envelope.offset, envelope.ts, envelope.sender, envelope.payload)
        elif len(self._held) >= MOST_HELD:
            raise ProtocolViolation(f"the server sent {MOST_HELD} messages of a topic before its Subscribed")
        else:
            self._held.append(envelope)

    def lagged(self, envelope: encoding.LaggedEnvelope) -> None:
        """The server skipped messages for this connection."""
        note_lag(self.cursor, envelope)
        self._emit(TopicOutput(self.name, events.Lagged(self.name, envelope.missed, envelope.recovered)))

    def excluded_settled(self, offset: int | None) -> None:
        """A publication of ours with ``exclude_self`` got ``offset``, or failed (None)."""
        self._tell_holes(self.cursor.published_excluded(offset))

    def _deliver(self, offset: int, ts: int, sender: str, payload: Any) -> None:
        is_new, holes = self.cursor.accept(offset)
        self._tell_holes(holes)
        if is_new:
            epoch = self.cursor.epoch or ""
            self._emit(TopicOutput(self.name, events.Message(self.name, offset, ts, sender, payload, epoch)))

    def _tell_holes(self, holes: int) -> None:
        if holes:
            lagged = events.Lagged(self.name, holes, recovered=False, source="offsets")
            self._emit(TopicOutput(self.name, lagged))

    def _tell(self, event: events.Recovered) -> None:
        self._emit(TopicOutput(self.name, event))
        self._emit(ConnectionOutput(event))


def note_lag(cursor: Cursor, envelope: encoding.LaggedEnvelope) -> None:
    """Prepare ``cursor`` for what follows a ``Lagged``: the recovered messages, a jump, or another history."""
    if cursor.epoch is not None and cursor.epoch != envelope.epoch:
        cursor.reset(envelope.epoch, None)
    elif not envelope.recovered:
        cursor.announce_hole()
