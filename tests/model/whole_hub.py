"""A plain-Python hub with all that one worker does for its clients: conversations, presence, history, keys, time.

Adds to `ConversationModel` who is told of whom, the pages of History, requests over HTTP, answers that are remembered
by their idempotency key, messages for everybody, and a clock that forgets.
"""

from dataclasses import dataclass
from typing import Any

from model.conversation import Connection, ConversationModel, Envelope, Message, Topic

GRACE_MS = 2000
FORGET_EACH_MS = 1000
ALL = "*"
Position = tuple[str, int]  # epoch, offset


@dataclass
class Attendance:
    """A user on a topic, as watchers know it."""

    sessions: int = 0
    leaver: int = 0  # number of the connection that is named by Join and Leave
    leaves_at: int | None = None


def stored(message: Message) -> Envelope:
    return {"offset": message.offset, "ts": message.ts, "from": message.sender, "payload": message.payload}


def is_plain(topic: str) -> bool:
    """Neither an inbox nor the topic of everybody: who is on it is of interest."""
    return not topic.startswith(("@", ALL))


def session_id(number: int) -> str:
    return f"{number:032x}"


class WholeHub(ConversationModel):
    def __init__(self, strategy: str, capacity: int, cache: int, ts: int, ttl_ms: int) -> None:
        super().__init__(strategy, capacity, cache, ts)
        self.ttl_ms = ttl_ms
        self.forgotten_at = 0  # never so far
        self.attendances: dict[tuple[str, str], Attendance] = {}  # by topic and user
        self.joined_at: dict[tuple[str, int], int] = {}  # topic and connection
        self.watching: set[tuple[str, int]] = set()  # topic and connection
        self.answered: dict[tuple[str, str, str], tuple[int, Position]] = {}  # until when

    def release(self, topic: Topic) -> None:
        if not any(name == topic.name for name, _ in self.attendances):
            super().release(topic)

    def subscribers(self, topic: str) -> list[Connection]:
        return [each for each in self.connections.values() if each.find(topic)]

    # --- who is there

    def tell_watchers(self, topic: str, user: str, kind: str) -> None:
        leaver = self.attendances[topic, user].leaver
        for number, connection in self.connections.items():
            if (topic, number) in self.watching and not (kind == "Join" and number == leaver):
                told = {"type": kind, "topic": topic, "user_id": user, "session_id": session_id(leaver)}
                self.reply(connection, told)

    def join(self, connection: Connection, topic: Topic) -> None:
        super().join(connection, topic)
        self.joined_at[topic.name, connection.number] = self.ts
        if is_plain(topic.name):
            self.enter(topic.name, connection)

    def enter(self, topic: str, connection: Connection) -> None:
        key = topic, connection.user
        is_new = key not in self.attendances
        attendance = self.attendances.setdefault(key, Attendance())
        attendance.sessions += 1
        attendance.leaver, attendance.leaves_at = connection.number, None
        if is_new:
            self.tell_watchers(topic, connection.user, "Join")

    def leave(self, topic: str, connection: Connection, *, at_once: bool) -> None:
        """The connection is subscribed no more."""
        attendance = self.attendances[topic, connection.user]
        attendance.sessions -= 1
        if attendance.sessions:
            return
        attendance.leaver = connection.number
        if at_once or not self.subscribers(topic):
            self.gone(topic, connection.user)
        else:
            attendance.leaves_at = self.ts + GRACE_MS

    def gone(self, topic: str, user: str) -> None:
        self.tell_watchers(topic, user, "Leave")
        del self.attendances[topic, user]

    # --- what peers do

    def connect(self, number: int, user: str) -> None:
        super().connect(number, user)
        if ALL in self.topics:
            self.join(self.connections[number], self.topics[ALL])

    def end(self, number: int) -> None:
        connection = self.connections.pop(number)
        for subscription in connection.subscriptions:
            name = subscription.topic.name
            self.watching.discard((name, number))
            if is_plain(name):
                self.leave(name, connection, at_once=False)
            self.release(subscription.topic)
        self.end_turn()

    def subscribe(self, number: int, name: str, recover: Position | None, history: int, presence: bool = False) -> None:
        super().subscribe(number, name, recover, history)
        (self.watching.add if presence else self.watching.discard)((name, number))

    def unsubscribed(self, number: int, name: str) -> None:
        self.watching.discard((name, number))
        self.leave(name, self.connections[number], at_once=True)

    def presence(self, number: int, name: str) -> None:
        topic = self.topics.get(name) if not name.startswith("@") else self.inbox(name.removeprefix("@"))
        members = []
        for each in self.subscribers(name) if topic is not None else []:
            joined = self.joined_at[name, each.number]
            members.append({"user_id": each.user, "session_id": session_id(each.number), "joined_at": joined})
        answer = {"type": "PresenceState", "id": 1, "topic": name, "count": len(members), "members": members}
        self.reply(self.connections[number], answer)
        self.end_turn()

    def history(self, number: int, name: str, after: Position | None, limit: int, reverse: bool) -> None:
        topic = self.inbox(name.removeprefix("@")) if name.startswith("@") else self.open_topic(name)
        given = list(topic.cached)
        if after is not None and after[0] == f"{topic.epoch:016x}":
            if reverse:
                given = [each for each in given if each.offset < after[1]]
            else:
                given = [each for each in given if each.offset > after[1]]
        given = given[::-1][:limit] if reverse else given[:limit]
        answer = {
            "type": "HistoryPage",
            "id": 1,
            "topic": name,
            "epoch": f"{topic.epoch:016x}",
            "offset": topic.offset,
            "messages": [stored(each) for each in given],
        }
        self.reply(self.connections[number], answer)
        self.release(topic)
        self.end_turn()

    def ping(self, number: int) -> None:
        self.reply(self.connections[number], {"type": "Pong", "id": 1, "ts": self.ts})
        self.end_turn()

    # --- publications

    def once(self, sender: str, name: str, key: str, payload: Any) -> Position:
        """Where the message is, or was put before under the same key."""
        before = self.answered.get((sender, name, key))
        if before is not None and before[0] >= self.ts:
            return before[1]
        topic = self.open_topic(name)
        message = self.append(topic, sender, payload, -1)
        self.deliver(message)
        place = f"{topic.epoch:016x}", message.offset
        self.answered[sender, name, key] = self.ts + self.ttl_ms, place
        return place

    def broadcast_once(self, number: int, name: str, key: str, payload: Any) -> None:
        connection = self.connections[number]
        epoch, offset = self.once(connection.user, name, key, payload)
        self.reply(connection, {"type": "Ack", "id": 1, "topic": name, "epoch": epoch, "offset": offset})
        self.end_turn()

    def publish_by_http(self, user: str, name: str, key: str, payload: Any) -> Position:
        place = self.once(user, name, key, payload)
        self.end_turn()
        return place

    def shout(self, number: int, payload: Any) -> None:
        """A message to everybody."""
        if ALL not in self.topics:
            topic = self.open_topic(ALL)
            for each in self.connections.values():
                self.join(each, topic)
        self.broadcast(number, ALL, [payload], False)

    # --- time

    def advance(self, milliseconds: int) -> None:
        self.ts += milliseconds
        for (topic, user), attendance in list(self.attendances.items()):
            if attendance.leaves_at is not None and attendance.leaves_at <= self.ts:
                self.gone(topic, user)
                if topic in self.topics:
                    self.release(self.topics[topic])
        if self.ts - self.forgotten_at >= FORGET_EACH_MS:
            self.forgotten_at = self.ts
            while self.cache and self.cache[0].ts < self.ts - self.ttl_ms:
                oldest = self.topics[self.cache.pop(0).topic]
                oldest.cached.pop(0)
                self.release(oldest)
        self.end_turn()
