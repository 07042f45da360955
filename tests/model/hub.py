"""The hub in plain Python: what every client may expect, slow and obvious, without slow consumers and without sockets.

Topics keep every message for ever, so the cache of the real hub has to be large enough for a comparison.
"""

from dataclasses import dataclass, field
from typing import Any

Stored = tuple[int, str, Any]  # offset, sender, payload


@dataclass
class ModelTopic:
    """A topic with all it ever carried."""

    messages: list[Stored] = field(default_factory=list)
    subscribers: set[int] = field(default_factory=set)

    @property
    def offset(self) -> int:
        return len(self.messages)


@dataclass
class ModelHub:
    """Connections are numbers. `received` holds what each one is owed: (topic, offset, sender, payload), in order."""

    topics: dict[str, ModelTopic] = field(default_factory=dict)
    users: dict[int, str] = field(default_factory=dict)
    received: dict[int, list[tuple[str, int, str, Any]]] = field(default_factory=dict)

    def topic(self, name: str) -> ModelTopic:
        return self.topics.setdefault(name, ModelTopic())

    def connect(self, connection: int, user: str) -> None:
        self.users[connection] = user
        self.received[connection] = []
        self.topic(f"@{user}").subscribers.add(connection)

    def end(self, connection: int) -> None:
        del self.users[connection]
        for topic in self.topics.values():
            topic.subscribers.discard(connection)

    def subscribe(self, connection: int, name: str, after: int | None = None) -> list[Stored]:
        """What was missed since the offset `after`."""
        topic = self.topic(name)
        topic.subscribers.add(connection)
        return topic.messages[after:] if after is not None else []

    def unsubscribe(self, connection: int, name: str) -> None:
        self.topic(name).subscribers.discard(connection)

    def broadcast(self, connection: int, name: str, payload: Any, exclude_self: bool) -> int:
        """The offset the message got."""
        topic = self.topic(name)
        stored = (topic.offset + 1, self.users[connection], payload)
        topic.messages.append(stored)
        for subscriber in topic.subscribers:
            if not (exclude_self and subscriber == connection):
                self.received[subscriber].append((name, *stored))
        return stored[0]

    def direct(self, connection: int, to: list[str], payload: Any) -> tuple[list[str], list[str]]:
        """Who is here, and who is not."""
        here = set(self.users.values())
        for user in dict.fromkeys(to):
            self.broadcast(connection, f"@{user}", payload, False)
        return [user for user in dict.fromkeys(to) if user in here], [
            user for user in dict.fromkeys(to) if user not in here
        ]
