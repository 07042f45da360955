"""Rules of topics and verdicts of a service, on two servers that share one Redis, one of them with two workers."""

import contextlib
import http.server
import json
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from serving.asking import admin, ask, bearer, health, until
from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess, assert_clean, merged
from serving.redis import RedisServer
from serving.web import Handler, web_server

from .conftest import running

RULES = [
    {"pattern": "staff:*", "subscribe_roles": ["staff", "reader"], "publish_roles": ["staff"]},
    {"pattern": "typing:*", "history": False, "presence": False},
    {"pattern": "ticker:*", "history_size": 2},
]


class Service(Handler):
    """Lets nobody near what is called `secret:…`, and only read what is called `shown:…`."""

    asked: ClassVar[list[dict[str, Any]]] = []

    def answer(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(question)
        topic, action = question["topic"], question["action"]
        refused = topic.startswith("secret:") or (topic.startswith("shown:") and action == "publish")
        body = json.dumps({"allowed": not refused}).encode()
        self.send_response(http.HTTPStatus.OK)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def settings(redis: RedisServer, service: str, workers: int) -> dict[str, Any]:
    return merged(
        {
            "redis": {"url": redis.url, "retry_delay_ms": 10},
            "testing": {"use_in_memory_storage": False},
            "topics": RULES,
            "authorization": {"url": f"{service}/may"},
        },
        {"server": {"workers": workers}},
    )


def started(*given: Any) -> ServerProcess:
    server = running("product", settings(*given))
    until(lambda: health(server.port)["dependencies"]["redis"]["state"] == "up")
    return server


Nodes = tuple[ServerProcess, ServerProcess]


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with web_server(Service) as url:
        yield url


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def nodes(redis: RedisServer, service: str) -> Iterator[Nodes]:
    with contextlib.ExitStack() as stack:
        one, other = started(redis, service, 1), started(redis, service, 2)
        stack.callback(one.dispose)
        stack.callback(other.dispose)
        yield one, other
        for server in (one, other):
            assert_clean(server)


def both_ways(nodes: Nodes) -> tuple[Nodes, Nodes]:
    return nodes, (nodes[1], nodes[0])


def test_roles_hold_on_both_nodes(nodes: Nodes) -> None:
    for here, there in both_ways(nodes):
        topic = unique("staff:room")
        with (
            Peer(here.url, unique_user(), roles=["staff"]) as writer,
            Peer(there.url, unique_user(), roles=["reader"]) as reader,
            Peer(there.url, unique_user()) as stranger,
        ):
            reader.ok("Subscribe", topic=topic)
            for refused in (reader, stranger):
                assert refused.error("Broadcast", topic=topic, payload=1)["code"] == "forbidden"
            for request in ("Subscribe", "History", "Presence"):
                assert stranger.error(request, topic=topic)["code"] == "forbidden"
            writer.ok("Broadcast", topic=topic, payload="for readers")
            assert reader.event()["payload"] == "for readers"
            messages = reader.ok("History", topic=topic)["messages"]
            assert [message["payload"] for message in messages] == ["for readers"], "and nothing that was refused"
            publication = {"topic": topic, "payload": 1}
            answer = ask(there.port, "POST", "/api/publish", bearer(unique_user()), publication)
            assert (answer.status, answer.error_code) == (403, "forbidden")


def test_as_much_is_shown_by_both_nodes(nodes: Nodes) -> None:
    """Redis keeps more than the rule shows, and each node as much as its subscribers have seen."""
    for here, there in both_ways(nodes):
        topic = unique("ticker:room")
        with (
            Peer(here.url, unique_user()) as writer,
            Peer(there.url, unique_user()) as reader,
            Peer(there.url, unique_user()) as late,
        ):
            epoch = reader.ok("Subscribe", topic=topic)["epoch"]
            for number in range(1, 6):
                writer.ok("Broadcast", topic=topic, payload=number)
            assert [reader.event()["payload"] for _ in range(5)] == [1, 2, 3, 4, 5]
            for peer in (writer, reader, late):
                assert payloads(peer.ok("History", topic=topic)) == [4, 5]
            for server in (here, there):
                page = ask(server.port, "GET", f"/api/topics/{topic}/history", admin())
                assert payloads(page.json) == [4, 5]
            # Workers that have just joined each other keep all for those who recover.
            alone = writer if here is nodes[0] else late
            for known, recovered, shown in ((3, True, [4, 5]), (2, False, [5])):
                answer = alone.ok("Subscribe", topic=topic, recover={"epoch": epoch, "offset": known}, history=1)
                assert (answer["recovered"], payloads(answer)) == (recovered, shown)
                alone.ok("Unsubscribe", topic=topic)


def payloads(answer: dict[str, Any]) -> list[Any]:
    return [message["payload"] for message in answer["messages"]]


def test_what_is_not_kept_and_not_told(nodes: Nodes) -> None:
    for here, there in both_ways(nodes):
        topic = unique("typing:room")
        with Peer(here.url, unique_user()) as writer, Peer(there.url, unique_user()) as reader:
            before = reader.ok("Subscribe", topic=topic)
            writer.ok("Broadcast", topic=topic, payload=1)
            assert reader.event()["payload"] == 1
            for peer in (writer, reader):
                assert peer.error("History", topic=topic)["code"] == "forbidden"
                assert peer.error("Presence", topic=topic)["code"] == "forbidden"
                assert peer.error("Subscribe", topic=topic, presence=True)["code"] == "forbidden"
            with Peer(there.url, unique_user()) as late:
                position = {"epoch": before["epoch"], "offset": before["offset"]}
                answer = late.ok("Subscribe", topic=topic, recover=position)
                assert (answer["recovered"], answer.get("messages", [])) == (False, [])


def test_a_node_that_starts_later_shows_nothing_of_what_is_not_kept(
    nodes: Nodes, redis: RedisServer, service: str
) -> None:
    topic = unique("typing:room")
    with Peer(nodes[0].url, unique_user()) as writer:
        first = writer.ok("Broadcast", topic=topic, payload=1)
        writer.ok("Broadcast", topic=topic, payload=2)
    server = started(redis, service, 1)
    try:
        with Peer(server.url, unique_user()) as late:
            position = {"epoch": first["epoch"], "offset": first["offset"]}
            answer = late.ok("Subscribe", topic=topic, recover=position)
            assert (answer["recovered"], answer.get("messages", [])) == (False, [])
            assert late.error("History", topic=topic)["code"] == "forbidden"
        assert_clean(server)
    finally:
        server.dispose()


def test_verdicts_hold_on_both_nodes(nodes: Nodes) -> None:
    for here, there in both_ways(nodes):
        user, shown, secret = unique_user(), unique("shown:room"), unique("secret:room")
        with Peer(here.url, user) as first, Peer(there.url, user) as second, Peer(there.url, user) as third:
            for peer in (first, second, third):
                peer.ok("Subscribe", topic=shown)
                assert peer.error("Broadcast", topic=shown, payload=1)["code"] == "forbidden"
                assert peer.error("Subscribe", topic=secret)["code"] == "forbidden"
                assert peer.error("Broadcast", topic=secret, payload=1)["code"] == "forbidden"
                assert peer.error("History", topic=secret)["code"] == "forbidden"
            with Peer(here.url, unique_user(), roles=["admin"]) as admin:
                admin.ok("Broadcast", topic=shown, payload="to all")
            for peer in (first, second, third):
                assert peer.event()["payload"] == "to all"
        questions = [each for each in Service.asked if each["user_id"] == user]
        assert {each["action"] for each in questions} == {"subscribe", "publish"}
        assert len({each["node_id"] for each in questions}) >= 2, "each node asks for itself"
