"""A span for each HTTP request, and the trace id that its log lines and its answer carry.

The id is in every answer as `X-Trace-Id`, also when no traces are sent: whoever got an error that tells nothing can
name the line in the log that tells all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import hdrs, web

from realtime_communication.http.services import SERVICES
from realtime_communication.observability.logs import trace_id
from realtime_communication.observability.spans import Span
from realtime_communication.observability.trace_context import TraceContext, parse_trace_context

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

TRACE_HEADER: Final = "X-Trace-Id"

# Semantic conventions for HTTP: any other method would make names of spans without number.
_METHODS: Final = hdrs.METH_ALL - {hdrs.METH_ANY}


@web.middleware
async def trace_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A server span by OpenTelemetry's semantic conventions for HTTP, in the caller's trace where there is one."""
    method = request.method if request.method in _METHODS else "_OTHER"
    with request.app[SERVICES].tracer.request_span(method, _context_of(request)) as span:
        if span.recording:
            _describe(span, request, method)
        response = await handler(request)
        if not response.prepared:
            response.headers[TRACE_HEADER] = span.trace_id
        if span.recording:
            span.set("http.response.status_code", response.status)
            if response.status >= 500:
                span.fail(str(response.status))
        return response


async def name_trace(request: web.Request, response: web.StreamResponse) -> None:
    """The header of an answer that begins while its handler runs: a stream."""
    current = trace_id.get()
    if current is not None:
        response.headers[TRACE_HEADER] = current


def _describe(span: Span, request: web.Request, method: str) -> None:
    span.set("http.request.method", method)
    span.set("url.scheme", request.scheme)
    # The query is left out: tokens and API keys may stand in it.
    span.set("url.path", request.rel_url.raw_path)
    span.set("network.protocol.version", f"{request.version.major}.{request.version.minor}")
    if request.remote:
        span.set("client.address", request.remote)
    agent = request.headers.get(hdrs.USER_AGENT)
    if agent:
        span.set("user_agent.original", agent)
    resource = request.match_info.route.resource
    if resource is not None:
        span.set("http.route", resource.canonical)
        span.rename(f"{method} {resource.canonical}")


def _context_of(request: web.Request) -> TraceContext | None:
    # Section 3.2.1 of Trace Context: more than one traceparent is none.
    parents = request.headers.getall("traceparent", ())
    if len(parents) != 1:
        return None
    return parse_trace_context(parents[0], ",".join(request.headers.getall("tracestate", ())))
