"""Presence and History over HTTP, and Presence from sessions, wherever the topic is."""

import json
from typing import Any

import pytest

from core.hub.node import Node, Upstream, make_node
from core.hub.sans_io import Peer, make_hub
from realtime_communication._core.hub.hub import RequestError


def carry(node: Node, upstream: Upstream | None) -> None:
    while True:
        node.pump()
        if upstream is None or not upstream.step():
            return


def settled(answer: Any, node: Node, upstream: Upstream | None = None) -> Any:
    """The value of an answer, now or later. Raises the error of one that is refused."""
    if isinstance(answer, dict):
        return answer
    found: list[Any] = []
    answer.then(lambda value, error: found.append((value, error)))
    carry(node, upstream)
    ((value, error),) = found
    if error is not None:
        raise error
    return value


def enter(node: Node, upstream: Upstream | None, slot: int, topic: str, user: str, **fields: Any) -> Peer:
    peer = node.workers[slot].connect(user, **fields)
    peer.send({"type": "Subscribe", "id": 1, "topic": topic})
    carry(node, upstream)
    assert [each["type"] for each in peer.messages()] == ["Subscribed"]
    return peer


PLACES = [(where, above) for above in (False, True) for where in (0, 1)]


@pytest.fixture(params=PLACES, ids=lambda each: f"home {each[0]}, upstream {each[1]}")
def place(request: pytest.FixtureRequest) -> tuple[Node, Upstream | None, str]:
    """A node of two workers, what is above it, and a topic; questions are asked at slot 0."""
    where, above = request.param
    node = make_node(2)
    upstream = Upstream() if above else None
    if upstream is not None:
        node.go_below(upstream)
        carry(node, upstream)
    return node, upstream, node.topic_at(where)


class TestPresence:
    def test_over_http_as_over_a_connection(self, place: tuple[Node, Upstream | None, str]) -> None:
        node, upstream, topic = place
        alice = enter(node, upstream, 0, topic, "alice", presence_info=b'{"a":[1]}')
        enter(node, upstream, 1, topic, "bob")
        alice.send({"type": "Presence", "id": 1, "topic": topic})
        carry(node, upstream)
        (state,) = alice.messages()
        answer = settled(node.workers[0].hub.presence_request(topic), node, upstream)
        members = json.loads(answer["members"])
        assert (answer["topic"], answer["count"], members) == (topic, 2, state["members"])
        by_user = {each["user_id"]: each for each in members}
        assert by_user["alice"]["info"] == {"a": [1]}
        assert "info" not in by_user["bob"]

    def test_of_nobody(self, place: tuple[Node, Upstream | None, str]) -> None:
        node, upstream, topic = place
        answer = settled(node.workers[0].hub.presence_request(topic), node, upstream)
        assert answer == {"topic": topic, "count": 0, "members": b"[]"}
        assert all(worker.stats()["topics"] <= 1 for worker in node.workers.values())

    @pytest.mark.parametrize("protocol", ["rtc.v1.json", "rtc.v1.msgpack"])
    def test_everybody_is_named_but_not_everybody_described(self, protocol: str) -> None:
        node = make_node(2, max_connections=3000)
        topic = node.topic_at(1)
        info = b'{"a":"' + b"x" * 4088 + b'"}'
        for number in range(2100):
            peer = node.workers[1].connect(f"user-{number}", presence_info=info)
            peer.send({"type": "Subscribe", "topic": topic})
        peer = node.workers[0].connect("asks", protocol=protocol)
        state = node.ask(peer, {"type": "Presence", "id": 1, "topic": topic})
        assert state["count"] == len(state["members"]) == 2100
        assert sum("info" in each for each in state["members"]) == (8 << 20) // 4096

    def test_what_follows_it_waits(self) -> None:
        node = make_node(2)
        topic = node.topic_at(1)
        peer = node.workers[0].connect("alice")
        peer.send({"type": "Presence", "id": 1, "topic": topic}, {"type": "Ping", "id": 2})
        assert peer.messages() == []
        node.pump()
        assert [each["type"] for each in peer.messages()] == ["PresenceState", "Pong"]

    def test_who_is_gone_gets_no_answer(self) -> None:
        node = make_node(2)
        topic = node.topic_at(1)
        peer = node.workers[0].connect("alice")
        peer.send({"type": "Presence", "id": 1, "topic": topic})
        peer.end()
        node.pump()
        node.advance(3000)
        assert node.workers[0].stats()["sessions"] == 0

    def test_a_home_that_dies_before_it_answers(self) -> None:
        node = make_node(2)
        topic = node.topic_at(1)
        peer = node.workers[0].connect("alice")
        peer.send({"type": "Presence", "id": 1, "topic": topic}, {"type": "Ping", "id": 2})
        later = node.workers[0].hub.presence_request(topic)
        node.kill(1)
        with pytest.raises(RequestError) as refused:
            settled(later, node)
        assert (refused.value.code, refused.value.retry_after_ms) == ("unavailable", 200)
        error, pong = peer.messages()
        assert (error["type"], error["code"], pong["type"]) == ("Error", "unavailable", "Pong")

    def test_a_home_that_is_none_any_more(self) -> None:
        node = make_node(3)
        topic = node.topic_at(2)
        node.workers[2].hub.set_members(2, [0, 1])
        peer = node.workers[0].connect("alice")
        peer.send({"type": "Presence", "id": 1, "topic": topic})
        later = node.workers[0].hub.presence_request(topic)
        node.pump()
        node.advance(3100)  # it gives up waiting for the others to hand over, and refuses
        with pytest.raises(RequestError) as refused:
            settled(later, node)
        assert refused.value.code == "unavailable"
        assert peer.messages() == []
        node.tell_members([0, 1])
        node.pump()
        node.advance(100)
        assert [each["type"] for each in peer.messages()] == ["PresenceState"]

    @pytest.mark.parametrize("where", [0, 1])
    def test_while_the_topic_moves(self, where: int) -> None:
        node = make_node(2)
        topic = next(topic for number in range(100) if node.home(topic := f"t{number}", [0, 1, 2]) == 2)
        enter(node, None, 0, topic, "a")
        enter(node, None, 1, topic, "b")
        node.start(2)
        peer = node.workers[(0, 2)[where]].connect("asks")
        answer = node.ask(peer, {"type": "Presence", "id": 1, "topic": topic})
        assert sorted(each["user_id"] for each in answer["members"]) == ["a", "b"]

    def test_of_the_own_inbox(self) -> None:
        """It lists the sessions of all workers, whichever is asked."""
        node = make_node(3)
        peer, *others = [node.workers[slot].connect("alice", presence_info=b'{"n":%d}' % slot) for slot in (0, 1, 1)]
        node.workers[2].connect("bob")
        node.pump()
        for asks in (peer, others[0]):
            answer = node.ask(asks, {"type": "Presence", "id": 1, "topic": "@alice"})
            assert (answer["type"], answer["count"]) == ("PresenceState", 3)
            assert [each["user_id"] for each in answer["members"]] == ["alice"] * 3
            assert sorted(each["info"]["n"] for each in answer["members"]) == [0, 1, 1]
            assert len({each["session_id"] for each in answer["members"]}) == 3
        for slot in range(3):
            answer = settled(node.workers[slot].hub.presence_request("@alice"), node)
            assert (answer["count"], len(json.loads(answer["members"]))) == (3, 3)
        assert settled(node.workers[2].hub.presence_request("@nobody"), node)["count"] == 0
        assert "@nobody" not in {each["topic"] for each in node.workers[2].hub.topics()}
        writer = node.workers[1].connect("writer")
        sent = node.ask(writer, {"type": "DirectMessage", "id": 1, "to": "alice", "payload": 1})
        assert sent["delivered"] == ["alice"]
        assert [each["type"] for each in peer.messages()] == ["DirectMessage"]

    def test_an_upstream_that_refuses(self) -> None:
        server = make_hub()
        peer = server.connect("alice")
        server.hub.set_upstream(lambda: None)
        server.hub.upstream_back()
        server.hub.take_upstream()
        peer.send({"type": "Presence", "id": 1, "topic": "t"}, {"type": "Ping", "id": 2})
        (token,) = [item[2] for item in server.hub.take_upstream() if item[0] == "presence"]
        server.hub.refuse_waiting(token, "unavailable", "not now", 500)
        server.flush()
        error, pong = peer.messages()
        assert (error["code"], error["retry_after_ms"], pong["type"]) == ("unavailable", 500, "Pong")


class TestHistory:
    def test_pages(self, place: tuple[Node, Upstream | None, str]) -> None:
        node, upstream, topic = place
        peer = enter(node, upstream, 1, topic, "alice")
        for number in range(5):
            peer.send({"type": "Broadcast", "topic": topic, "payload": {"n": number}})
        carry(node, upstream)
        hub = node.workers[0].hub

        def page(*arguments: Any, **fields: Any) -> list[int]:
            answer = settled(hub.history_request(topic, *arguments, **fields), node, upstream)
            assert (answer["topic"], answer["offset"]) == (topic, 5)
            messages = json.loads(answer["messages"])
            assert all(each["from"] == "alice" and each["payload"] == {"n": each["offset"] - 1} for each in messages)
            return [each["offset"] for each in messages]

        epoch = settled(hub.history_request(topic), node, upstream)["epoch"]
        assert len(epoch) == 16
        assert page() == [1, 2, 3, 4, 5]
        assert page(epoch, 2) == [3, 4, 5]
        assert page(epoch, 2, 2) == [3, 4]
        assert page(epoch, 4, 2, True) == [3, 2]
        assert page(limit=2, reverse=True) == [5, 4]
        assert page(limit=0) == []

    def test_of_an_inbox(self) -> None:
        node = make_node(2)
        user = node.user_at(1)
        peer = node.workers[0].connect(user)
        node.pump()
        node.ask(peer, {"type": "DirectMessage", "id": 1, "to": "nobody", "payload": 0})
        peer.send({"type": "DirectMessage", "to": user, "payload": 7})
        node.pump()
        answer = settled(node.workers[0].hub.history_request("@" + user), node)
        assert [each["payload"] for each in json.loads(answer["messages"])] == [7]

    def test_of_nothing(self, place: tuple[Node, Upstream | None, str]) -> None:
        node, upstream, topic = place
        answer = settled(node.workers[0].hub.history_request(topic, "0" * 16, 3), node, upstream)
        assert (answer["offset"], answer["messages"]) == (0, b"[]")


@pytest.mark.parametrize("topic", ["", "*", "a\n", "x" * 256, "\ud800"])
def test_names_that_nobody_can_have(topic: str) -> None:
    hub = make_hub().hub
    for ask in (hub.presence_request, hub.history_request):
        with pytest.raises(RequestError) as refused:
            ask(topic)
        assert refused.value.code == "topic_invalid"
