"""Trace ids as they travel between programs: W3C Trace Context, level 1 (https://www.w3.org/TR/trace-context/).

Knows no tracing library: a request has a trace id for its log lines whether traces are sent anywhere or not.
"""

from __future__ import annotations

import random
import re
from typing import Final

import msgspec

MAX_TRACESTATE_LENGTH: Final = 512
"""Characters of a `tracestate` that are passed on, the least section 3.3.1.5 asks for; a longer one is dropped."""

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_MAX_TRACEPARENT_LENGTH: Final = 256  # of a version to come; version 00 has exactly 55
_SAMPLED: Final = 0x01


class TraceContext(msgspec.Struct, frozen=True):
    """What a caller says about the trace its request belongs to. Both ids are lower-case hexadecimal."""

    trace_id: str
    span_id: str
    sampled: bool
    state: str = ""


def parse_trace_context(traceparent: str | None, tracestate: str | None = None) -> TraceContext | None:
    """The context in the two headers; None when there is none or it breaks the rules (section 3.2). Never raises."""
    if traceparent is None or len(traceparent) > _MAX_TRACEPARENT_LENGTH:
        return None
    found = _TRACEPARENT.fullmatch(traceparent.strip(" \t"))
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    # Section 3.2.2.3: ids of zeros are invalid; 3.2.2.1: ff is no version; only later versions may have more fields.
    if version == "ff" or (version == "00" and more) or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    state = tracestate or ""
    if len(state) > MAX_TRACESTATE_LENGTH or not state.isascii() or not state.isprintable():
        state = ""
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED), state)


def new_trace_id() -> str:
    """A random trace id. It names a trace and guards nothing."""
    return f"{random.getrandbits(128) or 1:032x}"
