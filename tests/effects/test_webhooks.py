"""`[webhooks]`: what each key does, from the loader to a receiver, at the start and after a reload."""

import pytest

from serving.asking import ask, bearer, until
from serving.receiver import Receiver, documented_check
from serving.tokens import SECRET


@pytest.fixture
def receiver():
    made = Receiver().start()
    yield made
    made.close()


def hooks(receiver, **settings):
    return {"webhooks": {"url": receiver.url, "batch_wait_ms": 0, **settings}}


def events(receiver):
    return [event for body in receiver.events for event in body["events"]]


def kinds(receiver):
    return [(event["event"], event.get("user_id") or event["topic"]) for event in events(receiver)]


def test_url_and_events(serve, receiver):
    running = serve(hooks(receiver))
    with running.peer("alice") as alice:
        alice.ok("Subscribe", topic="t")
        until(lambda: len(kinds(receiver)) == 2)
    until(lambda: len(kinds(receiver)) == 4)
    assert kinds(receiver) == [
        ("connect", "alice"),
        ("topic_occupied", "t"),
        ("disconnect", "alice"),
        ("topic_vacated", "t"),
    ]
    begin, occupied, end, _ = events(receiver)
    assert begin["transport"] == end["transport"] == "websocket"
    assert begin["session_id"] == end["session_id"] and end["duration_ms"] >= 0
    assert occupied.keys() == {"event", "at", "topic"}


def test_event_streams_are_connections(serve, receiver):
    running = serve(hooks(receiver, events=["connect", "disconnect"]))
    assert ask(running.port, "GET", "/sse?topics=@nobody", bearer()).status == 403
    until(lambda: len(events(receiver)) == 2)
    assert {event["transport"] for event in events(receiver)} == {"sse"}


def test_secret(serve, receiver):
    running = serve(hooks(receiver, secret="of the receiver", events=["connect"]))
    with running.peer():
        until(lambda: receiver.requests)
    (request,) = receiver.requests
    assert documented_check()("of the receiver", request.headers, request.body)
    assert not documented_check()(SECRET, request.headers, request.body)


def test_max_batch_and_batch_wait(serve, receiver):
    running = serve(hooks(receiver, max_batch=2, batch_wait_ms=60_000, events=["connect"]))
    with running.peer("a"), running.peer("b"), running.peer("c"), running.peer("d"):
        until(lambda: len(receiver.requests) == 2)
    assert [len(body["events"]) for body in receiver.events] == [2, 2]


def test_the_last_events_leave_with_the_server(serve, receiver):
    running = serve(hooks(receiver, batch_wait_ms=60_000, events=["disconnect"]))
    with running.peer("alice"):
        running.stop()
    assert kinds(receiver) == [("disconnect", "alice")]


class TestLive:
    def test_url_and_secret(self, serve, receiver):
        running = serve()
        with running.peer("alice"):
            assert running.reload(hooks(receiver, secret="of the receiver", events=["connect"]))
            with running.peer("bob"):
                until(lambda: receiver.requests)
            (request,) = receiver.requests
            assert documented_check()("of the receiver", request.headers, request.body)
            assert kinds(receiver) == [("connect", "bob")]
            assert running.reload({})
            with running.peer("carol") as carol:
                carol.ok("Ping")
        assert kinds(receiver) == [("connect", "bob")]

    def test_events_and_batches(self, serve, receiver):
        running = serve(hooks(receiver, events=["topic_vacated"], max_batch=1))
        assert running.reload(hooks(receiver, events=["connect"], max_batch=2, batch_wait_ms=60_000))
        with running.peer("alice"), running.peer("bob"):
            until(lambda: receiver.requests)
        assert kinds(receiver) == [("connect", "alice"), ("connect", "bob")]
        assert len(receiver.requests) == 1
