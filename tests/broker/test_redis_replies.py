"""Each failure of the Redis client: its code, and what helps."""

import asyncio

import pytest
import redis.exceptions as redis_py
from redis.asyncio.connection import Connection

from realtime_communication.broker.redis_errors import Remedy
from realtime_communication.broker.redis_replies import NotSentError, explain


def not_sent(cause=None):
    error = NotSentError()
    error.__cause__ = cause
    return error


def closed_before_the_write():
    """What redis-py raises when one of its connections is closed between its look at it and the write."""
    try:
        asyncio.run(Connection()._send_packed_command([b""]))
    except AttributeError as error:
        return error
    raise AssertionError("it wrote")


@pytest.mark.parametrize(
    ("error", "reply", "remedy"),
    [
        (not_sent(), "POOL", Remedy.REPEAT),
        (not_sent(redis_py.ConnectionError("refused")), "CONNECT", Remedy.REPEAT),
        (not_sent(redis_py.TimeoutError()), "CONNECT", Remedy.REPEAT),
        (not_sent(redis_py.AuthenticationError("Authentication required.")), "NOAUTH", Remedy.GIVE_UP),
        (not_sent(redis_py.BusyLoadingError()), "LOADING", Remedy.REPEAT),
        (redis_py.BusyLoadingError("Redis is loading"), "LOADING", Remedy.REPEAT),
        (redis_py.ResponseError("BUSY Redis is busy running a script."), "BUSY", Remedy.REPEAT),
        (redis_py.ResponseError("MISCONF Redis is configured to save"), "MISCONF", Remedy.GIVE_UP),
        (redis_py.ResponseError("WRONGTYPE hush"), "ERR", Remedy.GIVE_UP),
        (redis_py.ResponseError(""), "ERR", Remedy.GIVE_UP),
        (redis_py.ReadOnlyError(), "READONLY", Remedy.REBUILD),
        (redis_py.ResponseError("Protocol error: unauthenticated bulk length"), "NOAUTH", Remedy.GIVE_UP),
        (redis_py.MovedError("1 127.0.0.1:1"), "MOVED", Remedy.REBUILD),
        (redis_py.AskError("1 127.0.0.1:1"), "ASK", Remedy.REBUILD),
        (redis_py.TryAgainError(), "TRYAGAIN", Remedy.REPEAT),
        (redis_py.ClusterDownError("CLUSTERDOWN"), "CLUSTERDOWN", Remedy.REPEAT),
        (redis_py.MasterDownError("MASTERDOWN"), "MASTERDOWN", Remedy.REPEAT),
        (redis_py.SlotNotCoveredError(), "CLUSTERDOWN", Remedy.REPEAT),
        (redis_py.RedisClusterException("no node"), "CONNECT", Remedy.REPEAT),
        (redis_py.ClusterCrossSlotError(), "CROSSSLOT", Remedy.GIVE_UP),
        (redis_py.MaxConnectionsError(), "POOL", Remedy.REPEAT),
        (redis_py.OutOfMemoryError(), "OOM", Remedy.GIVE_UP),
        (redis_py.NoScriptError(), "NOSCRIPT", Remedy.GIVE_UP),
        (redis_py.NoPermissionError(), "NOPERM", Remedy.GIVE_UP),
        (redis_py.AuthenticationError("invalid username-password pair"), "WRONGPASS", Remedy.GIVE_UP),
        (redis_py.InvalidResponse("hush"), "GARBAGE", Remedy.UNSURE),
        (redis_py.TimeoutError("hush"), "TIMEOUT", Remedy.UNSURE),
        (TimeoutError(), "TIMEOUT", Remedy.UNSURE),
        (redis_py.ConnectionError("hush"), "LOST", Remedy.UNSURE),
        (ConnectionResetError(), "LOST", Remedy.UNSURE),
        (closed_before_the_write(), "CONNECT", Remedy.REPEAT),
        (AttributeError("hush"), "INTERNAL", Remedy.UNSURE),
        (ValueError("hush"), "INTERNAL", Remedy.UNSURE),
    ],
)
def test_each_failure(error, reply, remedy):
    failed = explain(error)
    assert (failed.reply, failed.remedy) == (reply, remedy)
    assert "hush" not in str(failed)
    assert explain(failed) is failed
