"""A TCP proxy that can do harm to each direction on its own: hold it up, delay it, or lose what comes."""

import asyncio
import contextlib
import contextvars

from serving.proxy import Proxy


class Direction:
    """What happens to bytes that go one way. ``taken`` counts those that came, lost ones too."""

    def __init__(self) -> None:
        self.dropping = False
        self.taken = 0
        self._delay_secs = 0.0
        self._flowing = asyncio.Event()
        self._undelayed = asyncio.Event()
        self.flow()

    def stall(self) -> None:
        """Hold back what comes from now on."""
        self._flowing.clear()

    def delay(self, secs: float) -> None:
        """Hold back whatever comes for so long."""
        self._delay_secs = secs
        self._undelayed.clear()

    def drop(self) -> None:
        """Lose what comes from now on."""
        self.dropping = True

    def flow(self) -> None:
        """Forward again: first what was held back. What was dropped is lost for good."""
        self.dropping = False
        self._flowing.set()
        self._undelayed.set()

    async def pass_on(self) -> bool:
        """Wait as long as the bytes at hand have to; whether they go on."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._delay_secs):
                await self._undelayed.wait()
        await self._flowing.wait()
        return not self.dropping


class _Connection:
    """One connection of a client. ``chosen`` once it has sent what the proxy waits for."""

    def __init__(self, chosen: bool) -> None:
        self.chosen = chosen


# Both directions of a connection are tasks of the one that serves it, and inherit its context.
_CONNECTION: contextvars.ContextVar[_Connection] = contextvars.ContextVar("connection")


class StallingProxy(Proxy):
    """``up`` is what goes to the server, ``down`` what comes from it; ``refusing`` and ``cut`` are those of Proxy.

    A connection comes to harm once its client has sent ``only``, such as ``b"SUBSCRIBE"``.
    """

    def __init__(self, port: int, only: bytes = b"") -> None:
        super().__init__(port)
        self.up, self.down = Direction(), Direction()
        self._only = only

    async def __aexit__(self, *details: object) -> None:
        self.flow()
        await super().__aexit__(*details)

    def stall(self) -> None:
        self.up.stall()
        self.down.stall()

    def flow(self) -> None:
        self.up.flow()
        self.down.flow()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _CONNECTION.set(_Connection(chosen=not self._only))
        await super()._serve(reader, writer)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _CONNECTION.get()
        upwards = writer.get_extra_info("peername")[1] == self.target
        direction = self.up if upwards else self.down
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if upwards and self._only and self._only in data:
                    connection.chosen = True
                if connection.chosen:
                    direction.taken += len(data)
                    if not await direction.pass_on():
                        continue
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
