"""A connection's envelopes as the text of an event stream (HTML, section 9.2).

Rules: no I/O, no clock. Frames of the data plane go in, in order; text comes out that may be sent at once. The data of
an event is the envelope itself, as a WebSocket would have had it, with two exceptions: the reply to a Subscribe comes
without its `id` and without `messages`, which follow as events of their own; and the close frame, which a stream does
not have, becomes a `Closing`. The name of an event is the envelope's type; a `Message` has none, so that `onmessage`
gets it.

An event carries an id when it changes what is known of the reader: after the `Subscribed` of a topic, each `Message`,
each `DirectMessage` (event_inbox.py), and a `Lagged` that tells of another epoch. A gap that a `Lagged` tells of leaves
the id where it is until the next message comes: who reconnects meanwhile may still get what was missed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from realtime_communication.errors import CLOSE_CODE_BY_NUMBER, Retry
from realtime_communication.http.event_ids import Position, Positions
from realtime_communication.http.event_inbox import INBOX_ID, Inbox, Told

HEARTBEAT: Final = b":\n"  # a comment; some readers take an empty line behind it for an event
CLOSE: Final = 8  # opcodes (RFC 6455 section 5.2)
PING: Final = 9
LEAST_RETRY_MS: Final = 1000  # a browser that finds nobody tries again and again after this long

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_NO_EPOCH: Final = "0" * 16


class _Head(msgspec.Struct):
    """What of an envelope matters here; its payload is passed over."""

    type: str
    id: int | str | None = None
    topic: str = ""
    epoch: str = ""
    offset: int = 0
    recovered: bool = False
    messages: tuple[msgspec.Raw, ...] = ()
    code: int | str = ""
    message: str = ""
    retry_after_ms: int | None = None
    after_ms: int = 0


class _Offset(msgspec.Struct):
    offset: int


class Failure(msgspec.Struct, frozen=True):
    """The Error that answered a Subscribe of this stream."""

    code: str
    message: str
    retry_after_ms: int | None


_head: Final = msgspec.json.Decoder(_Head)
_offset: Final = msgspec.json.Decoder(_Offset)


class EventText:
    """The text of one stream of `topics`.

    `known` is what the reader's last id says of them; None when it has one that cannot be read. `retry_ms` is what the
    reader shall wait before it connects again by itself. `inbox` is the topic of the reader's inbox, "" when its
    history is not for them.

    `unanswered` counts the topics that are not subscribed yet, and the inbox; `failure` is why one cannot be; `over`
    says that nothing follows. `more_requests` are to be made after each `write`.
    """

    def __init__(
        self, topics: Sequence[str], known: Mapping[str, Position] | None, retry_ms: int, inbox: str = ""
    ) -> None:
        self._topics = topics
        self._inbox = Inbox(inbox, (known or {}).get(inbox)) if inbox else None
        self._more: list[bytes] = []
        self._known = known
        self._positions = Positions()
        for topic, position in (known or {}).items():
            self._positions.set(topic, position)
        self._answered: set[str] = set()
        self._retry_ms = retry_ms
        self._begun = False
        self.failure: Failure | None = None
        self.over = False

    @property
    def unanswered(self) -> int:
        """Topics whose Subscribe has no answer yet, and the inbox when it has none."""
        return len(self._topics) - len(self._answered) + (self._inbox is not None and not self._inbox.answered)

    def more_requests(self) -> list[bytes]:
        """What the answers so far make it ask for."""
        more, self._more = self._more, []
        return more

    def requests(self, *, history: int = 0, presence: bool = False) -> list[bytes]:
        """The requests that begin the stream, in the order of the topics; then the one for the inbox."""
        made = []
        for number, topic in enumerate(self._topics):
            asked: dict[str, Any] = {"id": number, "type": "Subscribe", "topic": topic}
            position = self._positions.get(topic)
            if self._known is None:
                position = Position(_NO_EPOCH, 0)  # no topic has it: the answer is that nothing could be recovered
            if position is not None:
                asked["recover"] = {"epoch": position.epoch, "offset": position.offset}
            if history:
                asked["history"] = history
            if presence:
                asked["presence"] = True
            made.append(msgspec.json.encode(asked))
        if self._inbox is not None:
            made.append(self._inbox.request())
        return made

    def write(self, frames: Iterable[tuple[int, bytes]]) -> bytes:
        """What follows on the stream: `frames` are opcodes with their payload."""
        made = bytearray()
        for opcode, payload in frames:
            if self.over:
                break
            if not self._begun:
                self._begun = True
                made += b"retry: %d\n" % self._retry_ms  # of the first event: some readers take it for one of its own
            if opcode == PING:
                made += HEARTBEAT
            elif opcode == CLOSE:
                made += self._closed(payload)
            else:
                made += self._envelope(payload)
        return bytes(made)

    def _envelope(self, text: bytes) -> bytes:
        try:
            head = _head.decode(text)
        except (msgspec.MsgspecError, RecursionError):  # the data plane wrote it: whatever is odd in it is the payload
            return _event("", "", text)
        if head.type == "Message":
            return _event("", self._moved(head.topic, head.offset), text)
        if head.type == "Subscribed" and isinstance(head.id, int):
            return self._subscribed(head)
        if self._inbox is not None:
            if head.type == "DirectMessage":
                return self._told(self._inbox.live(head.offset, text))
            if head.id == INBOX_ID:
                return self._inbox_answer(self._inbox, head)
            if head.type == "Lagged" and head.topic == self._inbox.topic:
                is_news = self._inbox.lagged(head.epoch, head.offset)
                if not is_news:
                    return b""
        if head.type == "Error" and isinstance(head.id, int) and head.id < len(self._topics):
            self._answered.add(self._topics[head.id])
            self.failure = self.failure or Failure(str(head.code), head.message, head.retry_after_ms)
        if head.type == "Closing":
            self.over = True
            return b"retry: %d\n" % max(LEAST_RETRY_MS, head.after_ms) + _event(head.type, "", text)
        known = self._positions.get(head.topic) if head.type == "Lagged" else None
        if known is not None and known.epoch != head.epoch:
            self._positions.set(head.topic, Position(head.epoch, head.offset))
            return _event(head.type, self._positions.id, text)
        return _event(head.type, "", text)

    def _subscribed(self, head: _Head) -> bytes:
        """The reply without its messages, which follow one by one."""
        self._answered.add(head.topic)
        before = _offset.decode(head.messages[0]).offset - 1 if head.messages else head.offset
        self._positions.set(head.topic, Position(head.epoch, before))
        told = {name: getattr(head, name) for name in ("type", "topic", "epoch", "offset", "recovered")}
        made = [_event(head.type, self._positions.id, msgspec.json.encode(told))]
        opening = b'{"type":"Message","topic":' + msgspec.json.encode(head.topic) + b","
        for message in head.messages:
            # {"offset", "ts", "from", "payload"}: what stands behind the topic in a Message, in the same order.
            text = bytes(message)
            made.append(_event("", self._moved(head.topic, _offset.decode(text).offset), opening + text[1:]))
        return b"".join(made)

    def _inbox_answer(self, inbox: Inbox, head: _Head) -> bytes:
        if head.type != "HistoryPage":
            return self._told(inbox.failed())
        told, goes_on = inbox.page(head.epoch, head.offset, head.messages)
        if goes_on:
            self._more.append(inbox.request())
        return self._told(told)

    def _told(self, told: Iterable[Told]) -> bytes:
        """Events of the inbox; afterwards its position is in the ids."""
        assert self._inbox is not None, "it has told"
        made = []
        for name, position, data in told:
            if position is not None:
                self._positions.set(self._inbox.topic, position)
            made.append(_event(name, "" if position is None else self._positions.id, data))
        if self._inbox.position is not None:
            self._positions.set(self._inbox.topic, self._inbox.position)
        elif self._inbox.answered:
            self._positions.forget(self._inbox.topic)
        return b"".join(made)

    def _moved(self, topic: str, offset: int) -> str:
        """The id behind a message; empty for a topic that this stream did not ask for."""
        known = self._positions.get(topic)
        if known is None or topic not in self._answered:
            return ""
        self._positions.set(topic, Position(known.epoch, offset))
        return self._positions.id

    def _closed(self, payload: bytes) -> bytes:
        """A close frame's code and reason (RFC 6455 section 5.5.1) as a Closing."""
        self.over = True
        code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1000
        row = CLOSE_CODE_BY_NUMBER.get(code)
        told = {
            "type": "Closing",
            "code": code,
            "reason": payload[2:].decode("utf-8", "replace"),
            "reconnect": row is not None and row.retry is Retry.RECONNECT,
            "after_ms": self._retry_ms,
        }
        return _event("Closing", "", msgspec.json.encode(told))


def _event(name: str, id: str, data: bytes) -> bytes:
    made = bytearray()
    if name:
        made += b"event: " + name.encode() + b"\n"
    if id:
        made += b"id: " + id.encode() + b"\n"
    # Payloads are relayed as they came: JSON may have line ends between its tokens.
    lines = _LINE_END.split(data) if b"\n" in data or b"\r" in data else (data,)
    for line in lines:
        made += b"data: " + line + b"\n"
    return bytes(made + b"\n")
