"""Who is connected, and the way of a publication to its subscribers."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from msgspec import Raw
from websockets.asyncio.server import ServerConnection, broadcast

from .envelopes import (
    ENCODINGS,
    BroadcastAck,
    DirectAck,
    DirectMessageEvent,
    Encoding,
    Join,
    Leave,
    Message,
    RequestError,
)
from .tokens import Identity
from .topics import Publication, Topic, Topics, now_ms

LEAVE_GRACE_SECS = 1.0
"""A user whose last session on a topic was lost has this long to come back before the others see a `Leave`."""
MAX_UNSENT_BYTES = 4 * 1024 * 1024
"""A consumer with more than this waiting in its transport is closed with 4490."""
REMEMBERED_KEYS = 10_000
"""Idempotency keys kept, over all users, oldest first."""

AckType = TypeVar("AckType", BroadcastAck, DirectAck)


class Session:
    """One authenticated connection."""

    __slots__ = ("connection", "encoding", "identity", "session_id", "topics", "user_id")

    def __init__(self, connection: ServerConnection, encoding: Encoding, identity: Identity, session_id: str) -> None:
        self.connection = connection
        self.encoding = encoding
        self.identity = identity
        self.user_id = identity.user_id
        self.session_id = session_id
        self.topics: set[Topic] = set()


class Hub:
    """Every session by user, every topic by name."""

    def __init__(self) -> None:
        self.topics = Topics()
        self.sessions: set[Session] = set()
        self._users: dict[str, set[Session]] = {}
        self._acks: OrderedDict[tuple[str, str], BroadcastAck | DirectAck] = OrderedDict()

    def add(self, session: Session) -> None:
        self.sessions.add(session)
        self._users.setdefault(session.user_id, set()).add(session)

    def remove(self, session: Session) -> None:
        """Forgets a session whose connection is gone; its topics see a `Leave` after the grace period."""
        self.sessions.discard(session)
        sessions = self._users.get(session.user_id, set())
        sessions.discard(session)
        if not sessions:
            self._users.pop(session.user_id, None)
        loop = asyncio.get_running_loop()
        for topic in list(session.topics):
            self._detach(session, topic)
            loop.call_later(LEAVE_GRACE_SECS, self._announce_leave, session, topic)

    # --- subscriptions

    def subscribe(self, session: Session, topic: Topic, *, presence: bool) -> None:
        """Adds a subscription; a second one only changes whether join and leave events are wanted."""
        if session not in topic.joined_at:
            if topic.watchers and not topic.has_user(session.user_id):
                joined = Join(topic=topic.name, user_id=session.user_id, session_id=session.session_id)
                send_each(topic.watchers, lambda _encoding: joined)
            topic.joined_at[session] = now_ms()
            session.topics.add(topic)
        if presence:
            topic.watchers.add(session)
        else:
            topic.watchers.discard(session)

    def unsubscribe(self, session: Session, topic: Topic) -> None:
        if session in topic.joined_at:
            self._detach(session, topic)
            self._announce_leave(session, topic)

    def _detach(self, session: Session, topic: Topic) -> None:
        topic.joined_at.pop(session, None)
        topic.watchers.discard(session)
        session.topics.discard(topic)

    def _announce_leave(self, session: Session, topic: Topic) -> None:
        if topic.watchers and not topic.has_user(session.user_id):
            left = Leave(topic=topic.name, user_id=session.user_id, session_id=session.session_id)
            send_each(topic.watchers, lambda _encoding: left)

    # --- publications

    def publish(self, sender: Session, name: str, raw: Raw, *, exclude_self: bool, key: str | None) -> BroadcastAck:
        """Gives a message its offset and hands it to the topic's subscribers (`*`: to everyone)."""

        def deliver() -> BroadcastAck:
            topic = self.topics[name]
            receivers: Iterable[Session] = self.sessions if name == "*" else topic.subscribers
            if exclude_self:
                receivers = [session for session in receivers if session is not sender]
            publication = topic.append(sender.user_id, raw, sender.encoding)
            send_each(receivers, partial(message_envelope, name, publication))
            return BroadcastAck(topic=name, epoch=topic.epoch, offset=publication.offset)

        return self._once(sender, key, BroadcastAck, deliver)

    def send(self, sender: Session, users: Iterable[str], raw: Raw, key: str | None) -> DirectAck:
        """Publishes to the inbox of each user."""

        def deliver() -> DirectAck:
            ack = DirectAck(delivered=[], offline=[])
            for user in users:
                publication = self.topics[f"@{user}"].append(sender.user_id, raw, sender.encoding)
                sessions = self._users.get(user, ())
                send_each(sessions, partial(direct_envelope, publication))
                (ack.delivered if sessions else ack.offline).append(user)
            return ack

        return self._once(sender, key, DirectAck, deliver)

    def _once(self, sender: Session, key: str | None, kind: type[AckType], deliver: Callable[[], AckType]) -> AckType:
        """The first answer again when a user repeats an idempotency key, without delivering anything twice."""
        if key is None:
            return deliver()
        known = self._acks.get((sender.user_id, key))
        if known is None:
            known = self._acks[sender.user_id, key] = deliver()
            if len(self._acks) > REMEMBERED_KEYS:
                self._acks.popitem(last=False)
        if not isinstance(known, kind):
            raise RequestError("bad_request", "`idempotency_key` was used before, for a request of another type")
        return known


def message_envelope(topic: str, publication: Publication, encoding: Encoding) -> Message:
    return Message(
        topic=topic,
        offset=publication.offset,
        ts=publication.ts,
        from_=publication.sender,
        payload=publication.payload.form(encoding),
    )


def direct_envelope(publication: Publication, encoding: Encoding) -> DirectMessageEvent:
    return DirectMessageEvent(
        offset=publication.offset,
        ts=publication.ts,
        from_=publication.sender,
        payload=publication.payload.form(encoding),
    )


def send_each(receivers: Iterable[Session], envelope: Callable[[Encoding], Any]) -> None:
    """Sends an envelope to many, encoded once per encoding; who cannot keep up is closed."""
    receivers = list(receivers)
    for encoding in ENCODINGS.values():
        connections = []
        for session in receivers:
            if session.encoding is encoding:
                if session.connection.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
                    drop_slow_consumer(session)
                else:
                    connections.append(session.connection)
        if connections:
            broadcast(connections, encoding.encode(envelope(encoding)), text=encoding.text)


def drop_slow_consumer(session: Session) -> None:
    """Ends a connection that does not read: the close frame is queued behind what it has not read yet."""
    connection = session.connection
    if connection.protocol.close_sent is None:
        task = asyncio.ensure_future(connection.close(4490, "slow consumer"))
        closing.add(task)
        task.add_done_callback(closing.discard)


closing: set[asyncio.Future[None]] = set()
"""Close handshakes under way; the loop itself keeps no strong reference to them."""
