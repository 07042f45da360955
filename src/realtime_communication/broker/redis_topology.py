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
import random
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, urlsplit

from redis.asyncio import Redis as Client
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import AbstractConnection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.cluster import LoadBalancingStrategy
from redis.exceptions import ReadOnlyError, ResponseError

from realtime_communication.broker.redis_errors import NotSentError
from realtime_communication.broker.redis_pool import (
    BoundedPool,
    MasterConnection,
    MasterPool,
    MasterTlsConnection,
    PoolBounds,
)
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

    async def execute(self, *command: Any) -> Any:
        """One attempt at a command. Raises exceptions of redis-py, TimeoutError and OSError."""

    async def check(self) -> None:
        """Whether commands are answered, by a node that takes writes. Raises as `execute` does."""

    async def maintain(self) -> None:
        """What the pool needs done every second or so."""

    def subscription(self) -> AbstractConnection:
        """A connection for SUBSCRIBE, not yet open, beside the pool. Whoever gets it closes it."""

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
    """What a single server and a Sentinel's master have in common: one pool."""

    def __init__(self, pool: BoundedPool) -> None:
        self.pool = pool
        self._client = Client(connection_pool=pool)

    async def execute(self, *command: Any) -> Any:
        return await self._client.execute_command(*command)

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

    def subscription(self) -> AbstractConnection:
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


class ClusterTopology:
    """A cluster, found by any of its nodes; user, password and TLS are those of the first node's URL that has them."""

    kind = "cluster"

    def __init__(self, config: Redis) -> None:
        targets = [_target(url, f"redis.cluster.nodes[{index}]") for index, url in enumerate(config.cluster.nodes)]
        self.verified = all(_verifies(target) for target in targets)
        self.address = ", ".join(f"{target['host']}:{target['port']}" for target in targets)
        credentials = next((target for target in [*targets, _target(config.url, "redis.url")] if _has_user(target)), {})
        self._client = RedisCluster(
            startup_nodes=[ClusterNode(target["host"], target["port"]) for target in targets],
            load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN if config.cluster.read_from_replicas else None,
            require_full_coverage=False,  # what is there serves, although a part is down
            max_connections=config.pool.max_size,
            ssl=any(target.get("connection_class") is SSLConnection for target in targets),
            username=credentials.get("username"),
            password=credentials.get("password"),
            **{name: value for name, value in targets[0].items() if name.startswith("ssl_")},
            **_options(config),
        )
        self._commands = asyncio.Semaphore(config.pool.max_size)
        self._wait_secs = config.timeout_secs

    async def execute(self, *command: Any) -> Any:
        try:
            async with asyncio.timeout(self._wait_secs):
                await self._commands.acquire()
        except TimeoutError:
            raise NotSentError from None
        try:
            return await self._client.execute_command(*command)
        finally:
            self._commands.release()

    async def check(self) -> None:
        # One node that answers is enough: what is published reaches the others over the cluster's bus.
        await self._client.execute_command("PING", target_nodes=RedisCluster.DEFAULT_NODE)

    async def maintain(self) -> None:
        """Nothing: the cluster's client closes nothing and opens nothing ahead of time."""

    def subscription(self) -> AbstractConnection:
        # The cluster's bus carries what is published on any node to all of them.
        node = random.choice(self._client.get_primaries())  # noqa: S311
        connection: AbstractConnection = node.connection_class(**node.connection_kwargs)
        return connection

    async def close(self) -> None:
        await self._client.aclose()


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
