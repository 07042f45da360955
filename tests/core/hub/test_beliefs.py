"""What sessions that watch believe, wherever they go."""

import random

import pytest

from core.hub.moving import ALL, by_home, carry_some, members, moved
from core.hub.node import make_node
from core.hub.sans_io import identity


class TestPresence:
    """A user that moves neither leaves nor joins."""

    @by_home
    @pytest.mark.parametrize("watcher_at", [0, 1, 2])
    def test_nobody_is_told(self, topic_home: int, watcher_at: int) -> None:
        node = make_node(3)
        topic = node.topic_at(topic_home)
        watcher = node.workers[watcher_at].connect("watcher")
        node.subscribe(watcher, topic, presence=True)
        user = node.workers[0].connect("mover")
        node.subscribe(user, topic)
        assert [each["type"] for each in watcher.messages()] == ["Join"]
        (before,) = [each for each in members(node, watcher, topic) if each["user_id"] == "mover"]
        assert moved(node) >= 1
        for _ in range(8):
            node.advance(500)
        assert watcher.messages() == []
        (after,) = [each for each in members(node, watcher, topic) if each["user_id"] == "mover"]
        assert after == before
        user.end()
        node.pump()
        for _ in range(8):
            node.advance(500)
        assert [(each["type"], each["user_id"]) for each in watcher.messages()] == [("Leave", "mover")]


class TestWatchers:
    """Those who watch and move are told of all that is different, once."""

    @by_home
    def test_one_that_watches_learns_what_happened_meanwhile(self, topic_home: int) -> None:
        node = make_node(3)
        topic = node.topic_at(topic_home)
        watcher = node.workers[0].connect("watcher")
        leaver = node.workers[2].connect("leaver")
        stayer = node.workers[2].connect(identity("stayer", ALL, presence_info=b'{"n":1}'))
        newcomer = node.workers[2].connect(identity("newcomer", ALL, presence_info=b'{"n":2}'))
        node.subscribe(leaver, topic)
        node.subscribe(watcher, topic, presence=True)
        node.subscribe(stayer, topic)
        assert [each["user_id"] for each in watcher.messages()] == ["stayer"]
        node.move(0, 1)
        node.pump()
        newcomer.send({"type": "Subscribe", "id": 1, "topic": topic})
        leaver.end()
        node.workers[2].flush()
        assert node.move(0, 1) == 1
        node.pump(piece=13)
        for _ in range(8):
            node.advance(500)
        told = {(each["type"], each["user_id"], each.get("info", {}).get("n")) for each in watcher.messages()}
        assert told == {("Join", "newcomer", 2), ("Leave", "leaver", None)}
        assert node.ask(watcher, {"type": "Ping", "id": 1})["type"] == "Pong"

    @pytest.mark.parametrize("seed", range(8))
    def test_what_watchers_believe_is_true_wherever_they_wander(self, seed: int) -> None:
        chosen = random.Random(seed)
        node = make_node(3, heartbeat_interval_secs=30_000, client_timeout_secs=60_000)
        topics = [node.topic_at(slot) for slot in range(3)]
        watchers = [node.workers[slot].connect(f"watcher{slot}") for slot in range(3)]
        users = [node.workers[chosen.randrange(3)].connect(f"user{number}") for number in range(6)]
        for peer in watchers:
            for topic in topics:
                node.subscribe(peer, topic, presence=True)
            peer.messages()
        node.advance(6000)
        for peer in watchers:
            peer.messages()
        believed = {(number, topic): set() for number in range(3) for topic in topics}  # type: ignore[var-annotated]
        inside: dict[str, set[str]] = {topic: set() for topic in topics}
        moves = 0
        for _ in range(60):
            number, topic = chosen.randrange(6), chosen.choice(topics)
            user = f"user{number}"
            kind = "Unsubscribe" if user in inside[topic] else "Subscribe"
            inside[topic] ^= {user}
            users[number].send({"type": kind, "topic": topic})
            node.workers[chosen.randrange(3)].flush()
            giver, taker = chosen.sample(range(3), 2)
            moves += node.move(giver, taker, 3)
            for _ in range(chosen.randrange(3)):
                carry_some(node, chosen)
            if chosen.random() < 0.2:
                node.advance(chosen.choice([100, 1000, 3000]))
        node.pump()
        for _ in range(12):
            node.advance(1000)
        for number, peer in enumerate(watchers):
            for each in peer.messages():
                if each["type"] not in ("Join", "Leave") or not each["user_id"].startswith("user"):
                    continue
                known = believed[number, each["topic"]]
                assert (each["user_id"] in known) is (each["type"] == "Leave"), each
                known ^= {each["user_id"]}
        assert moves > 5
        assert all(known == inside[topic] for (_, topic), known in believed.items())

    @by_home
    def test_one_that_watches_goes_on(self, topic_home: int) -> None:
        node = make_node(3)
        topic = node.topic_at(topic_home)
        watcher = node.workers[0].connect("watcher")
        node.subscribe(watcher, topic, presence=True)
        assert moved(node) == 1
        other = node.workers[2].connect("other")
        node.subscribe(other, topic)
        other.end()
        node.pump()
        for _ in range(8):
            node.advance(500)
        assert [each["type"] for each in watcher.messages()] == ["Join", "Leave"]
