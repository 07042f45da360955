"""A relay that loses, doubles or swaps messages, to see that the load generator notices.

`python faulty_relay.py FAULT` prints its port. Messages are relayed in tens; the fault is done to each ten.
Without a fault each is relayed at once: what is left of a ten when the generator ends would count as lost.
"""

import asyncio
import sys

from websockets.asyncio.server import ServerConnection, broadcast, serve

subscribers: set[ServerConnection] = set()


def with_fault(messages: list[str], fault: str) -> list[str]:
    match fault:
        case "lose":
            return [*messages[:4], *messages[5:]]
        case "double":
            return [*messages[:5], messages[4], *messages[5:]]
        case "swap":
            return [*messages[:4], messages[5], messages[4], *messages[6:]]
        case _:
            return messages


async def handle(connection: ServerConnection, fault: str) -> None:
    assert connection.request is not None
    if connection.request.path == "/subscribe":
        subscribers.add(connection)
        await connection.wait_closed()
        subscribers.discard(connection)
        return
    waiting: list[str] = []
    async for message in connection:
        assert isinstance(message, str)
        waiting.append(message)
        if len(waiting) == 10 or fault == "none":
            for relayed in with_fault(waiting, fault):
                broadcast(subscribers, relayed)
            waiting.clear()


async def run(fault: str) -> None:
    async with serve(lambda connection: handle(connection, fault), "127.0.0.1", 0, compression=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1]))
