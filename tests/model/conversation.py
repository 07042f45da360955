"""A plain-Python hub: what each connection is sent, envelope by envelope. Slow and obvious; JSON, one request a turn.

A stalled connection reads nothing; what waits for it is kept the way the overflow strategy says (`drop_oldest`,
`drop_newest` or `backpressure`), and comes out when it resumes. `ts` is the time of day, which whoever drives the model
moves; nothing expires here.
"""

from dataclasses import dataclass, field
from typing import Any

Envelope = dict[str, Any]


@dataclass
class Message:
    topic: str
    offset: int
    sender: str
    payload: Any
    excluded: int  # number of the connection that is left out, -1 for none
    ts: int


@dataclass
class Topic:
    name: str
    epoch: int
    offset: int = 0
    cached: list[Message] = field(default_factory=list)

    @property
    def first(self) -> int:
        """Offset of the oldest cached message."""
        return self.offset + 1 - len(self.cached)


@dataclass(eq=False)
class Subscription:
    topic: Topic
    gap_from: int | None = None  # lagging since that offset
    dropped: int = 0
    dropped_last: int = 0


@dataclass
class Connection:
    number: int
    user: str
    stalled: bool = False
    blocked: bool = False
    ahead: list[Envelope] = field(default_factory=list)  # replies
    behind: list[Envelope] = field(default_factory=list)  # data that a full socket has taken over
    held: int = 0  # messages in it
    queue: list[tuple[Subscription | None, Message | None, Envelope | None]] = field(default_factory=list)
    subscriptions: list[Subscription] = field(default_factory=list)  # newest first
    sent: list[Envelope] = field(default_factory=list)  # what the peer has read

    def find(self, topic: str) -> Subscription | None:
        return next((found for found in self.subscriptions if found.topic.name == topic), None)


def message_envelope(message: Message) -> Envelope:
    if message.topic.startswith("@"):
        head: Envelope = {"type": "DirectMessage"}
    else:
        head = {"type": "Message", "topic": message.topic}
    return {**head, "offset": message.offset, "ts": message.ts, "from": message.sender, "payload": message.payload}


class ConversationModel:
    def __init__(self, strategy: str, capacity: int, cache: int, ts: int) -> None:
        self.strategy = strategy
        self.capacity = capacity
        self.cache_size = cache
        self.ts = ts
        self.epoch = 1
        self.topics: dict[str, Topic] = {}
        self.cache: list[Message] = []  # of all topics, oldest first
        self.connections: dict[int, Connection] = {}

    # --- topics

    def open_topic(self, name: str) -> Topic:
        if name not in self.topics:
            self.topics[name] = Topic(name, self.epoch)
        return self.topics[name]

    def inbox(self, user: str) -> Topic:
        """Opened as soon as somebody uses it: the user's sessions are on it."""
        if "@" + user not in self.topics:
            topic = self.open_topic("@" + user)
            for each in self.connections.values():
                if each.user == user:
                    self.join(each, topic)
        return self.topics["@" + user]

    def join(self, connection: Connection, topic: Topic) -> None:
        connection.subscriptions.insert(0, Subscription(topic))

    def release(self, topic: Topic) -> None:
        """A topic without subscribers and cached messages goes; if it had a history, new ones get another epoch."""
        if topic.cached or any(c.find(topic.name) for c in self.connections.values()):
            return
        if self.topics.pop(topic.name, None) is not None and topic.offset:
            self.epoch += 1

    def append(self, topic: Topic, sender: str, payload: Any, excluded: int) -> Message:
        topic.offset += 1
        message = Message(topic.name, topic.offset, sender, payload, excluded, self.ts)
        topic.cached.append(message)
        self.cache.append(message)
        while len(self.cache) > self.cache_size:
            oldest = self.topics[self.cache.pop(0).topic]
            oldest.cached.pop(0)
            if oldest is not topic:
                self.release(oldest)
        return message

    # --- the outbound order

    def waiting(self, connection: Connection) -> int:
        return len(connection.queue) + connection.held

    def deliver(self, message: Message) -> None:
        for connection in self.connections.values():
            subscription = connection.find(message.topic)
            if subscription is None or message.excluded == connection.number:
                continue
            if connection.blocked:
                self.queue_message(connection, subscription, message)
            else:
                connection.behind.append(message_envelope(message))
                connection.held += 1

    def queue_message(self, connection: Connection, subscription: Subscription, message: Message) -> None:
        if subscription.gap_from is not None:
            return
        if self.waiting(connection) >= self.capacity:
            if self.strategy == "backpressure":
                subscription.gap_from = message.offset
                return
            if self.strategy == "drop_newest":
                subscription.dropped += 1
                subscription.dropped_last = message.offset
                return
            while self.waiting(connection) >= self.capacity and self.drop_oldest(connection):
                pass
        if subscription.dropped and self.strategy == "drop_newest":
            connection.queue.append((None, None, self.lagged_drops(subscription)))
        connection.queue.append((subscription, message, None))

    def drop_oldest(self, connection: Connection) -> bool:
        for index, (subscription, message, _) in enumerate(connection.queue):
            if subscription is not None and message is not None:
                subscription.dropped += 1
                subscription.dropped_last = message.offset
                del connection.queue[index]
                return True
        return False

    def lagged(self, topic: Topic, missed: int, offset: int, recovered: bool) -> Envelope:
        return {
            "type": "Lagged",
            "topic": topic.name,
            "missed": missed,
            "epoch": f"{topic.epoch:016x}",
            "offset": offset,
            "recovered": recovered,
        }

    def lagged_drops(self, subscription: Subscription) -> Envelope:
        told = self.lagged(subscription.topic, subscription.dropped, subscription.dropped_last, False)
        subscription.dropped = 0
        return told

    def reply(self, connection: Connection, envelope: Envelope, in_order: bool = False) -> None:
        if in_order and connection.blocked:
            connection.queue.append((None, None, envelope))
        else:
            connection.ahead.append(envelope)

    def end_turn(self) -> None:
        for connection in self.connections.values():
            if connection.stalled:
                connection.blocked = connection.blocked or bool(connection.ahead or connection.behind)
            else:
                self.write(connection)

    def write(self, connection: Connection) -> None:
        connection.sent += connection.ahead + connection.behind
        connection.ahead, connection.behind, connection.held = [], [], 0

    # --- what peers do

    def connect(self, number: int, user: str) -> None:
        connection = Connection(number, user)
        self.connections[number] = connection
        if "@" + user in self.topics:
            self.join(connection, self.topics["@" + user])

    def end(self, number: int) -> None:
        connection = self.connections.pop(number)
        for subscription in connection.subscriptions:
            self.release(subscription.topic)

    def stall(self, number: int) -> None:
        self.connections[number].stalled = True

    def resume(self, number: int) -> None:
        connection = self.connections[number]
        connection.stalled = False
        self.write(connection)
        for subscription, message, envelope in connection.queue:
            if subscription is None or message is None:
                assert envelope is not None
                connection.sent.append(envelope)
                continue
            if subscription.dropped and message.offset > subscription.dropped_last:
                connection.sent.append(self.lagged_drops(subscription))
            connection.sent.append(message_envelope(message))
        connection.queue.clear()
        while connection.blocked:
            connection.held = 0
            left = [found for found in connection.subscriptions if not self.settle(connection, found)]
            connection.blocked = bool(left)
        connection.held = 0

    def settle(self, connection: Connection, subscription: Subscription) -> bool:
        """Tell gaps and catch up, as far as the mailbox has room; whether nothing is left to do."""
        topic = subscription.topic
        if subscription.dropped:
            connection.sent.append(self.lagged_drops(subscription))
        if subscription.gap_from is None:
            return True
        if connection.held >= self.capacity:
            return False
        first = subscription.gap_from
        if topic.first > first:
            connection.sent.append(self.lagged(topic, topic.offset + 1 - first, topic.offset, False))
            subscription.gap_from = None
            return True
        last = min(topic.offset, first + self.capacity - connection.held - 1)
        connection.sent.append(self.lagged(topic, last + 1 - first, last, True))
        for message in topic.cached:
            if first <= message.offset <= last and message.excluded != connection.number:
                connection.sent.append(message_envelope(message))
                connection.held += 1
        subscription.gap_from = last + 1 if last < topic.offset else None
        return subscription.gap_from is None

    def subscribe(self, number: int, name: str, recover: tuple[str, int] | None, history: int) -> None:
        connection = self.connections[number]
        topic = self.open_topic(name)
        if connection.find(name) is None:
            self.join(connection, topic)
        self.restart(connection, name, recover is not None)
        recovered = (
            recover is not None
            and recover[0] == f"{topic.epoch:016x}"
            and (topic.first - 1 <= recover[1] <= topic.offset)
        )
        if recovered and recover is not None:
            given = [message for message in topic.cached if message.offset > recover[1]]
        else:
            given = topic.cached[-history:] if history else []
        envelope = {
            "type": "Subscribed",
            "id": 1,
            "topic": name,
            "epoch": f"{topic.epoch:016x}",
            "offset": topic.offset,
            "recovered": recovered,
            "messages": [
                {"offset": message.offset, "ts": message.ts, "from": message.sender, "payload": message.payload}
                for message in given
            ],
        }
        self.reply(connection, envelope, in_order=True)
        self.end_turn()

    def restart(self, connection: Connection, name: str, silent: bool) -> None:
        """A gap in what waits is dropped, and told unless the client named its position: the reply starts anew."""
        (subscription,) = [found for found in connection.subscriptions if found.topic.name == name]
        gap = subscription.gap_from is not None or subscription.dropped or self.strategy == "drop_oldest"
        if not silent and not gap:
            return
        waiting = len(connection.queue)
        connection.queue = [entry for entry in connection.queue if entry[0] is not subscription]
        missed = waiting - len(connection.queue) + subscription.dropped
        if subscription.gap_from is not None:
            missed += subscription.topic.offset + 1 - subscription.gap_from
        subscription.gap_from, subscription.dropped = None, 0
        if missed and not silent:
            told = self.lagged(subscription.topic, missed, subscription.topic.offset, False)
            connection.queue.append((None, None, told))

    def unsubscribe(self, number: int, name: str) -> None:
        connection = self.connections[number]
        subscription = connection.find(name)
        if subscription is not None:
            connection.subscriptions.remove(subscription)
            connection.queue = [entry for entry in connection.queue if entry[0] is not subscription]
            self.unsubscribed(number, name)
            self.release(subscription.topic)
        self.reply(connection, {"type": "Unsubscribed", "id": 1, "topic": name}, in_order=True)
        self.end_turn()

    def unsubscribed(self, number: int, name: str) -> None:
        """A subscription has ended, and its topic may end next: for a model that knows who is present."""

    def broadcast(self, number: int, name: str, payloads: list[Any], exclude_self: bool) -> None:
        """All of them in one turn."""
        connection = self.connections[number]
        topic = self.open_topic(name)
        for payload in payloads:
            message = self.append(topic, connection.user, payload, number if exclude_self else -1)
            self.deliver(message)
            ack = {"type": "Ack", "id": 1, "topic": name, "epoch": f"{topic.epoch:016x}", "offset": topic.offset}
            self.reply(connection, ack)
        self.end_turn()

    def direct(self, number: int, users: list[str], payload: Any) -> None:
        connection = self.connections[number]
        if self.strategy == "backpressure" and any(
            self.waiting(other) >= self.capacity for other in self.connections.values() if other.user in users
        ):
            refusal = {
                "type": "Error",
                "id": 1,
                "code": "backpressure",
                "message": "to: a recipient does not keep up; try again later",
                "retry_after_ms": 1000,
            }
            self.reply(connection, refusal)
            self.end_turn()
            return
        here = {other.user for other in self.connections.values()}
        for user in users:
            self.deliver(self.append(self.inbox(user), connection.user, payload, -1))
        delivered = [user for user in users if user in here]
        offline = [user for user in users if user not in here]
        self.reply(connection, {"type": "Ack", "id": 1, "delivered": delivered, "offline": offline})
        self.end_turn()
