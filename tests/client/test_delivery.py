"""Queues and callbacks."""

import asyncio
from typing import Any

import pytest

from realtime_communication.client.delivery import EventQueue, pump
from realtime_communication.client.errors import ConnectionLost
from serving.proxy import scenario


@scenario
async def test_order_and_end() -> None:
    queue: EventQueue[int] = EventQueue(10, None)
    for number in range(3):
        queue.put(number)
    queue.close()
    queue.put(99)
    assert [number async for number in queue] == [0, 1, 2]


@scenario
async def test_error_comes_after_what_waits() -> None:
    queue: EventQueue[int] = EventQueue(10, None)
    queue.put(1)
    queue.close(ConnectionLost("gone"))
    assert await queue.get() == 1
    with pytest.raises(ConnectionLost):
        await queue.get()


@scenario
async def test_waiting_reader_is_woken() -> None:
    queue: EventQueue[int] = EventQueue(10, None)
    reader = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.put(5)
    assert await reader == 5


@scenario
async def test_overflow_shows_at_the_hole() -> None:
    queue: EventQueue[Any] = EventQueue(3, lambda count: f"{count} lost")
    for number in range(5):
        queue.put(number)
    assert len(queue) == 3
    queue.close()
    assert [event async for event in queue] == ["2 lost", 2, 3, 4]


def test_no_room_at_all() -> None:
    with pytest.raises(ValueError, match="room"):
        EventQueue(0, None)


@scenario
async def test_pump_survives_the_callback(caplog: pytest.LogCaptureFixture) -> None:
    queue: EventQueue[int] = EventQueue(10, None)
    seen: list[int] = []

    async def callback(number: int) -> None:
        seen.append(number)
        if number == 1:
            raise RuntimeError("mine")

    for number in range(3):
        queue.put(number)
    queue.close(ConnectionLost("gone"))
    await pump(queue, callback, "the test")
    assert seen == [0, 1, 2]
    assert "the callback of the test failed" in caplog.text
