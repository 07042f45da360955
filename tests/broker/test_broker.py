"""Which parts a configuration makes."""

import asyncio

import pytest

from realtime_communication.broker.broker import broker_of, uses_redis
from realtime_communication.broker.memory import MemoryEvents, MemoryState
from realtime_communication.broker.redis_events import RedisEvents
from realtime_communication.broker.redis_state import RedisState
from realtime_communication.broker.sealing import Seal
from realtime_communication.config import load
from realtime_communication.resilience.breaker import Breakers
from serving.proxy import scenario
from serving.tokens import SECRET


def made(tmp_path, *words, profile="test", secret=SECRET, previous=()):
    config = load([f"--profile={profile}", *words], environ={"JWT_SECRET": secret}, directory=tmp_path).config
    return config, broker_of(config, "node-1", Breakers(config.circuit_breaker), previous)


def test_with_redis(tmp_path):
    config, broker = made(tmp_path, profile="prod")
    assert uses_redis(config)
    assert isinstance(broker.events, RedisEvents)
    assert isinstance(broker.state, RedisState)
    assert [service.name for service in broker.services] == ["Redis link", "Redis feed", "Redis events"]
    assert broker.link.health()[1]["state"] == "connecting"


@pytest.mark.parametrize(
    ("profile", "words"),
    [("dev", []), ("test", ["--testing.use-in-memory-storage=true"])],
)
@scenario
async def test_without(tmp_path, profile, words):
    config, broker = made(tmp_path, *words, profile=profile)
    assert not uses_redis(config)
    assert isinstance(broker.events, MemoryEvents)
    assert isinstance(broker.state, MemoryState)
    assert (broker.services, broker.link) == ((), None)
    assert await broker.joined(0) == 1
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await broker.joined(1)


def test_secrets(tmp_path):
    mark = Seal([SECRET], "shared state").mark(b"body")
    other = "another secret of at least thirty-two bytes"
    assert made(tmp_path)[1].seal.is_genuine(b"body", mark)
    assert not made(tmp_path, secret=other)[1].seal.is_genuine(b"body", mark)
    assert made(tmp_path, secret=other, previous=[SECRET])[1].seal.is_genuine(b"body", mark)


def test_without_a_secret_nobody_is_believed(tmp_path):
    words = ("--testing.bypass-auth=true", "--testing.use-in-memory-storage=true")
    one, two = (made(tmp_path, *words, secret="")[1].seal for _ in range(2))
    assert not one.is_genuine(b"body", two.mark(b"body"))
