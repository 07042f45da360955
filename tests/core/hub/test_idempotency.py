"""Requests that come again under their idempotency key."""

from typing import Any

from core.hub.sans_io import identity, make_hub


def request(key: str = "k", topic: str = "room") -> dict[str, Any]:
    return {"type": "Broadcast", "id": 1, "topic": topic, "payload": 1, "idempotency_key": key}


def test_a_repeated_key_is_answered_the_same_and_published_once() -> None:
    server = make_hub()
    alice, bob = server.connect("alice"), server.connect("bob")
    alice.subscribe("room")
    answers = [bob.request(request()) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert len(alice.messages()) == 1
    assert server.stats()["duplicates"] == 2


def test_another_key_topic_or_sender_is_another_message() -> None:
    server = make_hub()
    bob, eve = server.connect("bob"), server.connect("eve")
    bob.request(request())
    assert bob.request(request("other"))["offset"] == 2
    assert bob.request(request(topic="hall"))["offset"] == 1
    assert eve.request(request())["offset"] == 3


def test_the_key_is_the_users_on_every_connection_and_over_http() -> None:
    server = make_hub()
    server.connect("bob").request(request())
    assert server.connect("bob").request(request())["offset"] == 1
    assert server.publish(identity("bob"), topic="room", payload=1, idempotency_key="k")["offset"] == 1


def test_keys_are_forgotten_with_the_cache() -> None:
    server = make_hub(cache_ttl_secs=10)
    bob = server.connect("bob")
    bob.request(request())
    server.advance(9000)
    assert bob.request(request())["offset"] == 1
    server.advance(3000)
    assert server.stats()["idempotency_keys"] == 0
    assert server.stats()["topics"] == 0
    bob.request(request())
    assert server.stats()["publications"] == 2


def test_a_direct_message_is_sent_once() -> None:
    server = make_hub()
    alice, bob = server.connect("alice"), server.connect("bob")
    request = {"type": "DirectMessage", "id": 1, "to": ["alice", "zoe"], "payload": 1, "idempotency_key": "k"}
    assert bob.request(request) == bob.request(request)
    assert len(alice.messages()) == 1


def test_a_refused_request_does_not_use_its_key_up() -> None:
    server = make_hub(mailbox_capacity=1)
    alice, bob = server.connect("alice"), server.connect("bob")
    alice.stall()
    request = {"type": "DirectMessage", "id": 1, "to": "alice", "payload": 1}
    bob.request(request)
    assert bob.request({**request, "idempotency_key": "k"})["code"] == "backpressure"
    alice.resume()
    assert bob.request({**request, "idempotency_key": "k"})["delivered"] == ["alice"]
    assert len(alice.messages()) == 2
