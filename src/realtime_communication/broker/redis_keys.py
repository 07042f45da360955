"""The names of keys and channels that belong to a topic or a user.

All of one topic have one hash tag, and so lie in one slot of a cluster, where one script may use them together::

    {prefix}{<topic>}:s         the stream: its last messages, and in its last id the epoch and the offset
    {prefix}{<topic>}:b:<id>    the answer to one batch of publications, for a node that has to ask again
    {prefix}{<topic>}:i:<hash>  the position of the message that was published under an idempotency key
    {prefix}{<topic>}:m         who is present: sessions, and how many each user and each node has
    {prefix}{<topic>}:n         until when each node vouches for its sessions there
    {prefix}{@<user>}:r         until when each node vouches for having a session of the user
    {prefix}{<topic>}:c         the channel

A topic is any text. Inside the tag `%`, `{` and `}` are written as `%25`, `%7B` and `%7D`: no name can end its tag, and
no two topics have the same one. What comes from a client apart from the topic is hashed.
"""

from __future__ import annotations

import hashlib
from typing import Final

HASH_BYTES: Final = 16
_CHANNEL: Final = b"}:c"


class TopicKeys:
    """Makes the names under one `redis.key_prefix`."""

    def __init__(self, prefix: str) -> None:
        self._opening = prefix.encode() + b"{"

    def stream(self, topic: bytes) -> bytes:
        """The stream of a topic."""
        return self._of(topic) + b"s"

    def batch(self, topic: bytes, batch: bytes) -> bytes:
        """The answer to a batch; `batch` is an id of this node's making."""
        return self._of(topic) + b"b:" + batch

    def idempotency(self, topic: bytes, key: bytes) -> bytes:
        """The answer to an idempotency key, of whatever bytes."""
        return self._of(topic) + b"i:" + hashlib.blake2b(key, digest_size=HASH_BYTES).hexdigest().encode()

    def members(self, topic: bytes) -> bytes:
        """The hash of those who are present."""
        return self._of(topic) + b"m"

    def nodes(self, topic: bytes) -> bytes:
        """The sorted set of the nodes with sessions on a topic."""
        return self._of(topic) + b"n"

    def routes(self, inbox: bytes) -> bytes:
        """The sorted set of the nodes that have a session of a user; `inbox` is `@` and the user."""
        return self._of(inbox) + b"r"

    def channel(self, topic: bytes) -> bytes:
        """The channel of a topic."""
        return self._opening + _escaped(topic) + _CHANNEL

    def topic(self, channel: bytes) -> bytes | None:
        """The topic of a channel; None when it is not the channel of one."""
        if not (channel.startswith(self._opening) and channel.endswith(_CHANNEL)):
            return None
        inside = channel[len(self._opening) : -len(_CHANNEL)]
        topic = inside.replace(b"%7B", b"{").replace(b"%7D", b"}").replace(b"%25", b"%")
        return topic if _escaped(topic) == inside else None

    def _of(self, topic: bytes) -> bytes:
        return self._opening + _escaped(topic) + b"}:"


def _escaped(topic: bytes) -> bytes:
    return topic.replace(b"%", b"%25").replace(b"{", b"%7B").replace(b"}", b"%7D")
