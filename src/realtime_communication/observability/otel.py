"""Traces by OpenTelemetry. Imported only when traces are made; see `tracing.py`.

Spans end on the event loop, which only puts them into a bounded queue; a thread of the SDK encodes and sends them. A
collector that is away or slow costs spans, never time: the queue drops its oldest, one line is logged when sending
begins to fail and one when it works again, and the end of the process waits at most SHUTDOWN_SECS for it.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

# The C library of gRPC writes to standard error by itself unless it is told not to before it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from opentelemetry import context, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.span import TraceState

from realtime_communication.config.watching import Tracing
from realtime_communication.observability.logs import get_logger
from realtime_communication.observability.logs import trace_id as logged_trace_id
from realtime_communication.observability.spans import Kind, Sample, Span, Tracer, Value, attribute_text
from realtime_communication.observability.trace_context import TraceContext, parse_trace_context

MAX_QUEUED_SPANS: Final = 2048
MAX_BATCH_SPANS: Final = 256  # encoding so many holds the interpreter for some milliseconds
BATCH_DELAY_MS: Final = 1000
EXPORT_TIMEOUT_SECS: Final = 4.0  # of one batch, with its retries
SHUTDOWN_SECS: Final = 2.0
MAX_ATTRIBUTES: Final = 32
GRPC_PORT: Final = 4317
HTTP_PORT: Final = 4318
HTTP_PATH: Final = "/v1/traces"  # OTLP specification, "OTLP/HTTP Request"

_SCOPE: Final = "realtime_communication"
_KINDS: Final[Mapping[Kind, SpanKind]] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
_SUBPROTOCOL: Final = re.compile(r"rtc\.v1\.(?:json|msgpack)(?:\+(?:zstd|lz4|gzip))?")
_MAX_HEADER_LENGTH: Final = 4096

_log = get_logger(__name__)


class OtelTracer(Tracer):
    """Makes spans and sends them to the collector at `tracing.endpoint`."""

    enabled = True

    def __init__(self, tracing: Tracing, *, node_id: str, version: str) -> None:
        resource = Resource.create(
            {"service.name": tracing.service_name, "service.version": version, "service.instance.id": node_id}
        )
        self._exporter = ReportingExporter(exporter_of(tracing.endpoint), address_of(tracing.endpoint))
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=MAX_QUEUED_SPANS,
            schedule_delay_millis=BATCH_DELAY_MS,
            max_export_batch_size=MAX_BATCH_SPANS,
        )
        self.sample_rate = tracing.sampling_rate
        self._tracer = self._tracer_with(ParentBased(TraceIdRatioBased(tracing.sampling_rate)), resource, version)
        # Samples are thinned before they become spans: a second draw would take too many away.
        self._sample_tracer = self._tracer_with(ALWAYS_ON, resource, version)
        self._random = random.Random()  # noqa: S311
        _log.info(
            "traces are sent", endpoint=address_of(tracing.endpoint), share=tracing.sampling_rate, node_id=node_id
        )

    def _tracer_with(self, sampler: Sampler, resource: Resource, version: str) -> trace.Tracer:
        limits = SpanLimits(max_span_attributes=MAX_ATTRIBUTES, max_events=8, max_links=8)
        provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False, span_limits=limits)
        provider.add_span_processor(self._processor)
        return provider.get_tracer(_SCOPE, version)

    def span(self, name: str, *, kind: Kind = "internal", attributes: Mapping[str, Value] | None = None) -> Span:
        return OtelSpan(self._tracer.start_span(name, kind=_KINDS[kind], attributes=_clean(attributes)))

    def request_span(
        self, name: str, caller: TraceContext | None, *, attributes: Mapping[str, Value] | None = None
    ) -> Span:
        started = self._tracer.start_span(
            name, context=_parent(caller), kind=SpanKind.SERVER, attributes=_clean(attributes)
        )
        return RequestSpan(started)

    def connect_span(self, headers: Sequence[tuple[bytes, bytes]], peer: str) -> Span:
        span = self.request_span("websocket.connect", _context_in(headers))
        if span.recording:
            span.set("client.address", _host_of(peer))
            protocol = _protocol_in(headers)
            if protocol is not None:
                span.set("rtc.protocol", protocol)
        return span

    def record_samples(self, samples: Iterable[Sample], rate: float) -> None:
        share = self.sample_rate / rate if rate > 0 else 0.0
        root = trace.set_span_in_context(trace.INVALID_SPAN)
        for kind, topic, start_ns, duration_ns in samples:
            if share < 1 and self._random.random() >= share:
                continue
            made = self._sample_tracer.start_span(
                "publish",
                context=root,
                kind=SpanKind.SERVER,
                start_time=start_ns,
                attributes={
                    "rtc.message.type": attribute_text(kind),
                    "messaging.destination.name": attribute_text(topic),
                },
            )
            made.end(end_time=start_ns + max(duration_ns, 0))

    def stats(self) -> dict[str, int]:
        return {"exported": self._exporter.exported, "lost": self._exporter.lost}

    def shutdown(self) -> None:
        # The processor waits for a batch that is under way, and so for a collector that does not answer.
        closing = threading.Thread(target=self._close, name="traces-end", daemon=True)
        with contextlib.suppress(RuntimeError):  # no more threads: what waits is lost
            closing.start()
            closing.join(SHUTDOWN_SECS)
        if closing.is_alive():
            self._exporter.give_up()

    def _close(self) -> None:
        with contextlib.suppress(Exception):
            self._processor.shutdown()  # type: ignore[no-untyped-call]


class OtelSpan(Span):
    """A span of OpenTelemetry's, with bounded, redacted attributes and no exception texts."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self.trace_id = f"{span.get_span_context().trace_id:032x}"
        self.recording = span.is_recording()

    def set(self, name: str, value: Value) -> None:
        self._span.set_attribute(name, attribute_text(value) if isinstance(value, str) else value)

    def rename(self, name: str) -> None:
        self._span.update_name(attribute_text(name))

    def fail(self, error_type: str) -> None:
        self.set("error.type", error_type)
        self._span.set_status(Status(StatusCode.ERROR))

    def enter(self) -> None:
        self._outer = context.attach(trace.set_span_in_context(self._span))

    def leave(self) -> None:
        context.detach(self._outer)

    def end(self) -> None:
        self._span.end()


class RequestSpan(OtelSpan):
    """As OtelSpan; its trace id stands in the lines that are logged meanwhile."""

    def enter(self) -> None:
        self._token = logged_trace_id.set(self.trace_id)
        super().enter()

    def leave(self) -> None:
        super().leave()
        logged_trace_id.reset(self._token)


class ReportingExporter(SpanExporter):
    """Sends by another exporter, and logs where that begins to fail and where it works again. Runs in SDK threads."""

    def __init__(self, exporter: SpanExporter, address: str) -> None:
        self._exporter = exporter
        self._address = address
        self._failing = False
        self._lost_before = 0
        self._given_up = False
        self.exported = 0
        self.lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; never raises."""
        try:
            result = SpanExportResult.FAILURE if self._given_up else self._exporter.export(spans)
        except Exception:  # whatever it is, the collector is not reached
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            self.exported += len(spans)
            if self._failing:
                _log.info(
                    "traces reach the collector again", endpoint=self._address, lost=self.lost - self._lost_before
                )
        else:
            if not self._failing:
                self._lost_before = self.lost
                _log.warning("traces do not reach the collector, and are dropped", endpoint=self._address)
            self.lost += len(spans)
        self._failing = result is not SpanExportResult.SUCCESS
        return result

    def shutdown(self) -> None:
        """Close the connection to the collector."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is kept here."""
        return True

    def give_up(self) -> None:
        """Send nothing more, and break off what is being sent."""
        self._given_up = True
        with contextlib.suppress(Exception):
            self._exporter.shutdown()


def exporter_of(endpoint: str) -> SpanExporter:
    """Sends OTLP to `endpoint`: over HTTP when it has a path or port 4318, else over gRPC.

    `http:` is plain text, `https:` TLS. Further settings are read from the library's variables, such as
    OTEL_EXPORTER_OTLP_HEADERS and OTEL_EXPORTER_OTLP_CERTIFICATE.
    """
    url = urlsplit(endpoint)
    path = url.path.rstrip("/")
    if path or url.port == HTTP_PORT:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        return HttpExporter(endpoint=url._replace(path=path or HTTP_PATH).geturl(), timeout=EXPORT_TIMEOUT_SECS)
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

    options: dict[str, Any] = {"timeout": EXPORT_TIMEOUT_SECS}
    return GrpcExporter(
        endpoint=f"{url.scheme}://{_authority(url, GRPC_PORT)}", insecure=url.scheme == "http", **options
    )


def address_of(endpoint: str) -> str:
    """`endpoint` without what may be secret in it: no user, password or query."""
    url = urlsplit(endpoint)
    return f"{url.scheme}://{_authority(url)}{url.path}"


def _authority(url: SplitResult, default_port: int | None = None) -> str:
    host = url.hostname or "localhost"
    port = url.port or default_port
    return (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")


def _clean(attributes: Mapping[str, Value] | None) -> dict[str, Value] | None:
    if attributes is None:
        return None
    return {name: attribute_text(value) if isinstance(value, str) else value for name, value in attributes.items()}


def _parent(caller: TraceContext | None) -> context.Context:
    if caller is None:
        return trace.set_span_in_context(trace.INVALID_SPAN)
    parent = trace.SpanContext(
        trace_id=int(caller.trace_id, 16),
        span_id=int(caller.span_id, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED if caller.sampled else trace.TraceFlags.DEFAULT),
        trace_state=TraceState.from_header([caller.state]) if caller.state else None,
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(parent))


def _context_in(headers: Sequence[tuple[bytes, bytes]]) -> TraceContext | None:
    parents = [value for name, value in headers if name == b"traceparent"]
    states = [value for name, value in headers if name == b"tracestate"]
    # Section 3.2.1: more than one traceparent is none; several tracestate headers are one list.
    if len(parents) != 1:
        return None
    return parse_trace_context(parents[0].decode("latin-1"), b",".join(states).decode("latin-1"))


def _protocol_in(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """The subprotocol the server picks. Anything else in that header is left alone: clients put tokens there."""
    offered = [
        value[:_MAX_HEADER_LENGTH].decode("latin-1") for name, value in headers if name == b"sec-websocket-protocol"
    ]
    if not offered:
        return "rtc.v1.json"
    names = (name.strip() for name in ",".join(offered).split(","))
    return next((name for name in names if _SUBPROTOCOL.fullmatch(name)), None)


def _host_of(peer: str) -> str:
    host, separator, port = peer.rpartition(":")
    return host.strip("[]") if separator and port.isdigit() else peer
