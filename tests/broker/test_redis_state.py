"""The shared state in Redis: what it does there that the stand-in does not (see test_shared_state.py)."""

import asyncio
import time

import pytest

from broker.links import running
from realtime_communication.broker import redis_state
from realtime_communication.broker.redis_errors import RedisFailed
from realtime_communication.broker.redis_state import RedisState
from realtime_communication.broker.shared_state import Rotation
from serving.processes import free_port
from serving.proxy import Proxy, scenario


@scenario
async def test_a_set_has_a_bound_and_its_key_expires(redis_server, link_to, monkeypatch):
    monkeypatch.setattr(redis_state, "MAX_MEMBERS", 3)
    redis_server.client.flushall()
    link = link_to(url=redis_server.url, key_prefix="p:")
    async with running(link):
        await link.joined()
        state, now = RedisState(link), time.time()
        await state.add_members("set", [(b"%d" % number, now + 10 + number) for number in range(5)])
        assert {member for member, _ in await state.members("set")} == {b"2", b"3", b"4"}
        assert redis_server.client.keys() == [b"p:set:set"]
        assert 10 < redis_server.client.ttl("p:set:set") <= 15


@scenario
async def test_a_node_whose_clock_is_ahead_takes_nothing_from_the_others(redis_server, link_to):
    redis_server.client.flushall()
    link = link_to(url=redis_server.url)
    async with running(link):
        await link.joined()
        now = time.time()
        right, ahead = RedisState(link), RedisState(link, now=lambda: now + 3600)
        await right.add_members("set", [(b"soon", now + 600)])
        await ahead.add_members("set", [(b"late", now + 7200)])
        assert {member for member, _ in await right.members("set")} == {b"soon", b"late"}
        assert {member for member, _ in await ahead.members("set")} == {b"late"}


@scenario
async def test_a_rotation_whose_answer_was_lost_is_no_reuse(redis_server, link_to):
    redis_server.client.flushall()
    async with Proxy(redis_server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        link = link_to(url=url, response_timeout_ms=100, times={"probe_secs": 3600}, retry_attempts=20)
        async with running(link):
            await link.joined()
            state = RedisState(link)
            assert await state.compare_and_rotate("family", 0, "a", 60) is Rotation.ROTATED
            proxy.stall()
            rotating = asyncio.create_task(state.compare_and_rotate("family", 1, "b", 60))
            while link.errors["TIMEOUT"] == 0:
                await asyncio.sleep(0.005)
            proxy.flow()
            assert await rotating is Rotation.ROTATED
            assert await state.compare_and_rotate("family", 1, "c", 60) is Rotation.REUSED


@scenario
async def test_without_redis_the_caller_decides(link_to):
    state = RedisState(link_to(url=f"redis://127.0.0.1:{free_port()}", retry_attempts=0))
    with pytest.raises(RedisFailed):
        await state.compare_and_rotate("family", 0, "a", 60)
