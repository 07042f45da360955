"""`[authorization]`: what each key does, from the loader to a service that is asked or a function."""

import json
import sys
import threading

import pytest

from serving.asking import ask, bearer, until
from serving.receiver import Receiver, documented_check

YES = b'{"allowed":true}'


@pytest.fixture
def service():
    """Says yes unless told otherwise."""
    made = Receiver(*[200] * 1000, body=YES).start()
    yield made
    made.close()


def asking(service, **settings):
    return {"authorization": {"url": service.url, **settings}}


def questions(service):
    return [(event["action"], event["user_id"], event["topic"]) for event in service.events]


def test_url(serve, service):
    running = serve(asking(service))
    with running.peer("alice") as alice:
        alice.ok("Subscribe", topic="t")
        alice.ok("Broadcast", topic="t", payload=1)
        service.answers[:] = [403]
        assert alice.error("Broadcast", topic="u", payload=1)["code"] == "forbidden"
    assert questions(service) == [("subscribe", "alice", "t"), ("publish", "alice", "t"), ("publish", "alice", "u")]
    assert running.stats()["denied"] == 1


def test_over_http(serve, service):
    running = serve(asking(service))
    message = {"topic": "t", "payload": 1}
    assert ask(running.port, "POST", "/api/publish", bearer(), message).status == 200
    assert ask(running.port, "GET", "/api/topics/t/history", bearer()).status == 200
    service.answers[:] = [403] * 4
    other = message | {"topic": "u"}
    assert ask(running.port, "POST", "/api/publish", bearer(), other).status == 403
    assert ask(running.port, "GET", "/api/topics/u/presence", bearer()).status == 403
    assert ask(running.port, "GET", "/sse?topics=v", bearer()).status == 403
    batch = [{"publish": message}, {"publish": message | {"topic": "w"}}]
    first, second = ask(running.port, "POST", "/api/batch", bearer(), batch).json
    assert (first["offset"], second["error"]["code"]) == (2, "forbidden")
    assert [action for action, _, _ in questions(service)] == [
        *("publish", "subscribe"),
        *("publish", "subscribe", "subscribe", "publish"),
    ]


MODULE = """
asked = []

def may(action, user, topic):
    asked.append((action, user, topic))
    return topic == "t"

async def may_later(action, user, topic):
    return may(action, user, topic)
"""


@pytest.mark.parametrize("function", ["may", "may_later"])
def test_callable(serve, tmp_path, monkeypatch, function):
    (tmp_path / "effect_authorization.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "effect_authorization", raising=False)
    running = serve({"authorization": {"callable": f"effect_authorization:{function}"}})
    with running.peer("alice") as alice:
        assert alice.ok("Subscribe", topic="t")
        assert alice.error("Broadcast", topic="u", payload=1)["code"] == "forbidden"
    assert ask(running.port, "POST", "/api/publish", bearer(), {"topic": "t", "payload": 1}).status == 200
    assert sys.modules["effect_authorization"].asked == [
        ("subscribe", "alice", "t"),
        ("publish", "alice", "u"),
        ("publish", "alice", "t"),
    ]
    del sys.modules["effect_authorization"]


def test_secret(serve, service):
    running = serve(asking(service, secret="of the service"))
    with running.peer() as alice:
        alice.ok("Subscribe", topic="t")
    (request,) = service.requests
    assert documented_check()("of the service", request.headers, request.body)


def test_actions(serve, service):
    running = serve(asking(service, actions=["publish"]))
    with running.peer("alice") as alice:
        alice.ok("Subscribe", topic="t")
        alice.ok("Broadcast", topic="t", payload=1)
    assert questions(service) == [("publish", "alice", "t")]


@pytest.mark.parametrize(("settings", "code"), [({"on_failure": "allow"}, None), ({}, "forbidden")])
def test_timeout_and_on_failure(serve, service, settings, code):
    service.silent = True
    running = serve(asking(service, timeout_ms=20, **settings))
    with running.peer("alice") as alice:
        assert alice.request("Subscribe", topic="t").get("code") == code
    assert running.ask(lambda: running.worker.parts.authorizer.failures) == 1


@pytest.mark.parametrize(
    ("body", "status", "headers"),
    [
        (b"<html>", 200, {}),
        (YES, 500, {}),
        (YES, 302, {"Location": "http://127.0.0.1:9/"}),
        (YES + b" " * (1 << 20), 200, {}),
    ],
)
def test_a_service_that_is_broken_lets_nobody_in(serve, service, body, status, headers):
    service.body, service.headers, service.answers[:] = body, headers, [status] * 3
    running = serve(asking(service))
    with running.peer("alice") as alice:
        for topic in ("a", "b"):
            assert alice.error("Subscribe", topic=topic)["code"] == "forbidden"
        assert alice.ok("Ping")
    assert len(service.requests) == 2


def test_cache_ttl(serve, service):
    running = serve(asking(service, cache_ttl_secs=0.1))
    with running.peer("alice") as alice:

        def asked_again():
            alice.ok("Broadcast", topic="t", payload=1)
            return len(service.requests) > 1

        until(asked_again)
    running = serve(asking(service))
    before = len(service.requests)
    with running.peer("bob") as bob, running.peer("bob") as again:
        for peer in (bob, again, bob):
            peer.ok("Broadcast", topic="t", payload=1)
    assert len(service.requests) == before + 1


def test_cache_size(serve, service):
    running = serve(asking(service, cache_size=1))
    with running.peer("alice") as alice:
        for topic in ("a", "b", "b", "a"):
            alice.ok("Broadcast", topic=topic, payload=1)
    assert [topic for _, _, topic in questions(service)] == ["a", "b", "a"]


def test_max_pending(serve, service):
    service.silent = True
    running = serve(asking(service, max_pending=1, timeout_ms=9000))
    with running.peer("alice") as alice, running.peer("bob") as bob:
        alice.send({"type": "Subscribe", "id": 1, "topic": "t"})
        until(lambda: service.requests)
        assert bob.error("Subscribe", topic="t")["code"] == "unavailable"
        assert bob.ok("Ping"), "nobody else waits"
        refused = ask(running.port, "POST", "/api/publish", bearer("carol"), {"topic": "t", "payload": 1})
        assert (refused.status, refused.json["error"]["code"]) == (503, "unavailable")


def test_a_slow_service_slows_only_those_who_ask(serve, service):
    """What waits is done in its order once the answer is there."""
    held = threading.Event()
    service.hold = held
    running = serve(asking(service, timeout_ms=9000, actions=["subscribe"]))
    with running.peer("alice") as alice, running.peer("bob") as bob:
        for number, kind in enumerate(("Subscribe", "Broadcast", "Ping")):
            alice.send({"type": kind, "id": number, "topic": "t", "payload": 1})
        until(lambda: service.requests)
        for _ in range(3):
            bob.ok("Broadcast", topic="u", payload=1)
        held.set()
        assert [alice.receive()["type"] for _ in range(4)] in (
            ["Subscribed", "Ack", "Message", "Pong"],
            ["Subscribed", "Ack", "Pong", "Message"],
        )
    assert json.loads(service.requests[0].body)["topic"] == "t"
