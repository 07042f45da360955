"""`websockets` under uvloop, with its `broadcast` and its C extension, compression off."""

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

from .options import listening_port

subscribers: set[ServerConnection] = set()


async def handle(connection: ServerConnection) -> None:
    assert connection.request is not None
    try:
        match connection.request.path:
            case "/subscribe":
                subscribers.add(connection)
                await connection.wait_closed()
            case "/publish":
                async for message in connection:
                    broadcast(subscribers, message)
            case "/echo":
                async for message in connection:
                    await connection.send(message)
    except ConnectionClosed:
        pass
    finally:
        subscribers.discard(connection)


async def run(port: int) -> None:
    async with serve(handle, "127.0.0.1", port, compression=None, ping_interval=None, backlog=4096) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    uvloop.run(run(listening_port()))
