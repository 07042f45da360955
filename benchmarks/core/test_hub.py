"""Fan-out through the whole data plane without a socket: bytes of a publisher in, bytes for every subscriber out.

What the kernel costs is left out, so this is the server's own work: frames, envelope, policy, topic, mailboxes.
"""

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from realtime_communication._core.hub.hub import Hub
from realtime_communication._core.hub.memory_driver import Connection, MemoryDriver
from realtime_communication._core.wire import frames
from realtime_communication.auth.identity import ALL_PERMISSIONS, Identity
from realtime_communication.config import load
from realtime_communication.server.core_settings import core_settings

MASK = b"\x37\xfa\x21\x3d"
ROUNDS = 20
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def masked_frame(message: dict[str, object]) -> bytes:
    payload = msgspec.json.encode(message)
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return b"".join((b"\x81", length, MASK, frames.unmasked(payload, MASK)))


def identify(_headers: object, _query: bytes, _peer: str, _secure: bool) -> Identity:
    return Identity(user_id="alice", permissions=ALL_PERMISSIONS)


@pytest.fixture
def driver() -> MemoryDriver:
    """A data plane with the default configuration, without rate limits."""
    options = ("--profile=test", f"--auth.jwt_secret={'s' * 32}", "--rate_limiting.enabled=false")
    hub = Hub("benchmark")
    hub.configure(core_settings(load(options).config))
    hub.set_callbacks(identify, None)
    return MemoryDriver(hub)


def connect(driver: MemoryDriver) -> Connection:
    connection = driver.connect()
    connection.feed(UPGRADE)
    assert connection.drain().startswith(b"HTTP/1.1 101")
    return connection


@pytest.mark.parametrize("in_flight", [1, 16, 64])
@pytest.mark.parametrize("subscribers", [10, 1000])
def test_fan_out(benchmark: BenchmarkFixture, driver: MemoryDriver, subscribers: int, in_flight: int) -> None:
    receivers = [connect(driver) for _ in range(subscribers)]
    for receiver in receivers:
        receiver.feed(masked_frame({"type": "Subscribe", "topic": "bench"}))
    publisher = connect(driver)
    publication = masked_frame({"type": "Broadcast", "topic": "bench", "payload": "x" * 98}) * in_flight

    def drain() -> None:
        for receiver in receivers:
            receiver.drain()

    benchmark.extra_info["deliveries"] = subscribers * in_flight
    benchmark.pedantic(publisher.feed, args=(publication,), setup=drain, rounds=ROUNDS)  # type: ignore[no-untyped-call]
    assert receivers[-1].drain().count(b'"type":"Message"') == in_flight


def test_direct_message(benchmark: BenchmarkFixture, driver: MemoryDriver) -> None:
    receiver, sender = connect(driver), connect(driver)
    message = masked_frame({"type": "DirectMessage", "to": "alice", "payload": "x" * 98})

    def drain() -> None:
        receiver.drain()
        sender.drain()

    benchmark.pedantic(sender.feed, args=(message,), setup=drain, rounds=ROUNDS * 10)  # type: ignore[no-untyped-call]
    assert b'"type":"DirectMessage"' in receiver.drain()
