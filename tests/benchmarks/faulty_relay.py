"""A relay that loses, doubles or swaps messages, to see that the load generator notices.

`python faulty_relay.py FAULT [PROTOCOL]` prints its port. Messages are relayed in tens; the fault is done to each ten,
none with fault `joined`. What is left of a ten when the generator has nothing more to say is relayed as it is. Without
a fault each message is relayed at once. Where the protocol has pings, every subscriber has to answer one before
anything is relayed.
"""

import asyncio
import sys
from collections import defaultdict

from voices import VOICES, Said, Voice
from websockets.asyncio.server import ServerConnection, broadcast, serve


def with_fault(payloads: list[str], fault: str) -> list[str]:
    match fault:
        case "lose":
            return [*payloads[:4], *payloads[5:]]
        case "double":
            return [*payloads[:5], payloads[4], *payloads[5:]]
        case "shorten":
            return [payload[:30] + payload[31:] for payload in payloads]
        case "swap":
            return [*payloads[:4], payloads[5], payloads[4], *payloads[6:]]
        case _:
            return payloads


QUIET_SECS = 0.2


class Relay:
    """Everything that one relay knows."""

    def __init__(self, voice: Voice, fault: str) -> None:
        self._voice = voice
        self._fault = fault
        self._subscribers: dict[str, set[ServerConnection]] = defaultdict(set)
        self._unanswered: set[ServerConnection] = set()
        self._waiting: dict[str, list[str]] = defaultdict(list)
        self._quiet: asyncio.TimerHandle | None = None

    async def handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        path = connection.request.path
        if self._voice.greeting:
            await connection.send(self._voice.greeting)
        if path == "/subscribe":
            self._subscribers["bench"].add(connection)
        try:
            async for message in connection:
                for said in self._voice.read(path, message):
                    await self._take(connection, said)
        finally:
            self._unanswered.discard(connection)
            for subscribers in self._subscribers.values():
                subscribers.discard(connection)

    async def _take(self, connection: ServerConnection, said: Said) -> None:
        if said.answer:
            await connection.send(said.answer)
        match said.kind:
            case "subscribe":
                self._subscribers[said.topic].add(connection)
                if self._voice.ping:
                    self._unanswered.add(connection)
                    await connection.send(self._voice.ping)
            case "pong":
                self._unanswered.discard(connection)
            case "echo":
                for message in self._voice.write("", [said.payload]):
                    await connection.send(message)
            case "publish":
                self._waiting[said.topic].append(said.payload)
        if not self._unanswered:
            self._relay()
        if self._quiet is not None:
            self._quiet.cancel()
        self._quiet = asyncio.get_running_loop().call_later(QUIET_SECS, self._relay_rest)

    def _relay(self) -> None:
        for topic, waiting in self._waiting.items():
            size = 1 if self._fault == "none" else 10
            while len(waiting) >= size:
                ten, waiting[:] = waiting[:size], waiting[size:]
                self._send(topic, with_fault(ten, self._fault))

    def _relay_rest(self) -> None:
        for topic, waiting in self._waiting.items():
            if waiting and not self._unanswered:
                self._send(topic, waiting)
                waiting.clear()

    def _send(self, topic: str, payloads: list[str]) -> None:
        for message in self._voice.write(topic, payloads):
            broadcast(self._subscribers[topic], message)


async def run(fault: str, protocol: str) -> None:
    relay = Relay(VOICES[protocol], fault)
    async with serve(relay.handle, "127.0.0.1", 0, compression=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "text"))
