"""What each request does, who may, and how each fails."""

from typing import Any

import pytest

from core.hub.sans_io import ADMIN, READ, SUBSCRIBE, WALL_MS, WRITE, Envelope, identity, make_hub

REQUESTS: list[Envelope] = [
    {"type": "Subscribe", "topic": "room"},
    {"type": "Unsubscribe", "topic": "room"},
    {"type": "Broadcast", "topic": "room", "payload": 1},
    {"type": "DirectMessage", "to": "bob", "payload": 1},
    {"type": "Presence", "topic": "room"},
    {"type": "History", "topic": "room"},
    {"type": "Refresh", "token": "new"},
    {"type": "Ping"},
]
REPLIES = ["Subscribed", "Unsubscribed", "Ack", "Ack", "PresenceState", "HistoryPage", "Refreshed", "Pong"]


class TestEveryRequest:
    @pytest.mark.parametrize("protocol", ["rtc.v1.json", "rtc.v1.msgpack"])
    @pytest.mark.parametrize("number", [0, 7, 2**53 - 1, "text", "", "é" * 32])
    def test_one_reply_with_the_same_id(self, number: Any, protocol: str) -> None:
        server = make_hub()
        server.identities["new"] = identity("alice")
        alice = server.connect("alice", protocol=protocol)
        for request, kind in zip(REQUESTS, REPLIES, strict=True):
            answer = alice.request({**request, "id": number})
            assert (answer["type"], answer["id"]) == (kind, number)

    def test_no_reply_without_an_id(self) -> None:
        server = make_hub()
        server.identities["new"] = identity("alice")
        alice = server.connect("alice")
        for request in REQUESTS:
            alice.send(request)
            assert [m for m in alice.messages() if m["type"] not in ("Message", "DirectMessage")] == []

    def test_an_error_comes_without_an_id_too(self) -> None:
        alice = make_hub().connect("alice")
        for request in ({"type": "Subscribe", "topic": ""}, {"type": "Subscribe", "topic": "@bob"}, {"type": "Nope"}):
            alice.send(request)
            (answer,) = alice.messages()
            assert answer["type"] == "Error"
            assert "id" not in answer

    @pytest.mark.parametrize(
        ("permissions", "allowed"),
        [
            (READ, {"Presence", "History"}),
            (WRITE, {"Broadcast", "DirectMessage"}),
            (SUBSCRIBE, {"Subscribe"}),
            (0, set()),
            (ADMIN, {"Presence", "History", "Broadcast", "DirectMessage", "Subscribe"}),
        ],
    )
    def test_permissions(self, permissions: int, allowed: set[str]) -> None:
        server = make_hub()
        server.identities["new"] = identity("alice", permissions)
        alice = server.connect("alice", permissions=permissions)
        for request in REQUESTS:
            answer = alice.request({**request, "id": 1})
            if request["type"] in allowed | {"Unsubscribe", "Refresh", "Ping"}:
                assert answer["type"] != "Error", answer
            else:
                assert (answer["type"], answer["code"]) == ("Error", "forbidden")

    @pytest.mark.parametrize("kind", ["Subscribe", "Unsubscribe", "Broadcast", "Presence", "History"])
    @pytest.mark.parametrize("topic", ["", "x" * 256, "a\nb", "a*b", "a\u007fb", "{tag}"])
    def test_names_that_are_none(self, kind: str, topic: str) -> None:
        answer = make_hub().connect().request({"type": kind, "id": 1, "topic": topic, "payload": 1})
        assert (answer["type"], answer["id"], answer["code"]) == ("Error", 1, "topic_invalid")

    def test_a_request_that_is_none_leaves_the_connection_open(self) -> None:
        server = make_hub()
        alice = server.connect("alice")
        for text in (b"", b"null", b"[]", b"{", b'{"type":"Ping"}x', b'{"type":"Ping","type":"Ping"}', b"{}"):
            alice.send_frame(text)
            (answer,) = alice.messages()
            assert (answer["type"], answer["code"]) == ("Error", "bad_request")
        assert alice.request({"type": "Ping", "id": 1})["type"] == "Pong"
        assert server.stats()["invalid"] == 7

    def test_invalid_requests_may_be_dropped_without_a_word(self) -> None:
        server = make_hub(drop_invalid_messages=True)
        alice = server.connect("alice")
        alice.send({"type": "Nope", "id": 1})
        assert alice.messages() == []
        assert server.stats()["invalid"] == 1
        assert alice.request({"type": "Subscribe", "id": 1, "topic": "@bob"})["code"] == "forbidden"


def test_pong_tells_the_time() -> None:
    server = make_hub()
    server.advance(17)
    answer = server.connect().request({"type": "Ping", "id": 1})
    assert answer == {"type": "Pong", "id": 1, "ts": WALL_MS + 17}
