"""Topics that this node is subscribed to, and all that is read of streams: for subscribers, for history, for gaps.

A topic's channel is subscribed to first; once that is confirmed its stream is read, and so whenever its feed says so
(see `redis_topics.py`). All who wait for a topic are answered from one read. Reads of different topics go out together.
A topic that begins here, and of which nobody wants messages, is only asked where it is, many of them by one call: the
inboxes of users who connect, which are ten thousand at once after a restart.

Between `pause` and `go_on` nothing is read and everything waits, a read that failed too. While Redis is away (between
`lose` and `come_back`) everything is refused.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

import msgspec

from realtime_communication.broker.redis_calls import Calls
from realtime_communication.broker.redis_errors import RedisFailed
from realtime_communication.broker.redis_frames import Publications
from realtime_communication.broker.redis_link import RedisLink, ScriptCall
from realtime_communication.broker.redis_topics import FeedState, Known, Page, Position, TopicFeed
from realtime_communication.broker.upstream import UpstreamHub
from realtime_communication.resilience.supervision import honour_cancellation

PAGE_MESSAGES: Final = 256  # most messages in one answer of Redis
READ_BYTES: Final = 32 << 20  # of messages gathered for one topic; what is before them counts as missing
GATHERED_TOPICS: Final = 128  # read together
REMEMBERED: Final = 100_000  # topics whose positions are remembered while Redis is away, to be compared with its own
OPENED_TOPICS: Final = 64  # by one call
ANSWERED: Final = 1000  # subscribers answered from one read
REFRESH_SECS: Final = 30.0  # the streams of topics that are subscribed to are kept, and looked after, this often
CONFIRM_SECS: Final = 5.0  # for a channel's subscription to be confirmed
RETRY_MS: Final = 1000
REREAD_SECS: Final = 1.0  # until a stream is read again that was refused for a reason of its own

AWAY: Final = ("unavailable", "Redis cannot be reached; try again later", RETRY_MS)


class Channels(Protocol):
    """The part of the feed that is needed here."""

    def subscribe(self, channel: bytes, /) -> asyncio.Future[None]: ...
    def unsubscribe(self, channel: bytes, /) -> None: ...


class _Wanted(msgspec.Struct, frozen=True):
    token: int
    position: Position | None
    history: int


class _Subscription:
    """A topic that the hub is subscribed to."""

    def __init__(self, feed: TopicFeed, confirmed: asyncio.Future[None], deadline: float) -> None:
        self.feed = feed
        self.confirmed = confirmed
        self.deadline = deadline
        self.waiting: list[_Wanted] = []


class _HistoryWanted(msgspec.Struct, frozen=True):
    topic: bytes
    token: int
    position: Position | None
    limit: int
    reverse: bool
    shown: int
    shown_ms: int


class _Reading:
    """A read of one topic, page by page, for those who wait at its beginning."""

    def __init__(self, subscription: _Subscription) -> None:
        self.subscription = subscription
        self.wanted = subscription.waiting[:ANSWERED]
        del subscription.waiting[:ANSWERED]
        self.condemned: int | None = None
        self.page: Page | None = None
        self._bodies: list[bytes] = []
        self._size = 0
        self._first = 0
        self._target: Position | None = None
        self._is_first = True
        subscription.feed.begin_read()

    def call(self, calls: Calls) -> ScriptCall:
        """The next page's."""
        feed = self.subscription.feed
        if self._target is not None:
            last = (self._target[0], self._first + len(self._bodies) - 1)
            return calls.read(feed.topic, [last], newest=0, most=PAGE_MESSAGES, known=None, condemned=None)
        positions = {each.position for each in self.wanted if each.position is not None}
        known: Position | None = None
        if feed.epoch:
            known = (feed.epoch, feed.offset)
            positions |= {known, (feed.epoch, max(0, feed.offset - 1))}  # the last message too, to know it again
        newest = max((each.history for each in self.wanted), default=0)
        return calls.read(
            feed.topic, positions, newest=newest, most=PAGE_MESSAGES, known=known, condemned=self.condemned
        )

    @property
    def only_opens(self) -> bool:
        """Whether where the topic is is all that is wanted of it."""
        return (
            self._is_first
            and not self.subscription.feed.epoch
            and not any(each.position or each.history for each in self.wanted)
        )

    def take_position(self, epoch: bytes, offset: bytes) -> bool:
        """Where the topic is. True when it has to be read after all."""
        self._is_first = False
        return not epoch or self.take((epoch, offset, b"%d" % (int(offset) + 1)))

    def take(self, reply: Sequence[bytes]) -> bool:
        """A page came. True when another one is needed."""
        epoch, offset, first = (int(each) for each in reply[:3])
        bodies = reply[3:]
        if self._target is None or self._target[0] != epoch:
            self._target = (epoch, offset)
            self._bodies.clear()
            self._size = 0
        if not self._bodies or first != self._first + len(self._bodies):
            self._bodies.clear()
            self._size = 0
            self._first = first
        self._bodies += bodies
        self._size += sum(map(len, bodies))
        while self._size > READ_BYTES:
            self._size -= len(self._bodies.pop(0))
            self._first += 1
        last = self._first + len(self._bodies) - 1
        if bodies and last < self._target[1]:
            return True
        self.page = Page(epoch, max(last, self._target[1]), self._first, tuple(self._bodies))
        return False

    def begin_again(self, condemned: int) -> None:
        """Read from the start; the epoch `condemned` has to end."""
        self.condemned = condemned
        self._target = self.page = None
        self._bodies.clear()
        self._size = 0


class RedisReading:
    """See the head of this module. `fail` is told that Redis failed."""

    def __init__(
        self,
        hub: UpstreamHub,
        link: RedisLink,
        calls: Calls,
        channels: Channels,
        fail: Callable[[RedisFailed], None],
        *,
        refresh_secs: float = REFRESH_SECS,
        confirm_secs: float = CONFIRM_SECS,
    ) -> None:
        self.gaps = 0
        self.resets = 0
        self.strays = 0
        self.reads = 0
        self._hub = hub
        self._link = link
        self._calls = calls
        self._channels = channels
        self._fail = fail
        self._refresh_secs = refresh_secs
        self._confirm_secs = confirm_secs
        self._topics: dict[bytes, _Subscription] = {}
        self._unconfirmed: set[_Subscription] = set()
        self._before: dict[bytes, Known] = {}  # what feeds had come to when Redis went away
        self._due: dict[bytes, None] = {}  # topics to be read
        self._history: list[_HistoryWanted] = []
        self._here = self._paused = False
        self._something = asyncio.Event()

    @property
    def topics(self) -> int:
        """How many topics are subscribed to."""
        return len(self._topics)

    # What the hub says

    def subscribe(self, topic: bytes, token: int, position: Position | None, history: int) -> None:
        """Open the topic's feed, or read of it, for a subscriber."""
        if not self._here:
            self._refuse(token)
            return
        subscription = self._topics.get(topic)
        if subscription is None:
            confirmed = self._channels.subscribe(self._calls.keys.channel(topic))
            deadline = asyncio.get_running_loop().time() + self._confirm_secs
            feed = TopicFeed(topic, self._hub, self._before.pop(topic, None))
            subscription = self._topics[topic] = _Subscription(feed, confirmed, deadline)
            self._unconfirmed.add(subscription)
            confirmed.add_done_callback(functools.partial(self._on_confirmed, subscription))
        subscription.waiting.append(_Wanted(token, position, history))
        self._want(subscription)

    def unsubscribe(self, topic: bytes) -> None:
        """The feed is no longer needed."""
        subscription = self._topics.pop(topic, None)
        if subscription is not None:
            self._end(subscription)

    def history(
        self,
        topic: bytes,
        token: int,
        position: Position | None,
        limit: int,
        reverse: bool,
        shown: int = 0,
        shown_ms: int = 0,
    ) -> None:
        """Read a page for somebody, who is shown only so many of the newest messages, and for so long (0: all)."""
        if not self._here:
            self._refuse(token)
            return
        self._history.append(_HistoryWanted(topic, token, position, limit, reverse, shown, shown_ms))
        self._something.set()

    # What the feed says

    def receive(self, topic: bytes, frame: Publications) -> None:
        """A frame came on a topic's channel."""
        subscription = self._topics.get(topic)
        if subscription is not None and subscription.feed.receive(frame):
            self._want(subscription)

    def suspect(self, topics: Iterable[bytes]) -> None:
        """Frames of these topics may have been lost."""
        for topic in topics:
            subscription = self._topics.get(topic)
            if subscription is not None:
                subscription.feed.suspect()
                self._want(subscription)

    # What the engine says

    def lose(self) -> None:
        """Redis is away: end all feeds, refuse whoever waits."""
        self._here = False
        self._due.clear()
        topics, self._topics = self._topics, {}
        for topic, subscription in topics.items():
            known = subscription.feed.known
            if known is not None:
                self._before[topic] = known
        for subscription in topics.values():
            self._end(subscription)
        history, self._history = self._history, []
        for wanted in history:
            self._refuse(wanted.token)

    def come_back(self) -> None:
        """Redis is back."""
        self._here, self._paused = True, False
        while len(self._before) > REMEMBERED:
            del self._before[next(iter(self._before))]

    def pause(self) -> None:
        """Calls fail: let everything wait."""
        self._paused = True

    def go_on(self) -> None:
        """Calls succeed again: whoever waits is read for, and whatever may have been missed."""
        self._paused = False
        self.suspect(list(self._topics))
        self._something.set()

    async def run(self) -> None:
        """Read what is wanted until this is cancelled. May run several times at once."""
        while True:
            honour_cancellation()
            await self._something.wait()
            if self._paused or not (self._due or self._history):
                self._something.clear()
                continue
            await self._read_some()

    async def run_refresh(self) -> None:
        """Keep the streams of the topics that are subscribed to, until this is cancelled."""
        while True:
            honour_cancellation()
            await asyncio.sleep(self._refresh_secs)
            topics = list(self._topics)
            for first in range(0, len(topics), GATHERED_TOPICS):
                if self._paused:
                    break
                some = topics[first : first + GATHERED_TOPICS]
                replies = await self._link.run_scripts([self._calls.keep(topic) for topic in some])
                self.suspect(topic for topic, reply in zip(some, replies, strict=True) if reply == 0)

    def expire(self, now: float) -> None:
        """Refuse those whose channel is not confirmed in time; the feed goes on trying. `now`: of the loop."""
        for subscription in self._unconfirmed:
            if subscription.waiting and subscription.deadline <= now and not subscription.confirmed.done():
                waiting, subscription.waiting = subscription.waiting, []
                self._refuse_all(waiting)

    async def _read_some(self) -> None:
        topics = list(itertools.islice(self._due, GATHERED_TOPICS))
        for topic in topics:
            del self._due[topic]
        readings = [_Reading(self._topics[topic]) for topic in topics if topic in self._topics]
        history, self._history = self._history[:GATHERED_TOPICS], self._history[GATHERED_TOPICS:]
        readings = await self._open(readings)
        while readings or history:
            self.reads += len(readings) + len(history)
            replies = await self._link.run_scripts(
                [
                    *(reading.call(self._calls) for reading in readings),
                    *(
                        self._calls.history(
                            each.topic, each.position, each.limit, each.reverse, each.shown, each.shown_ms
                        )
                        for each in history
                    ),
                ]
            )
            for wanted, reply in zip(history, replies[len(readings) :], strict=True):
                self._answer_history(wanted, reply)
            history = []
            # Those that are not through, because of a further page or of a history that has to end.
            readings = [
                reading for reading, reply in zip(readings, replies, strict=False) if self._go_on(reading, reply)
            ]

    async def _open(self, readings: list[_Reading]) -> list[_Reading]:
        """Ask where those topics are of which that is all that is wanted; the others are left to be read."""
        opening = [] if self._calls.sharded else [reading for reading in readings if reading.only_opens]
        if len(opening) < 2:
            return readings
        left = [reading for reading in readings if not reading.only_opens]
        some = [opening[first : first + OPENED_TOPICS] for first in range(0, len(opening), OPENED_TOPICS)]
        calls = [self._calls.open([reading.subscription.feed.topic for reading in each]) for each in some]
        self.reads += len(opening)
        for each, reply in zip(some, await self._link.run_scripts(calls), strict=True):
            if isinstance(reply, RedisFailed):
                for reading in each:
                    self._fail_reading(reading, reply)
                continue
            for reading, epoch, offset in zip(each, reply[::2], reply[1::2], strict=True):
                if reading.take_position(epoch, offset) or self._conclude(reading):
                    left.append(reading)
        return left

    def _go_on(self, reading: _Reading, reply: Any) -> bool:
        """The answer to a read. True when it has to go on."""
        if isinstance(reply, RedisFailed):
            self._fail_reading(reading, reply)
            return False
        return reading.take(reply) or self._conclude(reading)

    def _fail_reading(self, reading: _Reading, why: RedisFailed) -> None:
        subscription, feed = reading.subscription, reading.subscription.feed
        feed.fail_read()
        self._fail(why)
        if self._paused and self._topics.get(feed.topic) is subscription:
            subscription.waiting[:0] = reading.wanted  # `go_on` has everything read again
        else:
            self._refuse_all(reading.wanted)
            if feed.state is not FeedState.LIVE:  # nothing else would ever wake it: what comes is only kept
                asyncio.get_running_loop().call_later(REREAD_SECS, self._want, subscription)

    def _conclude(self, reading: _Reading) -> bool:
        """All of it was read. True when it has to be read once more."""
        subscription, feed = reading.subscription, reading.subscription.feed
        assert reading.page is not None
        if reading.condemned is None and feed.is_other_history(reading.page):
            reading.begin_again(reading.page.epoch)
            return True
        if self._topics.get(feed.topic) is not subscription:  # unsubscribed meanwhile
            self._refuse_all(reading.wanted)
            return False
        self._finish(reading, reading.page)
        return False

    def _finish(self, reading: _Reading, page: Page) -> None:
        subscription, feed = reading.subscription, reading.subscription.feed
        before = (feed.gaps, feed.resets, feed.strays)
        feed.settle(page)
        extended = feed.extended(page)
        if extended is None:
            subscription.waiting[:0] = reading.wanted
        else:
            self._answer(reading.wanted, extended)
        again = feed.finish_read()
        self.resets += feed.resets - before[1]
        self.strays += feed.strays - before[2]
        if again or subscription.waiting:
            self._want(subscription)

    def _answer(self, wanted: Sequence[_Wanted], page: Page) -> None:
        joined: dict[int, bytes] = {}  # messages by how many of the last ones they are

        def newest(count: int) -> bytes:
            if count not in joined:
                joined[count] = b"".join(page.bodies[len(page.bodies) - count :])
            return joined[count]

        for each in wanted:
            if not each.token:
                continue
            missed = page.after(each.position[1]) if each.position and each.position[0] == page.epoch else None
            count = min(each.history, len(page.bodies)) if missed is None else len(missed)
            first = page.offset + 1 - count
            recovered = missed is not None
            self._hub.subscribed(each.token, page.epoch, page.offset, recovered, first, newest(count))

    def _answer_history(self, wanted: _HistoryWanted, reply: Any) -> None:
        if isinstance(reply, RedisFailed):
            self._fail(reply)
            if self._paused and self._here:
                self._history.append(wanted)
            else:
                self._refuse(wanted.token)
        elif wanted.token:
            epoch, offset, first = (int(each) for each in reply[:3])
            self._hub.history_page(wanted.token, epoch, offset, first, b"".join(reply[3:]))

    def _on_confirmed(self, subscription: _Subscription, confirmed: asyncio.Future[None]) -> None:
        self._unconfirmed.discard(subscription)
        if confirmed.cancelled():
            return
        if confirmed.exception() is None:
            self._want(subscription)
        elif self._topics.get(subscription.feed.topic) is subscription:  # refused for good
            self.unsubscribe(subscription.feed.topic)

    def _want(self, subscription: _Subscription) -> None:
        feed = subscription.feed
        is_ready = subscription.confirmed.done() and not feed.reading
        if is_ready and self._topics.get(feed.topic) is subscription:
            self._due[feed.topic] = None
            self._something.set()

    def _end(self, subscription: _Subscription) -> None:
        self._due.pop(subscription.feed.topic, None)
        self._unconfirmed.discard(subscription)
        self._channels.unsubscribe(self._calls.keys.channel(subscription.feed.topic))
        self._refuse_all(subscription.waiting)

    def _refuse_all(self, wanted: Iterable[_Wanted]) -> None:
        for each in wanted:
            self._refuse(each.token)

    def _refuse(self, token: int) -> None:
        if token:
            self._hub.refuse_waiting(token, *AWAY)
