"""Topics: names, offsets, the message cache, and who is subscribed."""

import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from time import time_ns
from typing import TYPE_CHECKING

from msgspec import Raw, Struct

from .envelopes import Encoding, Entry, Payload, Position, RequestError

if TYPE_CHECKING:
    from .hub import Session

MAX_TOPIC_BYTES = 255
CACHED_PER_TOPIC = 1000
MAX_TOPICS = 100_000
"""Topics nobody is subscribed to are forgotten, oldest first, beyond this many; their next message has a new epoch."""


def now_ms() -> int:
    """Milliseconds since the epoch, the unit of every `ts`."""
    return time_ns() // 1_000_000


def check_topic(topic: str, patterns: tuple[str, ...] | None) -> None:
    """Raises RequestError (`topic_invalid`, `forbidden`) unless a client may subscribe to or publish on `topic`."""
    if not 1 <= len(topic.encode()) <= MAX_TOPIC_BYTES:
        raise RequestError("topic_invalid", f"`topic` must have 1 to {MAX_TOPIC_BYTES} bytes")
    if "*" in topic or any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in topic):
        raise RequestError("topic_invalid", "`topic` may contain neither `*` nor control characters")
    if "{" in topic or "}" in topic:
        raise RequestError("topic_invalid", "`topic` may not contain braces")
    if topic[0] in "@$":
        raise RequestError("forbidden", "names that begin with `@` or `$` belong to the server")
    if patterns is not None and not any(matches(pattern, topic) for pattern in patterns):
        raise RequestError("forbidden", "the token's `topics` do not include this topic")


def matches(pattern: str, topic: str) -> bool:
    return topic.startswith(pattern[:-1]) if pattern.endswith("*") else topic == pattern


class Publication(Struct, frozen=True):
    """One message of a topic; `ts` in milliseconds since the epoch."""

    offset: int
    ts: int
    sender: str
    payload: Payload

    def entry(self, encoding: Encoding) -> Entry:
        return Entry(self.offset, self.ts, self.sender, self.payload.form(encoding))


class Topic:
    """An ordered stream of publications and the sessions that follow it."""

    __slots__ = ("cache", "epoch", "joined_at", "name", "offset", "watchers")

    def __init__(self, name: str) -> None:
        self.name = name
        self.epoch = secrets.token_urlsafe(8)
        self.offset = 0
        self.cache: deque[Publication] = deque(maxlen=CACHED_PER_TOPIC)
        self.joined_at: dict[Session, int] = {}
        self.watchers: set[Session] = set()

    @property
    def subscribers(self) -> Iterable["Session"]:
        return self.joined_at.keys()

    def append(self, sender: str, raw: Raw, encoding: Encoding) -> Publication:
        self.offset += 1
        publication = Publication(self.offset, now_ms(), sender, Payload(raw, encoding))
        self.cache.append(publication)
        return publication

    def since(self, position: Position) -> list[Publication] | None:
        """All that followed `position`, or None when any of it is no longer cached or the epoch is another."""
        missing = self.offset - position.offset
        if position.epoch != self.epoch or not 0 <= missing <= len(self.cache):
            return None
        return self.last(missing)

    def last(self, count: int) -> list[Publication]:
        first = max(len(self.cache) - count, 0)
        return [self.cache[index] for index in range(first, len(self.cache))]

    def page(self, after: Position | None, limit: int, *, reverse: bool) -> list[Publication]:
        """At most `limit` cached publications after (with `reverse`: before) a position, in reading order."""
        entries = list(self.cache)
        if after is not None:
            if after.epoch != self.epoch:
                return []
            entries = [
                entry for entry in entries if (entry.offset < after.offset) == reverse and entry.offset != after.offset
            ]
        if reverse:
            entries.reverse()
        return entries[:limit]

    def has_user(self, user_id: str) -> bool:
        return any(session.user_id == user_id for session in self.joined_at)


class Topics:
    """Every topic by name, with a bound on those nobody follows."""

    def __init__(self) -> None:
        self._topics: OrderedDict[str, Topic] = OrderedDict()

    def __getitem__(self, name: str) -> Topic:
        topic = self._topics.get(name)
        if topic is None:
            if len(self._topics) >= MAX_TOPICS:
                self._forget_oldest(lambda candidate: not candidate.joined_at)
            topic = self._topics[name] = Topic(name)
        return topic

    def get(self, name: str) -> Topic | None:
        return self._topics.get(name)

    def _forget_oldest(self, unused: Callable[[Topic], bool]) -> None:
        for name, topic in self._topics.items():
            if unused(topic):
                del self._topics[name]
                return
