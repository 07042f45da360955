"""Protocol section 2: each request, its fields, its reply with keys in order; ids; what is no request."""

import json
from typing import Any

import pytest

from serving.peer import Connect, unique, unique_user

MESSAGE_KEYS = ["type", "topic", "offset", "ts", "from", "payload"]
ENTRY_KEYS = ["offset", "ts", "from", "payload"]

PAYLOADS: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**53,
    2**63 - 1,
    -(2**63),
    0.5,
    -1e300,
    "",
    "text",
    'ünïcödé \U0001f600 \u2028 \x00\x1f"\\/',
    [],
    {},
    [[[[1]]]],
    {"a": {"b": [1, 2.5, None, True, "c"]}, "": "empty key"},
    "x" * 40_000,
]


class TestSubscribe:
    def test_reply(self, join: Connect, topic: str) -> None:
        reply = join().ok("Subscribe", topic=topic)
        assert list(reply) == ["type", "id", "topic", "epoch", "offset", "recovered", "messages"]
        assert reply["type"] == "Subscribed"
        assert reply["topic"] == topic
        assert isinstance(reply["epoch"], str) and reply["epoch"]
        assert reply["offset"] == 0
        assert reply["recovered"] is False
        assert reply["messages"] == []

    def test_twice_is_one_subscription(self, join: Connect, topic: str) -> None:
        alice = join()
        first = alice.ok("Subscribe", topic=topic)
        second = alice.ok("Subscribe", topic=topic)
        assert (second["epoch"], second["offset"]) == (first["epoch"], first["offset"])
        alice.ok("Broadcast", topic=topic, payload=1)
        assert [event["type"] for event in alice.settle()] == ["Message"]

    def test_history(self, join: Connect, topic: str) -> None:
        alice = join()
        for number in range(5):
            alice.ok("Broadcast", topic=topic, payload=number)
        reply = alice.ok("Subscribe", topic=topic, history=3)
        assert [list(message) for message in reply["messages"]] == [ENTRY_KEYS] * 3
        assert [message["payload"] for message in reply["messages"]] == [2, 3, 4]
        assert [message["offset"] for message in reply["messages"]] == [3, 4, 5]
        assert {message["from"] for message in reply["messages"]} == {alice.user}
        assert reply["offset"] == 5
        assert alice.settle() == []

    def test_history_beyond_what_there_is(self, join: Connect, topic: str) -> None:
        alice = join()
        alice.ok("Broadcast", topic=topic, payload="only")
        assert [m["payload"] for m in alice.ok("Subscribe", topic=topic, history=100)["messages"]] == ["only"]


class TestUnsubscribe:
    def test_reply_and_effect(self, join: Connect, topic: str) -> None:
        alice = join()
        alice.ok("Subscribe", topic=topic)
        reply = alice.ok("Unsubscribe", topic=topic)
        assert list(reply) == ["type", "id", "topic"]
        assert (reply["type"], reply["topic"]) == ("Unsubscribed", topic)
        alice.ok("Broadcast", topic=topic, payload=1)
        assert alice.settle() == []

    def test_unknown_is_idempotent(self, join: Connect, topic: str) -> None:
        reply = join().request("Unsubscribe", topic=topic)
        assert reply["type"] == "Unsubscribed" or reply["code"] == "not_subscribed"


class TestBroadcast:
    def test_ack_and_message(self, join: Connect, topic: str) -> None:
        alice, bob = join(), join()
        epoch = bob.ok("Subscribe", topic=topic)["epoch"]
        ack = alice.ok("Broadcast", topic=topic, payload={"text": "hello"})
        assert list(ack) == ["type", "id", "topic", "epoch", "offset"]
        assert (ack["type"], ack["topic"], ack["epoch"], ack["offset"]) == ("Ack", topic, epoch, 1)
        message = bob.event()
        assert list(message) == MESSAGE_KEYS
        assert message["type"] == "Message"
        assert message["topic"] == topic
        assert message["offset"] == 1
        assert message["from"] == alice.user
        assert message["payload"] == {"text": "hello"}
        assert message["ts"] > 1_600_000_000_000

    def test_offsets_count_by_one(self, join: Connect, topic: str) -> None:
        alice, bob = join(), join()
        bob.ok("Subscribe", topic=topic)
        acks = [alice.ok("Broadcast", topic=topic, payload=number)["offset"] for number in range(50)]
        assert acks == list(range(1, 51))
        messages = bob.events(50)
        assert [message["offset"] for message in messages] == acks
        assert [message["payload"] for message in messages] == list(range(50))

    def test_publisher_gets_its_own(self, join: Connect, topic: str) -> None:
        alice = join()
        alice.ok("Subscribe", topic=topic)
        alice.ok("Broadcast", topic=topic, payload=1)
        assert [event["payload"] for event in alice.settle()] == [1]

    def test_exclude_self_leaves_out_this_session_only(self, join: Connect, topic: str) -> None:
        alice, bob = join(), join()
        second = join(alice.user)
        for peer in (alice, second, bob):
            peer.ok("Subscribe", topic=topic)
        alice.ok("Broadcast", topic=topic, payload=1, exclude_self=True)
        alice.ok("Broadcast", topic=topic, payload=2, exclude_self=False)
        assert [event["payload"] for event in alice.settle()] == [2]
        assert [event["payload"] for event in second.settle()] == [1, 2]
        assert [event["payload"] for event in bob.settle()] == [1, 2]

    @pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: repr(payload)[:24])
    def test_any_value_arrives(self, join: Connect, topic: str, payload: Any) -> None:
        alice, bob = join(), join()
        bob.ok("Subscribe", topic=topic)
        alice.ok("Broadcast", topic=topic, payload=payload)
        received = bob.event()["payload"]
        assert received == payload
        assert type(received) is type(payload)

    def test_idempotency_key(self, join: Connect, topic: str) -> None:
        alice, bob = join(), join()
        bob.ok("Subscribe", topic=topic)
        key = unique("key")
        first = alice.ok("Broadcast", topic=topic, payload=1, idempotency_key=key)
        again = alice.ok("Broadcast", topic=topic, payload=1, idempotency_key=key)
        other = alice.ok("Broadcast", topic=topic, payload=2, idempotency_key=key + "-2")
        assert (again["epoch"], again["offset"]) == (first["epoch"], first["offset"])
        assert other["offset"] == first["offset"] + 1
        assert [event["payload"] for event in bob.settle()] == [1, 2]

    def test_idempotency_key_survives_the_connection(self, join: Connect, topic: str) -> None:
        alice, bob = join(), join()
        bob.ok("Subscribe", topic=topic)
        key = unique("key")
        first = alice.ok("Broadcast", topic=topic, payload=1, idempotency_key=key)
        alice.close()
        again = join(alice.user).ok("Broadcast", topic=topic, payload=1, idempotency_key=key)
        assert again["offset"] == first["offset"]
        assert [event["payload"] for event in bob.settle()] == [1]

    def test_idempotency_keys_belong_to_the_user(self, join: Connect, topic: str) -> None:
        alice, mallory, bob = join(), join(), join()
        bob.ok("Subscribe", topic=topic)
        key = unique("key")
        first = alice.ok("Broadcast", topic=topic, payload=1, idempotency_key=key)
        second = mallory.ok("Broadcast", topic=topic, payload=2, idempotency_key=key)
        assert second["offset"] == first["offset"] + 1
        assert [event["payload"] for event in bob.settle()] == [1, 2]

    def test_fields_in_any_order(self, join: Connect, topic: str) -> None:
        alice = join()
        alice.ok("Subscribe", topic=topic)
        alice.send({"payload": [1], "topic": topic, "unknown": {"x": 1}, "id": 77, "type": "Broadcast"})
        assert alice.reply(77)["type"] == "Ack"
        assert alice.settle()[0]["payload"] == [1]


class TestDirectMessage:
    def test_ack_and_message(self, join: Connect) -> None:
        alice, bob = join(), join()
        ack = alice.ok("DirectMessage", to=bob.user, payload={"n": 1})
        assert list(ack) == ["type", "id", "delivered", "offline"]
        assert (ack["type"], ack["delivered"], ack["offline"]) == ("Ack", [bob.user], [])
        message = bob.event()
        assert list(message) == ["type", "offset", "ts", "from", "payload"]
        assert (message["type"], message["offset"], message["from"]) == ("DirectMessage", 1, alice.user)
        assert message["payload"] == {"n": 1}

    def test_list_of_users(self, join: Connect) -> None:
        alice, bob, carol = join(), join(), join()
        absent = unique_user()
        ack = alice.ok("DirectMessage", to=[bob.user, absent, carol.user], payload=1)
        assert ack["delivered"] == [bob.user, carol.user]
        assert ack["offline"] == [absent]
        assert bob.event()["payload"] == 1
        assert carol.event()["payload"] == 1

    def test_absent_user_finds_it_in_the_inbox(self, join: Connect) -> None:
        alice, absent = join(), unique_user()
        assert alice.ok("DirectMessage", to=absent, payload="later")["offline"] == [absent]
        page = join(absent).ok("History", topic=f"@{absent}")
        assert [message["payload"] for message in page["messages"]] == ["later"]

    def test_self(self, join: Connect) -> None:
        alice = join()
        assert alice.ok("DirectMessage", to=alice.user, payload=1)["delivered"] == [alice.user]
        assert [event["type"] for event in alice.settle()] == ["DirectMessage"]

    def test_every_session_of_the_user(self, join: Connect) -> None:
        alice = join()
        user = unique_user()
        sessions = [join(user) for _ in range(5)]
        assert alice.ok("DirectMessage", to=user, payload=1)["delivered"] == [user]
        assert [[event["offset"] for event in session.settle()] for session in sessions] == [[1]] * 5

    def test_user_named_twice_gets_it_once(self, join: Connect) -> None:
        alice, bob = join(), join()
        assert alice.ok("DirectMessage", to=[bob.user, bob.user], payload=1)["delivered"] == [bob.user]
        assert len(bob.settle()) == 1

    def test_too_many_targets(self, join: Connect) -> None:
        alice = join()
        targets = [f"u{number}" for number in range(1001)]
        assert alice.error("DirectMessage", to=targets, payload=1)["code"] == "too_many_targets"
        assert len(alice.ok("DirectMessage", to=targets[:1000], payload=1)["offline"]) == 1000

    @pytest.mark.parametrize("to", ["", [], [""], 7, None, ["a", 7], "u" * 129], ids=lambda to: repr(to)[:16])
    def test_wrong_addressee(self, join: Connect, to: Any) -> None:
        error = join().error("DirectMessage", to=to, payload=1)
        assert error["code"] == "bad_request"

    def test_idempotency_key(self, join: Connect) -> None:
        alice, bob = join(), join()
        key = unique("key")
        for _ in range(2):
            assert alice.ok("DirectMessage", to=bob.user, payload=1, idempotency_key=key)["delivered"] == [bob.user]
        assert len(bob.settle()) == 1


class TestPing:
    def test_pong(self, join: Connect) -> None:
        reply = join().ok("Ping")
        assert list(reply) == ["type", "id", "ts"]
        assert reply["type"] == "Pong"
        assert reply["ts"] > 1_600_000_000_000


class TestIds:
    @pytest.mark.parametrize("request_id", [0, 1, 2**53 - 1, "", "a", "ü" * 32, 'quote " and \\ and \n'])
    def test_comes_back_unchanged(self, join: Connect, request_id: int | str) -> None:
        alice = join()
        alice.send({"type": "Ping", "id": request_id})
        reply = alice.receive()
        assert reply["id"] == request_id
        assert type(reply["id"]) is type(request_id)

    @pytest.mark.parametrize(
        "request_id", [-1, 2**53, 1.5, None, True, [], {}, "x" * 65, "ü" * 33], ids=lambda value: repr(value)[:16]
    )
    def test_others_are_refused_without_id(self, join: Connect, request_id: Any) -> None:
        alice = join()
        alice.send({"type": "Ping", "id": request_id})
        error = alice.receive()
        assert (error["type"], error["code"]) == ("Error", "bad_request")
        assert "id" not in error

    def test_without_id_there_is_no_reply(self, join: Connect, topic: str) -> None:
        alice = join()
        alice.send({"type": "Subscribe", "topic": topic})
        alice.send({"type": "Broadcast", "topic": topic, "payload": 1})
        alice.send({"type": "Ping"})
        assert alice.event()["type"] == "Message"  # from the topic's home, which may be another worker
        assert alice.settle() == []

    def test_without_id_a_failure_is_told(self, join: Connect) -> None:
        alice = join()
        alice.send({"type": "Subscribe", "topic": ""})
        error = alice.receive()
        assert list(error)[:2] == ["type", "code"]
        assert (error["type"], error["code"]) == ("Error", "topic_invalid")

    def test_the_same_id_again_is_another_request(self, join: Connect) -> None:
        alice = join()
        for _ in range(2):
            alice.send({"type": "Ping", "id": 5})
        assert [alice.receive()["id"] for _ in range(2)] == [5, 5]

    def test_replies_come_in_the_order_of_requests(self, join: Connect, topic: str) -> None:
        alice = join()
        for number in range(200):
            alice.send({"type": "Broadcast", "id": number, "topic": topic, "payload": number})
        replies = [alice.receive() for _ in range(200)]
        assert [reply["id"] for reply in replies] == list(range(200))
        assert [reply["offset"] for reply in replies] == list(range(1, 201))


class TestRefused:
    def test_error_has_its_keys_in_order(self, join: Connect) -> None:
        error = join().error("Subscribe", topic="a*")
        assert list(error)[:4] == ["type", "id", "code", "message"]
        assert error["code"] == "topic_invalid"
        assert error["message"]

    @pytest.mark.parametrize(
        "envelope",
        [
            {"id": 1},
            {"type": "Nonsense", "id": 1},
            {"type": "ping", "id": 1},
            {"type": 7, "id": 1},
            {"type": None, "id": 1},
            {"type": "Subscribe", "id": 1},
            {"type": "Subscribe", "id": 1, "topic": 7},
            {"type": "Subscribe", "id": 1, "topic": "t", "history": -1},
            {"type": "Subscribe", "id": 1, "topic": "t", "history": "5"},
            {"type": "Subscribe", "id": 1, "topic": "t", "presence": 1},
            {"type": "Subscribe", "id": 1, "topic": "t", "recover": 5},
            {"type": "Subscribe", "id": 1, "topic": "t", "recover": {"epoch": "e"}},
            {"type": "Subscribe", "id": 1, "topic": "t", "recover": {"epoch": "e", "offset": -1}},
            {"type": "Subscribe", "id": 1, "topic": "t", "recover": {"epoch": 1, "offset": 1}},
            {"type": "Unsubscribe", "id": 1},
            {"type": "Broadcast", "id": 1, "payload": 1},
            {"type": "Broadcast", "id": 1, "topic": "t"},
            {"type": "Broadcast", "id": 1, "topic": "t", "payload": 1, "exclude_self": "yes"},
            {"type": "Broadcast", "id": 1, "topic": "t", "payload": 1, "idempotency_key": 7},
            {"type": "DirectMessage", "id": 1, "payload": 1},
            {"type": "DirectMessage", "id": 1, "to": "bob"},
            {"type": "Presence", "id": 1},
            {"type": "History", "id": 1},
            {"type": "History", "id": 1, "topic": "t", "limit": -1},
            {"type": "History", "id": 1, "topic": "t", "limit": 1001},
            {"type": "History", "id": 1, "topic": "t", "after": "5"},
            {"type": "History", "id": 1, "topic": "t", "reverse": 1},
            {"type": "Refresh", "id": 1},
        ],
        ids=lambda envelope: json.dumps(envelope)[:60],
    )
    def test_wrong_field_is_a_bad_request(self, join: Connect, envelope: dict[str, Any]) -> None:
        alice = join()
        alice.send(envelope)
        error = alice.receive()
        assert (error["type"], error.get("id"), error["code"]) == ("Error", 1, "bad_request")
        assert error["message"]
        assert alice.ok("Ping")["type"] == "Pong"

    @pytest.mark.parametrize("value", [None, True, 7, "text", [], [{"type": "Ping", "id": 1}]], ids=repr)
    def test_what_is_no_map(self, join: Connect, value: Any) -> None:
        alice = join()
        alice.send(alice.encode(value))
        error = alice.receive()
        assert (error["type"], error["code"]) == ("Error", "bad_request")
        assert "id" not in error
        assert alice.ok("Ping")["type"] == "Pong"

    def test_fields_only_the_server_sets_have_no_effect(self, join: Connect, topic: str) -> None:
        alice, bob = join(), join()
        bob.ok("Subscribe", topic=topic)
        forged = {"from": "admin", "offset": 999, "ts": 1, "session_id": "x", "user_id": "root", "roles": ["admin"]}
        alice.ok("Broadcast", topic=topic, payload=1, **forged)
        message = bob.event()
        assert list(message) == MESSAGE_KEYS
        assert (message["from"], message["offset"]) == (alice.user, 1)
        assert message["ts"] > 1

    def test_unknown_fields_are_ignored(self, join: Connect, topic: str) -> None:
        reply = join().ok("Subscribe", topic=topic, colour={"deep": [1, {"er": None}]}, more="text")
        assert reply["type"] == "Subscribed"


def test_everyone_else_is_untouched_by_refusals(join: Connect, topic: str) -> None:
    alice, bob, clumsy = join(), join(), join()
    bob.ok("Subscribe", topic=topic)
    for number in range(20):
        clumsy.send({"type": "Nonsense"})
        alice.ok("Broadcast", topic=topic, payload=number)
    assert [message["payload"] for message in bob.events(20)] == list(range(20))
