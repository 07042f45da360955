"""A topic whose payloads are of one type: encoded from it, decoded into it, with an error for what does not fit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar

import msgspec

from realtime_communication.client.delivery import Callback
from realtime_communication.client.errors import PayloadMismatch
from realtime_communication.client.events import (
    HistoryMessage,
    Join,
    Lagged,
    Leave,
    Message,
    Position,
    PresenceState,
    Recovered,
    SubscriptionEvent,
)

if TYPE_CHECKING:
    from realtime_communication.client.client import Client
    from realtime_communication.client.subscription import Subscription

__all__ = ["TypedEvent", "TypedMessage", "TypedPage", "TypedSubscription", "TypedTopic"]

T = TypeVar("T")


class TypedMessage(Message, Generic[T], frozen=True):
    """A ``Message`` whose payload is of the topic's type."""

    payload: T
    epoch: str = ""


TypedEvent: TypeAlias = TypedMessage[T] | Join | Leave | Lagged | Recovered


class TypedPage(msgspec.Struct, Generic[T], frozen=True):
    """A part of a topic's cache. ``position`` is where the topic stands now, not the end of the page."""

    topic: str
    position: Position
    messages: list[TypedMessage[T]]


class TypedTopic(Generic[T]):
    """Made by ``Client.topic``. The methods are those of ``Client``, without the topic's name."""

    def __init__(
        self,
        client: Client,
        name: str,
        payload_type: type[T],
        on_mismatch: Callable[[PayloadMismatch], None] | None,
    ) -> None:
        self.name = name
        self.type = payload_type
        self._client = client
        self._on_mismatch = on_mismatch

    async def publish(
        self,
        payload: T,
        *,
        exclude_self: bool = False,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Position:
        """As ``Client.publish``. What JSON has no type for goes as msgspec writes it there: times, bytes as base64."""
        plain = msgspec.to_builtins(payload, str_keys=True)
        return await self._client.publish(
            self.name, plain, exclude_self=exclude_self, idempotency_key=idempotency_key, timeout=timeout
        )

    async def subscribe(
        self,
        *,
        history: int = 0,
        presence: bool = False,
        recover: Position | None = None,
        callback: Callback[TypedEvent[T]] | None = None,
        queue_size: int | None = None,
        timeout: float | None = None,
    ) -> TypedSubscription[T]:
        """As ``Client.subscribe``. For a callback without ``on_mismatch`` what does not fit is logged and left out."""
        subscription = await self._client.subscribe(
            self.name,
            history=history,
            presence=presence,
            recover=recover,
            callback=self._typed(callback) if callback is not None else None,
            queue_size=queue_size,
            timeout=timeout,
        )
        return TypedSubscription(self, subscription)

    async def history(
        self,
        *,
        after: Position | None = None,
        limit: int | None = None,
        reverse: bool = False,
        timeout: float | None = None,
    ) -> TypedPage[T]:
        """As ``Client.history``. Raises PayloadMismatch."""
        page = await self._client.history(self.name, after=after, limit=limit, reverse=reverse, timeout=timeout)
        found = (self._read(page_message, page.position.epoch) for page_message in page.messages)
        return TypedPage(page.topic, page.position, [message for message in found if message is not None])

    async def presence(self, *, timeout: float | None = None) -> PresenceState:
        """As ``Client.presence``."""
        return await self._client.presence(self.name, timeout=timeout)

    def _typed(self, callback: Callback[TypedEvent[T]]) -> Callback[SubscriptionEvent]:
        def call(event: SubscriptionEvent) -> Awaitable[None] | None:
            typed = self._event(event)
            return callback(typed) if typed is not None else None

        return call

    def _event(self, event: SubscriptionEvent) -> TypedEvent[T] | None:
        """The same with its payload decoded; None where ``on_mismatch`` took it. Raises PayloadMismatch."""
        if not isinstance(event, Message):
            return event
        return self._decode(event.offset, event.ts, event.sender, event.payload, event.epoch)

    def _read(self, message: HistoryMessage, epoch: str) -> TypedMessage[T] | None:
        return self._decode(message.offset, message.ts, message.sender, message.payload, epoch)

    def _decode(self, offset: int, ts: int, sender: str, payload: Any, epoch: str) -> TypedMessage[T] | None:
        try:
            value = msgspec.convert(payload, self.type, str_keys=True)
        except (msgspec.ValidationError, RecursionError) as error:
            mismatch = PayloadMismatch(self.name, offset, payload, str(error))
            if self._on_mismatch is None:
                raise mismatch from error
            self._on_mismatch(mismatch)
            return None
        return TypedMessage(self.name, offset, ts, sender, value, epoch)


class TypedSubscription(Generic[T]):
    """What ``TypedTopic.subscribe`` returns: a ``Subscription`` whose messages are typed.

    An iteration that raised PayloadMismatch is over; the subscription is not: the next iteration goes on behind it.
    """

    def __init__(self, topic: TypedTopic[T], subscription: Subscription) -> None:
        self.topic = topic.name
        self._of = topic
        self._subscription = subscription

    @property
    def position(self) -> Position | None:
        """As ``Subscription.position``."""
        return self._subscription.position

    async def __aiter__(self) -> AsyncIterator[TypedEvent[T]]:
        async for event in self._subscription:
            typed = self._of._event(event)
            if typed is not None:
                yield typed

    async def messages(self) -> AsyncIterator[TypedMessage[T]]:
        """As ``Subscription.messages``."""
        async for event in self:
            if isinstance(event, TypedMessage):
                yield event

    async def unsubscribe(self) -> None:
        """As ``Subscription.unsubscribe``."""
        await self._subscription.unsubscribe()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._subscription.__aexit__(*error)
