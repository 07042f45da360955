"""Control events: what one node tells all others, such as that a token was revoked.

An event has a kind and a payload. It reaches the *other* nodes; whoever publishes has done at home what there was to
do. Events may get lost while a node is away from the others, and arrive twice: handlers are idempotent, and what must
not be missed is kept in the shared store as well (see `shared_revocations.py`).

On the way an event is an envelope of JSON::

    {"version": 1, "mark": "<64 hexadecimal digits>", "body": {"node": …, "run": …, "seq": …, "at": …, "kind": …,
     "payload": {…}}}

`mark` is the seal (see `sealing.py`) of the version and of the bytes of `body` as they stand in the envelope. `run` is
new for each start of a node, and `seq` counts up within it, so that what was repeated is recognized; `at` is when it
was sent, so that nobody can keep an event and bring it back after the receivers have forgotten it.
"""

from __future__ import annotations

import collections
import enum
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from realtime_communication.broker.sealing import Seal
from realtime_communication.errors import MisuseError

VERSION: Final = 1
MAX_EVENT_BYTES: Final = 64 << 10  # a whole envelope
MAX_AGE_SECS: Final = 300.0  # of an event, and how far the clocks of two nodes may be apart
MAX_SOURCES: Final = 10_000  # runs of nodes whose last event is remembered, the latest ones

Handler = Callable[[Mapping[str, Any]], None]
"""Gets the payload. It is called on the loop and must not block; an exception is logged and counted."""


class EventBus(Protocol):
    """How a node tells the others."""

    def publish(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Tell the other nodes. Never waits; raises MisuseError when the event is too large or no JSON."""

    def subscribe(self, kind: str, handler: Handler) -> None:
        """Have `handler` called with the payload of each event of this kind from another node."""


class Skipped(enum.Enum):
    """Why an event was not handled: labels of a counter."""

    GARBAGE = "garbage"  # no envelope, or a part of it is missing or of the wrong type
    TOO_LARGE = "too_large"
    NEWER = "newer_version"
    FORGED = "forged"
    OWN = "own"
    REPEATED = "repeated"
    STALE = "stale"  # sent too long ago, or in the future
    UNKNOWN = "unknown_kind"  # of a node of a newer version
    FAILED = "handler_failed"


class Event(msgspec.Struct, frozen=True):
    """One event, as it is numbered by its node. `payload` is a JSON object."""

    seq: int
    kind: str
    payload: msgspec.Raw


class Body(msgspec.Struct, frozen=True):
    """What is authenticated of an envelope. `at` is Unix time in seconds."""

    node: str
    run: str
    seq: int
    at: float
    kind: str
    payload: dict[str, Any]


class _Envelope(msgspec.Struct, frozen=True):
    version: int
    mark: str = ""
    body: msgspec.Raw = msgspec.Raw()


class _Outgoing(msgspec.Struct, frozen=True):
    node: str
    run: str
    seq: int
    at: float
    kind: str
    payload: msgspec.Raw


class EventCodec:
    """Seals the events of this node, and opens those of others.

    The workers of one server give the same `server`, a random text: they tell each other by themselves, so to each the
    events of all count as its own.
    """

    def __init__(self, node_id: str, seal: Seal, server: str = "") -> None:
        self._node_id = node_id
        self._server = server or uuid.uuid4().hex
        self._run = f"{self._server}.{uuid.uuid4().hex}"
        self._seal = seal
        self._seen: collections.OrderedDict[tuple[str, str], int] = collections.OrderedDict()
        self._seq = 0
        self.namesakes = 0  # events of another run under this node's id: two nodes have one id, or it was restarted

    def number(self, kind: str, payload: Mapping[str, Any]) -> Event:
        """The next event of this node. Raises MisuseError when it is too large or no JSON."""
        try:
            encoded = msgspec.json.encode(payload)
            event = Event(self._seq + 1, kind, msgspec.Raw(encoded))
            size = len(self.seal(event, 0.0))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise MisuseError(f"the payload of an event {kind!r} cannot be JSON: {type(error).__name__}") from None
        if size > MAX_EVENT_BYTES - 32:  # room for the digits of the time
            raise MisuseError(f"an event {kind!r} takes {size} bytes, more than {MAX_EVENT_BYTES}")
        self._seq += 1
        return event

    def seal(self, event: Event, now: float) -> bytes:
        """The envelope of an event that is sent at `now` (Unix time in seconds)."""
        body = msgspec.json.encode(_Outgoing(self._node_id, self._run, event.seq, now, event.kind, event.payload))
        return msgspec.json.encode(_Envelope(VERSION, self._seal.mark(_marked(body)), msgspec.Raw(body)))

    def open(self, message: bytes, now: float) -> Body | Skipped:
        """The event in an envelope that came at `now`, or why there is none for this node. Remembers what it opened."""
        if len(message) > MAX_EVENT_BYTES:
            return Skipped.TOO_LARGE
        try:
            envelope = msgspec.json.decode(message, type=_Envelope)
            if envelope.version != VERSION:
                return Skipped.NEWER if envelope.version > VERSION else Skipped.GARBAGE
            if not self._seal.is_genuine(_marked(envelope.body), envelope.mark):
                return Skipped.FORGED
            body = msgspec.json.decode(envelope.body, type=Body)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return Skipped.GARBAGE
        return self._why_not(body, now) or body

    def _why_not(self, body: Body, now: float) -> Skipped | None:
        if body.node == self._node_id:
            if body.run.partition(".")[0] == self._server:
                return Skipped.OWN
            self.namesakes += 1
        if abs(now - body.at) > MAX_AGE_SECS:
            return Skipped.STALE
        source = (body.node, body.run)
        if body.seq <= self._seen.get(source, 0):
            return Skipped.REPEATED
        self._seen[source] = body.seq
        self._seen.move_to_end(source)
        if len(self._seen) > MAX_SOURCES:
            self._seen.popitem(last=False)
        return None


def _marked(body: bytes | msgspec.Raw) -> bytes:
    return b"%d\n" % VERSION + bytes(body)
