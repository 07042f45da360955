"""`[performance.messages]`, `[performance.memory]`, and the bounds of a turn in `[performance.actors]`."""

import gc
import re
import threading
from pathlib import Path

import pytest

from core.hub.sans_io import BINARY, TEXT
from realtime_communication.server import collector
from serving.raw import envelope as client_envelope

MESSAGES = 400


def writes(serve, actors=None, messages=None, subprotocol="rtc.v1.json", count=MESSAGES):
    """How many writes it takes to hand a burst of publications to one subscriber."""
    running = serve(
        {
            "performance": {
                "actors": {"batch_size": 100_000, "batch_timeout_ms": 10_000, **(actors or {})},
                "messages": {
                    "max_batch_size": 100_000,
                    "batch_window_ms": 0,
                    "compression_threshold_bytes": 0,
                    **(messages or {}),
                },
            },
            "actor_system": {"mailbox_capacity": 100_000},
        }
    )
    burst = client_envelope(type="Broadcast", topic="t", payload="x" * 20) * count
    with running.raw("reader", subprotocol=subprotocol) as reader, running.raw("publisher") as publisher:
        reader.send(client_envelope(type="Subscribe", id=1, topic="t"))
        reader.frame()
        before = running.stats()["writes"]
        publisher.send(burst)
        for _ in range(count):
            reader.frame()
        return running.stats()["writes"] - before


def test_batch_size_bounds_a_turn(serve):
    assert writes(serve, {"batch_size": 10}) >= MESSAGES / 20 > writes(serve)


def test_batch_timeout_bounds_a_turn(serve):
    # Compressing each message takes long enough for the shortest time to be over again and again.
    # The long time is over at least as often as the socket's buffers are empty, whatever else the machine does.
    short, long = (
        writes(
            serve,
            {"batch_timeout_ms": timeout},
            {"batch_window_ms": 0 if timeout == 1 else 5000},
            subprotocol="rtc.v1.json+gzip",
            count=2400,
        )
        for timeout in (1, 10_000)
    )
    assert short > long


def test_max_batch_size_bounds_what_is_written_together(serve):
    assert writes(serve, messages={"max_batch_size": 8}) >= MESSAGES / 16 > writes(serve)


def test_batch_window_gathers_what_several_turns_bring(serve):
    short, long = (writes(serve, {"batch_size": 10}, {"batch_window_ms": window}) for window in (0, 5000))
    assert short >= MESSAGES / 20 > long


@pytest.mark.parametrize("threshold", [50, 500])
def test_compression_threshold(hub, threshold):
    server = hub({"performance": {"messages": {"compression_threshold_bytes": threshold}}})
    peer = server.connect(protocol="rtc.v1.json+zstd")
    peer.subscribe("t")
    opcodes = []
    for size in (1, threshold + 1):
        peer.send({"type": "Broadcast", "topic": "t", "payload": "x" * size})
        opcodes += [frame[0] for frame in peer.frames()]
    # An envelope has some 90 bytes around its payload.
    assert opcodes == ([BINARY, BINARY] if threshold == 50 else [TEXT, BINARY])


@pytest.mark.parametrize("algorithm", ["none", "gzip", "zstd", "lz4"])
def test_compression_algorithm(hub, algorithm):
    server = hub({"performance": {"messages": {"compression_algorithm": algorithm}}})
    offered = server.connect(extensions="permessage-deflate")
    assert (b"permessage-deflate" in offered.response) is (algorithm != "none")
    for form in ("gzip", "zstd", "lz4"):
        assert server.connect(protocol=f"rtc.v1.json+{form}").status == (400 if algorithm == "none" else 101)


def address_space():
    return int(re.search(r"^VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)[1]) * 1024


@pytest.mark.parametrize("pool", ["connection_pool_size", "message_pool_size"])
def test_pools_are_set_aside_at_the_start(hub, pool):
    before = address_space()
    server = hub({"performance": {"memory": {pool: 10_000_000}}})
    assert address_space() - before > 10_000_000 * 32
    assert server.connect().status == 101


@pytest.mark.parametrize("size", [0, 3])
def test_pools_bound_what_is_kept_not_what_works(hub, size):
    server = hub({"performance": {"memory": {"buffer_pool_size": size, "connection_pool_size": size}}})
    peers = [server.connect(f"user-{number}") for number in range(10)]
    for peer in peers:
        peer.subscribe("t")
        peer.stall()
    for _ in range(40):
        peers[0].send({"type": "Broadcast", "topic": "t", "payload": "x" * 30_000})
    for peer in peers:
        peer.resume()
        assert len(peer.messages()) == 40
        peer.end()
    assert server.stats()["sessions"] == 0
    assert server.stats()["arenas_kept"] <= size


class Collections:
    """Counts full collections."""

    def __init__(self, wanted):
        self.wanted = wanted
        self.seen = 0
        self.reached = threading.Event()

    def __call__(self, phase, information):
        if phase == "stop" and information["generation"] == 2:
            self.seen += 1
            if self.seen >= self.wanted:
                self.reached.set()


@pytest.fixture
def collections():
    counters = []

    def count(wanted):
        counters.append(Collections(wanted))
        gc.callbacks.append(counters[-1])
        return counters[-1]

    yield count
    for counter in counters:
        gc.callbacks.remove(counter)


def test_gc_interval(serve, collections):
    often = collections(2)  # one at the start
    serve({"performance": {"memory": {"gc_interval_secs": 1}}})
    assert often.reached.wait(20)
    assert not serve({}).worker.parts.collector.is_due(collector.time.monotonic())


def test_gc_threshold(serve, collections, monkeypatch):
    monkeypatch.setattr(collector, "CHECK_SECS", 0.02)
    monkeypatch.setattr(collector, "MIN_PAUSE_SECS", 0.0)
    above = collections(3)
    serve({"performance": {"memory": {"gc_threshold_mb": 1}}})
    assert above.reached.wait(20)
