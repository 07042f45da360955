"""The link against real servers that die, stall, load, refuse and come back."""

import asyncio

import pytest

from broker.conftest import down, running, until
from realtime_communication.broker.redis_errors import RedisFailed
from realtime_communication.broker.redis_link import LinkState, RedisLink, Script
from realtime_communication.errors import CircuitOpen
from realtime_communication.resilience.breaker import Breakers, BreakerState
from serving.processes import free_port
from serving.proxy import Proxy, scenario
from serving.redis import RedisServer


@pytest.fixture
def own_server():
    with RedisServer() as server:
        yield server


@scenario
async def test_up_and_commands(redis_server, link_to):
    link = link_to(url=redis_server.url)
    assert link.health()[1]["state"] == "connecting"
    async with running(link):
        assert await link.joined() == 1
        assert await link.execute("SET", link.key("a"), "b") is True
        assert await link.execute("GET", "rtc:a") == b"b"
        ok, detail = link.health()
        assert (ok, detail["state"], detail["topology"], detail["last_error"]) == (True, "up", "single", None)
