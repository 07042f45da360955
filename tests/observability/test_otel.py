"""Spans of OpenTelemetry's, and the exporter that reports."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from realtime_communication.config.watching import Tracing
from realtime_communication.observability import otel
from realtime_communication.observability.logs import trace_id
from realtime_communication.observability.otel import OtelTracer, ReportingExporter, address_of, exporter_of
from realtime_communication.observability.trace_context import TraceContext
from serving.collector import GrpcCollector

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


@pytest.fixture
def collector() -> Iterator[GrpcCollector]:
    with GrpcCollector() as started:
        yield started


def tracer_to(collector: GrpcCollector, sampling_rate: float = 1.0) -> OtelTracer:
    tracing = Tracing(endpoint=collector.endpoint, sampling_rate=sampling_rate)
    return OtelTracer(tracing, node_id="node-1", version="1.2.3")


class TestSpans:
    def test_a_request_and_the_work_within(self, collector: GrpcCollector) -> None:
        tracer = tracer_to(collector)
        with tracer.request_span("outer", TraceContext(TRACE, SPAN, True), attributes={"a": "b\n"}) as outer:
            assert trace_id.get() == outer.trace_id == TRACE
            outer.set("token", "token=hush")
            outer.rename("renamed")
            with tracer.span("inner", attributes={"n": 1}) as inner:
                inner.fail("timeout")
        assert trace_id.get() is None
        assert not trace.get_current_span().get_span_context().is_valid
        tracer.shutdown()
        (outside,), (inside,) = collector.named("renamed"), collector.named("inner")
        assert outside.attributes == {"a": "b", "token": "token=[redacted]"}
        assert inside.attributes == {"n": 1, "error.type": "timeout"}
        assert (inside.parent_id, inside.failed, outside.failed) == (outside.span_id, True, False)

    def test_what_is_not_sampled_still_has_an_id(self, collector: GrpcCollector) -> None:
        tracer = tracer_to(collector, 0.0)
        with tracer.request_span("outer", None) as span:
            assert not span.recording
            assert int(trace_id.get() or "0", 16) > 0
        with pytest.raises(KeyError), tracer.span("inner"):
            raise KeyError
        tracer.shutdown()
        assert collector.spans == []

    def test_a_request_without_caller_does_not_join_the_work_in_hand(self, collector: GrpcCollector) -> None:
        tracer = tracer_to(collector)
        with tracer.request_span("one", None) as one, tracer.request_span("two", None) as two:
            assert one.trace_id != two.trace_id
        tracer.record_samples([("Broadcast", "t", time.time_ns(), -5)], 1.0)
        tracer.shutdown()
        assert {span.parent_id for span in collector.spans} == {""}
        (published,) = collector.named("publish")
        assert published.start_ns == published.end_ns

    @pytest.mark.parametrize(
        ("offered", "protocol"),
        [
            ([], "rtc.v1.json"),
            ([b"rtc.v1.msgpack"], "rtc.v1.msgpack"),
            ([b"hush, rtc.v1.json+zstd"], "rtc.v1.json+zstd"),
            ([b"hush", b"rtc.v1.json"], "rtc.v1.json"),
            ([b"hush"], None),
            ([b"rtc.v1.json.hush"], None),
            ([b"x," * 100_000], None),
        ],
    )
    def test_only_subprotocols_of_ours_are_shown(
        self, collector: GrpcCollector, offered: list[bytes], protocol: str | None
    ) -> None:
        tracer = tracer_to(collector)
        with tracer.connect_span([(b"sec-websocket-protocol", value) for value in offered], "[::1]:4711"):
            pass
        tracer.shutdown()
        (span,) = collector.spans
        assert span.attributes == {"client.address": "::1"} | ({"rtc.protocol": protocol} if protocol else {})

    def test_two_traceparents_are_none(self, collector: GrpcCollector) -> None:
        tracer = tracer_to(collector)
        header = (b"traceparent", f"00-{TRACE}-{SPAN}-01".encode())
        for headers in ([header], [header, header], [(b"traceparent", b"\xff")]):
            with tracer.connect_span(headers, "unix"):
                pass
        tracer.shutdown()
        assert [span.trace_id == TRACE for span in collector.spans] == [True, False, False]

    def test_attributes_are_bounded_in_number(self, collector: GrpcCollector) -> None:
        tracer = tracer_to(collector)
        with tracer.span("wide") as span:
            for number in range(1000):
                span.set(f"key{number}", number)
        tracer.shutdown()
        assert len(collector.spans[0].attributes) == otel.MAX_ATTRIBUTES

    def test_samples_of_a_data_plane_that_observes_nothing(self, collector: GrpcCollector) -> None:
        tracer = tracer_to(collector)
        tracer.record_samples([("Broadcast", "t", 1, 1)], 0.0)
        tracer.shutdown()
        assert collector.spans == []

    def test_stats(self, collector: GrpcCollector) -> None:
        tracer = tracer_to(collector)
        for _ in range(3):
            with tracer.span("x"):
                pass
        tracer.shutdown()
        assert tracer.stats() == {"exported": 3, "lost": 0}

    def test_after_the_end_spans_are_lost_in_silence(
        self, collector: GrpcCollector, caplog: pytest.LogCaptureFixture
    ) -> None:
        tracer = tracer_to(collector)
        tracer.shutdown()
        caplog.clear()
        with tracer.span("late"):
            pass
        tracer.shutdown()
        assert [record for record in caplog.records if record.name.startswith("realtime_communication")] == []
        assert collector.spans == []


class Told(SpanExporter):
    """Does what it is told, one outcome a batch."""

    def __init__(self, *outcomes: SpanExportResult | Exception) -> None:
        self.outcomes = list(outcomes)
        self.closed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def shutdown(self) -> None:
        self.closed += 1
        raise RuntimeError("closed twice")


GOOD, BAD = SpanExportResult.SUCCESS, SpanExportResult.FAILURE


class TestReporting:
    def test_one_line_when_it_begins_to_fail_and_one_when_it_works_again(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        exporter = ReportingExporter(Told(GOOD, BAD, ValueError("hush"), BAD, GOOD, GOOD, BAD), "http://collector")
        batch = [ReadableSpan("x")] * 2
        results = [exporter.export(batch) for _ in range(7)]
        assert results == [GOOD, BAD, BAD, BAD, GOOD, GOOD, BAD]
        assert [record.message for record in caplog.records] == [
            "traces do not reach the collector, and are dropped",
            "traces reach the collector again",
            "traces do not reach the collector, and are dropped",
        ]
        assert caplog.records[1].event_fields == {"endpoint": "http://collector", "lost": 6}
        assert (exporter.exported, exporter.lost) == (6, 8)
        assert all(record.exc_info is None for record in caplog.records)

    def test_giving_up(self) -> None:
        told = Told(GOOD)
        exporter = ReportingExporter(told, "http://collector")
        exporter.give_up()
        assert told.closed == 1
        assert exporter.export([ReadableSpan("x")]) is BAD
        assert told.outcomes == [GOOD]
        assert exporter.force_flush()


@pytest.mark.parametrize(
    ("endpoint", "kind", "target"),
    [
        ("http://localhost:4317", "grpc", "localhost:4317"),
        ("http://localhost", "grpc", "localhost:4317"),
        ("http://localhost:4317/", "grpc", "localhost:4317"),
        ("https://[::1]:7", "grpc", "[::1]:7"),
        ("http://user:hush@localhost:1", "grpc", "localhost:1"),
        ("http://localhost:4318", "http", "http://localhost:4318/v1/traces"),
        ("http://localhost:4318/", "http", "http://localhost:4318/v1/traces"),
        ("https://localhost/otlp", "http", "https://localhost/otlp"),
    ],
)
def test_protocol_by_endpoint(endpoint: str, kind: str, target: str) -> None:
    exporter = exporter_of(endpoint)
    assert f".{kind}." in type(exporter).__module__
    assert exporter._endpoint == target  # type: ignore[attr-defined]
    exporter.shutdown()


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        ("http://localhost:4317", "http://localhost:4317"),
        ("https://user:hush@host/path?token=hush", "https://host/path"),
        ("http://[::1]:4318", "http://[::1]:4318"),
    ],
)
def test_addresses_show_no_secrets(endpoint: str, shown: str) -> None:
    assert address_of(endpoint) == shown
