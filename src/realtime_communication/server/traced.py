"""Spans around what the data plane asks the control plane."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from realtime_communication.auth.identity import Identity
from realtime_communication.observability.spans import Span, Tracer


def traced_upgrade(tracer: Tracer, authenticate: Callable[..., Any]) -> Callable[..., Any]:
    """`authenticate` with a span `websocket.connect` around each call; itself, when there are no traces.

    It takes the headers (names in lower case), the query, the peer and what else the data plane passes, and returns an
    Identity, a refusal, None, or an awaitable of those.
    """
    if not tracer.enabled:
        return authenticate

    def authenticate_upgrade(headers: Any, query: bytes, peer: str, *rest: Any) -> Any:
        span = tracer.connect_span(headers, peer)
        span.enter()
        try:
            answer = authenticate(headers, query, peer, *rest)
        except Exception as error:
            span.fail(type(error).__name__)
            span.end()
            raise
        finally:
            span.leave()
        if isinstance(answer, Awaitable):
            return _described_later(span, answer)
        _describe(span, answer)
        span.end()
        return answer

    return authenticate_upgrade


async def _described_later(span: Span, waiting: Awaitable[Any]) -> Any:
    with span:
        answer = await waiting
        _describe(span, answer)
        return answer


def _describe(span: Span, answer: Any) -> None:
    if not span.recording:
        return
    if answer is None:
        span.set("rtc.outcome", "credentials to follow")
        span.set("http.response.status_code", 101)
    elif isinstance(answer, Identity):
        span.set("rtc.outcome", "accepted")
        span.set("user.id", answer.user_id)
        span.set("http.response.status_code", 101)
    else:
        status, code, *_ = answer
        span.set("rtc.outcome", "refused")
        span.set("http.response.status_code", status)
        span.set("rtc.error_code", code)
        if status >= 500:
            span.fail(code)
