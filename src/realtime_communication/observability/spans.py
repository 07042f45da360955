"""What the rest of the program knows of tracing: spans that may be recorded, and a tracer that makes none.

A span stands for one piece of work. `Tracer` is the tracer of a server without traces: it costs a method call, gives
HTTP requests a trace id for their log lines, and imports nothing. Where there are some, `otel.OtelTracer` makes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Final, Literal, Self

from realtime_communication.observability.logs import trace_id
from realtime_communication.observability.redaction import redact, without_controls
from realtime_communication.observability.trace_context import TraceContext, new_trace_id

MAX_ATTRIBUTE_LENGTH: Final = 128
"""Longest text value of an attribute, in bytes of UTF-8; what follows is cut."""

_SCAN_LENGTH: Final = 8 * MAX_ATTRIBUTE_LENGTH  # more than is kept, so that no secret at the cut stays half hidden

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Value = str | int | float | bool
Sample = tuple[str, str, int, int]
"""A publication the data plane has timed: envelope type, topic, start in ns since the epoch, duration in ns."""


def attribute_text(value: str) -> str:
    """`value` fit for a span: no secrets, no control characters, at most MAX_ATTRIBUTE_LENGTH bytes of UTF-8."""
    text = without_controls(redact(value[:_SCAN_LENGTH]))
    return text.encode(errors="replace")[:MAX_ATTRIBUTE_LENGTH].decode(errors="ignore")


class Span:
    """One piece of work. `with span:` makes it the current one and ends it; an exception that leaves marks it failed.

    Work in several stretches calls `enter` and `leave` around each and `end` after the last. `trace_id` is empty when
    there is none; `recording` says whether attributes are worth gathering. This one records nothing.
    """

    trace_id: str = ""
    recording: bool = False

    def set(self, name: str, value: Value) -> None:
        """Add an attribute. Text is redacted and cut."""

    def rename(self, name: str) -> None:
        """Give it the name that was not known at its start. It must be one of few: no ids in it."""

    def fail(self, error_type: str) -> None:
        """Mark the work as failed; `error_type` is one of few: an error code, the name of an exception's class."""

    def enter(self) -> None:
        """Make it the current one, in the running task. `leave` must follow in the same task."""

    def leave(self) -> None:
        """Make the one before the current one again."""

    def end(self) -> None:
        """The work is over. Called once."""

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
        if kind is not None:
            self.fail(kind.__name__)
        self.end()


class _NamedSpan(Span):
    """Records nothing, but its trace id stands in the lines that are logged meanwhile."""

    def __init__(self, trace: str) -> None:
        self.trace_id = trace

    def enter(self) -> None:
        self._token = trace_id.set(self.trace_id)

    def leave(self) -> None:
        trace_id.reset(self._token)


NO_SPAN: Final = Span()


class Tracer:
    """Makes spans. This one makes none that are recorded."""

    enabled: bool = False
    sample_rate: float = 0.0
    """The share of publications whose samples `record_samples` wants."""

    def span(self, name: str, *, kind: Kind = "internal", attributes: Mapping[str, Value] | None = None) -> Span:
        """Work within the current trace, or the start of a new one: `with tracer.span("redis GET", kind="client"):`.

        `name` must be one of few: no ids in it.
        """
        return NO_SPAN

    def request_span(
        self, name: str, caller: TraceContext | None, *, attributes: Mapping[str, Value] | None = None
    ) -> Span:
        """Work somebody outside asked for, in the trace their `caller` context names, or in one of its own.

        Its trace id stands in every line logged while it is the current one.
        """
        return _NamedSpan(caller.trace_id if caller is not None else new_trace_id())

    def connect_span(self, headers: Sequence[tuple[bytes, bytes]], peer: str) -> Span:
        """The span of a WebSocket upgrade with these headers (names in lower case) from `peer`."""
        return NO_SPAN

    def record_samples(self, samples: Iterable[Sample], rate: float) -> None:
        """Spans of publications that are over, each at the root of a trace.

        `rate` is the share of the publications that the data plane observed: of more than `sample_rate` of them, some
        are left out.
        """

    def stats(self) -> dict[str, int]:
        """Spans that reached the collector (`exported`) and that did not (`lost`), since the start."""
        return {"exported": 0, "lost": 0}

    def shutdown(self) -> None:
        """Send what is waiting, within two seconds. Blocks; spans that end later are lost. Never raises."""


NO_TRACER: Final = Tracer()
