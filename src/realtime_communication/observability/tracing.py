"""The tracer a configuration asks for.

OpenTelemetry is an optional extra and takes some 25 MB: it is imported only when traces are to be made.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from realtime_communication.config.watching import Tracing
from realtime_communication.observability.logs import get_logger
from realtime_communication.observability.spans import NO_TRACER, Tracer

# Where a Jaeger takes spans in formats of its own: thrift over HTTP and UDP, its old gRPC.
_OLD_JAEGER_PORTS = frozenset({6831, 6832, 14250, 14268})

_log = get_logger(__name__)


def tracer_of(tracing: Tracing, *, telemetry: bool, node_id: str, version: str) -> Tracer:
    """The tracer of one worker process: to be made in it, after every fork, because it starts a thread.

    `telemetry` is `logging.enable_telemetry`; false: no traces. Without the extra `tracing` the server goes on without
    traces, and says so once. Never raises.
    """
    if not (tracing.enabled and telemetry):
        return NO_TRACER
    try:
        from realtime_communication.observability.otel import OtelTracer
    except ImportError as error:
        _log.warning(
            "no traces: OpenTelemetry is not installed",
            missing=error.name or str(error),
            remedy="pip install 'realtime_communication[tracing]', or tracing.enabled = false",
        )
        return NO_TRACER
    if tracing.exporter == "jaeger" and urlsplit(tracing.endpoint).port in _OLD_JAEGER_PORTS:
        _log.warning(
            "this port of a Jaeger does not take OTLP, which is what is sent to it",
            setting="tracing.endpoint",
            remedy="port 4317 or 4318 of a Jaeger of 1.35 or later",
        )
    try:
        return OtelTracer(tracing, node_id=node_id, version=version)
    except Exception:
        # Such as a variable OTEL_… that the library cannot read: no reason not to serve.
        _log.exception("no traces: OpenTelemetry could not be set up")
        return NO_TRACER
