"""The pool against a real server; its time is the test's."""

import asyncio

import pytest
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from realtime_communication.broker.redis_pool import BoundedPool, PoolBounds
from realtime_communication.broker.redis_replies import NotSentError
from serving.hand_clock import HandClock
from serving.proxy import scenario


@pytest.fixture
def clock():
    return HandClock(100.0)


@pytest.fixture
def pool_of(redis_server, clock):
    def make(**changes):
        bounds = {"max_size": 4, "keep": 3, "min_idle": 0, "wait_secs": 0.05, "idle_secs": 10, "lifetime_secs": 100}
        port = changes.pop("port", redis_server.port)
        retry = Retry(NoBackoff(), 0)
        return BoundedPool(
            bounds=PoolBounds(**bounds | changes), clock=clock, host="127.0.0.1", port=port, protocol=2, retry=retry
        )

    return make


async def take(pool, count):
    return [await pool.get_connection() for _ in range(count)]


async def give(pool, connections):
    for connection in connections:
        await pool.release(connection)


def counts(pool):
    return pool.open_count, pool.idle_count


@scenario
async def test_a_command_beyond_max_size_waits_and_then_fails(pool_of):
    pool = pool_of()
    taken = await take(pool, 4)
    with pytest.raises(NotSentError) as caught:
        await pool.get_connection()
    assert caught.value.__cause__ is None
    waiting = asyncio.create_task(pool.get_connection())
    await asyncio.sleep(0)
    await pool.release(taken.pop())
    taken.append(await waiting)
    assert counts(pool) == (4, 0)
    await give(pool, taken)
    await pool.disconnect()


@scenario
async def test_as_many_as_keep_stay_open_and_the_last_used_is_taken_first(pool_of):
    pool = pool_of()
    taken = await take(pool, 4)
    await give(pool, taken)
    assert counts(pool) == (3, 3)
    assert not taken[3].is_connected
    assert await pool.get_connection() is taken[2]
    await pool.release(taken[2])
    await pool.release(taken[2])  # once too often
    assert counts(pool) == (3, 3)
    await pool.disconnect()
    assert counts(pool) == (0, 0)


@scenario
async def test_idle_ones_above_min_idle_are_closed_the_longest_idle_first(pool_of, clock):
    pool = pool_of(min_idle=1)
    taken = await take(pool, 3)
    await give(pool, taken)
    clock.now += 5
    again = await pool.get_connection()
    await pool.release(again)
    clock.now += 6
    await pool.maintain()
    assert counts(pool) == (1, 1)
    assert again.is_connected
    clock.now += 50
    await pool.maintain()
    assert counts(pool) == (1, 1)
    await pool.disconnect()


@scenario
async def test_min_idle_is_kept_within_max_size(pool_of):
    pool = pool_of(min_idle=3)
    await pool.maintain()
    assert counts(pool) == (3, 3)
    taken = await take(pool, 2)
    await pool.maintain()
    assert counts(pool) == (4, 2)
    await give(pool, taken)
    await pool.disconnect()


@scenario
async def test_old_ones_are_replaced(pool_of, clock):
    pool = pool_of()
    first, second = await take(pool, 2)
    await pool.release(first)
    clock.now += 101
    third = await pool.get_connection()
    assert third is not first
    assert not first.is_connected
    await give(pool, [second, third])
    assert not second.is_connected
    assert counts(pool) == (1, 1)
    clock.now += 101
    await pool.maintain()
    assert counts(pool) == (0, 0)


@scenario
async def test_one_that_redis_closed_is_not_handed_out(pool_of, redis_server):
    pool = pool_of()
    connection = await pool.get_connection()
    await pool.release(connection)
    redis_server.client.client_kill_filter(_type="normal", skipme=True)
    await asyncio.sleep(0.02)
    again = await pool.get_connection()
    await again.send_command("PING")
    assert await again.read_response() == b"PONG"
    await pool.release(again)
    redis_server.client.client_kill_filter(_type="normal", skipme=True)
    await asyncio.sleep(0.02)
    await pool.maintain()
    assert counts(pool) == (0, 0)


@scenario
async def test_whatever_is_cancelled_leaves_no_place_taken(pool_of):
    pool = pool_of(max_size=1, keep=1, wait_secs=10)
    for steps in range(12):
        taking = asyncio.create_task(pool.get_connection())
        for _ in range(steps):
            await asyncio.sleep(0)
        taking.cancel()
        await asyncio.wait([taking])
        if not taking.cancelled():
            await pool.release(taking.result())
    connection = await pool.get_connection()
    waiting = asyncio.create_task(pool.get_connection())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    await pool.release(connection)
    assert await pool.get_connection() is connection
    await pool.release(connection)
    await pool.disconnect()


@scenario
async def test_a_server_that_is_not_there(pool_of):
    pool = pool_of(port=1, min_idle=1, max_size=1, keep=1)
    for _ in range(3):
        with pytest.raises(NotSentError) as caught:
            await pool.get_connection()
        assert caught.value.__cause__ is not None
        with pytest.raises(NotSentError):
            await pool.maintain()
    assert counts(pool) == (0, 0)
