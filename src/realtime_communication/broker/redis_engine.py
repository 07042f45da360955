"""The engine that joins a node to the others over Redis: publications, subscriptions, history and presence.

Theory of operation. The hub hands over what there is to do (`upstream.py`), and everything about one topic goes to
Redis in order. Publications are gathered while earlier ones are on their way, so that batches grow with the load
(`redis_publishing.py`); subscribers and history read streams (`redis_reading.py`); sessions are told of
(`redis_presence.py`). What is published anywhere comes back over the feed, the connections that only listen.

The engine is HERE or AWAY. When the link is down or calls fail it pauses, and everything waits: to serve alone for a
moment would cost every subscriber its recovery, twice. After PATIENCE_SECS, or at once where Redis refuses what it must
not refuse, such as writes for want of memory, it goes away: whoever waits for an answer is refused, and the hub serves
alone. What is published meanwhile is kept up to a bound. When Redis takes writes again, what was kept is sent, and only
then does the hub come back to the topics as they are in Redis::

    AWAY ──link and feed up, a write succeeds──▶ RETURNING ──all is sent──▶ HERE ◀──a write succeeds──▶ HERE, paused
      ▲                                              │ any failure            │ refused for good            │ too long
      └──────────────────────────────────────────────┴────────────────────────┴─────────────────────────────┘
"""

from __future__ import annotations

import asyncio
import collections
import enum
import random
import uuid
from collections.abc import Callable, Sequence
from typing import Final

from realtime_communication.broker.redis_calls import Calls, StreamBounds
from realtime_communication.broker.redis_errors import RedisFailed, Remedy
from realtime_communication.broker.redis_feed import Feed
from realtime_communication.broker.redis_frames import PresenceChange, Publications, Reset, Unreadable, parse_frame
from realtime_communication.broker.redis_keys import TopicKeys
from realtime_communication.broker.redis_link import (
    LinkState,
    RedisLink,
    first_to_fail,
)
from realtime_communication.broker.redis_outgoing import Queue
from realtime_communication.broker.redis_presence import RedisPresence
from realtime_communication.broker.redis_publishing import OF_THE_CALL, RedisPublishing
from realtime_communication.broker.redis_reading import RedisReading
from realtime_communication.broker.upstream import UpstreamHub
from realtime_communication.errors import CircuitOpen
from realtime_communication.observability.logs import get_logger
from realtime_communication.resilience.breaker import CircuitBreaker
from realtime_communication.resilience.supervision import Service, honour_cancellation

PUBLISHERS: Final = 3  # calls of publications that are on their way at once
READERS: Final = 2
LOOK_SECS: Final = 0.1  # how often an engine that is away looks whether Redis is back
DRAIN_LOOK_SECS: Final = 0.005
JOIN_LOOK_SECS: Final = 0.01
RETRY_SECS: Final = 0.5  # after a write that was refused although the link was up
PATIENCE_SECS: Final = 2.0  # for which calls may fail before the node serves alone
FEED_PATIENCE_SECS: Final = 5.0  # for which the feed may be down before the node serves alone
CLAIM_SECS: Final = 13.0  # how often the node says that its id is its own
ENDED: Final = "the engine has ended"

_log = get_logger(__name__)


class EngineState(enum.Enum):
    """How the engine is."""

    AWAY = "away"
    RETURNING = "returning"
    HERE = "here"


class RedisEngine:
    """See the head of this module. `services` have to run; the hub is served as long as they do.

    `breaker` is the one of the publish path. `node_id` has to be another one for each worker of a node.
    `tells_own_presence`: the hub does not tell of its own sessions by itself. `times` are those above, in tests.
    """

    def __init__(
        self,
        hub: UpstreamHub,
        link: RedisLink,
        breaker: CircuitBreaker,
        feed: Feed,
        *,
        node_id: str,
        bounds: StreamBounds,
        tells_own_presence: bool = False,
        queue: Queue | None = None,
        times: dict[str, float] | None = None,
    ) -> None:
        self.state = EngineState.AWAY
        self.reason = "not reached yet"  # why it went away last
        self.losses = 0  # times it went away
        self.namesake = False  # another node has this one's id
        self.skipped: collections.Counter[str] = collections.Counter()  # frames, by why
        run = uuid.uuid4().hex[:16].encode()
        times = times or {}
        self._run = run
        self._hub = hub
        self._link = link
        self._tells_own = tells_own_presence
        self._node_key = link.key(f"node:{node_id}").encode()
        self._keys = TopicKeys(link.key(""))
        self._calls = Calls(self._keys, bounds, sharded=link.topology.sharded)
        queue = queue or Queue(run)
        self._feed = feed
        feed.on_message, feed.on_restored, feed.on_lost = self._on_message, self._on_restored, self._on_lost
        reading = {name: times[name] for name in ("refresh_secs", "confirm_secs") if name in times}
        presence = {name: times[name] for name in ("renew_secs",) if name in times}
        self._publishing = RedisPublishing(hub, link, self._calls, breaker, queue, self._fail)
        self._reading = RedisReading(hub, link, self._calls, self._feed, self._fail, **reading)
        self._presence = RedisPresence(hub, link, self._calls, run, self._fail, **presence)
        self._has_claimed = False
        self._claim_secs = times.get("claim_secs", CLAIM_SECS)
        self._patience = times.get("patience_secs", PATIENCE_SECS)
        self._feed_patience = times.get("feed_patience_secs", FEED_PATIENCE_SECS)
        self._lost_generation = 0  # of the link, when the engine went away
        self._feed_down_since: float | None = None
        self._paused_since: float | None = None  # calls fail since then
        self._something = asyncio.Event()  # to take from the hub
        self._handlers: dict[str, Callable[..., None]] = {
            "publish": self._publishing.publish,
            "subscribe": self._reading.subscribe,
            "unsubscribe": self._reading.unsubscribe,
            "history": self._reading.history,
            "enter": self._presence.enter,
            "exit": self._presence.exit,
            "moved": self._presence.moved,
            "presence": self._presence.presence,
            "user_here": self._presence.user_here,
            "user_gone": self._presence.user_gone,
        }
        link.observers.append(self._on_link)

    def services(self) -> list[Service]:
        """What has to run, beside the link and its feed."""
        return [Service("Redis engine", self.run)]

    def configure(self, bounds: StreamBounds) -> None:
        """Keep other messages of each topic from now on."""
        self._calls.bounds = bounds

    def health(self) -> tuple[bool, dict[str, object]]:
        """Whether the node is joined to the others, and what `/health` shows of it."""
        return self.state is EngineState.HERE, {
            "state": self.state.value,
            "reason": None if self.state is EngineState.HERE else self.reason,
            "feed": self._feed.up,
            "kept_publications": self._publishing.queue.messages,
            "dropped_publications": self._publishing.queue.dropped,
            "same_node_id": self.namesake,
        }

    def statistics(self) -> dict[str, int]:
        """Counters and gauges; frames that were skipped are in `skipped`."""
        queue = self._publishing.queue
        return {
            "joined": int(self.state is EngineState.HERE),
            "published": self._publishing.published,
            "refused": self._publishing.refused,
            "dropped": queue.dropped,
            "waiting": queue.messages,
            "waiting_bytes": queue.bytes,
            "losses": self.losses,
            "topics": self._reading.topics,
            "reads": self._reading.reads,
            "resets": self._reading.resets,
            "strays": self._reading.strays,
        }

    async def run(self) -> None:
        """Serve the hub until this is cancelled; without it the hub serves alone."""
        self._hub.set_upstream(self._something.set)
        self._hub.upstream_lost()
        try:
            await first_to_fail(
                self._take_all(),
                *(self._publishing.run() for _ in range(PUBLISHERS)),
                *(self._reading.run() for _ in range(READERS)),
                self._reading.run_refresh(),
                self._presence.run(),
                self._claim_all(),
                self._watch(),
            )
        finally:
            self._lose(ENDED)
            self._hub.set_upstream(None)

    async def joined(self, secs: float) -> bool:
        """Wait until the node is joined to the others, for at most so long or until the link fails; whether it is."""
        deadline = asyncio.get_running_loop().time() + secs
        while self.state is not EngineState.HERE:
            if self._link.state is LinkState.DOWN or asyncio.get_running_loop().time() >= deadline:
                return False
            await asyncio.sleep(JOIN_LOOK_SECS)
        return True

    async def drain(self, secs: float) -> None:
        """Wait until all that was handed over has been told, for at most so long. Before the services end."""
        try:
            async with asyncio.timeout(secs):
                while True:
                    self._take()
                    told = self._publishing.queue.is_empty and self._presence.is_told
                    if told or self.state is not EngineState.HERE:
                        return
                    await asyncio.sleep(DRAIN_LOOK_SECS)
        except TimeoutError:
            _log.warning("not everything could be told to the other nodes before the end", secs=secs)

    # What comes

    async def _take_all(self) -> None:
        while True:
            honour_cancellation()
            await self._something.wait()
            self._something.clear()
            self._take()

    def _take(self) -> None:
        handlers = self._handlers
        for item in self._hub.take_upstream():
            handlers[item[0]](*item[1:])

    def _on_message(self, channel: bytes, data: bytes) -> None:
        topic = self._keys.topic(channel)
        if topic is None:
            return
        frame = parse_frame(data)
        if isinstance(frame, Publications):
            self._reading.receive(topic, frame)
        elif isinstance(frame, PresenceChange):
            if self._tells_own or not self._presence.is_own(frame):
                self._hub.tell_presence(topic, frame.leave, frame.user, frame.session, frame.info)
        elif isinstance(frame, Reset):
            self._reading.suspect([topic])
        else:
            self._skip(frame)

    def _skip(self, why: Unreadable) -> None:
        self.skipped[why.value] += 1
        # One line for each kind of trouble: whoever writes to a channel must not fill the log as well.
        if self.skipped[why.value] == 1:
            _log.warning("a message on a topic's channel is skipped; more are only counted", why=why.value)

    def _on_restored(self, channels: Sequence[bytes]) -> None:
        self._feed_down_since = None
        topics = (self._keys.topic(channel) for channel in channels)
        self._reading.suspect(topic for topic in topics if topic is not None)

    def _on_lost(self) -> None:
        self._feed_down_since = asyncio.get_running_loop().time()

    def _on_link(self) -> None:
        if self._link.state is LinkState.DOWN:
            self._pause("the link is down")

    # Going and coming back

    def _fail(self, failed: RedisFailed) -> None:
        """A call failed after all attempts: when it was not the call's fault, Redis is away, or will be."""
        if failed.reply in OF_THE_CALL:
            return
        if failed.remedy is Remedy.GIVE_UP:
            self._lose(str(failed))
        else:
            self._pause(str(failed))

    def _pause(self, reason: str) -> None:
        if self.state is EngineState.RETURNING:
            self._lose(reason)
        elif self.state is EngineState.HERE and self._paused_since is None:
            self.reason = reason
            self._paused_since = asyncio.get_running_loop().time()
            self._publishing.pause()
            self._reading.pause()
            self._presence.pause()

    async def _try_to_go_on(self, paused_since: float) -> None:
        """Go on as soon as a write succeeds; go away when that takes too long."""
        try:
            async with asyncio.timeout_at(paused_since + self._patience):
                await self._link.joined()
                (reply,) = await self._link.run_scripts([self._calls.claim(self._node_key, self._run)])
        except TimeoutError:
            self._lose(self.reason)
            return
        if isinstance(reply, RedisFailed):
            self._fail(reply)
        elif self._paused_since is paused_since:
            self._note_claim(reply)
            self._paused_since = None
            self._publishing.go_on()
            self._reading.go_on()
            self._presence.go_on()

    def _lose(self, reason: str) -> None:
        if self.state is EngineState.AWAY:
            return
        was, self.state = self.state, EngineState.AWAY
        self.reason = reason
        self._paused_since = None
        self._lost_generation = self._link.generation
        if was is EngineState.RETURNING:
            self._publishing.pause()
            return
        self.losses += 1
        self._take()  # what the hub asked before it knows is refused
        self._publishing.lose()
        self._reading.lose()
        self._presence.lose()
        if reason != ENDED:  # on purpose, or the supervisor tells why
            _log.warning("this node serves alone", reason=reason)
        self._hub.upstream_lost()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            honour_cancellation()
            await asyncio.sleep(LOOK_SECS)
            now = loop.time()
            if self.state is EngineState.HERE:
                self._reading.expire(now)
                if self._paused_since is not None:
                    await self._try_to_go_on(self._paused_since)
                elif self._feed_down_since is not None and now - self._feed_down_since > self._feed_patience:
                    self._lose("the feed is down")
            elif self._link.state is LinkState.UP and self._feed.up:
                self._feed_down_since = None
                if await self._takes_writes():
                    await self._come_back()
                else:
                    await asyncio.sleep(random.uniform(RETRY_SECS / 2, RETRY_SECS))  # noqa: S311

    async def _takes_writes(self) -> bool:
        """Whether a write succeeds: one that tells whose this node's id is.

        A link that has come up again proves that Redis is back; else it is left alone for as long as the breaker says.
        """
        write = self._calls.claim(self._node_key, self._run)
        try:
            reply = await self._publishing.takes_writes(write, at_once=self._link.generation != self._lost_generation)
        except CircuitOpen:
            return False
        if isinstance(reply, RedisFailed):
            self.reason = str(reply)
            return False
        self._note_claim(reply)
        return True

    async def _come_back(self) -> None:
        self.state = EngineState.RETURNING
        kept = self._publishing.queue.messages
        if not await self._publishing.send_kept():
            return
        self.state = EngineState.HERE
        self._publishing.come_back()
        self._reading.come_back()
        self._presence.come_back()
        self._take()
        _log.info("this node is joined to the others", sent=kept, dropped=self._publishing.queue.dropped)
        self._hub.upstream_back()

    async def _claim_all(self) -> None:
        while True:
            honour_cancellation()
            await asyncio.sleep(self._claim_secs)
            if self.state is EngineState.HERE:
                (reply,) = await self._link.run_scripts([self._calls.claim(self._node_key, self._run)])
                if isinstance(reply, RedisFailed):
                    self._fail(reply)
                else:
                    self._note_claim(reply)

    def _note_claim(self, holder: bytes | None) -> None:
        """Another run that says so after this one did is alive; the first time it may be one that has ended."""
        before, self.namesake = self.namesake, self._has_claimed and holder not in (None, self._run)
        self._has_claimed = True
        if self.namesake and not before:
            _log.warning("another node has this node's id: each must have its own; what is in Redis goes by the run")
