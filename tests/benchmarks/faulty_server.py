"""A server of `rtc.v1` with a fault, to see that clients of the load generator that come back notice.

`python faulty_server.py FAULT` prints its port. After some publications it aborts every connection, once, and goes on;
the last publication before that is stored, and neither delivered nor acknowledged.
"""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Request, Response, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

ABORT_AFTER = 30  # publications
FAULTY_OFFSET = 3  # of each topic


class Topic:
    def __init__(self, name: str) -> None:
        self.name = name
        self.epoch = "first"
        self.messages: list[Any] = []
        self.keys: dict[str, int] = {}
        self.subscribers: list[ServerConnection] = []

    def envelope(self, offset: int) -> str:
        head = {"type": "Message", "topic": self.name}
        return json.dumps({**head, **self.messages[offset - 1]}, separators=(",", ":"))


class Server:
    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.topics: dict[str, Topic] = {}
        self.connections: set[ServerConnection] = set()
        self.published = 0
        self.has_aborted = False

    def refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        if self.fault == "refuse" and self.has_aborted and not self.connections:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "no\n")
        return None

    async def handle(self, connection: ServerConnection) -> None:
        self.connections.add(connection)
        await self.send(connection, type="Connected", session_id="s")
        with suppress(ConnectionClosed):
            async for text in connection:
                request = json.loads(text)
                if request["type"] == "Subscribe":
                    await self.subscribe(connection, request)
                else:
                    await self.publish(connection, request)
        self.connections.discard(connection)

    async def send(self, connection: ServerConnection, **fields: Any) -> None:
        await connection.send(json.dumps(fields, separators=(",", ":")))

    async def subscribe(self, connection: ServerConnection, request: Any) -> None:
        topic = self.topics.setdefault(request["topic"], Topic(request["topic"]))
        topic.subscribers.append(connection)
        position = request.get("recover", {})
        recovered = position.get("epoch") == topic.epoch
        missed = topic.messages[position["offset"] :] if recovered else []
        if self.fault == "hole":
            missed = missed[1:]
        await self.send(
            connection,
            type="Subscribed",
            id=request["id"],
            topic=topic.name,
            epoch=topic.epoch,
            offset=len(topic.messages),
            recovered=recovered,
            messages=missed,
        )

    async def publish(self, connection: ServerConnection, request: Any) -> None:
        topic = self.topics[request["topic"]]
        key = request["idempotency_key"]
        is_new = key not in topic.keys or self.fault == "again"
        if is_new:
            offset = len(topic.messages) + 1
            topic.messages.append({"offset": offset, "ts": 1, "from": "u", "payload": request["payload"]})
            topic.keys[key] = len(topic.messages)
        offset = topic.keys[key]
        self.published += 1
        if self.published == ABORT_AFTER:
            self.abort()
            return
        for number, subscriber in enumerate(topic.subscribers if is_new else ()):
            for delivered in self.deliveries(offset, number):
                await subscriber.send(topic.envelope(delivered))
        await self.send(connection, type="Ack", id=request["id"], topic=topic.name, epoch=topic.epoch, offset=offset)

    def deliveries(self, offset: int, subscriber: int) -> Iterator[int]:
        """The offsets that a subscriber gets because of a new message."""
        if subscriber == 0 and self.fault == "swap" and offset in {FAULTY_OFFSET, FAULTY_OFFSET + 1}:
            if offset == FAULTY_OFFSET + 1:
                yield from (offset, offset - 1)
            return
        if subscriber == 0 and self.fault == "lose" and offset == FAULTY_OFFSET:
            return
        yield offset
        if subscriber == 0 and self.fault == "double" and offset == FAULTY_OFFSET:
            yield offset

    def abort(self) -> None:
        self.has_aborted = True
        for topic in self.topics.values():
            topic.subscribers.clear()
            if self.fault == "forget":
                topic.epoch = "second"
                topic.messages.clear()
                topic.keys.clear()
        for connection in self.connections:
            connection.transport.abort()


async def run(fault: str) -> None:
    server = Server(fault)
    async with serve(
        server.handle,
        "127.0.0.1",
        0,
        compression=None,
        subprotocols=["rtc.v1.json"],  # type: ignore[list-item]
        process_request=server.refuse,
    ) as listening:
        print(listening.sockets[0].getsockname()[1], flush=True)
        await listening.wait_closed()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1]))
