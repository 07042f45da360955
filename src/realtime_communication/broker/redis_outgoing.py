"""Publications on their way to Redis: what waits, what was sent, and what is kept while Redis is away.

Rules. The messages of one topic leave in the order in which they came: at most one batch of a topic is on its way. A
batch has an id under which Redis keeps its answer for a while, so that a batch whose sending had no clear outcome is
sent again as it is. Nothing here knows Redis or waits for anything.

`put` refuses what is above the bound; after `keep_only` (Redis is away) the oldest give way instead.
"""

from __future__ import annotations

import collections
import itertools
from typing import Final

import msgspec

from realtime_communication.broker.redis_frames import framed

MAX_MESSAGES: Final = 100_000  # that wait, over all topics
MAX_BYTES: Final = 64 << 20  # their bodies
BATCH_MESSAGES: Final = 512
BATCH_BYTES: Final = 1 << 20
GATHERED_TOPICS: Final = 64  # batches that are sent together
GATHERED_BYTES: Final = 4 << 20


class Outgoing(msgspec.Struct, frozen=True):
    """A publication; `body` with its size in front, `key` empty without an idempotency key."""

    token: int
    body: bytes
    key: bytes


class Batch:
    """Publications of one topic that go together.

    Once it was `gathered` it may have been stored under its id, and what it consists of stays: `Queue.keep_only` may
    only take the tokens away, or all of it.
    """

    __slots__ = ("gathered", "id", "items", "size", "topic")

    def __init__(self, topic: bytes, identity: bytes) -> None:
        self.topic = topic
        self.id = identity
        self.gathered = False
        self.items: list[Outgoing] = []
        self.size = 0  # bytes of the bodies

    def has_room(self, size: int) -> bool:
        """Whether a body of so many bytes may join."""
        return (
            not self.gathered
            and len(self.items) < BATCH_MESSAGES
            and (not self.items or self.size + size <= BATCH_BYTES)
        )


def _unanswered(batch: Batch) -> list[Outgoing]:
    """What is left of a batch once all that wait for an answer have been refused."""
    left = [item for item in batch.items if not item.token]
    if batch.gathered and left:
        return [Outgoing(0, item.body, item.key) for item in batch.items]
    return left


class Queue:
    """See the head of this module. `run` is of this start of the node: ids of batches begin with it."""

    def __init__(self, run: bytes, *, most_messages: int = MAX_MESSAGES, most_bytes: int = MAX_BYTES) -> None:
        self.messages = 0
        self.bytes = 0
        self.dropped = 0  # gave way to newer ones
        self._run = run
        self._numbers = itertools.count(1)
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._topics: dict[bytes, collections.deque[Batch]] = {}
        self._ready: dict[bytes, None] = {}  # topics that have something waiting and nothing on its way
        self._sent: set[bytes] = set()  # topics with a batch on its way
        self._order: collections.deque[Batch] = collections.deque()  # while keeping: oldest first
        self._keeping = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits and nothing is on its way."""
        return not self._topics

    @property
    def has_ready(self) -> bool:
        """Whether `gather` has something to give."""
        return bool(self._ready)

    def put(self, topic: bytes, token: int, body: bytes, key: bytes) -> bool:
        """Let a publication wait. False, and nothing is changed, when the bound does not allow it."""
        size = len(body) + 4
        if not self._has_room(size) and not (self._keeping and self._make_room(size)):
            return False
        waiting = self._topics.get(topic)
        if waiting is None:
            waiting = self._topics[topic] = collections.deque()
        if not waiting or not waiting[-1].has_room(size):
            waiting.append(self._batch(topic))
        batch = waiting[-1]
        batch.items.append(Outgoing(token, framed(body), key))
        batch.size += size
        self.messages += 1
        self.bytes += size
        if topic not in self._sent:
            self._ready[topic] = None
        return True

    def gather(self) -> list[Batch]:
        """Batches to send now, of different topics. Each has to come back by `done` or by `back`."""
        batches: list[Batch] = []
        size = 0
        while self._ready and len(batches) < GATHERED_TOPICS and size < GATHERED_BYTES:
            topic = next(iter(self._ready))
            del self._ready[topic]
            self._sent.add(topic)
            batch = self._topics[topic][0]
            batch.gathered = True
            batches.append(batch)
            size += batch.size
        return batches

    def done(self, batch: Batch) -> None:
        """The batch has been answered, whatever the answer."""
        waiting = self._topics[batch.topic]
        if waiting and waiting[0] is batch:  # else it gave way to newer ones meanwhile
            waiting.popleft()
            self.messages -= len(batch.items)
            self.bytes -= batch.size
        self.back(batch)

    def back(self, batch: Batch) -> None:
        """The batch has to be sent again: it is the next one of its topic."""
        self._sent.discard(batch.topic)
        waiting = self._topics[batch.topic]
        if waiting and waiting[0] is batch and not batch.items:  # all of it was refused meanwhile
            waiting.popleft()
        if self._topics[batch.topic]:
            self._ready[batch.topic] = None
        else:
            del self._topics[batch.topic]

    def keep_only(self) -> list[int]:
        """Redis is away: tokens of all that wait for an answer, which is what goes; the others are kept.

        A batch that may have been stored and has some of those is kept whole: by its id nothing of it is stored twice.
        """
        tokens: list[int] = []
        self._keeping = True
        for topic in list(self._topics):
            kept: collections.deque[Batch] = collections.deque()
            for batch in self._topics[topic]:
                tokens += [item.token for item in batch.items if item.token]
                batch.items = _unanswered(batch)
                batch.size = sum(len(item.body) for item in batch.items)
                if batch.items or (topic in self._sent and not kept):
                    kept.append(batch)
            if kept:
                self._topics[topic] = kept
            else:
                del self._topics[topic]
                self._ready.pop(topic, None)
        self._order = collections.deque(batch for waiting in self._topics.values() for batch in waiting)
        self.messages = sum(len(batch.items) for batch in self._order)
        self.bytes = sum(batch.size for batch in self._order)
        return tokens

    def keep_no_more(self) -> None:
        """Redis is back: from now on what is above the bound is refused."""
        self._keeping = False
        self._order.clear()

    def _batch(self, topic: bytes) -> Batch:
        batch = Batch(topic, b"%b-%d" % (self._run, next(self._numbers)))
        if self._keeping:
            self._order.append(batch)
        return batch

    def _has_room(self, size: int) -> bool:
        return self.messages < self._most_messages and self.bytes + size <= self._most_bytes

    def _make_room(self, size: int) -> bool:
        """Let the oldest batches go, which is about what came first; those on their way stay. False: to no avail."""
        while self._order and not self._has_room(size):
            batch = self._order.popleft()
            waiting = self._topics.get(batch.topic)
            if not waiting or waiting[0] is not batch or batch.topic in self._sent:
                continue
            waiting.popleft()
            self.messages -= len(batch.items)
            self.bytes -= batch.size
            self.dropped += len(batch.items)
            if not waiting:
                del self._topics[batch.topic]
                del self._ready[batch.topic]
        return self._has_room(size)
