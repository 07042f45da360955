"""Spans around the checks of upgrades."""

import asyncio

import pytest

from realtime_communication.auth.identity import Identity
from realtime_communication.config.watching import Tracing
from realtime_communication.observability.logs import trace_id
from realtime_communication.observability.otel import OtelTracer
from realtime_communication.observability.spans import NO_TRACER
from realtime_communication.server.traced import traced_upgrade
from serving.collector import GrpcCollector

ALICE = Identity(user_id="alice")
REFUSED = (401, "unauthorized", "the token=hush is wrong", [("WWW-Authenticate", "Bearer")])
BROKEN = (500, "internal", "authentication failed", [])


@pytest.fixture
def collector():
    with GrpcCollector() as started:
        yield started


@pytest.fixture
def tracer(collector):
    return OtelTracer(Tracing(endpoint=collector.endpoint, sampling_rate=1.0), node_id="n", version="1")


def check(answer, *, later):
    """A check that gives ``answer``, at once or when it is awaited; the trace ids seen meanwhile are in ``seen``."""
    seen = []

    async def wait():
        await asyncio.sleep(0)
        seen.append(trace_id.get())
        return answer

    def authenticate(headers, query, peer, secure=False):
        seen.append(trace_id.get())
        assert (headers, query, peer, secure) == ([], b"token=hush", "127.0.0.1:1", True)
        return wait() if later else answer

    authenticate.seen = seen
    return authenticate


def ask(authenticate):
    async def run():
        answer = authenticate([], b"token=hush", "127.0.0.1:1", True)
        return await answer if asyncio.iscoroutine(answer) else answer

    return asyncio.run(run())


def test_nothing_is_put_around_it_when_there_are_no_traces():
    authenticate = check(ALICE, later=False)
    assert traced_upgrade(NO_TRACER, authenticate) is authenticate


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(
    ("answer", "attributes", "failed"),
    [
        (ALICE, {"rtc.outcome": "accepted", "user.id": "alice", "http.response.status_code": 101}, False),
        (None, {"rtc.outcome": "credentials to follow", "http.response.status_code": 101}, False),
        (
            REFUSED,
            {"rtc.outcome": "refused", "rtc.error_code": "unauthorized", "http.response.status_code": 401},
            False,
        ),
        (
            BROKEN,
            {
                "rtc.outcome": "refused",
                "rtc.error_code": "internal",
                "http.response.status_code": 500,
                "error.type": "internal",
            },
            True,
        ),
    ],
)
def test_outcomes(tracer, collector, answer, attributes, failed, later):
    authenticate = check(answer, later=later)
    assert ask(traced_upgrade(tracer, authenticate)) == answer
    assert trace_id.get() is None
    tracer.shutdown()
    (span,) = collector.spans
    expected = {"client.address": "127.0.0.1", "rtc.protocol": "rtc.v1.json"} | attributes
    assert (span.name, span.attributes, span.failed) == ("websocket.connect", expected, failed)
    assert set(authenticate.seen) == {span.trace_id}
    assert b"hush" not in b"".join(collector.bodies)


def test_an_error_in_it_is_marked_and_goes_on(tracer, collector):
    def broken(headers, query, peer):
        raise KeyError("hush")

    with pytest.raises(KeyError):
        traced_upgrade(tracer, broken)([], b"", "127.0.0.1:1")
    tracer.shutdown()
    (span,) = collector.spans
    assert (span.failed, span.attributes["error.type"]) == (True, "KeyError")
