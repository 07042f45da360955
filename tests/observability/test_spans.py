"""What the program knows of tracing, and the tracer that makes nothing."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication.observability.logs import trace_id
from realtime_communication.observability.spans import (
    MAX_ATTRIBUTE_LENGTH,
    NO_SPAN,
    NO_TRACER,
    Span,
    attribute_text,
)
from realtime_communication.observability.trace_context import TraceContext

CALLER = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", False)


class TestAttributes:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("room:42", "room:42"),
            ("a\r\nb\x1b[31m\x00", "ab[31m"),
            ("token=hush", "token=[redacted]"),
            ("x" * 1000, "x" * MAX_ATTRIBUTE_LENGTH),
            ("é" * 1000, "é" * (MAX_ATTRIBUTE_LENGTH // 2)),
            ("a" + "é" * 1000, "a" + "é" * ((MAX_ATTRIBUTE_LENGTH - 1) // 2)),
        ],
    )
    def test_text(self, text: str, shown: str) -> None:
        assert attribute_text(text) == shown

    def test_no_secret_at_the_cut(self) -> None:
        for length in range(MAX_ATTRIBUTE_LENGTH):
            assert "hush" not in attribute_text("x" * length + " token=" + "hush" * 100)

    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(st.text(max_size=300))
    def test_any_text(self, text: str) -> None:
        shown = attribute_text(text)
        assert len(shown.encode()) <= MAX_ATTRIBUTE_LENGTH
        assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in shown)


class TestOff:
    def test_nothing_is_made(self) -> None:
        assert not NO_TRACER.enabled
        assert NO_TRACER.sample_rate == 0
        assert NO_TRACER.span("redis GET", kind="client", attributes={"a": 1}) is NO_SPAN
        assert NO_TRACER.connect_span([(b"traceparent", b"00-x")], "127.0.0.1:1") is NO_SPAN
        with NO_SPAN as span:
            span.set("a", 1)
            span.rename("b")
            span.fail("c")
        assert (span.trace_id, span.recording) == ("", False)
        NO_TRACER.record_samples([("Broadcast", "t", 1, 1)], 1.0)
        assert NO_TRACER.stats() == {"exported": 0, "lost": 0}
        NO_TRACER.shutdown()

    def test_a_request_has_a_trace_id_in_its_log_lines(self) -> None:
        assert trace_id.get() is None
        with NO_TRACER.request_span("GET", CALLER) as span:
            assert trace_id.get() == span.trace_id == CALLER.trace_id
            with NO_TRACER.request_span("GET", None) as inner:
                assert trace_id.get() == inner.trace_id != CALLER.trace_id
            assert trace_id.get() == CALLER.trace_id
        assert trace_id.get() is None

    def test_tasks_do_not_mix_their_ids(self) -> None:
        async def request() -> bool:
            with NO_TRACER.request_span("GET", None) as span:
                await asyncio.sleep(0)
                return trace_id.get() == span.trace_id

        async def both() -> list[bool]:
            return await asyncio.gather(*(request() for _ in range(10)))

        assert asyncio.run(both()) == [True] * 10


def test_a_span_ends_once_and_remembers_what_went_wrong() -> None:
    calls: list[str] = []

    class Noting(Span):
        def enter(self) -> None:
            calls.append("enter")

        def leave(self) -> None:
            calls.append("leave")

        def fail(self, error_type: str) -> None:
            calls.append(error_type)

        def end(self) -> None:
            calls.append("end")

    with pytest.raises(KeyError), Noting():
        raise KeyError("secret")
    assert calls == ["enter", "leave", "KeyError", "end"]
