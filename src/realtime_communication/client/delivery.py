"""From the connection to the application: bounded queues, iterators, callbacks that cannot hurt each other."""

from __future__ import annotations

import asyncio
import collections
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

from realtime_communication.client.errors import ClientError

__all__ = ["Callback", "EventQueue", "pump"]

T = TypeVar("T")
Callback = Callable[[T], Awaitable[None] | None]
"""Gets one event after the other; may be a coroutine function, which is awaited before the next event."""

logger = logging.getLogger("realtime_communication.client")


class EventQueue(Generic[T]):
    """At most ``capacity`` events wait. One more pushes out the oldest; ``lost`` makes an event telling how many.

    The event that ``lost`` makes takes the place of those pushed out, so that the reader meets it exactly at the hole.
    """

    def __init__(self, capacity: int, lost: Callable[[int], T] | None) -> None:
        if capacity < 1:
            raise ValueError("a queue needs room for at least one event")
        self.capacity = capacity
        self._events: collections.deque[T] = collections.deque()
        self._lost = lost
        self._pushed_out = 0
        self._arrived = asyncio.Event()
        self._closed = False
        self._error: BaseException | None = None

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: T) -> None:
        """Append ``event``. Never blocks, never fails; nothing happens when the queue is closed."""
        if self._closed:
            return
        if len(self._events) >= self.capacity:
            self._events.popleft()
            self._pushed_out += 1
        self._events.append(event)
        self._arrived.set()

    def close(self, error: BaseException | None = None) -> None:
        """No more will come. Readers get what is waiting, then ``error``, or the end when it is None."""
        if not self._closed:
            self._closed = True
            self._error = error
            self._arrived.set()

    async def get(self) -> T:
        """The next event. Raises StopAsyncIteration at the end, or the error the queue was closed with."""
        while True:
            if self._pushed_out and self._lost is not None:
                count, self._pushed_out = self._pushed_out, 0
                return self._lost(count)
            if self._events:
                return self._events.popleft()
            if self._closed:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()

    async def __aiter__(self) -> AsyncIterator[T]:
        while True:
            try:
                event = await self.get()
            except StopAsyncIteration:
                return
            yield event


async def pump(queue: EventQueue[T], callback: Callback[T], what: str) -> None:
    """Give ``callback`` every event of ``queue``. What it raises is logged and harms no other event."""
    try:
        async for event in queue:
            try:
                result = callback(event)
                if inspect.isawaitable(result):
                    await result
            except Exception:
                logger.exception("the callback of %s failed", what)
    except ClientError as error:  # how the client ended: whoever waits for a request learns it as well
        logger.debug("%s ended: %r", what, error)
