"""From bytes to requests: in their order, no more than a turn takes, and none behind the end."""

import json

import pytest

from core.hub.sans_io import CLOSE, NOW_MS, client_frame, make_hub


def ping(number: int) -> bytes:
    return client_frame(json.dumps({"type": "Ping", "id": number}).encode())


@pytest.mark.parametrize("size", [1, 3, 50, 1000])
def test_requests_beyond_a_batch_are_resumed_in_order(size: int) -> None:
    peer = make_hub(batch_size=size).connect()
    peer.send_raw(b"".join(ping(number) for number in range(100)))
    assert [message["id"] for message in peer.messages()] == list(range(100))


@pytest.mark.parametrize("over_ms", [1, NOW_MS, NOW_MS + 1000])
def test_a_turn_that_is_over_takes_one_request_of_each_connection(over_ms: int) -> None:
    """And all of them in the end, in their order: each pass over those with input left ends in a write."""
    server = make_hub()
    peers = [server.connect(f"user-{number}") for number in range(3)]
    server.driver.turn_over_at(over_ms)
    for peer in peers:
        peer.send_raw(b"".join(ping(number) for number in range(40)))
    for peer in peers:
        assert [message["id"] for message in peer.messages()] == list(range(40))
    assert server.stats()["requests"] == 120


def test_a_turn_with_enough_deliveries_goes_on_in_the_next_one() -> None:
    """100 publications to 1,500 readers are more than one turn makes; each gets all of them, once and in order."""
    server = make_hub(batch_size=200, max_connections=2000)
    readers = [server.connect(f"reader-{number}") for number in range(1500)]
    for reader in readers:
        reader.subscribe("t")
    writer = server.connect("writer")
    text = json.dumps({"type": "Broadcast", "id": 1, "topic": "t", "payload": 1}).encode()
    writer.send_raw(client_frame(text) * 100)
    assert [message["offset"] for message in writer.messages()] == list(range(1, 101))
    for reader in (readers[0], readers[777], readers[1499]):
        assert [message["offset"] for message in reader.messages()] == list(range(1, 101))
    assert server.stats()["deliveries"] == 150_000


def test_wherever_the_bytes_are_cut() -> None:
    peer = make_hub(batch_size=2).connect()
    data = b"".join(ping(number) for number in range(10))
    for start in range(0, len(data), 7):
        peer.send_raw(data[start : start + 7])
    assert [message["id"] for message in peer.messages()] == list(range(10))


def test_an_invalid_request_holds_nothing_up() -> None:
    server = make_hub()
    peer = server.connect()
    peer.send_raw(ping(1) + client_frame(b"{") + ping(2))
    assert [(message["type"], message.get("id")) for message in peer.messages()] == [
        ("Pong", 1),
        ("Error", None),
        ("Pong", 2),
    ]
    assert (server.stats()["requests"], server.stats()["invalid"]) == (3, 1)


def test_nothing_is_handled_behind_a_close() -> None:
    server = make_hub()
    peer = server.connect()
    peer.send_raw(ping(1) + client_frame((1000).to_bytes(2, "big"), CLOSE) + ping(2))
    assert [message["id"] for message in peer.messages()] == [1]
    assert peer.close == (1000, "")
    assert server.stats()["requests"] == 1


@pytest.mark.parametrize("text", [b'{"type":"Ping","id":1}', b"{"])
def test_who_goes_on_beyond_a_limit_is_answered_and_closed(text: bytes) -> None:
    server = make_hub(rate_limiting_enabled=True, connection_rps=1, connection_burst=1)
    peer = server.connect()
    peer.send_raw(client_frame(text) * 50)
    replies = peer.messages()
    assert {reply["code"] for reply in replies[1:]} == {"rate_limited"}
    assert all(reply["retry_after_ms"] > 0 for reply in replies[1:])
    assert peer.close == (4429, "rate limit abuse")
    assert server.stats()["abusive"] == 1
