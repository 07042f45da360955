"""Requests that somebody outside has to allow: who is asked about what, who waits, and what is remembered."""

from typing import Any

import pytest

from core.hub.node import make_node
from core.hub.sans_io import ADMIN, READ, Server, identity, make_hub
from realtime_communication._core.hub.authorization import ACT_NAMES
from realtime_communication._core.hub.hub import RequestError, UndecidedError
from realtime_communication.config.topics import TopicRule

BOTH = ("subscribe", "publish")
TTL_MS = 60_000


class Asked(list[tuple[str, str, str]]):
    """What was asked, in order; `answers` are given at once where they know one."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str, str], bool] = {}

    def __call__(self, action: str, user: str, topic: str) -> bool | None:
        self.append((action, user, topic))
        return self.answers.get((action, user, topic))


def asking(
    actions: tuple[str, ...] = BOTH, most: int = 100, pending: int = 100, **changes: Any
) -> tuple[Server, Asked]:
    server, asked = make_hub(**{"client_timeout_secs": 10_000} | changes), Asked()
    server.hub.ask_about(actions, asked, most, pending, TTL_MS)
    return server, asked


def decide(server: Server, action: str, topic: str, allowed: bool, user: str = "alice", ttl_ms: int = TTL_MS) -> None:
    server.hub.decided(action, user, topic, allowed, ttl_ms)
    server.flush()


REQUESTS = {
    "Subscribe": ("subscribe", {"type": "Subscribe", "id": 1, "topic": "t"}),
    "History": ("subscribe", {"type": "History", "id": 1, "topic": "t"}),
    "Presence": ("subscribe", {"type": "Presence", "id": 1, "topic": "t"}),
    "Broadcast": ("publish", {"type": "Broadcast", "id": 1, "topic": "t", "payload": 1}),
}


def test_the_names_of_the_acts() -> None:
    assert sorted(ACT_NAMES.values()) == sorted(BOTH)


@pytest.mark.parametrize("kind", REQUESTS)
class TestEachRequest:
    def test_it_waits_for_the_answer(self, kind: str) -> None:
        action, request = REQUESTS[kind]
        server, asked = asking()
        peer = server.connect("alice")
        peer.send(request)
        assert (peer.messages(), asked) == ([], [(action, "alice", "t")])
        decide(server, action, "t", True)
        (answer,) = peer.messages()
        assert (answer["id"], answer["topic"]) == (1, "t")

    def test_it_is_refused(self, kind: str) -> None:
        action, request = REQUESTS[kind]
        server, _ = asking()
        peer = server.connect("alice")
        peer.send(request)
        decide(server, action, "t", False)
        (answer,) = peer.messages()
        assert (answer["code"], answer["message"]) == (
            "forbidden",
            f"topic: you are not allowed to {action} " + ("on it" if action == "publish" else "to it"),
        )
        assert server.stats()["denied"] == 1

    @pytest.mark.parametrize("allowed", [True, False])
    def test_an_answer_at_once(self, kind: str, allowed: bool) -> None:
        action, request = REQUESTS[kind]
        server, asked = asking()
        asked.answers[action, "alice", "t"] = allowed
        peer = server.connect("alice")
        for _ in range(3):
            assert (peer.request(request)["type"] == "Error") is not allowed
        assert len(asked) == 1
        server.advance(TTL_MS - 1)
        peer.send(request)
        assert len(asked) == 1
        server.advance(1)
        peer.send(request)
        assert len(asked) == 2

    def test_the_answer_is_remembered(self, kind: str) -> None:
        action, request = REQUESTS[kind]
        server, asked = asking()
        peer = server.connect("alice")
        peer.send(request)
        decide(server, action, "t", True, ttl_ms=1000)
        peer.messages()
        assert peer.request(request)["topic"] == "t"
        server.advance(1001)
        peer.send(request)
        assert (peer.messages(), len(asked)) == ([], 2)

    def test_who_is_not_asked(self, kind: str) -> None:
        action, request = REQUESTS[kind]
        other = BOTH[1 - BOTH.index(action)]
        server, asked = asking(actions=(other,))
        assert server.connect("alice").request(request)["type"] != "Error"
        server, asked = asking()
        assert server.connect(identity("root", ADMIN)).request(request)["type"] != "Error"
        assert asked == []


def test_token_and_rules_come_first() -> None:
    server, asked = asking(topics=(TopicRule(pattern="t", publish_roles=("x",), subscribe_roles=("x",)),))
    peer = server.connect("alice")
    for _, request in REQUESTS.values():
        peer.refused("forbidden", request | {"id": 9})
    server.connect("bob", permissions=READ, roles=("x",)).refused("forbidden", REQUESTS["Broadcast"][1] | {"id": 9})
    assert asked == []


def test_inboxes_and_publications_to_all_are_not_asked_about() -> None:
    server, asked = asking()
    peer = server.connect("alice")
    assert peer.request({"type": "History", "id": 1, "topic": "@alice"})["type"] == "HistoryPage"
    assert peer.request({"type": "DirectMessage", "id": 1, "to": "bob", "payload": 1})["type"] == "Ack"
    server.connect("root", permissions=ADMIN).send({"type": "Broadcast", "id": 1, "topic": "*", "payload": 1})
    assert peer.messages()[0]["payload"] == 1
    assert asked == []


class TestOrder:
    def test_what_is_behind_it_waits_too(self) -> None:
        server, asked = asking()
        peer = server.connect("alice")
        peer.send(
            {"type": "Subscribe", "id": 1, "topic": "a"},
            {"type": "Broadcast", "id": 2, "topic": "a", "payload": 1},
            {"type": "Ping", "id": 3},
        )
        assert (peer.messages(), asked) == ([], [("subscribe", "alice", "a")])
        decide(server, "subscribe", "a", True)
        assert [message["id"] for message in peer.messages()] == [1]
        decide(server, "publish", "a", True)
        assert [message.get("id", message["type"]) for message in peer.messages()] == [2, 3, "Message"]

    def test_nobody_else_does(self) -> None:
        server, asked = asking()
        alice, bob = server.connect("alice"), server.connect("bob")
        alice.send(REQUESTS["Subscribe"][1])
        asked.answers["publish", "bob", "t"] = True
        assert bob.request(REQUESTS["Broadcast"][1])["type"] == "Ack"
        assert alice.messages() == []

    def test_all_who_want_the_same_wait_for_one_answer(self) -> None:
        server, asked = asking()
        peers = [server.connect("alice") for _ in range(3)]
        for peer in peers:
            peer.send(REQUESTS["Subscribe"][1])
        assert len(asked) == 1
        decide(server, "subscribe", "t", True)
        assert [peer.messages()[0]["type"] for peer in peers] == ["Subscribed"] * 3


class TestWhatGoesWrong:
    def test_a_client_that_does_not_wait(self) -> None:
        server, _ = asking()
        peer = server.connect("alice")
        peer.send(REQUESTS["Subscribe"][1])
        peer.end()
        server.flush()
        decide(server, "subscribe", "t", True)
        assert server.connect("alice").subscribe("t")

    def test_too_many_questions(self) -> None:
        server, asked = asking(pending=2)
        for topic in ("a", "b"):
            server.connect("alice").send({"type": "Subscribe", "id": 1, "topic": topic})
        answer = server.connect("alice").request({"type": "Subscribe", "id": 1, "topic": "c"})
        assert (answer["code"], answer["retry_after_ms"], len(asked)) == ("unavailable", 1000, 2)
        server.connect("alice").send({"type": "Subscribe", "id": 1, "topic": "a"})
        assert len(asked) == 2, "that is asked already"

    def test_an_answer_that_never_comes(self) -> None:
        server, _ = asking()
        peer = server.connect("alice")
        peer.send(REQUESTS["Broadcast"][1], {"type": "Ping", "id": 2})
        for _ in range(11):
            server.advance(1000)
        error, pong = peer.messages()
        assert (error["code"], error["id"], pong["id"]) == ("unavailable", 1, 2)

    def test_who_is_asked_fails(self) -> None:
        def fail(action: str, user: str, topic: str) -> bool:
            raise RuntimeError("secret")

        server = make_hub()
        server.hub.ask_about(BOTH, fail, 10, 10, TTL_MS)
        assert server.connect("alice").refused("forbidden", REQUESTS["Broadcast"][1] | {"id": 9})

    def test_an_answer_that_nobody_wants(self) -> None:
        server, asked = asking()
        decide(server, "publish", "t", True)
        assert server.connect("alice").request(REQUESTS["Broadcast"][1])["type"] == "Ack"
        decide(make_hub(), "publish", "t", True)
        assert asked == []

    def test_an_action_that_there_is_not(self) -> None:
        with pytest.raises(KeyError):
            make_hub().hub.ask_about(("connect",), Asked(), 1, 1, 1)


class TestHttp:
    def test_a_publication(self) -> None:
        server, asked = asking()
        alice = identity("alice")
        with pytest.raises(UndecidedError) as caught:
            server.publish(alice, topic="t", payload=1)
        assert (caught.value.code, caught.value.action, caught.value.topic) == ("unavailable", "publish", "t")
        assert (asked, server.hub.verdict("publish", "alice", "t")) == ([], None)
        decide(server, "publish", "t", True)
        assert server.hub.verdict("publish", "alice", "t") is True
        assert server.publish(alice, topic="t", payload=1)["offset"] == 1
        decide(server, "publish", "t", False)
        with pytest.raises(RequestError, match="not allowed to publish") as refused:
            server.publish(alice, topic="t", payload=1)
        assert refused.value.code == "forbidden"
        assert server.publish(identity("root", ADMIN), topic="t", payload=1)["offset"] == 2

    def test_it_counts_once(self) -> None:
        server, _ = asking(rate_limiting_enabled=True, user_rps=0.001, user_burst=1)
        alice, body = identity("alice"), b'{"topic":"t","payload":1}'
        with pytest.raises(UndecidedError):
            server.hub.publish_request(body, alice)
        decide(server, "publish", "t", True)
        assert server.hub.publish_request(body, alice, counted=True)["offset"] == 1
        with pytest.raises(RequestError, match="more requests"):
            server.hub.publish_request(body, alice)


@pytest.mark.parametrize("home", [0, 1])
def test_between_workers(home: int) -> None:
    node = make_node(2)
    asked = Asked()
    for worker in node.workers.values():
        worker.hub.ask_about(BOTH, asked, 10, 10, TTL_MS)
    topic = node.topic_at(home)
    peer = node.workers[0].connect("alice")
    peer.send(
        {"type": "Subscribe", "id": 1, "topic": topic}, {"type": "Broadcast", "id": 2, "topic": topic, "payload": 1}
    )
    node.pump()
    assert peer.messages() == []
    assert node.move(0, 1) == 0, "it stays while it waits"
    for action in BOTH:
        node.workers[0].hub.decided(action, "alice", topic, True, TTL_MS)
        node.pump()
    assert sorted(message["type"] for message in peer.messages()) == ["Ack", "Message", "Subscribed"]
    assert asked == [(action, "alice", topic) for action in BOTH]
