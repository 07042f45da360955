"""Playing with links: run them beside a test, and wait for what they bring about."""

import asyncio
import contextlib

from realtime_communication.broker.redis_link import LinkState


@contextlib.asynccontextmanager
async def running(*parts):
    """`run` of each part as a task, ended in the end; they never end by themselves."""
    tasks = [asyncio.create_task(part.run()) for part in parts]
    try:
        yield
        assert not [task for task in tasks if task.done()]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            assert task.cancelled() or task.exception() is None, task


async def until(reached):
    """Wait for something that other tasks bring about; the scenario's own limit ends it."""
    while not (found := reached()):
        await asyncio.sleep(0.005)
    return found


async def down(link):
    await until(lambda: link.state is LinkState.DOWN)
