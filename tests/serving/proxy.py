"""A TCP proxy inside the test, to cut and to stall connections between client and server."""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable
from typing import Any, Self, TypeVar

T = TypeVar("T")
SCENARIO_SECS = 120.0


def scenario(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an asynchronous test to its end, at most ``SCENARIO_SECS``; nothing it started may be left behind."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(SCENARIO_SECS):
                await test(*args, **kwargs)
            left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            assert left == [], f"tasks left behind: {left}"

        asyncio.run(bounded())

    return run


class Proxy:
    """Forwards connections to ``port``; ``async with`` opens and closes it."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.accepted = 0
        self.refusing = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[Any]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._flowing.set()
        self.cut()
        await self._server.wait_closed()
        while self._serving:
            await asyncio.wait(self._serving)

    def cut(self) -> None:
        """Reset every connection, both sides."""
        for writer in list(self._writers):
            writer.transport.abort()

    def stall(self) -> None:
        """Forward nothing more for now; the connections stay open."""
        self._flowing.clear()

    def flow(self) -> None:
        """Forward again."""
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        serving = asyncio.current_task()
        assert serving is not None
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)
        self._writers.add(writer)
        up: asyncio.StreamWriter | None = None
        try:
            if self.refusing:
                return
            from_server, up = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(up)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pipe(reader, up))
                both.create_task(self._pipe(from_server, writer))
        except OSError:
            pass
        finally:
            for each in (writer, up):
                if each is not None:
                    self._writers.discard(each)
                    each.transport.abort()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
