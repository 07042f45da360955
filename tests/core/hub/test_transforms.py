"""Functions that payloads go through: which one, what it sees, what becomes of what it returns."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from core.hub.sans_io import ADMIN, READ, WRITE, Server, identity, make_hub, settings
from realtime_communication._core.hub.outcome import RequestError
from realtime_communication._core.hub.transforms import read

Function = Callable[[str, bytes], bytes | None]


def upper(topic: str, payload: bytes) -> bytes:
    return payload.upper()


def refuse(topic: str, payload: bytes) -> None:
    return None


def fail(topic: str, payload: bytes) -> bytes:
    raise RuntimeError("secret")


def hub(*transforms: tuple[str, Function], **changes: Any) -> Server:
    return make_hub(transforms=list(transforms), **changes)


def broadcast(topic: str = "t", payload: Any = "a", **fields: Any) -> dict[str, Any]:
    return {"type": "Broadcast", "id": 1, "topic": topic, "payload": payload, **fields}


class TestReading:
    def test_patterns_in_order(self) -> None:
        assert read([("a", upper), ("b:*", upper), ("*", upper)]) == [b"a", b"b:*", b"*"]
        assert read([]) == []

    @pytest.mark.parametrize("pattern", ["", "a*b", "**"])
    def test_a_pattern_that_is_none(self, pattern: str) -> None:
        with pytest.raises(ValueError, match="pattern"):
            read([(pattern, upper)])

    def test_what_cannot_be_called(self) -> None:
        server = make_hub(max_targets_per_message=7)
        with pytest.raises(TypeError, match="callable"):
            server.hub.configure(settings(transforms=[("a", 1)], max_targets_per_message=1))
        answer = server.connect().request({"type": "DirectMessage", "id": 1, "to": ["a", "b"], "payload": 1})
        assert answer["type"] == "Ack"


class TestWhich:
    @pytest.mark.parametrize(
        ("topic", "payload"), [("room", "ONE"), ("room:1", "TWO"), ("room:", "TWO"), ("rooms", "a"), ("roo", "a")]
    )
    def test_the_first_pattern_that_matches(self, topic: str, payload: str) -> None:
        server = hub(
            ("room", lambda topic, payload: b'"ONE"'),
            ("room:*", lambda topic, payload: b'"TWO"'),
            ("room:1", lambda topic, payload: b'"THREE"'),
        )
        peer = server.connect()
        peer.subscribe(topic)
        peer.send(broadcast(topic))
        (message,) = [message for message in peer.messages() if message["type"] == "Message"]
        assert message["payload"] == payload

    def test_off_with_transformation(self) -> None:
        server = hub(("*", refuse), enable_message_transformation=False)
        assert server.connect().request(broadcast())["type"] == "Ack"

    def test_they_change_while_the_server_runs(self) -> None:
        server = hub(("*", refuse))
        peer = server.connect()
        assert peer.request(broadcast())["type"] == "Error"
        server.hub.configure(settings())
        assert peer.request(broadcast())["type"] == "Ack"

    def test_everybody(self) -> None:
        server = hub(("*", upper))
        admin = server.connect(identity("root", ADMIN))
        admin.send(broadcast("*"))
        assert [m["payload"] for m in admin.messages() if m["type"] == "Message"] == ["A"]


class TestWhatItSees:
    @pytest.mark.parametrize("protocol", ["rtc.v1.json", "rtc.v1.msgpack"])
    def test_json_in_and_out_whatever_the_encoding(self, protocol: str) -> None:
        seen = []

        def add(topic: str, payload: bytes) -> bytes:
            seen.append((topic, json.loads(payload)))
            return json.dumps({**json.loads(payload), "more": [1, 2.5]}).encode()

        server = hub(("t", add))
        sender = server.connect("alice", protocol=protocol)
        text, packed = server.connect("bob"), server.connect("carol", protocol="rtc.v1.msgpack")
        text.subscribe("t")
        packed.subscribe("t")
        assert sender.request(broadcast(payload={"n": 1}))["offset"] == 1
        for peer in (text, packed):
            assert [message["payload"] for message in peer.messages()] == [{"n": 1, "more": [1, 2.5]}]
        assert seen == [("t", {"n": 1})]
        history = packed.request({"type": "History", "id": 1, "topic": "t"})
        assert [message["payload"] for message in history["messages"]] == [{"n": 1, "more": [1, 2.5]}]
        assert server.stats()["transformed"] == 1

    def test_a_repeated_request_is_not_transformed_again(self) -> None:
        server = hub(("t", upper))
        peer = server.connect()
        first = peer.request(broadcast(idempotency_key="k"))
        assert peer.request(broadcast(idempotency_key="k"))["offset"] == first["offset"]
        assert server.stats()["transformed"] == 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("function", "code", "text"),
        [
            (refuse, "forbidden", "payload: refused by a transform"),
            (fail, "internal", "payload: a transform failed"),
            (lambda topic, payload: b"{", "internal", "payload: a transform failed"),
            (lambda topic, payload: b"\xff", "internal", "payload: a transform failed"),
            (lambda topic, payload: b'"\xff"', "internal", "payload: a transform failed"),
            (lambda topic, payload: "1", "internal", "payload: a transform failed"),
            (lambda topic, payload: b'"' + b"x" * (1 << 20) + b'"', "internal", "payload: a transform failed"),
            (lambda payload: b"1", "internal", "payload: a transform failed"),
        ],
    )
    def test_the_publisher_is_told_and_nobody_else(self, function: Any, code: str, text: str) -> None:
        server = hub(("t", function))
        alice, bob = server.connect("alice"), server.connect("bob")
        bob.subscribe("t")
        answer = alice.request(broadcast(idempotency_key="k"))
        assert (answer["type"], answer["code"], answer["message"]) == ("Error", code, text)
        with pytest.raises(RequestError) as refused:
            server.hub.publish_request(b'{"topic":"t","payload":1}', identity("carol"))
        assert (refused.value.code, refused.value.message) == (code, text)
        assert bob.messages() == []
        assert alice.request(broadcast("other"))["type"] == "Ack"
        stats = server.stats()
        counted = (stats["transformed"], stats["transform_errors"])
        assert counted == ((2, 0) if code == "forbidden" else (0, 2))
        assert stats["idempotency_keys"] == 0

    def test_what_exits_is_held_back(self) -> None:
        def leave(topic: str, payload: bytes) -> bytes:
            raise SystemExit(3)

        assert hub(("t", leave)).connect().request(broadcast())["code"] == "internal"


class TestDirectMessages:
    """A message to alice is a publication on `@alice`."""

    def test_each_inbox_has_its_own(self) -> None:
        server = hub(("@bob", upper), ("@c*", lambda topic, payload: json.dumps(topic).encode()))
        peers = {name: server.connect(name) for name in ("bob", "carol", "dave")}
        answer = peers["bob"].request(
            {"type": "DirectMessage", "id": 1, "to": ["carol", "dave", "carol"], "payload": "a"}
        )
        assert answer["delivered"] == ["carol", "dave"]
        peers["dave"].send({"type": "DirectMessage", "to": "bob", "payload": "a"})
        got = {name: [message["payload"] for message in peer.messages()] for name, peer in peers.items()}
        assert got == {"bob": ["A"], "carol": ["@carol"], "dave": ["a"]}
        assert server.stats()["transformed"] == 2

    @pytest.mark.parametrize(("function", "code"), [(refuse, "forbidden"), (fail, "internal")])
    def test_one_that_is_refused_is_sent_to_nobody(self, function: Function, code: str) -> None:
        server = hub(("@carol", function))
        bob, carol = server.connect("bob"), server.connect("carol")
        request = {"type": "DirectMessage", "id": 1, "to": ["bob", "carol"], "payload": "a", "idempotency_key": "k"}
        assert bob.request(request)["code"] == code
        with pytest.raises(RequestError) as refused:
            server.hub.send_request(b'{"to":["bob","carol"],"payload":1}', identity("dave", READ | WRITE))
        assert refused.value.code == code
        assert (bob.messages(), carol.messages()) == ([], [])
        server.hub.configure(settings())
        assert bob.request(request | {"to": ["carol"]})["delivered"] == ["carol"]
        assert [message["payload"] for message in carol.messages()] == ["a"]

    def test_over_http(self) -> None:
        server = hub(("@bob", upper))
        bob = server.connect("bob")
        answer = server.hub.send_request(b'{"to":"bob","payload":"a"}', identity("dave"))
        server.flush()
        assert answer == {"delivered": ["bob"], "offline": []}
        assert [message["payload"] for message in bob.messages()] == ["A"]


def test_overflow_block_transforms_a_request_that_waited_once() -> None:
    server = hub(("t", upper), overflow_strategy="block", mailbox_capacity=2)
    slow, fast = server.connect("slow"), server.connect("fast")
    slow.subscribe("t")
    slow.stall()
    for number in range(6):
        fast.send(broadcast(payload=str(number)))
    slow.resume()
    server.flush()
    payloads = [message["payload"] for message in slow.messages()]
    assert payloads == [str(number) for number in range(6)]
    assert server.stats()["transformed"] == 6
