"""A subscription's two ways to hand out events."""

from typing import Any

import pytest

from realtime_communication.client import connect
from realtime_communication.client.errors import ConnectionLost
from realtime_communication.client.events import Lagged, Message, Recovered
from realtime_communication.client.subscription import Subscription
from serving.proxy import scenario


def message(offset: int) -> Message:
    return Message("t", offset, 0, "bob", offset)


def subscription(**options: Any) -> Subscription:
    return Subscription(connect("ws://nowhere/ws"), "t", **{"capacity": 3, "callback": None, **options})


@scenario
async def test_iteration_sees_everything_messages_only_messages() -> None:
    for only_messages in (False, True):
        made = subscription()
        for event in (Recovered("t", True, 0), message(1), message(2)):
            made._put(event)
        made._end(None)
        source = made.messages() if only_messages else made
        assert len([event async for event in source]) == (2 if only_messages else 3)


@scenario
async def test_overflow_and_error() -> None:
    made = subscription()
    for offset in range(5):
        made._put(message(offset))
    made._end(ConnectionLost("gone"))
    seen = []
    with pytest.raises(ConnectionLost):
        async for event in made:
            seen.append(event)
    assert seen == [Lagged("t", 2, False, "queue"), message(2), message(3), message(4)]


@scenario
async def test_callback_excludes_iteration() -> None:
    seen: list[Any] = []
    made = subscription(callback=seen.append)
    with pytest.raises(RuntimeError):
        aiter(made)
    made._put(message(1))
    made._end(None)
    assert made._pump is not None
    await made._pump
    assert seen == [message(1)]
