"""The door between the hub, which has the topics and the sessions of a worker, and what feeds it from other nodes.

Both live in one thread. Epochs are integers (0 < epoch < 2**48), offsets count from 1, tokens are integers above 0 that
the hub makes; with token 0 no answer is wanted. `bodies` are publications one after the other, each with its size (u32,
little endian) in front; what is in them only the hub knows, apart from their first 8 bytes, which are the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

Member = tuple[bytes, bytes, int, bytes]
"""User, session, when it joined (milliseconds since the epoch), info."""


class UpstreamHub(Protocol):
    """What the hub does for the upstream."""

    def set_upstream(self, notify: Callable[[], None] | None, /) -> None:
        """Have `notify` called, at most once in a turn of the loop, when there is something to take."""

    def take_upstream(self) -> list[tuple[Any, ...]]:
        """What there is to do, in its order: the name of a method of the engine, and its arguments."""

    def published(self, token: int, epoch: int, offset: int, reached: bool, /) -> None:
        """A publication has its place; `reached`: on an inbox, whether its user has a session on any node."""

    def subscribed(self, token: int, epoch: int, offset: int, recovered: bool, first: int, bodies: bytes, /) -> None:
        """The messages wanted, up to `offset`, with consecutive offsets from `first`."""

    def history_page(self, token: int, epoch: int, offset: int, first: int, bodies: bytes, /) -> None:
        """A page; `offset` is the topic's."""

    def presence_state(self, token: int, members: Sequence[Member], /) -> None:
        """Who is present on a topic, on all nodes."""

    def refuse_waiting(self, token: int, code: str, message: str, retry_ms: int | None, /) -> None:
        """There is no answer; `code` is one of the protocol's list of errors."""

    def deliver_upstream(self, topic: bytes, epoch: int, first: int, bodies: bytes, /) -> None:
        """The feed: what follows what was delivered, or follows the position of the first `subscribed`."""

    def reset_topic(self, topic: bytes, epoch: int, offset: int, /) -> None:
        """Something is missing before what is delivered next, or it begins a new history."""

    def tell_presence(self, topic: bytes, leave: bool, user: bytes, session: bytes, info: bytes, /) -> None:
        """The first session of a user came on another node, or the last one went there."""

    def upstream_lost(self) -> None:
        """Serve alone. Publications are still to be handed over, with token 0."""

    def upstream_back(self) -> None:
        """What was kept has been sent: subscribe to every topic that is in use."""
