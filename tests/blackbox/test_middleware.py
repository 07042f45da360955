"""What the operator decides and hears, on a server of two workers: rules of topics, authorization, webhooks."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from serving.asking import ask, bearer, until
from serving.peer import Peer, unique
from serving.processes import ServerProcess, free_port
from serving.receiver import Receiver
from serving.workers import all_ready, on_each, ready

YES = b'{"allowed":true}'


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    made = Receiver().start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def service() -> Iterator[Receiver]:
    """Says yes to everything."""
    made = Receiver(*[200] * 100_000, body=YES).start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def pair(receiver: Receiver, service: Receiver) -> Iterator[ServerProcess]:
    settings = {
        "server": {"workers": 2},
        "webhooks": {"url": receiver.url, "batch_wait_ms": 20},
        "authorization": {"url": service.url, "actions": ["publish"]},
        "topics": [
            {"pattern": "staff:*", "subscribe_roles": ["staff"], "publish_roles": ["staff"]},
            {"pattern": "brief:*", "history_size": 2},
            {"pattern": "typing:*", "history": False, "presence": False},
        ],
    }
    server = ServerProcess("product", free_port(), settings, None)
    try:
        server.start()
        all_ready(server)
        yield server
        assert server.stop() == 0
    finally:
        server.dispose()


@pytest.fixture
def peers(pair: ServerProcess) -> Iterator[list[Peer]]:
    """A client on each worker, and others on either."""
    made: list[Peer] = []
    found = on_each(pair, ready(pair), made)
    made[:] = [*found.values(), *(peer for peer in made if peer not in found.values())]
    yield made
    for peer in made:
        peer.close()


def events(receiver: Receiver, **wanted: str) -> list[dict[str, Any]]:
    """Those that have these members."""
    found = [event for body in receiver.events for event in body["events"]]
    return [event for event in found if wanted.items() <= event.items()]


class TestTopicRules:
    def test_roles_count_on_every_worker(self, pair: ServerProcess, peers: list[Peer]) -> None:
        for number in range(6):
            topic = f"{unique('staff')}:{number}"
            for peer in peers[:2]:
                assert peer.error("Subscribe", topic=topic)["code"] == "forbidden"
                assert peer.error("Broadcast", topic=topic, payload=1)["code"] == "forbidden"
            for roles, status in ((["user"], 403), (["staff"], 200)):
                body = {"topic": topic, "payload": 1}
                assert ask(pair.port, "POST", "/api/publish", bearer(roles=roles), body).status == status
                assert ask(pair.port, "GET", f"/api/topics/{topic}/history", bearer(roles=roles)).status == status
            with Peer(pair.url, "boss", roles=["staff"]) as boss:
                assert boss.ok("Subscribe", topic=topic, history=1)["messages"][0]["payload"] == 1

    def test_history_is_bounded_on_every_worker(self, peers: list[Peer]) -> None:
        for _ in range(4):
            topic = unique("brief")
            for number in range(4):
                peers[number % 2].ok("Broadcast", topic=topic, payload=number)
            for peer in peers[:2]:
                found = peer.ok("History", topic=topic)["messages"]
                assert [message["payload"] for message in found] == [2, 3]

    def test_no_history_and_no_presence(self, peers: list[Peer]) -> None:
        for _ in range(4):
            topic = unique("typing")
            reader, writer = peers[:2]
            reader.ok("Subscribe", topic=topic)
            first = writer.ok("Broadcast", topic=topic, payload=1)
            assert reader.event()["payload"] == 1
            answer = writer.ok("Subscribe", topic=topic, recover={"epoch": first["epoch"], "offset": 0}, history=5)
            assert (answer["recovered"], answer["messages"], answer["offset"]) == (False, [], 1)
            for kind in ("History", "Presence"):
                assert writer.error(kind, topic=topic)["code"] == "forbidden"


def test_each_worker_asks_once_about_the_same(peers: list[Peer], service: Receiver) -> None:
    topic = unique("asked")
    for _ in range(3):
        for peer in peers[:2]:
            peer.ok("Broadcast", topic=topic, payload=1)
    asked = [event["user_id"] for event in service.events if event["topic"] == topic]
    assert len(asked) == len(set(asked)) == 2


class TestWebhooks:
    def test_each_topic_is_told_once(self, peers: list[Peer], receiver: Receiver) -> None:
        topics = [unique("topic") for _ in range(6)]
        for peer in peers[:2]:
            for topic in topics:
                peer.ok("Subscribe", topic=topic)
        until(lambda: all(events(receiver, topic=topic) for topic in topics))
        for peer in peers[:2]:
            peer.close()
        until(lambda: all(events(receiver, event="topic_vacated", topic=topic) for topic in topics))
        for topic in topics:
            told = Counter(event["event"] for event in events(receiver, topic=topic))
            assert told == {"topic_occupied": 1, "topic_vacated": 1}

    def test_connections_are_told_by_the_worker_that_has_them(self, pair: ServerProcess, receiver: Receiver) -> None:
        users = [unique("user") for _ in range(8)]
        for user in users:
            with Peer(pair.url, user) as peer:
                peer.ok("Ping")
        until(lambda: all(events(receiver, event="disconnect", user_id=user) for user in users))
        for user in users:
            begin, end = events(receiver, user_id=user)
            assert (begin["event"], end["event"]) == ("connect", "disconnect")
            assert begin["session_id"] == end["session_id"]
