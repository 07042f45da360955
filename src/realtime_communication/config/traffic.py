"""Keys of the schema that govern messages: limits, routing, mailboxes, batches. See `schema.py`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from realtime_communication.config.keys import DAY_SECONDS, MAX_BYTES, Section, Spec


class ConnectionLimit(Section, frozen=True, kw_only=True):
    """Token bucket of each connection."""

    requests_per_second: Annotated[
        float,
        Spec(
            "Tokens that come back per second.",
            above=0,
            maximum=1e9,
            unit="requests/s",
            variables=("RATE_LIMIT_CONNECTION_RPS",),
            live=True,
        ),
    ] = 100.0
    burst_size: Annotated[
        int,
        Spec(
            "Requests at once from a full bucket.",
            minimum=1,
            maximum=2_000_000_000,
            unit="requests",
            variables=("RATE_LIMIT_CONNECTION_BURST",),
            live=True,
        ),
    ] = 200
    window_size_secs: Annotated[
        float,
        Spec(
            "Window whose allowance, rate times window, may be used at once when it is above the burst.",
            minimum=1,
            maximum=DAY_SECONDS,
            unit="seconds",
            live=True,
        ),
    ] = 1.0


class UserLimit(ConnectionLimit, frozen=True, kw_only=True):
    """Token bucket of each user, over all connections of that user."""

    requests_per_second: Annotated[
        float,
        Spec(
            "Tokens that come back per second.",
            above=0,
            maximum=1e9,
            unit="requests/s",
            variables=("RATE_LIMIT_USER_RPS",),
            live=True,
        ),
    ] = 500.0
    burst_size: Annotated[
        int,
        Spec(
            "Requests at once from a full bucket.",
            minimum=1,
            maximum=2_000_000_000,
            unit="requests",
            variables=("RATE_LIMIT_USER_BURST",),
            live=True,
        ),
    ] = 1000


class GlobalLimit(ConnectionLimit, frozen=True, kw_only=True):
    """Token bucket of the whole server."""

    requests_per_second: Annotated[
        float,
        Spec(
            "Tokens that come back per second.",
            above=0,
            maximum=1e9,
            unit="requests/s",
            variables=("RATE_LIMIT_GLOBAL_RPS",),
            live=True,
        ),
    ] = 10_000.0
    burst_size: Annotated[
        int,
        Spec(
            "Requests at once from a full bucket.",
            minimum=1,
            maximum=2_000_000_000,
            unit="requests",
            variables=("RATE_LIMIT_GLOBAL_BURST",),
            live=True,
        ),
    ] = 20_000


class TokenBucket(Section, frozen=True, kw_only=True):
    """How the buckets of `rate_limiting` count."""

    refill_interval_ms: Annotated[
        int,
        Spec("Tokens come back in steps of this length.", minimum=1, maximum=60_000, unit="milliseconds", live=True),
    ] = 100
    token_precision: Annotated[
        float, Spec("Smallest fraction of a token that is counted.", above=0, maximum=1, unit="tokens", live=True)
    ] = 0.1
    cleanup_interval_secs: Annotated[
        float,
        Spec(
            "How often idle user buckets are looked for.", minimum=0.1, maximum=DAY_SECONDS, unit="seconds", live=True
        ),
    ] = 300.0
    cleanup_threshold_secs: Annotated[
        float,
        Spec(
            "A user bucket unused for this long is dropped.",
            minimum=0.1,
            maximum=DAY_SECONDS,
            unit="seconds",
            live=True,
        ),
    ] = 600.0


class CustomLimit(Section, frozen=True, kw_only=True):
    """A bucket per connection for the requests whose type matches `pattern`."""

    name: Annotated[str, Spec("Scope shown in `rate_limited` errors; unique.", minimum=1, maximum=64, live=True)]
    pattern: Annotated[
        str, Spec("Glob over request types, such as `Subscribe` or `*Message`.", minimum=1, maximum=64, live=True)
    ]
    requests_per_second: Annotated[
        float, Spec("Tokens that come back per second.", above=0, maximum=1e9, unit="requests/s", live=True)
    ]
    burst_size: Annotated[
        int, Spec("Requests at once from a full bucket.", minimum=1, maximum=2_000_000_000, unit="requests", live=True)
    ]


class RateLimitHeaders(Section, frozen=True, kw_only=True):
    """Headers on HTTP answers under a limit."""

    enabled: Annotated[bool, Spec("Whether the headers are sent.", live=True)] = True
    limit_header: Annotated[str, Spec("Header with the depth of the bucket.", minimum=1, maximum=128, live=True)] = (
        "X-RateLimit-Limit"
    )
    remaining_header: Annotated[str, Spec("Header with the tokens left.", minimum=1, maximum=128, live=True)] = (
        "X-RateLimit-Remaining"
    )
    reset_header: Annotated[
        str, Spec("Header with the time at which the bucket is full again.", minimum=1, maximum=128, live=True)
    ] = "X-RateLimit-Reset"
    retry_after_header: Annotated[
        str, Spec("Header of a 429 with the seconds to wait.", minimum=1, maximum=128, live=True)
    ] = "Retry-After"


class RateLimiting(Section, frozen=True, kw_only=True, rename={"global_": "global"}):
    """How much a connection, a user and everybody together may ask for."""

    enabled: Annotated[
        bool, Spec("Whether requests are counted against the buckets.", variables=("RATE_LIMIT_ENABLED",), live=True)
    ] = True
    connection: ConnectionLimit = msgspec.field(default_factory=ConnectionLimit)
    user: UserLimit = msgspec.field(default_factory=UserLimit)
    global_: GlobalLimit = msgspec.field(default_factory=GlobalLimit)
    token_bucket: TokenBucket = msgspec.field(default_factory=TokenBucket)
    headers: RateLimitHeaders = msgspec.field(default_factory=RateLimitHeaders)
    custom_limits: Annotated[
        tuple[CustomLimit, ...], Spec("Further buckets for single types of request.", live=True)
    ] = ()


class Transform(Section, frozen=True, kw_only=True):
    """A function that every payload on matching topics goes through before it is kept and delivered; the first match
    counts."""

    topic: Annotated[str, Spec("Topic, or prefix and `*`.", minimum=1, maximum=255)]
    callable: Annotated[
        str,
        Spec(
            "`package.module:function`, called with topic and payload; what it returns is the payload, None drops it.",
            minimum=3,
            maximum=255,
        ),
    ]


class MessageRouting(Section, frozen=True, kw_only=True):
    """What happens to a message between sender and receivers."""

    enable_caching: Annotated[
        bool, Spec("Keep the last messages of each topic, for recovery and `History`.", live=True)
    ] = True
    cache_ttl_secs: Annotated[
        float,
        Spec("Age at which a cached message is dropped.", above=0, maximum=30 * DAY_SECONDS, unit="seconds", live=True),
    ] = 300.0
    max_cache_entries: Annotated[
        int,
        Spec(
            "Most cached messages over all topics; the oldest go first.",
            minimum=1,
            maximum=100_000_000,
            unit="messages",
            live=True,
        ),
    ] = 10_000
    max_targets_per_message: Annotated[
        int,
        Spec(
            "Most user ids in `DirectMessage.to`; more are answered `too_many_targets`.",
            minimum=1,
            maximum=1_000_000,
            unit="users",
            live=True,
        ),
    ] = 1000
    enable_message_transformation: Annotated[
        bool,
        Spec(
            "true: payloads are transcoded for subscribers on the other encoding. false: those are left out.",
            live=True,
        ),
    ] = True
    transforms: Annotated[
        tuple[Transform, ...], Spec("Python functions that change payloads; need enable_message_transformation.")
    ] = ()
    drop_invalid_messages: Annotated[
        bool, Spec("true: an invalid request is counted and dropped. false: it is answered with `Error`.", live=True)
    ] = False


class ActorSystem(Section, frozen=True, kw_only=True):
    """Outgoing queues of the connections, and what happens after a crash."""

    mailbox_capacity: Annotated[
        int,
        Spec(
            "Most messages that wait for one connection.",
            minimum=1,
            maximum=10_000_000,
            unit="messages",
            aliases=("performance.actors.default_mailbox_size",),
            live=True,
        ),
    ] = 1000
    enable_priority_mailbox: Annotated[
        bool, Spec("Replies, errors and control frames go ahead of messages, in a queue of their own.", live=True)
    ] = True
    overflow_strategy: Annotated[
        Literal["drop_oldest", "drop_newest", "block", "backpressure"],
        Spec(
            "What a full mailbox does: drop a message, stop reading from publishers, or refuse and skip ahead.",
            live=True,
        ),
    ] = "backpressure"
    supervision_strategy: Annotated[
        Literal["one_for_one", "all_for_one", "rest_for_one"],
        Spec("Which service tasks are started again when one crashes: that one, all, or that one and the later ones."),
    ] = "one_for_one"
    max_restarts: Annotated[
        int,
        Spec("More restarts than this within the window end the server.", minimum=0, maximum=10_000, unit="restarts"),
    ] = 3
    restart_window_secs: Annotated[
        float,
        Spec("Window in which restarts are counted.", minimum=1, maximum=DAY_SECONDS, unit="seconds"),
    ] = 60.0


class ActorPerformance(Section, frozen=True, kw_only=True):
    """Fairness between connections."""

    priority_mailbox_size: Annotated[
        int,
        Spec(
            "Most replies, errors and control frames that wait for one connection.",
            minimum=1,
            maximum=1_000_000,
            unit="messages",
            live=True,
        ),
    ] = 100
    batch_size: Annotated[
        int,
        Spec(
            "Most requests taken from one connection in one turn of the loop.",
            minimum=1,
            maximum=1_000_000,
            unit="requests",
            live=True,
        ),
    ] = 50
    batch_timeout_ms: Annotated[
        float,
        Spec(
            "Most time spent on one connection in one turn of the loop.",
            above=0,
            maximum=10_000,
            unit="milliseconds",
            live=True,
        ),
    ] = 10.0
    use_work_stealing: Annotated[
        bool,
        Spec("An overloaded worker hands connections to an idle one; with one worker there is nobody to take them."),
    ] = True
    pin_actors_to_cores: Annotated[bool, Spec("Each worker is bound to a core of its own.")] = False


class MessagePerformance(Section, frozen=True, kw_only=True):
    """Outgoing batches and compression."""

    max_batch_size: Annotated[
        int,
        Spec(
            "As soon as so many messages wait for a connection they are written, without waiting for more.",
            minimum=1,
            maximum=1_000_000,
            unit="messages",
            live=True,
        ),
    ] = 100
    batch_window_ms: Annotated[
        float,
        Spec(
            "Longest wait under load for messages to be written together; never a wait when idle.",
            minimum=0,
            maximum=10_000,
            unit="milliseconds",
            live=True,
        ),
    ] = 5.0
    compression_threshold_bytes: Annotated[
        int,
        Spec("Smallest message that is compressed.", minimum=0, maximum=MAX_BYTES, unit="bytes", live=True),
    ] = 1024
    compression_algorithm: Annotated[
        Literal["none", "gzip", "zstd", "lz4"],
        Spec(
            "`none` offers no compression. Any other offers all forms, permessage-deflate too: the client chooses.",
            live=True,
        ),
    ] = "zstd"


class MemoryPerformance(Section, frozen=True, kw_only=True):
    """Pools, and the cyclic garbage collector."""

    connection_pool_size: Annotated[
        int,
        Spec("Connections whose memory is kept for reuse.", minimum=0, maximum=10_000_000, unit="connections"),
    ] = 10_000
    message_pool_size: Annotated[
        int, Spec("Messages whose memory is kept for reuse.", minimum=0, maximum=100_000_000, unit="messages")
    ] = 100_000
    buffer_pool_size: Annotated[
        int, Spec("Buffers that are kept for reuse.", minimum=0, maximum=100_000_000, unit="buffers")
    ] = 50_000
    gc_interval_secs: Annotated[
        float,
        Spec("How often the cyclic garbage collector runs.", minimum=1, maximum=DAY_SECONDS, unit="seconds"),
    ] = 300.0
    gc_threshold_mb: Annotated[
        int,
        Spec("Resident memory above which it runs at once.", minimum=1, maximum=1_048_576, unit="MiB"),
    ] = 1024


class Performance(Section, frozen=True, kw_only=True):
    """Tuning."""

    actors: ActorPerformance = msgspec.field(default_factory=ActorPerformance)
    messages: MessagePerformance = msgspec.field(default_factory=MessagePerformance)
    memory: MemoryPerformance = msgspec.field(default_factory=MemoryPerformance)
