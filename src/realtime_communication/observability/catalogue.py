"""The table of all metrics: what each is called, what kind it is, what it means.

Nothing is served that has no row here, and `docs/metrics.md` is made from it. The names stand here without namespace,
subsystem and the `_total` of counters; the standard names of processes and of Python are whole, as every Prometheus
client has them. The metrics that have to be asked for are in `config/metric_names.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from realtime_communication.config.metric_names import MetricType

Merge = Literal["sum", "max", "min"]


class MetricRow(msgspec.Struct, frozen=True):
    """One metric.

    - `stat`: the entry of `Hub.stats()` it shows, read at each scrape
    - `taken`: costs something, so it is taken every `update_interval_secs` and served from memory
    - `standard`: has no namespace and subsystem before its name
    - `where`: what must be there for it to be served, for people
    - `merge`: what of a gauge is told when there are several workers
    - `told`: a number of `Sources.told`, under its name here
    """

    name: str
    type: MetricType
    help: str
    labels: tuple[str, ...] = ()
    stat: str = ""
    taken: bool = False
    standard: bool = False
    where: str = ""
    merge: Merge = "sum"
    told: bool = False


def _gauge(name: str, stat: str, text: str) -> MetricRow:
    return MetricRow(name, "gauge", text, stat=stat)


def _counter(name: str, stat: str, text: str) -> MetricRow:
    return MetricRow(name, "counter", text, stat=stat)


def _redis(name: str, kind: MetricType, text: str, merge: Merge = "sum") -> MetricRow:
    return MetricRow(name, kind, text, where="Redis in use", merge=merge, told=True)


def _webhook(name: str, text: str) -> MetricRow:
    return MetricRow(name, "counter", text, where="`webhooks.url`", told=True)


def _bus(name: str, kind: MetricType, text: str) -> MetricRow:
    return MetricRow(name, kind, text, where="several workers", told=True)


CONNECTIONS: Final = (
    _gauge("connections", "connections", "Connections of clients: WebSockets, and streams of Server-Sent Events"),
    MetricRow("event_streams", "gauge", "Those that are streams of Server-Sent Events", told=True),
    MetricRow("max_connections", "gauge", "The bound websocket.max_connections", merge="max"),
    _gauge("pending_authentications", "pending", "Connections that wait for the check of their credentials"),
    _counter("sockets_accepted", "accepted", "Sockets taken from the listeners"),
    _counter("accept_failures", "accept_failures", "Sockets the system refused to give, mostly for want of files"),
    _counter("upgrades", "upgraded", "Requests that became connections of clients"),
    _counter("upgrades_refused", "refused", "Requests for such a connection that were answered with an error"),
    _counter("authentication_failures", "auth_failures", "Credentials that were refused"),
    _counter("connections_closed", "closed", "Connections that ended, for whatever reason"),
    _counter("connections_migrated", "migrated", "Connections handed to another worker, live"),
    MetricRow("connections_cut", "counter", "Connections the server closed for a reason of its own", ("reason",)),
    _counter("http_connections", "handed_over", "Connections given to the HTTP application"),
)

MESSAGES: Final = (
    _counter("requests", "requests", "Messages received from clients"),
    _counter("requests_invalid", "invalid", "Messages from clients that were no valid request"),
    _counter("requests_rate_limited", "rate_limited", "Requests refused by a rate limit"),
    _counter("requests_unshared", "unshared", "Requests limited by one worker alone, for want of a shared place"),
    _counter("requests_backpressure", "backpressure", "Requests refused because their receivers are behind"),
    _counter("requests_duplicate", "duplicates", "Requests answered again by their idempotency key"),
    _counter("requests_denied", "denied", "Requests that whoever is asked about them refused"),
    _counter("publications", "publications", "Messages that got an offset"),
    _counter("publications_transformed", "transformed", "Publications a transform was called for"),
    _counter("transform_errors", "transform_errors", "Transforms that failed"),
    _counter("deliveries", "deliveries", "Messages put into the mailboxes of connections"),
    _counter("messages_dropped", "dropped", "Messages dropped because a mailbox was full"),
    _counter("messages_lagged", "lagged", "Messages skipped for a slow consumer, to be caught up from the cache"),
    _counter("messages_caught_up", "caught_up", "Messages given from the cache to a consumer that had lagged"),
    _counter("messages_untranscoded", "untranscoded", "Deliveries left out because the encodings differ"),
    _counter("publications_unkept", "upstream_dropped", "Publications made without Redis, but too many to keep for it"),
    _counter("samples_lost", "samples_lost", "Publications whose latency nobody took before newer ones came"),
    MetricRow("queued_messages", "gauge", "Messages that wait in the mailboxes of all connections", taken=True),
    _counter("received_bytes", "bytes_received", "Bytes read from clients"),
    _counter("sent_bytes", "bytes_sent", "Bytes written to clients"),
    _counter("writes", "writes", "System calls that sent something"),
    _counter("writes_blocked", "blocked_writes", "Writes that found a full socket"),
)

TOPICS: Final = (
    _gauge("subscriptions", "subscriptions", "Subscriptions of clients, inboxes not counted"),
    _gauge("topics", "topics", "Topics in memory, inboxes included"),
    _gauge("cached_messages", "cached_messages", "Messages in the message cache"),
)

HTTP: Final = (
    MetricRow(
        "http_request_duration_seconds",
        "histogram",
        "Time to answer an HTTP request",
        ("method", "route", "status"),
    ),
    MetricRow("authentication_duration_seconds", "histogram", "Time to check credentials", ("outcome",)),
)

NODES: Final = (
    _redis("redis_joined", "gauge", "1 while the topics are those of all nodes, 0 while the node serves alone", "min"),
    _redis("redis_losses", "counter", "Times the node began to serve alone"),
    _redis("redis_publications", "counter", "Publications that Redis took"),
    _redis("redis_publications_refused", "counter", "Publications refused for want of Redis"),
    _redis("redis_publications_waiting", "gauge", "Publications that wait for Redis to take them"),
    _redis("redis_publications_waiting_bytes", "gauge", "Their bytes"),
    _redis("redis_publications_dropped", "counter", "Publications made without Redis that gave way to newer ones"),
    _redis("redis_reads", "counter", "Pages of topics read from Redis"),
    _redis("redis_resets", "counter", "Times that subscribers were told of messages or a history that Redis lost"),
    _redis("redis_stray_messages", "counter", "Messages of the feed that do not belong to their topic's history"),
    _redis("redis_topics", "gauge", "Topics that are fed from Redis"),
    _redis("redis_feed_messages", "counter", "Messages that came on channels"),
    _redis("redis_feed_restored", "counter", "Channels that were without a feed and have it again"),
    _redis("redis_feed_lines_lost", "counter", "Connections for what is published that were lost"),
    _redis("redis_feed_probes_lost", "counter", "Probes of those connections that did not come back"),
    _redis("redis_feed_lines", "gauge", "Connections for what is published"),
    _redis("redis_feed_channels", "gauge", "Channels that are subscribed to"),
    _redis("redis_feed_channels_waiting", "gauge", "Channels that have no feed yet"),
    MetricRow(
        "redis_skipped_messages",
        "counter",
        "Messages on channels of topics that were not handled",
        ("reason",),
        where="Redis in use",
    ),
    _bus("bus_links", "gauge", "Links to other workers of the node, each told by both"),
    _bus("bus_sent_bytes", "counter", "Bytes sent to other workers"),
    _bus("bus_received_bytes", "counter", "Bytes received from other workers"),
    _bus("bus_writes", "counter", "System calls that sent something to a worker"),
    _bus("bus_reads", "counter", "System calls that received something from a worker"),
    _bus("bus_overflows", "counter", "Links that were cut because a worker did not keep up"),
    _bus("bus_faults", "counter", "Links that were cut because of what came over them"),
    _bus("bus_refused", "counter", "Links that were refused"),
    _bus("bus_descriptors_lost", "counter", "Sockets that were lost on their way to another worker"),
)

DEPENDENCIES: Final = (
    MetricRow(
        "circuit_breaker_state",
        "gauge",
        "0 closed, 1 half-open, 2 open",
        ("service",),
        where="`circuit_breaker.events.emit_metrics`",
        merge="max",
    ),
    MetricRow(
        "circuit_breaker_failures",
        "gauge",
        "Failures in a row",
        ("service",),
        where="`circuit_breaker.events.emit_metrics`",
        merge="max",
    ),
    MetricRow(
        "circuit_breaker_rejected",
        "counter",
        "Calls a breaker refused",
        ("service",),
        where="`circuit_breaker.events.emit_metrics`",
    ),
    MetricRow(
        "circuit_breaker_transitions",
        "counter",
        "Changes into a state",
        ("service", "state"),
        where="`circuit_breaker.events.emit_metrics`",
    ),
    MetricRow("redis_up", "gauge", "1 while the link to Redis works", where="Redis in use", merge="min"),
    MetricRow("redis_latency_seconds", "gauge", "Time of the last probe of Redis", where="Redis in use", merge="max"),
    MetricRow("redis_buffered_events", "gauge", "Events that wait for Redis to be back", where="Redis in use"),
    MetricRow("redis_dropped_events", "counter", "Events that found no room to wait", where="Redis in use"),
    MetricRow(
        "redis_skipped_events",
        "counter",
        "Events on the channel of the nodes that were not handled",
        ("reason",),
        where="Redis in use",
    ),
    MetricRow(
        "authorization_failures",
        "counter",
        "Questions whether a user may do something that got no answer of use",
        where="`[authorization]`",
        told=True,
    ),
    _webhook("webhook_events_delivered", "Events that the receiver of `webhooks.url` took"),
    _webhook("webhook_events_failed", "Events it was not given, after all attempts or because it refused them"),
    _webhook("webhook_events_dropped", "Events that found no room to wait for it"),
    MetricRow(
        "tls_failures",
        "counter",
        "Connections that TLS ended: a handshake that failed, or broken records",
        where="`security.tls.enabled`",
    ),
    MetricRow(
        "tls_certificate_expiry_timestamp_seconds",
        "gauge",
        "When the certificate in use expires, in seconds since the epoch",
        where="`security.tls.enabled`",
        merge="min",
    ),
)

SERVER: Final = (
    MetricRow(
        "build_info", "gauge", "Always 1; the labels tell what runs", ("version", "node_id", "profile"), merge="max"
    ),
    MetricRow(
        "draining", "gauge", "1 while the server takes no new connections because it is about to end", merge="min"
    ),
    MetricRow("service_up", "gauge", "1 while a service of the server runs", ("service",), merge="min"),
    MetricRow("service_restarts", "counter", "Starts of a service after a crash", ("service",)),
    MetricRow(
        "event_loop_lag_seconds",
        "gauge",
        "Longest delay of the event loop in the last interval",
        taken=True,
        merge="max",
    ),
    MetricRow("log_lines_dropped", "gauge", "Lines of the log that found no reader, until one could be written again"),
    MetricRow(
        "config_last_reload_successful",
        "gauge",
        "1 when the last reload was taken over",
        where="after a reload",
        merge="min",
    ),
    MetricRow(
        "config_last_reload_timestamp_seconds",
        "gauge",
        "When the configuration was last read anew, in seconds since the epoch",
        where="after a reload",
        merge="max",
    ),
)

PROCESS: Final = (
    MetricRow("process_resident_memory_bytes", "gauge", "Memory in RAM", taken=True, standard=True),
    MetricRow("process_virtual_memory_bytes", "gauge", "Size of the address space", taken=True, standard=True),
    MetricRow("process_cpu_seconds", "counter", "Processor time used, user and system", taken=True, standard=True),
    MetricRow("process_open_fds", "gauge", "Open files and sockets", taken=True, standard=True),
    MetricRow(
        "process_max_fds", "gauge", "Most files and sockets that can be open", taken=True, standard=True, merge="min"
    ),
    MetricRow("process_threads", "gauge", "Threads", taken=True, standard=True),
    MetricRow(
        "process_start_time_seconds",
        "gauge",
        "When the process began, in seconds since the epoch",
        standard=True,
        merge="min",
    ),
    MetricRow(
        "python_gc_objects_collected", "counter", "Objects freed by the collector", ("generation",), standard=True
    ),
    MetricRow("python_gc_collections", "counter", "Runs of the collector", ("generation",), standard=True),
)

WORKERS: Final = (
    MetricRow("worker_up", "gauge", "1 when the worker answered this scrape", ("worker",)),
    MetricRow("worker_restarts", "counter", "Starts of the worker after a crash", ("worker",)),
    MetricRow("worker_connections", "gauge", "WebSocket connections of the worker", ("worker",)),
    MetricRow("worker_queued_messages", "gauge", "Messages in the mailboxes of the worker", ("worker",), taken=True),
    MetricRow(
        "worker_event_loop_lag_seconds",
        "gauge",
        "Longest delay of the worker's event loop in the last interval",
        ("worker",),
        taken=True,
    ),
    MetricRow("worker_resident_memory_bytes", "gauge", "Memory of the worker in RAM", ("worker",), taken=True),
    MetricRow("worker_cpu_seconds", "counter", "Processor time used by the worker", ("worker",), taken=True),
)
"""What is told of each worker, where there are several."""

GROUPS: Final[Mapping[str, tuple[MetricRow, ...]]] = MappingProxyType(
    {
        "Connections": CONNECTIONS,
        "Messages": MESSAGES,
        "Topics": TOPICS,
        "HTTP and authentication": HTTP,
        "Nodes and workers": NODES,
        "Dependencies": DEPENDENCIES,
        "Server": SERVER,
        "Process": PROCESS,
    }
)

ROWS: Final[Mapping[str, MetricRow]] = MappingProxyType({row.name: row for rows in GROUPS.values() for row in rows})
"""Every row by its name, without those that only several workers have."""

WORKER_ROWS: Final[Mapping[str, MetricRow]] = MappingProxyType({row.name: row for row in WORKERS})

CUT_REASONS: Final = MappingProxyType(
    {
        "protocol_errors": "protocol_error",
        "timed_out": "timeout",
        "abusive": "rate_limit_abuse",
        "slow_consumers": "slow_consumer",
        "expired": "token_expired",
        "crowded_out": "crowded_out",
    }
)
"""Entries of `Hub.stats()` that are reasons of `connections_cut`."""
