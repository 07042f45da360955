"""What a publication costs where there are few topics, and where there are many.

Each topic has one subscriber; a few connections share the topics, and publications go round all of them, so that
little differs but how many topics there are: a thousand connections would cost more than ten, whatever the topics. A
handful is on its way at a time, each to a connection of its own: no two share a write. The clients are plain sockets in
this process; every message is compared with what was published.
"""

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from serving.raw import TEXT, RawSocket, envelope

from .deployments import product
from .driver import Row, Unsound
from .figures import PAYLOAD_BYTES
from .measure import say
from .outages import sign
from .servers import Running, running

IN_FLIGHT = 8
REQUESTS = 200
"""Of one connection on their way at a time, so that neither end waits for the other to read."""

PAUSE_SECS = 0.0002
"""Between handfuls: longer than the reactor polls on, since what polling takes is no cost of a publication."""


def topic_name(number: int) -> str:
    """All are of one length, so that no message is longer than another."""
    return f"topic:{number:07}"


class Field:
    """A server with its topics, their subscribers, and one connection that publishes."""

    def __init__(self, stack: ExitStack, server: Running, count: int, connections: int) -> None:
        self._server = server
        self.count = count
        self._payload = "x" * (PAYLOAD_BYTES - 2)
        self._publisher = self._client(stack, "publisher")
        self._subscribers = [self._client(stack, f"subscriber-{number}") for number in range(connections)]
        self._next = itertools.cycle(range(count))
        for number, client in enumerate(self._subscribers):
            self._subscribe(client, range(number, count, connections))

    def _client(self, stack: ExitStack, user: str) -> RawSocket:
        token = f"Authorization: Bearer {sign(user)}"
        return stack.enter_context(RawSocket.upgraded(self._server.port, user=None, extra=(token,)))

    def _subscribe(self, client: RawSocket, numbers: Sequence[int]) -> None:
        """Raises Unsound."""
        for first in range(0, len(numbers), REQUESTS):
            some = numbers[first : first + REQUESTS]
            client.send(b"".join(envelope(type="Subscribe", id=1, topic=topic_name(number)) for number in some))
            for number in some:
                answer = client.json()
                if (answer["type"], answer.get("topic")) != ("Subscribed", topic_name(number)):
                    raise Unsound(f"not subscribed to topic {number}: {answer}")

    def publish(self, publications: int) -> float:
        """The CPU time of the server for each of so many, in microseconds. Raises Unsound."""
        before = self._cpu_seconds()
        batch = min(IN_FLIGHT, self.count, len(self._subscribers))
        for _ in range(publications // batch):
            numbers = list(itertools.islice(self._next, batch))
            self._publisher.send(
                b"".join(
                    envelope(type="Broadcast", topic=topic_name(number), payload=self._payload) for number in numbers
                )
            )
            for number in numbers:
                self._receive(number)
            time.sleep(PAUSE_SECS)
        return (self._cpu_seconds() - before) / (publications // batch * batch) * 1e6

    def _receive(self, number: int) -> None:
        received = self._subscribers[number % len(self._subscribers)].frame()
        message = json.loads(received.payload) if received.opcode == TEXT else {}
        if (message.get("topic"), message.get("payload")) != (topic_name(number), self._payload):
            raise Unsound(f"topic {number}: not the message, but {received.payload[:100]!r}")

    def _cpu_seconds(self) -> float:
        return sum(map(cpu_seconds, self._server.pids()))


def cpu_seconds(pid: int) -> float:
    """Of all threads of a process (proc(5), schedstat)."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(path.read_text().split()[0]) for path in threads) / 1e9


def fields(stack: ExitStack, core: int, counts: Sequence[int], connections: int) -> Iterator[Field]:
    """A server for each number of topics. Nobody is pinged: the clients here do not answer while others publish."""
    for count in counts:
        say(f"{count:,} topics: subscribing")
        quiet = "heartbeat_interval_secs = 1800\nclient_timeout_secs = 3600\n"
        candidate = product()
        text = candidate.configuration.replace("[websocket]\n", f"[websocket]\n{quiet}")
        server = stack.enter_context(running(msgspec.structs.replace(candidate, configuration=text), core))
        yield Field(stack, server, count, connections)


def flat(cores: tuple[int, int], counts: Sequence[int], connections: int, publications: int, rounds: int) -> list[Row]:
    """CPU time of a publication for each number of topics, and its ratio to that with the fewest, round by round."""
    taken: dict[int, list[float]] = {count: [] for count in counts}
    with ExitStack() as stack:
        made = list(fields(stack, cores[0], counts, connections))
        for field in made:
            say(f"{field.count:,} topics: once over all of them")
            field.publish(max(field.count, publications))
        for number in range(rounds):
            say(f"topics, round {number + 1} of {rounds}")
            for field in made:
                taken[field.count].append(field.publish(publications))
    fewest = min(counts)
    found = []
    for count, values in taken.items():
        found.append(Row(f"{count:,} topics, one subscriber each: µs of CPU a publication", values))
        if count != fewest:
            ratios = [value / first for value, first in zip(values, taken[fewest], strict=True)]
            found.append(Row(f"… ratio to {fewest:,} topics", ratios, 3))
    return found
