"""One topic as the application sees it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Self

from realtime_communication.client.delivery import Callback, EventQueue, pump
from realtime_communication.client.errors import ClientClosed
from realtime_communication.client.events import Lagged, Message, Position, SubscriptionEvent

if TYPE_CHECKING:
    from realtime_communication.client.client import Client

__all__ = ["Subscription"]


class Subscription:
    """What ``Client.subscribe`` returns. Iterate over it, or give ``subscribe`` a callback.

    ``async for event in subscription`` yields ``Message``, ``Join``, ``Leave``, ``Lagged`` and ``Recovered``;
    ``messages()`` only the first kind. The iteration ends after ``unsubscribe`` or ``Client.close`` and raises
    what ended the subscription otherwise (RequestError, AuthenticationFailed, ConnectionLost).
    """

    def __init__(self, client: Client, topic: str, capacity: int, callback: Callback[SubscriptionEvent] | None) -> None:
        self.topic = topic
        self._client = client
        self._queue: EventQueue[SubscriptionEvent] = EventQueue(
            capacity, lambda count: Lagged(topic, count, recovered=False, source="queue")
        )
        self._pump: asyncio.Task[None] | None = None
        if callback is not None:
            self._pump = asyncio.create_task(pump(self._queue, callback, f"topic {topic!r}"))

    @property
    def position(self) -> Position | None:
        """The last position received, for a ``recover`` of a later run; events up to it may still be queued."""
        return self._client._position(self.topic)

    def __aiter__(self) -> AsyncIterator[SubscriptionEvent]:
        if self._pump is not None:
            raise RuntimeError("the events of this subscription go to its callback")
        return aiter(self._queue)

    async def messages(self) -> AsyncIterator[Message]:
        """Only the messages; whoever reads no ``Lagged`` and ``Recovered`` does not learn of holes."""
        async for event in self:
            if isinstance(event, Message):
                yield event

    async def unsubscribe(self) -> None:
        """End the subscription; events that wait can still be read. Raises RequestTimeout, RequestError."""
        await self._client.unsubscribe(self.topic)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(ClientClosed):
            await self.unsubscribe()

    def _put(self, event: SubscriptionEvent) -> None:
        self._queue.put(event)

    def _end(self, error: BaseException | None) -> None:
        self._queue.close(error)
