"""Who is present on topics, and which users have a session here, as far as other nodes have to know.

Redis has the sessions of all nodes. A node vouches for its own for VOUCH_SECS at a time and renews that every
RENEW_SECS; what nobody vouches for any more is over: the next node that looks takes it out and tells of it, once. A
script decides whose session was a user's first or last one over all nodes, and tells on the topic's channel.

This node's sessions are kept here too, to be told again: Redis may lose them, and the node may be away for longer than
it vouched. It comes back as another run, under which it tells of all it has, and thereby ends the earlier one: sessions
that went meanwhile need not be remembered.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final

from realtime_communication.broker.redis_calls import Calls, Change
from realtime_communication.broker.redis_errors import RedisFailed
from realtime_communication.broker.redis_frames import PresenceChange, framed, split_bodies
from realtime_communication.broker.redis_link import RedisLink, ScriptCall
from realtime_communication.broker.upstream import Member, UpstreamHub
from realtime_communication.resilience.supervision import honour_cancellation

RENEW_SECS: Final = 13.0
GATHERED_TOPICS: Final = 128  # told of together
GATHERED_CHANGES: Final = 1000  # of one topic
GATHERED_USERS: Final = 256


class RedisPresence:
    """See the head of this module. `run` is of this start of the node; `fail` is told that Redis failed."""

    def __init__(
        self,
        hub: UpstreamHub,
        link: RedisLink,
        calls: Calls,
        run: bytes,
        fail: Callable[[RedisFailed], None],
        *,
        renew_secs: float = RENEW_SECS,
    ) -> None:
        self._hub = hub
        self._link = link
        self._calls = calls
        self._base = run
        self._numbers = itertools.count(1)
        self._run, self._earlier = self._next_run(), b""
        self._fail = fail
        self._renew_secs = renew_secs
        self._sessions: dict[bytes, dict[bytes, tuple[bytes, int, bytes]]] = {}
        self._changes: dict[bytes, list[Change]] = {}  # of each topic that is to be told of; may be empty
        self._asking: dict[bytes, list[int]] = {}
        self._users: set[bytes] = set()
        self._routes: dict[bytes, bool] = {}  # users to be told of
        self._here = self._paused = False
        self._on_way = False
        self._something = asyncio.Event()

    # What the hub says

    def enter(self, topic: bytes, session: bytes, user: bytes, joined_ms: int, info: bytes) -> None:
        """A session of this node is on a topic."""
        self._sessions.setdefault(topic, {})[session] = (user, joined_ms, info)
        self._change(topic, self._entered(session, user, joined_ms, info))

    def exit(self, topic: bytes, session: bytes, user: bytes) -> None:
        """It no longer is."""
        sessions = self._sessions.get(topic)
        if sessions is None or sessions.pop(session, None) is None:
            return
        if not sessions:
            del self._sessions[topic]
        self._change(topic, (b"-", session, user, b""))

    def moved(self, topic: bytes, session: bytes) -> None:
        """Another worker of this node tells of a session from now on, and vouches for it."""
        sessions = self._sessions.get(topic)
        if sessions is None or sessions.pop(session, None) is None:
            return
        if not sessions:
            del self._sessions[topic]
        left = [change for change in self._changes.pop(topic, ()) if change[:2] != (b"+", session)]
        if left:
            self._changes[topic] = left

    def presence(self, topic: bytes, token: int) -> None:
        """Somebody wants to know who is present."""
        if not self._here:
            self._hub.presence_state(token, self._own(topic))
            return
        self._asking.setdefault(topic, []).append(token)
        self._something.set()

    def user_here(self, user: bytes) -> None:
        """A user has a session on this node."""
        self._users.add(user)
        self._route(user, True)

    def user_gone(self, user: bytes) -> None:
        """It was the last one."""
        self._users.discard(user)
        self._route(user, False)

    # What the engine says

    def lose(self) -> None:
        """Redis is away: answer for this node alone, and forget what was to be told.

        The hub goes on telling of sessions, and tells of all users again when Redis is back.
        """
        self._here = False
        self._changes.clear()
        self._routes.clear()
        self._users.clear()
        asking, self._asking = self._asking, {}
        for topic, tokens in asking.items():
            for token in tokens:
                self._hub.presence_state(token, self._own(topic))

    def come_back(self) -> None:
        """Redis is back: tell of everything, as another run."""
        self._earlier, self._run = self._run, self._next_run()
        self._here, self._paused = True, False
        for topic in self._sessions:
            self._tell_all(topic)
        self._routes = dict.fromkeys(self._users, True)
        self._something.set()

    def pause(self) -> None:
        """Calls fail: let everything wait."""
        self._paused = True

    def go_on(self) -> None:
        """Calls succeed again."""
        self._paused = False
        self._something.set()

    @property
    def is_told(self) -> bool:
        """Whether nothing waits and nothing is on its way."""
        return not (self._changes or self._asking or self._routes or self._on_way)

    def is_own(self, change: PresenceChange) -> bool:
        """Whether the hub knows of it already."""
        return change.node.startswith(self._base)

    async def run(self) -> None:
        """Tell what there is to tell, and vouch for it, until this is cancelled."""
        loop = asyncio.get_running_loop()
        renew_at = loop.time() + self._renew_secs
        self._on_way = False
        while True:
            honour_cancellation()
            try:
                async with asyncio.timeout_at(renew_at):
                    await self._something.wait()
            except TimeoutError:
                renew_at = loop.time() + self._renew_secs
                if self._is_going:
                    self._renew()
            self._something.clear()
            self._on_way = True
            while self._is_going and (self._changes or self._asking):
                await self._tell_topics()
            while self._is_going and self._routes:
                await self._tell_users()
            self._on_way = False

    @property
    def _is_going(self) -> bool:
        return self._here and not self._paused

    async def _tell_topics(self) -> None:
        topics = list(itertools.islice(dict.fromkeys(itertools.chain(self._changes, self._asking)), GATHERED_TOPICS))
        changes: dict[bytes, list[Change]] = {}
        for topic in topics:
            if topic in self._changes:
                changes[topic], rest = _cut(self._changes.pop(topic))
                if rest:
                    self._changes[topic] = rest
        asking = {topic: self._asking.pop(topic) for topic in topics if topic in self._asking}
        calls = [self._calls.presence(topic, self._run, self._earlier, each) for topic, each in changes.items()]
        run = self._run
        replies = await self._link.run_scripts(calls + [self._calls.members(topic) for topic in asking])
        if failed := _first_failure(replies):
            self._fail(failed)
        if failed and self._here and self._paused:
            for topic, each in changes.items():  # what was done already changes nothing
                self._changes[topic] = each + self._changes.get(topic, [])
            for topic, tokens in asking.items():
                self._asking[topic] = tokens + self._asking.get(topic, [])
            return
        if run is self._run and self._here:
            for topic, count in zip(changes, replies[: len(calls)], strict=True):
                # Nothing had changed and nothing waits: then Redis has lost some, or taken this node for dead.
                nothing_new = not changes[topic] and topic not in self._changes
                if nothing_new and not failed and count != len(self._sessions.get(topic, ())):
                    self._tell_all(topic)
        for (topic, tokens), reply in zip(asking.items(), replies[len(calls) :], strict=True):
            for token in tokens:
                if isinstance(reply, RedisFailed):
                    self._hub.presence_state(token, self._own(topic))
                else:
                    self._hub.presence_state(token, [_member(*pair) for pair in _pairs(reply)])

    async def _tell_users(self) -> None:
        users = list(itertools.islice(self._routes.items(), GATHERED_USERS))
        for user, _ in users:
            del self._routes[user]
        if self._calls.sharded:
            calls: list[ScriptCall] = [self._calls.routes(self._base, [each]) for each in users]
        else:
            calls = [self._calls.routes(self._base, users)]
        if failed := _first_failure(await self._link.run_scripts(calls)):
            self._fail(failed)
            if self._here and self._paused:
                self._routes = dict(users) | self._routes

    def _renew(self) -> None:
        for topic in self._sessions:
            self._changes.setdefault(topic, [])
        for user in self._users:
            self._routes.setdefault(user, True)

    def _tell_all(self, topic: bytes) -> None:
        sessions = self._sessions.get(topic, {})
        self._changes[topic] = [self._entered(session, *each) for session, each in sessions.items()]

    def _change(self, topic: bytes, change: Change) -> None:
        if self._here:
            self._changes.setdefault(topic, []).append(change)
            self._something.set()

    def _route(self, user: bytes, is_here: bool) -> None:
        if self._here:
            self._routes[user] = is_here
            self._something.set()

    def _entered(self, session: bytes, user: bytes, joined_ms: int, info: bytes) -> Change:
        parts = (self._run, user, joined_ms.to_bytes(8, "little"), info)
        return b"+", session, user, b"".join(map(framed, parts))

    def _own(self, topic: bytes) -> list[Member]:
        found = self._sessions.get(topic, {}).items()
        return [(user, session, joined_ms, info) for session, (user, joined_ms, info) in found]

    def _next_run(self) -> bytes:
        return b"%b-%d" % (self._base, next(self._numbers))


def _cut(changes: list[Change]) -> tuple[list[Change], list[Change]]:
    return changes[:GATHERED_CHANGES], changes[GATHERED_CHANGES:]


def _first_failure(replies: Sequence[Any]) -> RedisFailed | None:
    return next((reply for reply in replies if isinstance(reply, RedisFailed)), None)


def _pairs(flat: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _member(session: bytes, member: bytes) -> Member:
    _, user, joined, info = split_bodies(member)
    return user, session, int.from_bytes(joined, "little"), info
