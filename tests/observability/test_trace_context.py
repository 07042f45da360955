"""W3C Trace Context, against its own rules and against OpenTelemetry's reader."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from realtime_communication.observability.trace_context import (
    MAX_TRACESTATE_LENGTH,
    TraceContext,
    new_trace_id,
    parse_trace_context,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


class TestSection322Traceparent:
    @pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("03", True), ("02", False)])
    def test_valid(self, flags: str, sampled: bool) -> None:
        assert parse_trace_context(f"00-{TRACE}-{SPAN}-{flags}") == TraceContext(TRACE, SPAN, sampled)

    def test_a_later_version_may_say_more(self) -> None:
        assert parse_trace_context(f"cc-{TRACE}-{SPAN}-01-what-ever") == TraceContext(TRACE, SPAN, True)

    @pytest.mark.parametrize(
        "text",
        [
            None,
            "",
            "nonsense",
            f"00-{TRACE}-{SPAN}",
            f"00-{TRACE}-{SPAN}-01-more",
            f"ff-{TRACE}-{SPAN}-01",
            f"0-{TRACE}-{SPAN}-01",
            f"00-{TRACE[:-1]}-{SPAN}-01",
            f"00-{TRACE}-{SPAN}0-01",
            f"00-{TRACE.upper()}-{SPAN}-01",
            f"00-{'0' * 32}-{SPAN}-01",
            f"00-{TRACE}-{'0' * 16}-01",
            f"00-{TRACE}-{SPAN}-0x",
            f"00-{TRACE}-{SPAN}-٠١",
            f"00_{TRACE}_{SPAN}_01",
            f"00-{TRACE}-{SPAN}-01\n",
            f"cc-{TRACE}-{SPAN}-01-" + "x" * 1_000_000,
        ],
    )
    def test_anything_else_is_none(self, text: str | None) -> None:
        assert parse_trace_context(text) is None


class TestSection33Tracestate:
    def test_passed_on(self) -> None:
        context = parse_trace_context(f"00-{TRACE}-{SPAN}-01", "a=1,b=2")
        assert context is not None
        assert context.state == "a=1,b=2"

    @pytest.mark.parametrize("state", ["a=" + "x" * MAX_TRACESTATE_LENGTH, "a=\n", "a=\x1b[31m", "a=é"])
    def test_dropped_when_it_is_too_long_or_not_plain(self, state: str) -> None:
        assert parse_trace_context(f"00-{TRACE}-{SPAN}-01", state) == TraceContext(TRACE, SPAN, True)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.one_of(
        st.text(alphabet=string.hexdigits + "-", max_size=60),
        st.tuples(
            st.sampled_from(["00", "01", "ff", "0", "000"]),
            st.text(alphabet="0123456789abcdefA", min_size=31, max_size=33),
            st.text(alphabet="0123456789abcdefA", min_size=15, max_size=17),
            st.sampled_from(["00", "01", "03", "1", "0g"]),
        ).map("-".join),
    )
)
def test_as_opentelemetry_reads_it(text: str) -> None:
    theirs = trace.get_current_span(TraceContextTextMapPropagator().extract({"traceparent": text})).get_span_context()
    ours = parse_trace_context(text)
    assert (ours is not None) is theirs.is_valid
    if ours is not None:
        assert int(ours.trace_id, 16) == theirs.trace_id
        assert int(ours.span_id, 16) == theirs.span_id
        assert ours.sampled == theirs.trace_flags.sampled


def test_new_ids_are_valid_and_differ() -> None:
    made = {new_trace_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(parse_trace_context(f"00-{each}-{SPAN}-00") for each in made)
