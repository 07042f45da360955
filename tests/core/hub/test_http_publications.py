"""Broadcast and DirectMessage over HTTP: the answer, and each way to be refused."""

from typing import Any

import pytest

from core.hub.sans_io import ADMIN, READ, WRITE, identity, make_hub
from realtime_communication._core.hub.outcome import RequestError

BOB = identity("bob")


def test_publish() -> None:
    server = make_hub()
    alice = server.connect("alice")
    epoch = alice.subscribe("room")["epoch"]
    assert server.publish(BOB, topic="room", payload={"a": [1]}) == {"epoch": epoch, "offset": 1}
    (message,) = alice.messages()
    assert (message["from"], message["payload"]) == ("bob", {"a": [1]})


def test_send() -> None:
    server = make_hub()
    alice = server.connect("alice")
    assert server.send(BOB, to=["alice", "zoe"], payload=1) == {"delivered": ["alice"], "offline": ["zoe"]}
    assert len(alice.messages()) == 1


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", "bad_request"),
        (b"[1]", "bad_request"),
        (b'{"topic":"a"}', "bad_request"),
        (b'{"topic":"","payload":1}', "topic_invalid"),
        (b'{"topic":"a*","payload":1}', "topic_invalid"),
        (b'{"topic":"@a","payload":1}', "forbidden"),
        (b'{"topic":"*","payload":1}', "forbidden"),
        (b'{"topic":"\xff","payload":1}', "bad_request"),
    ],
)
def test_refusals_of_publish(text: bytes, code: str) -> None:
    server = make_hub()
    with pytest.raises(RequestError) as caught:
        server.hub.publish_request(text, BOB)
    assert caught.value.code == code
    assert caught.value.retry_after_ms is None
    assert server.stats()["topics"] == server.stats()["users"] == 0


def test_permissions() -> None:
    server = make_hub()
    for who, allowed in [
        (identity("bob", READ), False),
        (identity("bob", WRITE), True),
        (identity("bob", WRITE, publish_patterns=("hall",)), False),
        (identity("bob", ADMIN, publish_patterns=("hall",)), True),
    ]:
        try:
            server.publish(who, topic="room", payload=1)
        except RequestError as error:
            assert (error.code, allowed) == ("forbidden", False)
        else:
            assert allowed
    with pytest.raises(RequestError, match="write"):
        server.send(identity("bob", READ), to="alice", payload=1)


def test_limits() -> None:
    server = make_hub(rate_limiting_enabled=True, user_rps=1, user_burst=3)
    for _ in range(3):
        server.publish(BOB, topic="room", payload=1)
    with pytest.raises(RequestError) as caught:
        server.publish(BOB, topic="room", payload=1)
    assert caught.value.code == "rate_limited"
    assert caught.value.retry_after_ms is not None
    assert 0 < caught.value.retry_after_ms <= 1000
    with pytest.raises(RequestError):
        server.send(BOB, to="alice", payload=1)
    assert server.stats()["rate_limited"] == 2
    assert server.connect("bob").request({"type": "Ping", "id": 1})["scope"] == "user"


@pytest.mark.parametrize("where", [{"topic": "room"}, {"to": ["zoe", "slow"]}])
def test_overflow_block_refuses_while_a_consumer_is_full(where: dict[str, Any]) -> None:
    """There is no connection that could wait unread."""
    server = make_hub(overflow_strategy="block", mailbox_capacity=5)
    slow = server.connect("slow")
    slow.subscribe("room")
    slow.stall()
    call = server.publish if "topic" in where else server.send
    count = 0
    with pytest.raises(RequestError) as caught:
        while count < 100:
            call(BOB, payload=1, **where)
            count += 1
    assert (caught.value.code, caught.value.retry_after_ms) == ("backpressure", 1000)
    assert count <= 6
    slow.resume()
    call(BOB, payload=1, **where)
    assert [m["offset"] for m in slow.messages()] == list(range(1, count + 2))


def test_backpressure_of_a_direct_message() -> None:
    server = make_hub(mailbox_capacity=2)
    server.connect("slow").stall()
    for _ in range(2):
        server.send(BOB, to="slow", payload=1)
    with pytest.raises(RequestError) as caught:
        server.send(BOB, to="slow", payload=1)
    assert caught.value.code == "backpressure"
