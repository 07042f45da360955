"""Many clients in one event loop that reconnect, recover and tell a `Checker` everything they see.

A `Swarm` has the addresses of one or more servers; its clients take them in turn, the next one after each lost
connection. Publishers give each message a unique id and go on with those that were not answered after a reconnect,
under the same idempotency key. Written for numbers from 2 to 10,000: a client costs one task and no thread.

    checker = Checker()
    async with Swarm([server.url], checker) as swarm:
        await swarm.subscribe(100, ["room"])
        await swarm.publish(3, ["room"], rate=200)
        ...                                # faults
        await swarm.settle()
    checker.assert_sound()
"""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Sequence
from typing import Self

from serving.checker import Checker
from serving.member import TICK_SECS, Client, Publisher, Subscriber
from serving.tokens import token

SETTLE_SECS = 15.0
OPENING_MOST = 64
"""Connections of a swarm that are being opened at any time, so that 10,000 do not overrun the server's backlog."""


class Swarm:
    """Clients of the servers at ``urls``. ``async with`` ends them all.

    ``reconnect_secs`` is the range of the pause before a reconnect; a server's ``Closing`` may ask for a longer one,
    up to ``longest_pause_secs``. ``on_delivery`` is called with each live message's age in nanoseconds;
    ``sign`` makes a user's token.
    """

    def __init__(
        self,
        urls: Sequence[str],
        checker: Checker,
        *,
        reconnect_secs: tuple[float, float] = (0.02, 0.2),
        longest_pause_secs: float = 1.0,
        on_delivery: Callable[[int], None] | None = None,
        sign: Callable[[str], str] = token,
    ) -> None:
        self.urls = list(urls)
        self.checker = checker
        self.reconnect_secs = reconnect_secs
        self.longest_pause_secs = longest_pause_secs
        self.on_delivery = on_delivery
        self.sign = sign
        self.subscribers: list[Subscriber] = []
        self.publishers: list[Publisher] = []
        self.failures: list[Exception] = []
        self.message_ids = itertools.count(1)
        self.opening = asyncio.Semaphore(OPENING_MOST)
        self._joined = itertools.count()
        self._running: list[asyncio.Task[None]] = []
        self._publishing: list[asyncio.Task[None]] = []
        self._serial = f"{random.getrandbits(32):08x}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop_publishing()
        for client in self.clients:
            client.stop()
        if self._running:
            await asyncio.wait(self._running)
        self._raise_failure()

    @property
    def clients(self) -> list[Client]:
        return [*self.publishers, *self.subscribers]

    async def subscribe(
        self, count: int, topics: Sequence[str], *, receive_buffer: int | None = None
    ) -> list[Subscriber]:
        """So many more clients that each subscribe to ``topics``; returns once they all are."""
        first = len(self.subscribers)
        made = [
            Subscriber(self, f"s{number}-{self._serial}", number, topics, receive_buffer)
            for number in range(first, first + count)
        ]
        self.subscribers += made
        await self._start(made)
        return made

    def join(self, topics: Sequence[str]) -> Subscriber:
        """One more subscriber, which begins to connect."""
        number = next(self._joined)
        made = Subscriber(self, f"j{number}-{self._serial}", number, topics, None)
        self.subscribers.append(made)
        self._running.append(asyncio.create_task(made.run(), name=made.name))
        return made

    def leave(self, client: Subscriber) -> None:
        """It goes for good."""
        self.subscribers.remove(client)
        for track in client.tracks.values():
            self.checker.tracks.remove(track)  # nobody waits for what it misses
        client.stop()

    async def publish(
        self, count: int, topics: Sequence[str], rate: float, *, padding_bytes: int = 0
    ) -> list[Publisher]:
        """So many more clients that publish, ``rate`` messages a second all of them together."""
        first = len(self.publishers)
        made = [
            Publisher(self, f"p{number}-{self._serial}", number, topics, rate / count, "x" * padding_bytes)
            for number in range(first, first + count)
        ]
        self.publishers += made
        await self._start(made)
        self._publishing += [asyncio.create_task(publisher.publish()) for publisher in made]
        return made

    async def stop_publishing(self) -> None:
        """No more new messages."""
        for task in self._publishing:
            task.cancel()
        if self._publishing:
            await asyncio.wait(self._publishing)
        failed = [task.exception() for task in self._publishing if not task.cancelled()]
        self._publishing.clear()
        if failed:
            raise AssertionError(f"a publisher failed: {failed}")

    async def ready(self, secs: float = SETTLE_SECS) -> bool:
        """Wait until every client is connected and subscribed; False when that took too long."""
        return await self.until(lambda: all(client.is_ready for client in self.clients), secs)

    def away(self) -> str:
        """Who is not ready, for an assertion's message."""
        away = [client for client in self.clients if not client.is_ready]
        states = [f"{client.name}: opened {client.opened} times, closes {client.closes}" for client in away[:5]]
        return f"{len(away)} clients are not back: {states}"

    async def settle(self, secs: float = SETTLE_SECS) -> None:
        """Stop publishing, wait until nothing is under way any more, and finish the checker's account.

        What is missing after ``secs`` the checker reports as lost; a client that is not back, and an unanswered
        publication are failures here.
        """
        await self.stop_publishing()
        back = await self.ready(secs)
        answered = await self.until(lambda: not any(one.unanswered for one in self.publishers), secs)
        await self.until(self._is_settled, secs)
        self.checker.finish()
        self.checker.assert_sound()
        assert back, self.away()
        assert answered, f"unanswered: {[(one.name, list(one.unanswered)[:5]) for one in self.publishers]}"

    def _is_settled(self) -> bool:
        return self.checker.violation_count > 0 or all(track.is_caught_up for track in self.checker.tracks)

    async def until(self, reached: Callable[[], bool], secs: float = SETTLE_SECS) -> bool:
        """Whether ``reached`` becomes true in time. A client that failed is raised."""
        deadline = time.monotonic() + secs
        while not reached():
            self._raise_failure()
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(TICK_SECS)
        return True

    def _raise_failure(self) -> None:
        """What went wrong in a client: something from the server that is no envelope, or a fault of the swarm's own."""
        for error in self.failures:
            raise error
        for task in self._running:
            if task.done():
                task.result()

    async def _start(self, clients: Sequence[Client]) -> None:
        self._running += [asyncio.create_task(client.run(), name=client.name) for client in clients]
        there = await self.until(lambda: all(client.is_ready for client in clients), max(20.0, len(clients) / 100))
        assert there, f"{sum(not client.is_ready for client in clients)} of {len(clients)} clients did not connect"
