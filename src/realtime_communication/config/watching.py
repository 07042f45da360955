"""Keys of the schema that govern what the server tells about itself: log, metrics, traces, health. See `schema.py`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from realtime_communication.config.keys import Section, Spec

DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Logging(Section, frozen=True, kw_only=True):
    """What is logged, and how it looks."""

    level: Annotated[
        str,
        Spec(
            "trace, debug, info, warn, error, off, or a filter: `info,realtime_communication::auth=debug`.",
            minimum=1,
            maximum=1024,
            variables=("RUST_LOG", "LOG_LEVEL"),
            live=True,
        ),
    ] = "info"
    format: Annotated[
        Literal["json", "pretty"], Spec("`json`: one object a line. `pretty`: for a terminal.", live=True)
    ] = "json"
    enable_telemetry: Annotated[bool, Spec("false: no traces, whatever `[tracing]` says.")] = True
    enable_metrics: Annotated[bool, Spec("false: no metrics, whatever `[monitoring.prometheus]` says.")] = True


class Prometheus(Section, frozen=True, kw_only=True):
    """The metrics, on a port of their own."""

    enabled: Annotated[bool, Spec("Whether metrics are taken and served.", aliases=("metrics.enabled",))] = True
    port: Annotated[
        int,
        Spec(
            "TCP port, on the address of `server.host`. 0, only in the test profile, takes a free one and prints it.",
            minimum=0,
            maximum=65_535,
            aliases=("metrics.port",),
        ),
    ] = 9090
    path: Annotated[str, Spec("Path of the exposition.", minimum=2, maximum=255, aliases=("metrics.path",))] = (
        "/metrics"
    )
    update_interval_secs: Annotated[
        float,
        Spec(
            "How often gauges that cost something are taken.",
            minimum=0.05,
            maximum=3600,
            unit="seconds",
            aliases=("metrics.update_interval_secs",),
            live=True,
        ),
    ] = 10.0
    namespace: Annotated[
        str, Spec("First part of every metric's name.", maximum=64, aliases=("metrics.namespace",))
    ] = "realtime_comm"
    subsystem: Annotated[
        str, Spec("Second part of every metric's name.", maximum=64, aliases=("metrics.subsystem",))
    ] = "websocket"
    buckets: Annotated[
        tuple[float, ...], Spec("Upper bounds of the histograms, in seconds.", aliases=("metrics.buckets",))
    ] = DEFAULT_BUCKETS


class CustomMetric(Section, frozen=True, kw_only=True):
    """A metric of the catalogue that is not served unless it is asked for."""

    name: Annotated[str, Spec("Its name in the catalogue, such as `message_latency`.", minimum=1, maximum=64)]
    type: Annotated[Literal["counter", "gauge", "histogram"], Spec("Its type, as the catalogue says.")]
    help: Annotated[str, Spec("Text of its HELP line; empty: the catalogue's.", maximum=1024)] = ""
    labels: Annotated[tuple[str, ...], Spec("Labels to split it by, of those the catalogue offers.")] = ()


class HealthCheck(Section, frozen=True, kw_only=True):
    """The health endpoint."""

    enabled: Annotated[bool, Spec("Whether the endpoint exists.")] = True
    path: Annotated[
        str, Spec("Its path; `/live` and `/ready` below it are the two short forms.", minimum=2, maximum=255)
    ] = "/health"
    detailed: Annotated[bool, Spec("Show connections, topics and version, not only the status.", live=True)] = True
    check_redis: Annotated[bool, Spec("Ask Redis too, where it is used.", live=True)] = True
    check_dependencies: Annotated[bool, Spec("Ask the parts of the server, not only the process.", live=True)] = True
    timeout_secs: Annotated[
        float,
        Spec("Longest time for an answer.", above=0, maximum=300, unit="seconds", live=True),
    ] = 5.0


class Monitoring(Section, frozen=True, kw_only=True):
    """How the server is watched."""

    prometheus: Prometheus = msgspec.field(default_factory=Prometheus)
    custom_metrics: Annotated[tuple[CustomMetric, ...], Spec("Further metrics of the catalogue in the docs.")] = ()
    health_check: HealthCheck = msgspec.field(default_factory=HealthCheck)


class Tracing(Section, frozen=True, kw_only=True):
    """OpenTelemetry traces; needs the extra `tracing`."""

    enabled: Annotated[bool, Spec("Whether spans are made and sent.")] = True
    service_name: Annotated[str, Spec("`service.name` of the spans.", minimum=1, maximum=255)] = (
        "realtime-communication"
    )
    sampling_rate: Annotated[
        float,
        Spec("Share of the traces that begin here; one begun by a caller keeps its decision.", minimum=0, maximum=1),
    ] = 0.1
    exporter: Annotated[
        Literal["otlp", "jaeger"], Spec("`otlp`, or `jaeger`: OTLP to a Jaeger that takes it, which all since 1.35 do.")
    ] = "otlp"
    endpoint: Annotated[
        str,
        Spec("URL of the collector: port 4318, or a path, speaks OTLP over HTTP; else gRPC.", minimum=1, maximum=2048),
    ] = "http://localhost:4317"
