"""Keys of the schema that govern what the server depends on: Redis, and the circuit breakers. See `schema.py`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from realtime_communication.config.keys import DAY_SECONDS, Section, Spec, signing_key

DEFAULT_REDIS_URL = "redis://localhost:6379"
BREAKER_NAMES = ("redis", "auth_service", "message_queue", "webhooks", "event_webhooks", "authorization")
"""What stands behind a circuit breaker: Redis, the OIDC issuers, the publish path to other nodes, webhooks about
breakers, webhooks about everything else, and who is asked what users may do."""


class RedisCluster(Section, frozen=True, kw_only=True):
    """Redis Cluster in place of one Redis."""

    enabled: Annotated[
        bool, Spec("Use a Redis Cluster; `nodes` replaces `redis.url`.", aliases=("redis.enable_cluster",))
    ] = False
    nodes: Annotated[
        tuple[str, ...], Spec("URLs of nodes to find the cluster by; one that answers is enough.", secret=True)
    ] = ()
    read_from_replicas: Annotated[bool, Spec("Send commands that only read to replicas too.")] = False


class RedisSentinel(Section, frozen=True, kw_only=True):
    """A Redis master that Sentinels name."""

    enabled: Annotated[bool, Spec("Ask Sentinels for the master; they replace the address in `redis.url`.")] = False
    master_name: Annotated[str, Spec("Name of the master.", minimum=1, maximum=255)] = "mymaster"
    sentinels: Annotated[tuple[str, ...], Spec("Addresses of Sentinels, as `host:port`.")] = ()
    password: Annotated[
        str, Spec("Password of the master; empty: the one in `redis.url`.", maximum=4096, secret=True)
    ] = ""


class RedisPool(Section, frozen=True, kw_only=True):
    """Connections to Redis."""

    min_idle: Annotated[
        int, Spec("Connections kept open although nobody uses them.", minimum=0, maximum=10_000, unit="connections")
    ] = 5
    max_size: Annotated[
        int,
        Spec(
            "Most connections at once; a command beyond them waits. Left out, it grows to `redis.pool_size`.",
            minimum=1,
            maximum=10_000,
            unit="connections",
        ),
    ] = 20
    idle_timeout_secs: Annotated[
        float,
        Spec(
            "An idle connection above `min_idle` is closed after this long.",
            above=0,
            maximum=DAY_SECONDS,
            unit="seconds",
        ),
    ] = 300.0
    max_lifetime_secs: Annotated[
        float,
        Spec("A connection older than this is replaced.", above=0, maximum=30 * DAY_SECONDS, unit="seconds"),
    ] = 3600.0


class Redis(Section, frozen=True, kw_only=True):
    """Redis, which the nodes of a cluster share."""

    url: Annotated[
        str,
        Spec(
            "`redis://`, `rediss://` or `unix://` URL, with user, password and database where needed.",
            minimum=1,
            maximum=4096,
            secret=True,
            variables=("REDIS_URL",),
        ),
    ] = DEFAULT_REDIS_URL
    pool_size: Annotated[
        int,
        Spec(
            "Connections that stay open after they were used.",
            minimum=1,
            maximum=10_000,
            unit="connections",
            variables=("REDIS_POOL_SIZE",),
        ),
    ] = 10
    timeout_secs: Annotated[
        float,
        Spec(
            "Longest time to connect.",
            above=0,
            maximum=300,
            unit="seconds",
            variables=("REDIS_TIMEOUT_SECS",),
            aliases=(("redis.connection_timeout_ms", 0.001), ("redis.pool.connection_timeout_ms", 0.001)),
        ),
    ] = 5.0
    response_timeout_ms: Annotated[
        float, Spec("Longest wait for the answer to a command.", above=0, maximum=300_000, unit="milliseconds")
    ] = 1000.0
    retry_attempts: Annotated[
        int,
        Spec(
            "Further attempts of a command that failed for want of a connection.",
            minimum=0,
            maximum=100,
            unit="attempts",
            variables=("REDIS_RETRY_ATTEMPTS",),
            aliases=("redis.max_retry_attempts",),
        ),
    ] = 3
    retry_delay_ms: Annotated[
        float,
        Spec(
            "Wait before the first further attempt; it doubles each time, with jitter.",
            minimum=0,
            maximum=60_000,
            unit="milliseconds",
        ),
    ] = 100.0
    key_prefix: Annotated[
        str,
        Spec(
            "Begins the name of every key and channel.",
            maximum=128,
            variables=("REDIS_KEY_PREFIX",),
        ),
    ] = "rtc:"
    required: Annotated[
        bool, Spec("true: without Redis `/health/ready` answers 503. false: the node serves on alone.", live=True)
    ] = False
    cluster: RedisCluster = msgspec.field(default_factory=RedisCluster)
    sentinel: RedisSentinel = msgspec.field(default_factory=RedisSentinel)
    pool: RedisPool = msgspec.field(default_factory=RedisPool)


class BreakerService(Section, frozen=True, kw_only=True):
    """The thresholds of one service, where they differ from the general ones."""

    name: Annotated[
        str, Spec(f"One of {', '.join(f'`{name}`' for name in BREAKER_NAMES)}.", minimum=1, maximum=64, live=True)
    ]
    failure_threshold: Annotated[
        int | None, Spec("Failures in a row that open the breaker.", minimum=1, maximum=1_000_000, live=True)
    ] = None
    success_threshold: Annotated[
        int | None, Spec("Successes in a row that close it again.", minimum=1, maximum=1_000_000, live=True)
    ] = None
    timeout_secs: Annotated[
        float | None,
        Spec("How long it stays open before a trial.", above=0, maximum=DAY_SECONDS, unit="seconds", live=True),
    ] = None
    half_open_requests: Annotated[
        int | None,
        Spec(
            "Most trials at once while half-open.",
            minimum=1,
            maximum=1_000_000,
            live=True,
            aliases=("half_open_max_requests",),
        ),
    ] = None


class BreakerEvents(Section, frozen=True, kw_only=True):
    """What happens when a breaker changes its state."""

    log_state_changes: Annotated[bool, Spec("Write a line into the log.", live=True)] = True
    emit_metrics: Annotated[bool, Spec("Count changes, and show states, in the metrics.", live=True)] = True
    webhook_url: Annotated[
        str, Spec("http(s) URL that gets a signed POST; empty for none.", maximum=2048, secret=True, live=True)
    ] = ""
    webhook_secret: Annotated[str, signing_key(live=True)] = ""


class CircuitBreaker(Section, frozen=True, kw_only=True):
    """When a service that fails is left alone for a while."""

    enabled: Annotated[bool, Spec("false: every call is made.", variables=("CIRCUIT_BREAKER_ENABLED",), live=True)] = (
        True
    )
    failure_threshold: Annotated[
        int,
        Spec(
            "Failures in a row that open a breaker.",
            minimum=1,
            maximum=1_000_000,
            variables=("CIRCUIT_BREAKER_FAILURE_THRESHOLD",),
            live=True,
        ),
    ] = 5
    success_threshold: Annotated[
        int,
        Spec(
            "Successes in a row that close it again.",
            minimum=1,
            maximum=1_000_000,
            variables=("CIRCUIT_BREAKER_SUCCESS_THRESHOLD",),
            live=True,
        ),
    ] = 2
    timeout_secs: Annotated[
        float,
        Spec(
            "How long a breaker stays open before a trial.",
            above=0,
            maximum=DAY_SECONDS,
            unit="seconds",
            variables=("CIRCUIT_BREAKER_TIMEOUT_SECS",),
            live=True,
        ),
    ] = 60.0
    half_open_max_requests: Annotated[
        int,
        Spec(
            "Most trials at once while half-open.",
            minimum=1,
            maximum=1_000_000,
            variables=("CIRCUIT_BREAKER_HALF_OPEN_REQUESTS",),
            aliases=("circuit_breaker.half_open_requests",),
            live=True,
        ),
    ] = 3
    services: Annotated[tuple[BreakerService, ...], Spec("Thresholds of single services.", live=True)] = ()
    events: BreakerEvents = msgspec.field(default_factory=BreakerEvents)
