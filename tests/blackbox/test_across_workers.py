"""Clients of a server with two workers do not notice which one they are connected to."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from serving.asking import admin, ask
from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess, StartServer, ended_cleanly
from serving.raw import exchange, upgrade
from serving.workers import all_ready, on_each, until

from .conftest import running


@pytest.fixture(scope="module")
def pair() -> Iterator[ServerProcess]:
    """For tests that leave the workers alone."""
    server = running("workers")
    with ended_cleanly(server):
        yield server


@pytest.fixture
def peers() -> Iterator[list[Peer]]:
    """Clients that are closed at the end."""
    made: list[Peer] = []
    yield made
    for peer in made:
        peer.close()


def spread(server: ServerProcess, peers: list[Peer]) -> list[Peer]:
    """A client on each worker."""
    return [peer for _, peer in sorted(on_each(server, all_ready(server), peers).items())]


def test_direct_messages_in_both_directions(pair: ServerProcess, peers: list[Peer]) -> None:
    for _ in range(4):  # users whose inboxes are at home here and there
        alice, bob = spread(pair, peers)
        for sender, receiver in ((alice, bob), (bob, alice), (alice, alice)):
            nobody = unique_user()
            answer = sender.ok("DirectMessage", to=[receiver.user, nobody, receiver.user], payload=[sender.user])
            assert (answer["delivered"], answer["offline"]) == ([receiver.user], [nobody])
            event = receiver.event()
            assert (event["type"], event["from"], event["payload"]) == ("DirectMessage", sender.user, [sender.user])
        history = bob.ok("History", topic=f"@{bob.user}")
        assert [each["payload"] for each in history["messages"]] == [[alice.user]]


def test_direct_messages_to_sessions_on_both(pair: ServerProcess, peers: list[Peer]) -> None:
    alice, bob = spread(pair, peers)
    pids = all_ready(pair)
    user = unique_user()
    sessions = [Peer(pair.url, user) for _ in range(12)]
    peers += sessions
    assert len(pids) == 2
    for sender in (alice, bob):
        for number in range(5):
            key = f"key-{number}"
            for _ in range(2):  # once, however often it is sent
                answer = sender.ok("DirectMessage", to=user, payload=number, idempotency_key=key)
                assert answer["delivered"] == [user]
    for session in sessions:
        events = session.events(10)
        assert [event["offset"] for event in events] == list(range(1, 11))
        assert session.settle() == []


def test_what_was_acknowledged_is_there_on_the_other_worker(pair: ServerProcess, peers: list[Peer]) -> None:
    alice, bob = spread(pair, peers)
    for topic in (unique() for _ in range(10)):
        epoch = bob.ok("Subscribe", topic=topic)["epoch"]
        for number in range(1, 6):
            alice.ok("Broadcast", topic=topic, payload=number)
            answer = bob.ok("Subscribe", topic=topic, recover={"epoch": epoch, "offset": 0})
            assert (answer["recovered"], len(answer["messages"]), answer["offset"]) == (True, number, number)
            assert len(bob.ok("History", topic=topic)["messages"]) == number


def test_the_most_connections_are_those_of_all(start_server: StartServer) -> None:
    server = start_server({"websocket": {"max_connections": 6}}, target="workers")
    all_ready(server)
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(Peer(server.url, unique_user()))
        for _ in range(8):
            assert exchange(server.port, upgrade(user=unique_user())).status == 503
    until(lambda: ask(server.port, "GET", "/health").json["connections"] == 0, "all are gone")
    with Peer(server.url, unique_user()) as peer:
        assert peer.ok("Ping")["type"] == "Pong"


def test_a_users_limit_is_one_for_all(start_server: StartServer) -> None:
    limits: dict[str, Any] = {
        "enabled": True,
        "user": {"requests_per_second": 1.0, "burst_size": 10},
    }
    server = start_server({"rate_limiting": limits}, target="workers")
    all_ready(server)
    user = unique_user()
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Peer(server.url, user)) for _ in range(10)]
        replies = [peer.request("Ping") for _ in range(4) for peer in peers]
    refused = [reply for reply in replies if reply["type"] == "Error"]
    assert {(reply["code"], reply["scope"]) for reply in refused} == {("rate_limited", "user")}
    assert len(replies) - len(refused) in range(10, 14)


def test_a_worker_that_is_drained_leaves_its_topics_to_the_other(start_server: StartServer) -> None:
    server = start_server({"production": {"drain_timeout_secs": 1}}, target="workers")
    peers: list[Peer] = []
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [peer.close() for peer in peers])
        gone, stays = spread(server, peers)
        topics = [unique() for _ in range(12)]
        epochs = {topic: stays.ok("Subscribe", topic=topic)["epoch"] for topic in topics}
        for topic in topics:
            gone.ok("Broadcast", topic=topic, payload=1)
        assert ask(server.port, "POST", "/admin/drain", admin(), {"worker": 0}).status == 200
        assert gone.close_code() == 1001
        for topic in topics:
            ack = stays.ok("Broadcast", topic=topic, payload=2)
            assert (ack["epoch"], ack["offset"]) == (epochs[topic], 2)
        events = [event for event in stays.unasked if event["type"] != "Ack"] + stays.settle()
        assert {event["type"] for event in events} == {"Message"}
