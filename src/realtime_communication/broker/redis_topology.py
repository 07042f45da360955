"""Where Redis is: one server, the master that Sentinels name, or a cluster.

A topology is made from `config.redis` and knows nothing of breakers, retries or time: it makes one attempt, and raises
what redis-py raises. `RedisLink` owns it, asks it to check itself, and throws it away for a new one when it has gone
stale.

What each honours: all of them `timeout_secs` and `response_timeout_ms`. A single server and a Sentinel's master have
the pool of `redis_pool.py`, and so all of `pool_size` and `pool.*`. The client for clusters keeps its own connections
for each node: of `pool.*` it honours `max_size`, as the most commands at once and so the most connections to a node;
`pool_size`, `min_idle`, `idle_timeout_secs` and `max_lifetime_secs` have no effect there.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, urlsplit

from redis.asyncio import Redis as Client
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import AbstractConnection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.cluster import LoadBalancingStrategy
from redis.exceptions import ClusterDownError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from realtime_communication.broker.redis_pool import (
    BoundedPool,
    MasterConnection,
    MasterPool,
    MasterTlsConnection,
    PoolBounds,
)
from realtime_communication.broker.redis_replies import NotSentError
from realtime_communication.broker.redis_slots import SlotMap
from realtime_communication.config.services import Redis
from realtime_communication.errors import ConfigurationError, ConfigurationProblem

# What a URL may say after its question mark. Anything else is refused: it would be a setting without effect.
_URL_PARAMETERS: Final = frozenset(
    {
        *("db", "username", "password", "client_name", "ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile"),
        *("ssl_keyfile", "ssl_check_hostname", "ssl_min_version", "ssl_ciphers"),
    }
)


class Topology(Protocol):
    """One way to reach Redis."""

    kind: str  # "single", "sentinel" or "cluster"
    address: str  # for people; no user, no password
    verified: bool  # whether whoever answers over TLS has to prove who it is; True without TLS
    sharded: bool  # channels belong to servers by their slot: SSUBSCRIBE and SPUBLISH

    async def execute(self, *command: Any) -> Any:
        """One attempt at a command. Raises exceptions of redis-py, TimeoutError and OSError."""

    async def execute_together(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """One attempt at many commands, sent together: replies, or the ResponseError of each that was refused."""

    async def check(self) -> None:
        """Whether commands are answered, by a node that takes writes. Raises as `execute` does."""

    async def maintain(self) -> None:
        """What the pool needs done every second or so."""

    async def look_again(self) -> bool:
        """Find out which server owns which channels; whether that has changed. Raises as `execute` does."""

    def server_of(self, channel: bytes) -> str | None:
        """The name of the server that feeds `channel`; None while nobody is known to."""

    def moved(self, slot: int, server: str) -> None:
        """A server has said that a slot now belongs to another one. What makes no sense is ignored."""

    def subscription(self, server: str) -> AbstractConnection:
        """A connection to subscribe on, not yet open, beside the pool. Whoever gets it closes it."""

    async def close(self) -> None:
        """Cut all connections. Commands in progress fail."""


def topology_of(config: Redis) -> Topology:
    """The topology that the configuration asks for; nothing is connected yet. Raises ConfigurationError."""
    if config.cluster.enabled:
        return ClusterTopology(config)
    if config.sentinel.enabled:
        return SentinelTopology(config)
    return SingleTopology(config)


class _PooledTopology:
    """What a single server and a Sentinel's master have in common: one pool, and one server that feeds all channels."""

    sharded = False

    def __init__(self, pool: BoundedPool) -> None:
        self.pool = pool
        self._client = Client(connection_pool=pool)

    async def execute(self, *command: Any) -> Any:
        return await self._client.execute_command(*command)

    async def execute_together(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        if len(commands) == 1:
            return [await _caught(self.execute(*commands[0]))]
        async with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
            return replies

    async def check(self) -> None:
        await self.execute("PING")
        try:
            role = await self.execute("ROLE")
        except ResponseError:  # a user that may not ask; what it writes will be refused where it matters
            return
        if role[0] not in (b"master", "master"):
            raise ReadOnlyError("the node is a replica")

    async def maintain(self) -> None:
        await self.pool.maintain()

    async def look_again(self) -> bool:
        return False

    def server_of(self, channel: bytes) -> str | None:
        return ""

    def moved(self, slot: int, server: str) -> None:
        """Nothing moves."""

    def subscription(self, server: str) -> AbstractConnection:
        return self.pool.make_connection()

    async def close(self) -> None:
        await self.pool.disconnect()


class SingleTopology(_PooledTopology):
    """One server: `redis://`, `rediss://` or `unix://`."""

    kind = "single"

    def __init__(self, config: Redis) -> None:
        target = _target(config.url, "redis.url")
        self.verified = _verifies(target)
        self.address = target["path"] if "path" in target else f"{target['host']}:{target['port']}"
        super().__init__(BoundedPool(bounds=_bounds(config), **target, **_options(config)))


class SentinelTopology(_PooledTopology):
    """The master that Sentinels name; user, password, database and TLS are those of `redis.url`."""

    kind = "sentinel"

    def __init__(self, config: Redis) -> None:
        settings = config.sentinel
        self.address = f"{settings.master_name} of {', '.join(settings.sentinels)}"
        target = _target(config.url, "redis.url")
        self.verified = _verifies(target)
        for name in ("host", "port", "path"):  # the Sentinels name them
            target.pop(name, None)
        secure = target.pop("connection_class", None) is SSLConnection
        if settings.password:
            target["password"] = settings.password
        asking = _options(config) | {name: value for name, value in target.items() if name.startswith("ssl_")}
        self._sentinel = Sentinel(
            [_host_and_port(address) for address in settings.sentinels], sentinel_kwargs=asking | {"ssl": secure}
        )
        super().__init__(
            MasterPool(
                settings.master_name,
                self._sentinel,
                connection_class=MasterTlsConnection if secure else MasterConnection,
                bounds=_bounds(config),
                **target,
                **_options(config),
            )
        )

    async def close(self) -> None:
        await super().close()
        for sentinel in self._sentinel.sentinels:
            await sentinel.aclose()


_LEFT_ASTRAY: Final = (RedisConnectionError, RedisTimeoutError, ClusterDownError, ReadOnlyError, OSError)
"""Failures by which a cluster's master may be another server by now."""


class ClusterTopology:
    """A cluster, found by any of its nodes; user, password and TLS are those of the first node's URL that has them."""

    kind = "cluster"
    sharded = True

    def __init__(self, config: Redis) -> None:
        targets = [_target(url, f"redis.cluster.nodes[{index}]") for index, url in enumerate(config.cluster.nodes)]
        self.verified = all(_verifies(target) for target in targets)
        self.address = ", ".join(f"{target['host']}:{target['port']}" for target in targets)
        credentials = next((target for target in [*targets, _target(config.url, "redis.url")] if _has_user(target)), {})
        self._client = RedisCluster(
            startup_nodes=[ClusterNode(target["host"], target["port"]) for target in targets],
            # A replica may lack the newest: its answer is that of some moments ago. Only bare commands that read go
            # there. Scripts go to masters, and what decides whether somebody has missed nothing is read by a script.
            load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN if config.cluster.read_from_replicas else None,
            require_full_coverage=False,  # what is there serves, although a part is down
            max_connections=config.pool.max_size,
            ssl=any(target.get("connection_class") is SSLConnection for target in targets),
            username=credentials.get("username"),
            password=credentials.get("password"),
            **{name: value for name, value in targets[0].items() if name.startswith("ssl_")},
            **_options(config),
        )
        self._slots = SlotMap()
        self._commands = asyncio.Semaphore(config.pool.max_size)
        self._wait_secs = config.timeout_secs

    async def execute(self, *command: Any) -> Any:
        async with self._place():
            return await self._client.execute_command(*command)

    async def execute_together(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        async with self._place():
            pipeline = self._client.pipeline()
            for command in commands:
                pipeline.execute_command(*command)
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
            if any(isinstance(reply, _LEFT_ASTRAY) for reply in replies):
                await self._find_masters()
            return replies

    async def _find_masters(self) -> None:
        """Renew redis-py's own map: after a single command that fails so it does that by itself, not after these."""
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            await self._client.nodes_manager.initialize()

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._wait_secs):
                await self._commands.acquire()
        except TimeoutError:
            raise NotSentError from None
        try:
            yield
        finally:
            self._commands.release()

    async def check(self) -> None:
        # One node that answers is enough: what is published reaches the others over the cluster's bus.
        await self._client.execute_command("PING", target_nodes=RedisCluster.DEFAULT_NODE)

    async def maintain(self) -> None:
        """Nothing: the cluster's client closes nothing and opens nothing ahead of time."""

    async def look_again(self) -> bool:
        # Not redis-py's own map: to renew that makes it open all its connections anew.
        failed: Exception | None = None
        masters = self._client.get_primaries()
        for node in [*random.sample(masters, len(masters)), *self._client.get_replicas()]:
            try:
                rows = await node.execute_command("CLUSTER", "SLOTS")
            except (RedisError, OSError, TimeoutError) as error:
                failed = error
            else:
                return self._slots.learn(rows, node.host)
        raise failed or ClusterDownError("no node of the cluster is known")

    def server_of(self, channel: bytes) -> str | None:
        return self._slots.owner_of(channel)

    def moved(self, slot: int, server: str) -> None:
        self._slots.move(slot, server)

    def subscription(self, server: str) -> AbstractConnection:
        host, _, port = server.rpartition(":")
        options: dict[str, Any] = self._client.get_connection_kwargs()
        node = ClusterNode(host, int(port), **options)
        connection: AbstractConnection = node.connection_class(**node.connection_kwargs)
        return connection

    async def close(self) -> None:
        await self._client.aclose()


async def _caught(command: Awaitable[Any]) -> Any:
    """The reply, or the refusal in its place."""
    try:
        return await command
    except ResponseError as error:
        return error


def _bounds(config: Redis) -> PoolBounds:
    return PoolBounds(
        max_size=config.pool.max_size,
        keep=config.pool_size,
        min_idle=config.pool.min_idle,
        wait_secs=config.timeout_secs,
        idle_secs=config.pool.idle_timeout_secs,
        lifetime_secs=config.pool.max_lifetime_secs,
    )


def _options(config: Redis) -> dict[str, Any]:
    """What every connection has. RedisLink repeats commands, because it knows which may be; redis-py repeats none."""
    return {
        "socket_connect_timeout": config.timeout_secs,
        "socket_timeout": config.response_timeout_ms / 1000,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,  # in RESP3 redis-py hands what is published to callbacks of its own
    }


def _target(url: str, key: str) -> dict[str, Any]:
    """Where a URL leads, as redis-py's arguments; `host` and `port` are there unless it is a path."""
    unknown = sorted({name for name, _ in parse_qsl(urlsplit(url).query)} - _URL_PARAMETERS)
    try:
        if unknown:
            raise ValueError(f"must not have the parameter {unknown[0][:64]}")
        target = dict(parse_url(url))
    except ValueError as error:
        message = str(error) if unknown else "must have parameters of the right type"
        raise ConfigurationError([ConfigurationProblem(key, "", "", message)]) from None
    if "path" not in target:
        target = {"host": "localhost", "port": 6379, "socket_keepalive": True} | target
    return target


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _verifies(target: dict[str, Any]) -> bool:
    return target.get("ssl_cert_reqs") != "none"


def _has_user(target: dict[str, Any]) -> bool:
    return bool(target.get("username") or target.get("password"))
