"""A server of `rtc.v1.json+zstd` with a fault, to see that the load generator looks into compressed messages.

`python packing_server.py FAULT` prints its port. With `cut` one subscriber gets a frame that is not whole, with `other`
a sound one of another message.
"""

import asyncio
import json
import sys
from contextlib import suppress

import zstandard
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

FAULTY_OFFSET = 3


class Server:
    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.offset = 0
        self.subscribers: list[ServerConnection] = []

    async def handle(self, connection: ServerConnection) -> None:
        await connection.send('{"type":"Connected"}')
        with suppress(ConnectionClosed):
            async for text in connection:
                if json.loads(text)["type"] == "Subscribe":
                    self.subscribers.append(connection)
                    await connection.send(f'{{"type":"Subscribed","offset":{self.offset}}}')
                else:
                    await self.publish()

    async def publish(self) -> None:
        self.offset += 1
        frame = self.frame(self.offset)
        for number, subscriber in enumerate(self.subscribers):
            sent = self.faulty(frame) if number == 1 and self.offset == FAULTY_OFFSET else frame
            await subscriber.send(sent)

    def frame(self, offset: int) -> bytes:
        envelope = {"type": "Message", "topic": "bench", "offset": offset, "payload": "x" * 100}
        return zstandard.ZstdCompressor().compress(json.dumps(envelope, separators=(",", ":")).encode())

    def faulty(self, frame: bytes) -> bytes:
        match self.fault:
            case "cut":
                return frame[:-1]
            case "other":
                return self.frame(self.offset - 1)
        return frame


async def run(fault: str) -> None:
    server = Server(fault)
    subprotocols = ["rtc.v1.json+zstd"]
    async with serve(
        server.handle,
        "127.0.0.1",
        0,
        compression=None,
        subprotocols=subprotocols,  # type: ignore[arg-type]
    ) as listening:
        print(listening.sockets[0].getsockname()[1], flush=True)
        await listening.wait_closed()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1]))
