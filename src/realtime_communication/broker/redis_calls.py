"""The calls of the scripts in Redis: their keys and arguments, in the order that `redis_scripts.py` says."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from realtime_communication.broker.redis_keys import TopicKeys
from realtime_communication.broker.redis_link import ScriptCall
from realtime_communication.broker.redis_outgoing import Batch
from realtime_communication.broker.redis_scripts import (
    CLAIM,
    HISTORY,
    KEEP,
    MEMBERS,
    OPEN,
    PRESENCE,
    PUBLISH,
    READ,
    ROUTES,
)
from realtime_communication.broker.redis_topics import Position
from realtime_communication.config.traffic import MessageRouting

BATCH_SECS: Final = 120.0  # for which the answer to a batch is kept: longer than anybody tries again
STREAM_GRACE_SECS: Final = 120.0  # beyond the age of its messages, for which a stream is kept that nobody refreshes
VOUCH_SECS: Final = 45.0  # for which a node vouches for what it has; a dead one is found out within 60 s
EPOCH_BITS: Final = 47

Change = tuple[bytes, bytes, bytes, bytes]
"""Of who is present: b"+" or b"-", session, user, member."""


MAX_STREAM_MESSAGES: Final = 100_000  # of one topic


class StreamBounds(msgspec.Struct, frozen=True):
    """What is kept of each topic: most messages (0: none), and for how many seconds."""

    messages: int
    secs: float


def bounds_of(routing: MessageRouting) -> StreamBounds:
    """What `[message_routing]` asks for: the bound on all cached messages is one on those of each topic in Redis."""
    messages = min(routing.max_cache_entries, MAX_STREAM_MESSAGES) if routing.enable_caching else 0
    return StreamBounds(messages, routing.cache_ttl_secs)


class Calls:
    """Makes the calls. `sharded` is for a cluster; `bounds` may be replaced at any time."""

    def __init__(self, keys: TopicKeys, bounds: StreamBounds, *, sharded: bool) -> None:
        self.keys = keys
        self.bounds = bounds
        self.sharded = sharded
        self._publish = b"SPUBLISH" if sharded else b"PUBLISH"

    def publish(self, batch: Batch) -> ScriptCall:
        """Append a batch to its topic's stream and publish it."""
        topic, keys, items = batch.topic, self.keys, batch.items
        is_inbox = topic.startswith(b"@")
        mask = "".join("1" if item.key else "0" for item in items) if any(item.key for item in items) else ""
        named = [keys.stream(topic), keys.batch(topic, batch.id)]
        if is_inbox:
            named.append(keys.routes(topic))
        named += [keys.idempotency(topic, item.key) for item in items if item.key]
        head = [self._publish, keys.channel(topic), fresh_epoch(), self.bounds.messages, self._stream_ms()]
        head += [_ms(BATCH_SECS), _ms(self.bounds.secs), int(is_inbox), mask]
        return ScriptCall(PUBLISH, named, [*head, *(item.body for item in items)])

    def read(
        self,
        topic: bytes,
        positions: Iterable[Position],
        *,
        newest: int,
        most: int,
        known: Position | None,
        condemned: int | None,
    ) -> ScriptCall:
        """What follows the earliest position after which nothing is missing, and at least the `newest` messages.

        `known` is a position that was there, `condemned` an epoch whose history is not what it was: with either the
        stream begins anew where it has lost something.
        """
        arguments = [*self._opening(topic, known, condemned), newest, most]
        for position in positions:
            arguments += position
        return ScriptCall(READ, [self.keys.stream(topic)], arguments)

    def open(self, topics: Sequence[bytes]) -> ScriptCall:
        """Where topics are of which nothing was known; none of their messages. Not for a cluster."""
        return ScriptCall(OPEN, [self.keys.stream(topic) for topic in topics], [fresh_epoch(), self._stream_ms()])

    def history(
        self, topic: bytes, position: Position | None, limit: int, reverse: bool, shown: int = 0, shown_ms: int = 0
    ) -> ScriptCall:
        """A page of at most `limit` messages after (or with `reverse` before) a position.

        Of the `shown` newest ones, no older than `shown_ms` milliseconds; 0: of all.
        """
        arguments = [*self._opening(topic, None, None), limit, int(reverse), *(position or ("", 0)), shown, shown_ms]
        return ScriptCall(HISTORY, [self.keys.stream(topic)], arguments)

    def keep(self, topic: bytes) -> ScriptCall:
        """Keep the stream of a topic that is subscribed to."""
        return ScriptCall(KEEP, [self.keys.stream(topic)], [self._stream_ms()])

    def presence(self, topic: bytes, run: bytes, earlier: bytes, changes: Sequence[Change]) -> ScriptCall:
        """Change who is present, and vouch for all sessions of this run; those of the `earlier` run are over."""
        arguments: list[Any] = [self._publish, self.keys.channel(topic), run, _ms(VOUCH_SECS), earlier]
        for change in changes:
            arguments += change
        return ScriptCall(PRESENCE, [self.keys.members(topic), self.keys.nodes(topic)], arguments)

    def members(self, topic: bytes) -> ScriptCall:
        """Who is present."""
        return ScriptCall(MEMBERS, [self.keys.members(topic), self.keys.nodes(topic)], ())

    def routes(self, run: bytes, users: Sequence[tuple[bytes, bool]]) -> ScriptCall:
        """Say of users whether they have a session on this node. In a cluster one user at a time."""
        signs = "".join("+" if is_here else "-" for _, is_here in users)
        return ScriptCall(ROUTES, [self.keys.routes(b"@" + user) for user, _ in users], [run, _ms(VOUCH_SECS), signs])

    def claim(self, key: bytes, run: bytes) -> ScriptCall:
        """Say that the node's id is this run's."""
        return ScriptCall(CLAIM, [key], [run, _ms(VOUCH_SECS)])

    def _opening(self, topic: bytes, known: Position | None, condemned: int | None) -> list[Any]:
        head = [self._publish, self.keys.channel(topic), fresh_epoch(), self._stream_ms(), _ms(self.bounds.secs)]
        return [*head, "" if condemned is None else condemned, *(known or ("", 0))]

    def _stream_ms(self) -> int:
        return _ms(self.bounds.secs + STREAM_GRACE_SECS)


def fresh_epoch() -> int:
    """An epoch that no history has had."""
    return secrets.randbits(EPOCH_BITS) or 1


def _ms(secs: float) -> int:
    return max(1, round(secs * 1000))
