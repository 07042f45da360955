"""Broadcast and DirectMessage, from a connection or over HTTP: who may, once or again, to whom, and the answer."""

import json
from typing import Any

import pytest

from core.hub.sans_io import ADMIN, READ, SUBSCRIBE, WALL_MS, WRITE, Peer, Server, identity, make_hub
from realtime_communication._core.hub.publications import RequestError

BOB = identity("bob")


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def publish(server: Server, who: Any = BOB, **fields: Any) -> dict[str, Any]:
    answer: dict[str, Any] = server.hub.publish_request(body(**fields), who)
    server.flush()
    return answer


def send(server: Server, who: Any = BOB, **fields: Any) -> dict[str, Any]:
    answer: dict[str, Any] = server.hub.send_request(body(**fields), who)
    server.flush()
    return answer


def refused(server: Server, code: str, **request: Any) -> str:
    peer = server.connect("bob", **request.pop("who", {}))
    answer = peer.request({"id": 9, **request})
    assert (answer["type"], answer["id"], answer["code"]) == ("Error", 9, code)
    return str(answer["message"])


class TestBroadcast:
    def test_everyone_subscribed_gets_it_and_the_publisher_an_ack(self) -> None:
        server = make_hub()
        alice, bob = server.connect("alice"), server.connect("bob")
        epoch = alice.subscribe("room")["epoch"]
        answer = bob.request({"type": "Broadcast", "id": "x", "topic": "room", "payload": {"a": 1}})
        assert answer == {"type": "Ack", "id": "x", "topic": "room", "epoch": epoch, "offset": 1}
        assert alice.messages() == [
            {
                "type": "Message",
                "topic": "room",
                "offset": 1,
                "ts": WALL_MS,
                "from": "bob",
                "payload": {"a": 1},
            }
        ]

    def test_the_payload_is_relayed_as_its_very_bytes(self) -> None:
        server = make_hub()
        alice = server.connect("alice")
        alice.subscribe("room")
        sent = b'{"type":"Broadcast","topic":"room","payload": {"n" : 1.50e1,"u":"\\u00e9"} }'
        server.connect("bob").send_frame(sent)
        ((_, _, payload),) = alice.frames()
        assert payload.endswith(b'"payload":{"n" : 1.50e1,"u":"\\u00e9"}}')

    def test_no_reply_without_an_id(self) -> None:
        server = make_hub()
        bob = server.connect("bob")
        bob.send({"type": "Broadcast", "topic": "room", "payload": 1})
        assert bob.messages() == []

    @pytest.mark.parametrize("name", ["@alice", "$system"])
    def test_names_of_the_server_are_forbidden(self, name: str) -> None:
        assert "topic" in refused(make_hub(), "forbidden", type="Broadcast", topic=name, payload=1)

    def test_needs_write(self) -> None:
        message = refused(
            make_hub(), "forbidden", type="Broadcast", topic="r", payload=1, who={"permissions": READ | SUBSCRIBE}
        )
        assert "write" in message

    def test_the_topics_of_the_token(self) -> None:
        server = make_hub()
        bob = server.connect("bob", publish_patterns=("room:*", "exact"))
        for topic, expected in {
            "room:1": "Ack",
            "room:": "Ack",
            "exact": "Ack",
            "room": "Error",
            "exact2": "Error",
            "exac": "Error",
        }.items():
            answer = bob.request({"type": "Broadcast", "id": 1, "topic": topic, "payload": 1})
            assert answer["type"] == expected, topic
        assert (
            server.connect("eve", publish_patterns=()).request(
                {"type": "Broadcast", "id": 1, "topic": "any", "payload": 1}
            )["code"]
            == "forbidden"
        )

    def test_admin_may_all(self) -> None:
        server = make_hub()
        root = server.connect("root", permissions=ADMIN, publish_patterns=("nothing",))
        assert root.request({"type": "Broadcast", "id": 1, "topic": "any", "payload": 1})["type"] == "Ack"

    def test_to_every_connection(self) -> None:
        server = make_hub()
        peers = [server.connect(f"user-{n}", protocol=p) for n, p in enumerate([None, "rtc.v1.msgpack", None])]
        root = server.connect("root", permissions=ADMIN)
        ack = root.request({"type": "Broadcast", "id": 1, "topic": "*", "payload": "all", "exclude_self": True})
        assert (ack["type"], ack["topic"], ack["offset"]) == ("Ack", "*", 1)
        later = server.connect("later")
        root.send({"type": "Broadcast", "topic": "*", "payload": "again"})
        assert [m["payload"] for m in root.messages()] == ["again"]
        assert [m["payload"] for m in later.messages()] == ["again"]
        for peer in peers:
            assert [(m["type"], m["topic"], m["payload"]) for m in peer.messages()] == [
                ("Message", "*", "all"),
                ("Message", "*", "again"),
            ]

    def test_to_every_connection_is_for_admins(self) -> None:
        assert "admin" in refused(make_hub(), "forbidden", type="Broadcast", topic="*", payload=1)


class TestIdempotency:
    def request(self, key: str = "k", topic: str = "room") -> dict[str, Any]:
        return {"type": "Broadcast", "id": 1, "topic": topic, "payload": 1, "idempotency_key": key}

    def test_a_repeated_key_is_answered_the_same_and_published_once(self) -> None:
        server = make_hub()
        alice, bob = server.connect("alice"), server.connect("bob")
        alice.subscribe("room")
        answers = [bob.request(self.request()) for _ in range(3)]
        assert answers[0] == answers[1] == answers[2]
        assert len(alice.messages()) == 1
        assert server.stats()["duplicates"] == 2

    def test_another_key_topic_or_sender_is_another_message(self) -> None:
        server = make_hub()
        bob, eve = server.connect("bob"), server.connect("eve")
        bob.request(self.request())
        assert bob.request(self.request("other"))["offset"] == 2
        assert bob.request(self.request(topic="hall"))["offset"] == 1
        assert eve.request(self.request())["offset"] == 3

    def test_the_key_is_the_users_on_every_connection_and_over_http(self) -> None:
        server = make_hub()
        server.connect("bob").request(self.request())
        assert server.connect("bob").request(self.request())["offset"] == 1
        assert publish(server, topic="room", payload=1, idempotency_key="k")["offset"] == 1

    def test_keys_are_forgotten_with_the_cache(self) -> None:
        server = make_hub(cache_ttl_secs=10)
        bob = server.connect("bob")
        bob.request(self.request())
        server.advance(9000)
        assert bob.request(self.request())["offset"] == 1
        server.advance(3000)
        assert server.stats()["idempotency_keys"] == 0
        assert server.stats()["topics"] == 0
        bob.request(self.request())
        assert server.stats()["publications"] == 2

    def test_a_direct_message_is_sent_once(self) -> None:
        server = make_hub()
        alice, bob = server.connect("alice"), server.connect("bob")
        request = {"type": "DirectMessage", "id": 1, "to": ["alice", "zoe"], "payload": 1, "idempotency_key": "k"}
        assert bob.request(request) == bob.request(request)
        assert len(alice.messages()) == 1

    def test_a_refused_request_does_not_use_its_key_up(self) -> None:
        server = make_hub(mailbox_capacity=1)
        alice, bob = server.connect("alice"), server.connect("bob")
        alice.stall()
        request = {"type": "DirectMessage", "id": 1, "to": "alice", "payload": 1}
        bob.request(request)
        assert bob.request({**request, "idempotency_key": "k"})["code"] == "backpressure"
        alice.resume()
        assert bob.request({**request, "idempotency_key": "k"})["delivered"] == ["alice"]
        assert len(alice.messages()) == 2


class TestDirectMessage:
    def test_who_has_it_and_who_is_away(self) -> None:
        server = make_hub()
        alice, bob = server.connect("alice"), server.connect("bob")
        answer = bob.request({"type": "DirectMessage", "id": 1, "to": ["alice", "zoe"], "payload": [1]})
        assert answer == {"type": "Ack", "id": 1, "delivered": ["alice"], "offline": ["zoe"]}
        assert alice.messages() == [
            {"type": "DirectMessage", "offset": 1, "ts": WALL_MS, "from": "bob", "payload": [1]}
        ]

    def answer(self, bob: Peer, to: Any) -> dict[str, Any]:
        bob.send({"type": "DirectMessage", "id": 1, "to": to, "payload": 1})
        (ack,) = [m for m in bob.messages() if m["type"] != "DirectMessage"]
        return ack

    def test_one_name_or_a_list(self) -> None:
        server = make_hub()
        server.connect("alice")
        bob = server.connect("bob")
        assert self.answer(bob, "alice") == {"type": "Ack", "id": 1, "delivered": ["alice"], "offline": []}
        assert self.answer(bob, ["zoe"]) == {"type": "Ack", "id": 1, "delivered": [], "offline": ["zoe"]}

    def test_repeated_names_count_once(self) -> None:
        server = make_hub()
        alice, bob = server.connect("alice"), server.connect("bob")
        assert self.answer(bob, ["alice", "zoe", "alice", "zoe"])["delivered"] == ["alice"]
        assert self.answer(bob, ["alice", "zoe", "alice", "zoe"])["offline"] == ["zoe"]
        assert [m["offset"] for m in alice.messages()] == [1, 2]

    def test_to_oneself(self) -> None:
        server = make_hub()
        bob = server.connect("bob")
        bob.send({"type": "DirectMessage", "id": 1, "to": "bob", "payload": 1})
        assert sorted(m["type"] for m in bob.messages()) == ["Ack", "DirectMessage"]

    def test_every_session_of_the_user(self) -> None:
        server = make_hub()
        sessions = [server.connect("alice", protocol=p) for p in [None, "rtc.v1.msgpack"] * 25]
        assert self.answer(server.connect("bob"), "alice")["delivered"] == ["alice"]
        assert all(len(peer.messages()) == 1 for peer in sessions)

    def test_a_session_that_comes_later_is_on_the_inbox_too(self) -> None:
        server = make_hub()
        bob = server.connect("bob")
        self.answer(bob, "alice")
        alice = server.connect("alice")
        self.answer(bob, "alice")
        assert [m["offset"] for m in alice.messages()] == [2]
        page = alice.request({"type": "History", "id": 2, "topic": "@alice"})
        assert [m["offset"] for m in page["messages"]] == [1, 2]

    def test_more_targets_than_allowed(self) -> None:
        server = make_hub(max_targets_per_message=2)
        assert self.answer(server.connect("x"), ["a", "b"])["type"] == "Ack"
        refused(server, "too_many_targets", type="DirectMessage", to=["a", "b", "c"], payload=1)

    def test_needs_write(self) -> None:
        refused(make_hub(), "forbidden", type="DirectMessage", to="a", payload=1, who={"permissions": READ})

    def test_the_topics_of_the_token_name_inboxes(self) -> None:
        server = make_hub()
        bob = server.connect("bob", publish_patterns=("room:*", "@alice"))
        assert self.answer(bob, ["alice"])["type"] == "Ack"
        assert self.answer(bob, ["alice", "zoe"])["code"] == "forbidden"
        assert server.stats()["publications"] == 1

    def test_backpressure_refuses_and_sends_to_nobody(self) -> None:
        server = make_hub(mailbox_capacity=3)
        slow, other, bob = server.connect("slow"), server.connect("other"), server.connect("bob")
        slow.stall()
        for _ in range(3):
            assert self.answer(bob, ["slow", "other"])["type"] == "Ack"
        answer = self.answer(bob, ["other", "slow"])
        assert (answer["code"], answer["retry_after_ms"]) == ("backpressure", 1000)
        assert len(other.messages()) == 3
        assert server.stats()["backpressure"] == 1
        slow.resume()
        assert self.answer(bob, "slow")["type"] == "Ack"
        assert [m["offset"] for m in slow.messages()] == [1, 2, 3, 4]


class TestHttp:
    def test_publish(self) -> None:
        server = make_hub()
        alice = server.connect("alice")
        epoch = alice.subscribe("room")["epoch"]
        assert publish(server, topic="room", payload={"a": [1]}) == {"epoch": epoch, "offset": 1}
        (message,) = alice.messages()
        assert (message["from"], message["payload"]) == ("bob", {"a": [1]})

    def test_send(self) -> None:
        server = make_hub()
        alice = server.connect("alice")
        assert send(server, to=["alice", "zoe"], payload=1) == {"delivered": ["alice"], "offline": ["zoe"]}
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
    def test_refusals_of_publish(self, text: bytes, code: str) -> None:
        server = make_hub()
        with pytest.raises(RequestError) as caught:
            server.hub.publish_request(text, BOB)
        assert caught.value.code == code
        assert caught.value.retry_after_ms is None
        assert server.stats()["topics"] == server.stats()["users"] == 0

    def test_permissions(self) -> None:
        server = make_hub()
        for who, allowed in [
            (identity("bob", READ), False),
            (identity("bob", WRITE), True),
            (identity("bob", WRITE, publish_patterns=("hall",)), False),
            (identity("bob", ADMIN, publish_patterns=("hall",)), True),
        ]:
            try:
                publish(server, who, topic="room", payload=1)
            except RequestError as error:
                assert (error.code, allowed) == ("forbidden", False)
            else:
                assert allowed
        with pytest.raises(RequestError, match="write"):
            send(server, identity("bob", READ), to="alice", payload=1)

    def test_limits(self) -> None:
        server = make_hub(rate_limiting_enabled=True, user_rps=1, user_burst=3)
        for _ in range(3):
            publish(server, topic="room", payload=1)
        with pytest.raises(RequestError) as caught:
            publish(server, topic="room", payload=1)
        assert caught.value.code == "rate_limited"
        assert caught.value.retry_after_ms is not None
        assert 0 < caught.value.retry_after_ms <= 1000
        with pytest.raises(RequestError):
            send(server, to="alice", payload=1)
        assert server.stats()["rate_limited"] == 2
        assert server.connect("bob").request({"type": "Ping", "id": 1})["scope"] == "user"

    @pytest.mark.parametrize("call", [publish, send])
    def test_overflow_block_refuses_while_a_consumer_is_full(self, call: Any) -> None:
        """There is no connection that could wait unread."""
        server = make_hub(overflow_strategy="block", mailbox_capacity=5)
        slow = server.connect("slow")
        slow.subscribe("room")
        slow.stall()
        where = {"topic": "room"} if call is publish else {"to": ["zoe", "slow"]}
        count = 0
        with pytest.raises(RequestError) as caught:
            while count < 100:
                call(server, payload=1, **where)
                count += 1
        assert (caught.value.code, caught.value.retry_after_ms) == ("backpressure", 1000)
        assert count <= 6
        slow.resume()
        call(server, payload=1, **where)
        assert [m["offset"] for m in slow.messages()] == list(range(1, count + 2))

    def test_backpressure_of_a_direct_message(self) -> None:
        server = make_hub(mailbox_capacity=2)
        server.connect("slow").stall()
        for _ in range(2):
            send(server, to="slow", payload=1)
        with pytest.raises(RequestError) as caught:
            send(server, to="slow", payload=1)
        assert caught.value.code == "backpressure"
