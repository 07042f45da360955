"""What is noted for others: connections that begin and end, topics that come into use and fall out of it."""

from typing import Any

import pytest

from core.hub.moving import moved
from core.hub.node import Node, make_node
from core.hub.sans_io import NOW_MS, WALL_MS, Server, make_hub

ALL = ("connect", "disconnect", "topic_occupied", "topic_vacated")
TOPICS = ALL[2:]
MOST_NOTICES = 10_000


def noticing(*events: str, **changes: Any) -> Server:
    server = make_hub(**changes)
    server.hub.notice(events or ALL, None)
    return server


def taken(server: Server, *, settle: bool = True) -> list[tuple[Any, ...]]:
    """Kind and subject of each notice; time passes until all is told."""
    if settle:
        for _ in range(30):
            server.advance(100)
    notices, lost = server.hub.take_notices()
    assert lost == 0
    return [(notice[0], notice[2]) for notice in notices]


class TestSessions:
    def test_one_begins_and_ends(self) -> None:
        server = noticing()
        peer = server.connect("alice")
        server.advance(250)
        peer.end()
        server.flush()
        (begin, end), lost = server.hub.take_notices()
        assert begin[:3] == ("connect", WALL_MS, "alice") and begin[4] == "websocket"
        assert end == ("disconnect", WALL_MS + 250, "alice", begin[3], "websocket", 250)
        assert (len(begin[3]), lost) == (32, 0)

    def test_it_begins_when_it_is_authenticated(self) -> None:
        server = noticing()
        anonymous = server.connect(None)
        assert taken(server) == []
        anonymous.end()
        server.authenticating("bob")
        assert taken(server) == [("connect", "bob")]

    def test_it_ends_once_however_it_ends(self) -> None:
        server = noticing("disconnect")
        closed, lost = server.connect("alice"), server.connect("bob")
        assert server.hub.disconnect(user_id="alice") == 1
        server.flush()
        closed.end()
        lost.end()
        server.flush()
        assert taken(server) == [("disconnect", "alice"), ("disconnect", "bob")]

    @pytest.mark.parametrize("wanted", ["connect", "disconnect"])
    def test_only_what_was_asked_for(self, wanted: str) -> None:
        server = noticing(wanted)
        peer = server.connect("alice")
        peer.subscribe("t")
        peer.end()
        assert taken(server) == [(wanted, "alice")]

    def test_nothing_without_asking(self) -> None:
        server = make_hub()
        server.connect("alice").subscribe("t")
        assert taken(server) == []

    def test_what_waits_is_bounded(self) -> None:
        server = noticing("connect", "disconnect", max_connections=10)
        for _ in range(MOST_NOTICES // 2 + 3):
            server.connect("alice").end()
            server.flush()
        notices, lost = server.hub.take_notices()
        assert (len(notices), lost) == (MOST_NOTICES, 6)
        assert server.hub.take_notices() == ([], 0)

    def test_an_event_that_there_is_not(self) -> None:
        with pytest.raises(ValueError, match="'subscribed' is none of connect, disconnect"):
            make_hub().hub.notice(("subscribed",), None)

    def test_who_takes_them_is_called_once(self) -> None:
        server, calls = make_hub(), []
        server.hub.notice(ALL, lambda: calls.append(1))
        server.connect("alice")
        server.connect("bob")
        assert calls == [1]
        server.hub.take_notices()
        server.connect("carol")
        assert calls == [1, 1]

    def test_a_call_that_fails_is_made_again(self) -> None:
        server, calls = make_hub(), []

        def wake() -> None:
            calls.append(1)
            raise RuntimeError

        server.hub.notice(ALL, wake)
        server.connect("alice").request({"type": "Ping", "id": 1})
        assert len(calls) > 1


class TestTopics:
    def test_the_first_subscriber_and_the_last_one(self) -> None:
        server = noticing(*TOPICS)
        alice, bob = server.connect("alice"), server.connect("bob")
        alice.subscribe("t")
        bob.subscribe("t")
        assert taken(server) == [("topic_occupied", "t")]
        alice.end()
        assert taken(server) == []
        bob.request({"type": "Unsubscribe", "id": 1, "topic": "t"})
        assert taken(server) == [("topic_vacated", "t")]

    def test_when_it_was(self) -> None:
        server = noticing(*TOPICS)
        peer = server.connect("alice")
        peer.subscribe("t")
        server.advance(100)
        (notice,), _ = server.hub.take_notices()
        assert notice == ("topic_occupied", WALL_MS + 100, "t")

    def test_a_short_absence_leaves_no_trace(self) -> None:
        server = noticing(*TOPICS)
        peer = server.connect("alice")
        peer.subscribe("t")
        assert taken(server) == [("topic_occupied", "t")]
        for _ in range(3):
            peer.request({"type": "Unsubscribe", "id": 1, "topic": "t"})
            server.advance(1500)
            peer.subscribe("t")
        assert taken(server) == []

    def test_a_short_presence_leaves_none_either(self) -> None:
        server = noticing(*TOPICS)
        peer = server.connect("alice")
        peer.send({"type": "Subscribe", "topic": "t"}, {"type": "Unsubscribe", "topic": "t"})
        assert taken(server) == []

    def test_publications_and_inboxes_do_not_count(self) -> None:
        server = noticing(*TOPICS)
        server.fill("t", 1)
        peer = server.connect("alice")
        peer.send({"type": "DirectMessage", "to": "alice", "payload": 1})
        assert taken(server) == []

    def test_what_is_occupied_when_it_begins_is_told_when_it_ends(self) -> None:
        server = make_hub()
        peer = server.connect("alice")
        peer.subscribe("before")
        server.hub.notice(TOPICS, None)
        peer.subscribe("after")
        assert taken(server) == [("topic_occupied", "after")]
        peer.end()
        assert sorted(taken(server)) == [("topic_vacated", "after"), ("topic_vacated", "before")]

    def test_it_ends_when_nobody_wants_it_any_more(self) -> None:
        server = noticing()
        peer = server.connect("alice")
        peer.subscribe("t")
        server.hub.notice((), None)
        peer.end()
        assert taken(server) == [("connect", "alice")]

    @pytest.mark.parametrize("wanted", TOPICS)
    def test_one_of_the_two(self, wanted: str) -> None:
        server = noticing(wanted)
        peer = server.connect("alice")
        peer.subscribe("t")
        server.advance(200)
        peer.end()
        assert taken(server) == [(wanted, "t")]


def node(*events: str, count: int = 2) -> Node:
    made = make_node(count)
    for worker in made.workers.values():
        worker.hub.notice(events or ALL, None)
    made.advance(2000)  # homes have settled
    return made


def told(workers: Node, milliseconds: int = 3000) -> list[tuple[int, str, str]]:
    """Who tells what, after so long."""
    for _ in range(milliseconds // 100):
        workers.advance(100)
    return [(slot, *notice) for slot, worker in workers.workers.items() for notice in taken(worker, settle=False)]


class TestWorkers:
    @pytest.mark.parametrize("home", [0, 1])
    def test_the_home_tells_once_for_all(self, home: int) -> None:
        workers = node(*TOPICS)
        topic = workers.topic_at(home)
        near, far = workers.workers[0].connect("alice"), workers.workers[1].connect("bob")
        workers.subscribe(far, topic)
        workers.subscribe(near, topic)
        assert told(workers) == [(home, "topic_occupied", topic)]
        far.end()
        assert told(workers) == []
        near.end()
        assert told(workers) == [(home, "topic_vacated", topic)]

    def test_a_session_that_moves_neither_ends_nor_begins(self) -> None:
        workers = node()
        topic = workers.topic_at(0)
        peer = workers.workers[0].connect("alice")
        workers.subscribe(peer, topic)
        assert told(workers) == [(0, "connect", "alice"), (0, "topic_occupied", topic)]
        assert moved(workers) == 1
        assert told(workers) == []
        peer.end()
        assert told(workers) == [(0, "topic_vacated", topic), (1, "disconnect", "alice")]

    def test_a_home_that_moves_tells_nothing_again(self) -> None:
        workers = node(*TOPICS)
        topic = workers.topic_at(1)
        peer = workers.workers[0].connect("alice")
        workers.subscribe(peer, topic)
        assert told(workers) == [(1, "topic_occupied", topic)]
        workers.tell_members([0])
        workers.pump()
        assert told(workers) == []
        peer.end()
        assert told(workers) == [(0, "topic_vacated", topic)]

    def test_the_home_moves_while_the_last_one_goes(self) -> None:
        workers = node(*TOPICS)
        topic = workers.topic_at(1)
        peer = workers.workers[0].connect("alice")
        workers.subscribe(peer, topic)
        assert told(workers) == [(1, "topic_occupied", topic)]
        peer.end()
        workers.pump()
        workers.tell_members([0])
        assert told(workers, 5000) == [(0, "topic_vacated", topic)]

    def test_a_worker_that_is_killed_takes_its_subscribers_along(self) -> None:
        workers = node(*TOPICS)
        topic = workers.topic_at(0)
        workers.subscribe(workers.workers[1].connect("alice"), topic)
        assert told(workers) == [(0, "topic_occupied", topic)]
        workers.kill(1)
        assert told(workers, 5000) == [(0, "topic_vacated", topic)]

    def test_a_home_that_is_killed_is_followed_by_one_that_tells_again(self) -> None:
        workers = node(*TOPICS)
        topic = workers.topic_at(1)
        workers.subscribe(workers.workers[0].connect("alice"), topic)
        told(workers)
        workers.kill(1)
        assert told(workers, 5000) == [(0, "topic_occupied", topic)]


def test_the_clock_of_these_tests() -> None:
    assert NOW_MS > MOST_NOTICES
