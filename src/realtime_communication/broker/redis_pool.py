"""A bounded pool of connections to one Redis node.

redis-py's pools know an upper bound and nothing else. This one knows all of `redis.pool`, and has three rules:

* At most `max_size` connections are open at once. A command beyond them waits at most `wait_secs`, then fails without
  having left this process.
* Giving a connection back never waits, so that a cancelled command cannot leave its place taken. A connection whose
  command was cut short is closed by redis-py (`read_response`), and is not kept here: no reply reaches another caller.
* Whoever takes a connection takes the one used last; the others grow old, and `maintain` closes them.

`maintain` is called every second or so by the owner; nothing here starts a task.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import msgspec
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.exceptions import RedisError

from realtime_communication.broker.redis_replies import NotSentError


class PoolBounds(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of a pool. Counts are connections, times seconds."""

    max_size: int  # open at once
    keep: int  # stay open after they were used
    min_idle: int  # stay open although nobody uses them; at most `keep`
    wait_secs: float  # for a free place
    idle_secs: float  # an idle one above `min_idle` is closed after so long
    lifetime_secs: float  # an older one is replaced


class BoundedPool(ConnectionPool):
    """The pool. `bounds` as above; everything else goes to the connections."""

    def __init__(self, *, bounds: PoolBounds, clock: Callable[[], float] = time.monotonic, **options: Any) -> None:
        super().__init__(max_connections=bounds.max_size, **options)
        self._bounds = bounds
        self._clock = clock
        self._places = asyncio.Semaphore(bounds.max_size)
        self._born: dict[AbstractConnection, float] = {}  # of each open connection
        self._idle_since: dict[AbstractConnection, float] = {}  # of each idle one, the longest idle first

    @property
    def open_count(self) -> int:
        """Connections that are open, idle or in use."""
        return len(self._born)

    @property
    def idle_count(self) -> int:
        """Connections that are open and free."""
        return len(self._idle_since)

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> AbstractConnection:
        """A connected connection, which the caller gives back with `release`. Raises NotSentError."""
        try:
            async with asyncio.timeout(self._bounds.wait_secs):
                await self._places.acquire()
        except TimeoutError:
            raise NotSentError from None
        try:
            connection = await self._take()
        except BaseException:
            self._places.release()
            raise
        await self._connect(connection)
        return connection

    async def release(self, connection: AbstractConnection) -> None:
        """Take a connection back. Never waits and never raises."""
        if connection not in self._in_use_connections:
            return
        keeps = len(self._idle_since) < self._bounds.keep
        if connection.is_connected and keeps and not connection.should_reconnect() and not self._is_old(connection):
            self._in_use_connections.remove(connection)
            self._idle_since[connection] = self._clock()
            self._places.release()
        else:
            await self._discard(connection)

    async def maintain(self) -> None:
        """Close what is old, idle for too long or closed by Redis; open what `min_idle` lacks.

        Raises NotSentError when a connection cannot be opened.
        """
        for connection, since in list(self._idle_since.items()):
            spare = len(self._idle_since) > self._bounds.min_idle
            idle_too_long = spare and self._clock() - since > self._bounds.idle_secs
            if idle_too_long or self._is_old(connection) or await _is_dead(connection):
                await self._close_idle(connection)
        while len(self._idle_since) < self._bounds.min_idle and self._count() < self._bounds.max_size:
            await self._places.acquire()  # at once: a place is free
            fresh = self._make()
            await self._connect(fresh)
            await self.release(fresh)

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the idle connections, and cut those in use: their commands fail."""
        for connection in list(self._idle_since):
            await self._close_idle(connection)
        if inuse_connections:
            for connection in list(self._in_use_connections):
                await _close(connection)

    async def _connect(self, connection: AbstractConnection) -> None:
        """Make sure that a connection in use is open; it is discarded where that fails. Raises NotSentError."""
        try:
            await self.ensure_connection(connection)
        except BaseException as error:
            await self._discard(connection)
            if isinstance(error, (RedisError, OSError)):
                raise NotSentError from error
            raise
        self._born.setdefault(connection, self._clock())

    async def _take(self) -> AbstractConnection:
        """The idle connection used last that is young enough, or a new one. It counts as in use."""
        while self._idle_since:
            connection = next(reversed(self._idle_since))
            if not self._is_old(connection) and connection.is_connected:
                del self._idle_since[connection]
                self._in_use_connections.add(connection)
                return connection
            await self._close_idle(connection)
        return self._make()

    def make_connection(self) -> AbstractConnection:
        """A connection that is neither open nor in the pool's books."""
        connection: AbstractConnection = super().make_connection()  # type: ignore[no-untyped-call]
        return connection

    def _make(self) -> AbstractConnection:
        connection = self.make_connection()
        self._in_use_connections.add(connection)
        return connection

    # The books are put right before anything is awaited: whoever is cancelled here leaves them in order.

    async def _discard(self, connection: AbstractConnection) -> None:
        """Close a connection that was in use, and free its place."""
        self._in_use_connections.remove(connection)
        self._born.pop(connection, None)
        self._places.release()
        await _close(connection)

    async def _close_idle(self, connection: AbstractConnection) -> None:
        self._idle_since.pop(connection, None)
        self._born.pop(connection, None)
        await _close(connection)

    def _count(self) -> int:
        return len(self._idle_since) + len(self._in_use_connections)

    def _is_old(self, connection: AbstractConnection) -> bool:
        born = self._born.get(connection)
        return born is not None and self._clock() - born > self._bounds.lifetime_secs


class MasterConnection(SentinelManagedConnection):
    """A connection to the master that the Sentinels name. A refusal as READONLY stays one, for the caller to see."""

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """As of any connection: redis-py would report a lost connection, after which nothing is sure any more."""
        return await super(SentinelManagedConnection, self).read_response(*args, **options)


class MasterTlsConnection(MasterConnection, SentinelManagedSSLConnection):
    """The same over TLS."""


class MasterPool(SentinelConnectionPool, BoundedPool):
    """A bounded pool whose connections go to the master that the Sentinels name when they are opened."""

    def __init__(self, master_name: str, sentinel: Sentinel, **options: Any) -> None:
        super().__init__(master_name, sentinel, **options)  # type: ignore[no-untyped-call]


async def _is_dead(connection: AbstractConnection) -> bool:
    """Whether an idle connection was closed by Redis, or has data that nobody asked for."""
    try:
        return not connection.is_connected or bool(await connection.can_read())
    except (RedisError, OSError):
        return True


async def _close(connection: AbstractConnection) -> None:
    """Close without waiting for the other side."""
    with contextlib.suppress(RedisError, OSError):
        await connection.disconnect(nowait=True)
