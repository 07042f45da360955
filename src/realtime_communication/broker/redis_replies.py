"""What redis-py raises, as a failure of our own.

redis-py has its own tree of exceptions, whose texts hold addresses and whatever the server echoes. `explain` turns all
of it into `RedisFailed` (see `redis_errors.py`).
"""

from __future__ import annotations

from typing import Final

import redis.exceptions as redis_py

from realtime_communication.broker.redis_errors import MEANINGS, RedisFailed


class NotSentError(redis_py.ConnectionError):
    """No connection could be had, for the reason in `__cause__`: the command never left this process.

    Without a cause it was for want of a free place in the pool.
    """


def explain(error: BaseException) -> RedisFailed:
    """What an exception of redis-py, of asyncio or of the system means. One of our own is passed through."""
    if isinstance(error, RedisFailed):
        return error
    if isinstance(error, NotSentError):
        if error.__cause__ is None:
            return RedisFailed("POOL")
        cause = _reply_of(error.__cause__)
        return RedisFailed("CONNECT" if cause in ("LOST", "TIMEOUT") else cause)
    if isinstance(error, AttributeError) and error.name == "writelines" and error.obj is None:
        return RedisFailed("CONNECT")  # redis-py was about to write when the connection was closed: nothing left
    return RedisFailed(_reply_of(error))


_BY_TYPE: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (redis_py.BusyLoadingError, "LOADING"),
    (redis_py.NoPermissionError, "NOPERM"),
    (redis_py.NoScriptError, "NOSCRIPT"),
    (redis_py.OutOfMemoryError, "OOM"),
    (redis_py.ReadOnlyError, "READONLY"),
    (redis_py.MovedError, "MOVED"),
    (redis_py.AskError, "ASK"),
    (redis_py.TryAgainError, "TRYAGAIN"),
    (redis_py.MasterDownError, "MASTERDOWN"),
    (redis_py.ClusterDownError, "CLUSTERDOWN"),
    (redis_py.SlotNotCoveredError, "CLUSTERDOWN"),
    (redis_py.ClusterCrossSlotError, "CROSSSLOT"),
    (redis_py.MaxConnectionsError, "POOL"),
    (redis_py.RedisClusterException, "CONNECT"),
    (redis_py.InvalidResponse, "GARBAGE"),
    (redis_py.TimeoutError, "TIMEOUT"),
    (TimeoutError, "TIMEOUT"),
    (redis_py.ConnectionError, "LOST"),
    (OSError, "LOST"),
)
"""The first row that fits decides: subclasses before their bases."""


def _reply_of(error: BaseException) -> str:
    if isinstance(error, redis_py.AuthenticationError):
        return "NOAUTH" if "required" in str(error).lower() else "WRONGPASS"
    for kind, reply in _BY_TYPE:
        if isinstance(error, kind):
            return reply
    if isinstance(error, redis_py.ResponseError):
        if "unauthenticated" in str(error):  # "Protocol error: unauthenticated multibulk length": of a long command
            return "NOAUTH"
        # Replies that redis-py has no class for keep their code as the first word.
        word = str(error).partition(" ")[0]
        return word if word in MEANINGS else "ERR"
    return "INTERNAL"
