"""The shapes of requests and answers over HTTP, as the description of the API tells them.

Bodies of `/auth/*` are read through the structs of `auth`, which are described as they are; the data plane reads
`/api/publish` and `/api/send` itself. Tests hold every answer against what stands here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.json import schema_components

from realtime_communication.errors import ERROR_CODES

REFERENCE: Final = "#/components/schemas/{name}"


def described_types(types: Sequence[Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The JSON Schema of each of `types`, and the components that these refer to.

    None is how the structs say that a field was left out: where it is the default, the schema knows no null.
    """
    made, components = schema_components(types, ref_template=REFERENCE)
    for component in components.values():
        for name, field in component.get("properties", {}).items():
            if "default" in field and field["default"] is None:
                component["properties"][name] = _without_null(field)
    return list(made), components


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in field.items() if name not in ("default", "anyOf")}
    choices = [choice for choice in field.get("anyOf", ()) if choice != {"type": "null"}]
    return rest | (choices[0] if len(choices) == 1 else {"anyOf": choices} if choices else {})


# JSON Schema counts characters where the server counts bytes: these bounds are the outer ones.
Topic = Annotated[str, Meta(min_length=1, max_length=255, description="1 to 255 bytes of UTF-8, no control characters")]
UserId = Annotated[str, Meta(min_length=1, max_length=128, description="1 to 128 bytes of UTF-8")]
Key = Annotated[str, Meta(min_length=1, max_length=128, description="the same key is published once")]
Epoch = Annotated[str, Meta(description="the life of a topic's count; another one when its history was lost")]
Offset = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
Count = Annotated[int, Meta(ge=0)]
Limit = Annotated[int, Meta(ge=1, le=1000)]
Workers = list[int]
Flag = Literal["true", "false"]


class Error(Struct):
    """What was wrong. `message` is for people; it names the field at fault and the limit it broke."""

    code: Annotated[
        str,
        Meta(
            description="one of the protocol's, as far as they fit: " + ", ".join(row.name for row in ERROR_CODES),
            pattern="^[a-z][a-z0-9_'-]*$",
        ),
    ]
    message: str


class Failure(Struct):
    """Every answer of 400 and above."""

    error: Error


class EntryError(Struct, omit_defaults=True):
    """Why one entry of a batch was refused."""

    code: str
    message: str
    retry_after_ms: Count | None = None


class PublishRequest(Struct):
    """As `Broadcast` over a WebSocket."""

    topic: Topic
    payload: Any
    idempotency_key: Key | None = None


class Published(Struct):
    """The message has its place in the topic, and is in the cache."""

    epoch: Epoch
    offset: Offset


class SendRequest(Struct):
    """As `DirectMessage` over a WebSocket."""

    to: UserId | Annotated[list[UserId], Meta(min_length=1)]
    payload: Any
    idempotency_key: Key | None = None


class Sent(Struct):
    """Who has a live session, and who has none: they find it in their inbox."""

    delivered: list[str]
    offline: list[str]


class Entry(Struct, omit_defaults=True):
    """Of a batch: exactly one of the two."""

    publish: PublishRequest | None = None
    send: SendRequest | None = None


class EntryAnswer(Struct, omit_defaults=True):
    """What the endpoint of the entry would have answered, or why it was refused."""

    epoch: Epoch | None = None
    offset: Offset | None = None
    delivered: list[str] | None = None
    offline: list[str] | None = None
    error: EntryError | None = None


class TopicRow(Struct):
    topic: str
    epoch: Epoch
    offset: Offset
    subscribers: Count
    cached: Annotated[int, Meta(ge=0, description="messages in the cache")]


class Topics(Struct, omit_defaults=True):
    """`complete` is false when there may be more."""

    topics: list[TopicRow]
    complete: bool
    workers_missing: Workers | None = None


class Member(Struct, omit_defaults=True):
    user_id: str
    session_id: str
    joined_at: Annotated[int, Meta(description="milliseconds since 1970")]
    info: dict[str, Any] | None = None


class Presence(Struct):
    """Who is on a topic."""

    topic: str
    count: Count
    members: list[Member]


class StoredMessage(Struct, rename={"sender": "from"}):
    offset: Offset
    ts: Annotated[int, Meta(description="milliseconds since 1970")]
    sender: str
    payload: Any


class History(Struct):
    """A page of a topic. `epoch` and `offset` are where the topic stands."""

    topic: str
    epoch: Epoch
    offset: Offset
    messages: list[StoredMessage]


class Connection(Struct, omit_defaults=True):
    session_id: str
    user_id: str | None
    address: str
    transport: Literal["websocket", "sse"]
    encoding: Literal["json", "msgpack"]
    subscriptions: Count
    queued: Annotated[int, Meta(ge=0, description="messages that wait for it")]
    replies_queued: Count
    blocked: Annotated[bool, Meta(description="its socket is full")]
    connected_ms: Count
    silent_ms: Count
    worker: int | None = None


class Connections(Struct, omit_defaults=True):
    """Newest first. `count` is of all there are; `complete` is false when there may be more that match."""

    count: Count
    connections: list[Connection]
    complete: bool
    workers_missing: Workers | None = None


class DisconnectRequest(Struct, omit_defaults=True, forbid_unknown_fields=True):
    """Exactly one of `user_id` and `session_id`, which is that of a connection or of a login."""

    user_id: UserId | None = None
    session_id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    reason: Annotated[str, Meta(min_length=1, max_length=123)] | None = None


class Disconnected(Struct, omit_defaults=True):
    disconnected: Count
    workers_missing: Workers | None = None


class SubscriptionRequest(Struct, forbid_unknown_fields=True):
    user_id: UserId
    topic: Topic


class SubscribedUser(Struct, omit_defaults=True):
    """How many live sessions of the user are subscribed now."""

    subscribed: Count
    workers_missing: Workers | None = None


class UnsubscribedUser(Struct, omit_defaults=True):
    """How many live sessions of the user were."""

    unsubscribed: Count
    workers_missing: Workers | None = None


class Revoked(Struct, omit_defaults=True):
    """How many connections were closed."""

    revoked: Count
    workers_missing: Workers | None = None


class EffectiveKey(Struct):
    value: Any
    origin: str


class EffectiveConfig(Struct):
    """Every key of the configuration as it is in force, secrets redacted."""

    profile: str
    files: list[str]
    keys: dict[str, EffectiveKey]


Rate = Annotated[float, Meta(gt=0)]
Burst = Annotated[int, Meta(ge=1)]


class RateLimitsRequest(Struct, forbid_unknown_fields=True):
    """At least one. A burst left out while its rate is given becomes twice the rate."""

    connection_rps: Rate | None = None
    connection_burst: Burst | None = None
    user_rps: Rate | None = None
    user_burst: Burst | None = None
    global_rps: Rate | None = None
    global_burst: Burst | None = None


class RateLimits(Struct):
    """The limits now in force."""

    connection_rps: Rate
    connection_burst: Burst
    user_rps: Rate
    user_burst: Burst
    global_rps: Rate
    global_burst: Burst


class LogLevel(Struct, forbid_unknown_fields=True):
    """A level, or a filter as `logging.level` takes it."""

    level: Annotated[str, Meta(min_length=1, examples=["info", "warn,realtime_communication::auth=debug"])]


class WorkerStats(Struct):
    draining: bool
    uptime_secs: float
    connections: Count
    rss_bytes: Count
    hub: dict[str, int]
    circuit_breakers: dict[str, Any]


class Stats(Struct, omit_defaults=True):
    """What the server has done and holds; with several workers also one by one."""

    node_id: str
    profile: str
    workers: Count
    draining: bool
    uptime_secs: float
    connections: Count
    rss_bytes: Count
    hub: dict[str, int]
    circuit_breakers: dict[str, Any]
    versions: dict[str, str]
    per_worker: dict[str, WorkerStats] | None = None
    workers_missing: Workers | None = None


class Percentiles(Struct):
    """Of publications of the last seconds, from when their turn began until they were written, in seconds."""

    samples: Count
    p50: float | None
    p90: float | None
    p99: float | None
    p999: float | None


class Depth(Struct, rename={"least": "from"}):
    """Connections for which at least `from` messages and replies wait, and fewer than the next row's."""

    least: Count
    connections: Count


class BusyTopic(Struct):
    topic: str
    subscribers: Count
    offset: Offset


class WorkerOverview(Struct):
    """Counters are since the worker's start; `queued` are messages and replies that wait in mailboxes."""

    worker: Count
    draining: bool
    uptime_secs: float
    connections: Count
    rss_bytes: Count
    cpu_secs: float
    publications: Count
    deliveries: Count
    requests: Count
    queued: Count


class Node(Struct):
    """A node of the cluster. The rates, per second, are null of the node that answers."""

    node_id: str
    here: bool
    version: str
    workers: Count
    draining: bool
    uptime_secs: float
    connections: Count
    rss_bytes: Count
    publications: float | None
    deliveries: float | None


class Trouble(Struct, omit_defaults=True):
    """A line of the log, of at least a warning. `at` is in milliseconds since 1970."""

    at: Count
    level: str
    event: str
    target: str
    fields: dict[str, Any]
    stack: list[str] | None = None


class Overview(Struct, omit_defaults=True):
    """Counters, in `hub` and of the workers, are since the start. Lists have bounds: the slowest, largest, newest."""

    at: Annotated[int, Meta(description="milliseconds since 1970")]
    node_id: str
    profile: str
    version: str
    status: Literal["ok", "degraded", "draining"]
    draining: bool
    uptime_secs: float
    connections: Count
    max_connections: Count
    rss_bytes: Count
    cpu_secs: float
    hub: dict[str, int]
    circuit_breakers: dict[str, Any]
    dependencies: dict[str, Any]
    queued: Annotated[int, Meta(ge=0, description="messages and replies that wait in mailboxes")]
    latency: Percentiles
    depths: list[Depth]
    slowest: list[Connection]
    topics: list[BusyTopic]
    per_worker: list[WorkerOverview]
    nodes: list[Node]
    troubles: list[Trouble]
    workers_missing: Workers | None = None


class ConnectionTopic(Struct):
    topic: str
    joined_at: Annotated[int, Meta(description="milliseconds since 1970")]
    watching: Annotated[bool, Meta(description="it is told who comes and goes")]
    lagging: Annotated[bool, Meta(description="messages were skipped for it; it is to be caught up")]


class ConnectionInFull(Connection, kw_only=True, omit_defaults=True):
    """`login` is the token's session_id, `expires_at` in seconds since 1970. Topics have a bound of 1,000."""

    login: str | None
    permissions: list[Literal["read", "write", "subscribe", "admin"]]
    expires_at: int | None
    topics: list[ConnectionTopic]


class DrainRequest(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Without `worker`, all of them."""

    worker: Count | None = None


class Draining(Struct, omit_defaults=True):
    """The workers that drain, and how many clients are told."""

    draining: Workers
    connections: Count
    workers_missing: Workers | None = None


class Health(Struct, omit_defaults=True):
    """All but `status` is there with `monitoring.health_check.detailed`."""

    status: Literal["ok", "degraded", "draining"]
    version: str | None = None
    profile: str | None = None
    node_id: str | None = None
    port: int | UnsetType | None = UNSET
    metrics_port: int | UnsetType | None = UNSET
    connections: Count | None = None
    uptime_secs: float | None = None
    workers: Count | None = None
    dependencies: dict[str, Any] | None = None
    circuit_breakers: dict[str, Any] | None = None
    workers_missing: Workers | None = None


class Live(Struct):
    status: Literal["ok"]


class Ready(Struct, omit_defaults=True):
    """`dependencies` are the required ones that are not well."""

    status: Literal["ok", "draining", "unavailable"]
    dependencies: list[str] | None = None
    workers_missing: Workers | None = None


# Queries


class NoQuery(Struct, omit_defaults=True):
    pass


class HistoryQuery(Struct, omit_defaults=True):
    epoch: Annotated[str, Meta(min_length=1, max_length=64, description="comes with offset: where to begin")] = ""
    offset: Offset = 0
    limit: Annotated[int, Meta(ge=0, le=1000)] = 100
    reverse: Flag = "false"


class TopicsQuery(Struct, omit_defaults=True):
    limit: Limit = 1000


class ConnectionsQuery(Struct, omit_defaults=True):
    user_id: UserId = ""
    limit: Limit = 1000


class StreamQuery(Struct, omit_defaults=True):
    topics: Annotated[str, Meta(min_length=1, description="names with commas between them, at most 64")]
    history: Annotated[int, Meta(ge=0, le=1000, description="newest messages wanted of each topic")] = 0
    presence: Annotated[Flag, Meta(description="true: tell who comes and goes")] = "false"
    last_event_id: Annotated[str, Meta(description="as the header Last-Event-ID, which counts where both come")] = ""
