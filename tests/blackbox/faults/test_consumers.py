"""FAULTS.md: Slow reader. A stalled consumer is bounded, its outcome visible, and nobody else waits for it.

Each overflow strategy of the configuration is tried with a consumer that stops reading while a publisher goes on, and
then reads again.
"""

import contextlib
import json
import time
from typing import Any

import pytest

from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess, StartServer
from serving.raw import CLOSE, PONG, TEXT, RawSocket, envelope, frame
from serving.witness import Witness

CAPACITY = 100
MESSAGES = 3000
PAYLOAD = "x" * 4000


def settings(strategy: str, **more: Any) -> dict[str, Any]:
    return {
        "actor_system": {"mailbox_capacity": CAPACITY, "overflow_strategy": strategy},
        "message_routing": {"max_cache_entries": 20_000},
        "performance": {"messages": {"compression_algorithm": "none"}},
        **more,
    }


class Stalled:
    """A subscriber with a tiny receive window that reads nothing until ``read``."""

    def __init__(self, server: ServerProcess, topic: str) -> None:
        self.offsets: list[int] = []
        self.marks: list[dict[str, Any]] = []
        self.raw = RawSocket.upgraded(server.port, user=unique_user("stalled"), receive_buffer=2048)
        self.raw.send(envelope(type="Subscribe", topic=topic))
        assert self.raw.ping_works()

    def read(self, last: int, quiet_secs: float = 5.0) -> int | None:
        """Read up to offset ``last``, or until it is quiet. Returns the close code, if there was one."""
        self.raw.socket.settimeout(quiet_secs)
        while not self.offsets or self.offsets[-1] < last:
            try:
                received = self.raw.frame()
            except (EOFError, TimeoutError):
                return None
            if received.opcode == CLOSE:
                return received.close_code
            if received.opcode != TEXT:
                continue
            message = json.loads(received.payload)
            if message["type"] == "Lagged":
                self.marks.append(message)
            elif message["type"] == "Message":
                self.offsets.append(message["offset"])
        return None


def flood(server: ServerProcess, topic: str, count: int) -> None:
    with Peer(server.url, unique_user("publisher")) as publisher:
        for number in range(0, count, 50):
            for one in range(number, number + 50):
                publisher.send({"type": "Broadcast", "id": one, "topic": topic, "payload": PAYLOAD})
            for one in range(number, number + 50):
                reply = publisher.reply(one)
                assert reply["type"] == "Ack", reply


@pytest.mark.parametrize("strategy", ["drop_oldest", "drop_newest", "backpressure"])
def test_stalled_consumer_is_bounded_and_told(start_server: StartServer, strategy: str) -> None:
    server = start_server(settings(strategy))
    topic = unique()
    with Witness(server.url) as witness, Peer(server.url, unique_user("reader")) as reader:
        reader.ok("Subscribe", topic=topic)
        stalled = [Stalled(server, topic) for _ in range(5)]
        flood(server, topic, 500)  # the topic's cache and the kernel's buffers fill before memory is looked at
        before = server.resident_kib()
        flood(server, topic, MESSAGES)
        queued_kib = len(stalled) * CAPACITY * len(PAYLOAD) / 1024
        cached_kib = MESSAGES * (len(PAYLOAD) + 200) / 1024
        assert server.resident_kib() - before < queued_kib + cached_kib + 16 * 1024
        total = MESSAGES + 500
        offsets = [event["offset"] for event in reader.events(total)]
        assert offsets == list(range(1, total + 1)), "a consumer that reads lost something"
        witness.check()
        for consumer in stalled:
            check_account(server, topic, consumer, total, strategy)
            total += 50


def check_account(server: ServerProcess, topic: str, consumer: Stalled, published: int, strategy: str) -> None:
    """The stalled consumer reads again: in order, once, and every hole announced. Publishes 50 more on the way."""
    code = consumer.read(published, 0.5)
    flood(server, topic, 50)
    last = published + 50
    code = code or consumer.read(last)
    consumer.raw.socket.close()
    offsets, marks = consumer.offsets, consumer.marks
    assert offsets == sorted(set(offsets)), "out of order or twice"
    if code is not None:
        assert code == 4490
        return
    missing = last - len(offsets)
    if strategy == "backpressure" and all(mark["recovered"] for mark in marks):
        assert missing == 0, f"recovered, but {missing} are missing"
        assert marks
        return
    assert marks, f"{missing} messages are missing without a word"
    assert [list(mark) for mark in marks] == [["type", "topic", "missed", "epoch", "offset", "recovered"]] * len(marks)
    told = sum(mark["missed"] for mark in marks if not mark["recovered"])
    assert told == missing, f"{missing} messages are missing, {told} were told"


def test_block_holds_the_publisher_and_closes_the_stuck_one(start_server: StartServer) -> None:
    server = start_server(
        settings("block", websocket={"client_timeout_secs": 4, "heartbeat_interval_secs": 2, "auth_timeout_secs": 2})
    )
    topic = unique()
    with Witness(server.url) as witness:
        consumer = Stalled(server, topic)
        with Peer(server.url, unique_user("publisher")) as publisher:
            started = time.monotonic()
            for number in range(1500):
                publisher.send({"type": "Broadcast", "id": number, "topic": topic, "payload": PAYLOAD})
            last = -1
            while last < 1499:
                with contextlib.suppress(TimeoutError):
                    last = publisher.receive(0.5)["id"]
                consumer.raw.send(frame(PONG))  # alive, and still not reading
                assert time.monotonic() - started < 20, f"the publisher is held for good after {last}"
            assert time.monotonic() - started > 1, "the publisher was not held"
        code = consumer.read(10**9)
        assert consumer.offsets == list(range(1, len(consumer.offsets) + 1)), "block loses nothing before it closes"
        assert consumer.marks == []
        assert code in (4490, None)
        consumer.raw.socket.close()
        witness.check()


def test_block_goes_on_when_the_consumer_reads_again(start_server: StartServer) -> None:
    server = start_server(settings("block"))
    topic = unique()
    consumer = Stalled(server, topic)
    with Peer(server.url, unique_user("publisher")) as publisher:
        for number in range(600):
            publisher.send({"type": "Broadcast", "topic": topic, "payload": PAYLOAD, "id": number})
        assert consumer.read(600) is None
        assert (consumer.offsets, consumer.marks) == (list(range(1, 601)), [])
        consumer.raw.socket.close()


def test_backpressure_refuses_direct_messages(start_server: StartServer) -> None:
    server = start_server(settings("backpressure"))
    user = unique_user("stalled")
    with (
        Peer(server.url, unique_user()) as peer,
        RawSocket.upgraded(server.port, user=user, receive_buffer=2048) as raw,
    ):
        refusal = None
        for _ in range(3000):
            reply = peer.request("DirectMessage", to=user, payload=PAYLOAD)
            if reply["type"] == "Error":
                refusal = reply
                break
        assert refusal is not None, "nothing was refused"
        assert refusal["code"] == "backpressure"
        assert refusal["retry_after_ms"] > 0
        assert raw.socket.fileno() > 0


def test_nobody_reads_and_the_publisher_goes_on(start_server: StartServer) -> None:
    server = start_server(settings("drop_oldest"))
    topic = unique()
    consumers = [Stalled(server, topic) for _ in range(50)]
    try:
        flood(server, topic, 500)
        before = server.resident_kib()
        flood(server, topic, MESSAGES)
        bound_kib = len(consumers) * (CAPACITY + 1) * len(PAYLOAD) / 1024 + MESSAGES * 5
        assert server.resident_kib() - before < bound_kib + 16 * 1024
    finally:
        for consumer in consumers:
            consumer.raw.socket.close()


def test_one_byte_a_time(start_server: StartServer) -> None:
    server = start_server(settings("drop_oldest"))
    topic = unique()
    consumer = Stalled(server, topic)
    flood(server, topic, 1000)
    with contextlib.suppress(OSError):
        for _ in range(2000):
            consumer.raw.data += consumer.raw.socket.recv(1)
    check_account(server, topic, consumer, 1000, "drop_oldest")
