"""Connections that move between workers while everything goes on."""

import random
from typing import Any

import pytest

from core.hub.node import Node, Upstream, make_node, texts
from core.hub.sans_io import ADMIN, READ, SUBSCRIBE, WALL_MS, WRITE, Peer, identity
from realtime_communication._core.base.shared import Shared

ALL = READ | WRITE | SUBSCRIBE


def moved(node: Node, giver: int = 0, taker: int = 1, most: int = 1000) -> int:
    """Move what can be moved: the first call finds out where the inboxes stand, the second moves."""
    count = node.move(giver, taker, most)
    node.pump()
    count += node.move(giver, taker, most)
    node.pump()
    return count


@pytest.fixture(params=[0, 1, 2], ids=["of the giver", "of the taker", "of a third"])
def topic_home(request: pytest.FixtureRequest) -> int:
    """The slot that the topic of a test is at home at; sessions go from slot 0 to 1."""
    return request.param


class TestMessages:
    """Nothing is lost, doubled or told out of order."""

    def test_a_subscriber_gets_each_message_once(self, topic_home: int) -> None:
        node = make_node(3)
        topic = node.topic_at(topic_home)
        writer = node.workers[2].connect("writer")
        reader = node.workers[0].connect("reader")
        epoch = node.subscribe(reader, topic)["epoch"]
        for number in range(3):
            node.publish(writer, topic, number)
        assert moved(node) == 1
        assert [worker.hub.connection_count() for worker in node.workers.values()] == [0, 1, 1]
        for number in range(3, 6):
            assert node.publish(writer, topic, number)[0] == epoch
        assert reader.messages() and reader.connection.open
        assert node.workers[0].stats()["migrated"] == 1

    def test_what_is_under_way_arrives_in_its_place(self, topic_home: int) -> None:
        node = make_node(3)
        topic = node.topic_at(topic_home)
        writers = [node.workers[slot].connect(f"writer{slot}") for slot in range(3)]
        reader = node.workers[0].connect("reader", permissions=READ | SUBSCRIBE)
        other = node.workers[1].connect("other")
        for peer in (reader, other):
            node.subscribe(peer, topic)
        node.move(0, 1)
        node.pump()
        for peer in writers:  # nobody carries anything until the session has gone
            peer.send(*({"type": "Broadcast", "topic": topic, "payload": n} for n in range(4)))
        assert node.move(0, 1) >= 1
        for peer in writers[1:]:
            peer.send(*({"type": "Broadcast", "topic": topic, "payload": n} for n in range(4)))
        node.pump(piece=11)
        seen = texts(reader.messages())
        assert [offset for offset, _ in seen] == list(range(1, 21))
        assert seen == texts(other.messages())

    @pytest.mark.parametrize("seed", range(6))
    def test_sessions_that_wander_while_all_publish(self, seed: int) -> None:
        chosen = random.Random(seed)
        node = make_node(3)
        topics = [node.topic_at(slot) for slot in range(3)]
        readers = [node.workers[slot].connect(f"reader{slot}") for slot in range(3)]
        writers = [node.workers[slot].connect(f"writer{slot}") for slot in range(3)]
        for reader in readers:
            for topic in topics:
                node.subscribe(reader, topic)
        moves = 0
        for number in range(120):
            writer = chosen.choice(writers)
            writer.send({"type": "Broadcast", "id": number, "topic": chosen.choice(topics), "payload": number})
            if chosen.random() < 0.6:
                node.workers[chosen.randrange(3)].flush()
                giver, taker = chosen.sample(range(3), 2)
                moves += node.move(giver, taker, 2)
            if chosen.random() < 0.5:
                carry_some(node, chosen)
        node.pump()
        assert moves > 5
        histories = []
        for reader in readers:
            by_topic: dict[str, list[tuple[int, Any]]] = {topic: [] for topic in topics}
            for each in reader.messages():
                assert each["type"] == "Message", each
                by_topic[each["topic"]].append((each["offset"], each["payload"]))
            histories.append(by_topic)
        for topic in topics:
            history = histories[0][topic]
            assert [offset for offset, _ in history] == list(range(1, len(history) + 1))
            assert all(other[topic] == history for other in histories)
        assert sum(len(history) for history in histories[0].values()) == 120
        acks = [each for writer in writers for each in writer.messages()]
        assert sorted(each["id"] for each in acks if each["type"] == "Ack") == list(range(120))

    def test_a_publisher_with_an_answer_to_come_stays(self) -> None:
        node = make_node(2)
        topic = node.topic_at(1)
        writer = node.workers[0].connect("writer")
        node.move(0, 1)
        node.pump()
        writer.send({"type": "Broadcast", "topic": topic, "payload": 1})
        assert node.move(0, 1) == 0
        node.pump()
        assert node.move(0, 1) == 1

    def test_who_publishes_goes_on_where_it_is_now(self, topic_home: int) -> None:
        node = make_node(3)
        topic = node.topic_at(topic_home)
        writer = node.workers[0].connect("writer")
        reader = node.workers[2].connect("reader")
        node.subscribe(reader, topic)
        node.publish(writer, topic, "a")
        assert moved(node) == 1
        writer.send({"type": "Broadcast", "topic": topic, "payload": "b"})
        node.publish(writer, topic, "c")
        assert [payload for _, payload in texts(reader.messages())] == ["a", "b", "c"]

    def test_direct_messages_find_the_user(self) -> None:
        for home in range(3):
            node = make_node(3)
            user = node.user_at(home)
            reader = node.workers[0].connect(user)
            writer = node.workers[2].connect("writer")
            node.move(0, 1)
            node.pump()
            writer.send({"type": "DirectMessage", "id": 1, "to": user, "payload": 1})
            assert node.move(0, 1) == 1
            writer.send({"type": "DirectMessage", "id": 2, "to": user, "payload": 2})
            node.pump()
            answers = writer.messages()
            assert [each["delivered"] for each in answers] == [[user], [user]], (home, answers)
            node.workers[2].connect("other").send({"type": "DirectMessage", "to": user, "payload": 3})
            node.pump()
            assert [each["payload"] for each in reader.messages()] == [1, 2, 3]

    def test_messages_to_all_connections(self) -> None:
        node = make_node(3)
        admin = node.workers[2].connect("admin", permissions=ADMIN)
        reader = node.workers[0].connect("reader")
        node.move(0, 1)
        node.pump()
        admin.send({"type": "Broadcast", "topic": "*", "payload": 1})
        assert node.move(0, 1) == 1
        admin.send({"type": "Broadcast", "topic": "*", "payload": 2})
        node.pump()
        assert [each["payload"] for each in reader.messages()] == [1, 2]

    def test_a_gap_that_nobody_can_fill_is_told(self) -> None:
        node = make_node(2, max_cache_entries=1)
        topic = node.topic_at(1)
        reader = node.workers[0].connect("reader")
        writer = node.workers[1].connect("writer")
        node.subscribe(reader, topic)
        node.move(0, 1)
        node.pump()
        writer.send(*({"type": "Broadcast", "topic": topic, "payload": n} for n in range(5)))
        node.workers[1].flush()
        assert node.move(0, 1) == 1
        node.pump()
        lagged = [each for each in reader.messages() if each["type"] == "Lagged"]
        assert [(each["recovered"], each["offset"]) for each in lagged] == [(False, 5)]
        assert node.publish(writer, topic, "on")[1] == 6
        assert texts(reader.messages()) == [(6, "on")]

    def test_with_an_upstream(self) -> None:
        node, upstream = make_node(3), Upstream()
        node.go_below(upstream)

        def settle() -> None:
            node.pump()
            while upstream.step():
                node.pump()

        topics = [node.topic_at(slot) for slot in range(3)]
        reader, writer = node.workers[0].connect("reader"), node.workers[2].connect("writer")
        for topic in topics:
            reader.send({"type": "Subscribe", "id": 1, "topic": topic})
            settle()
        reader.messages()
        node.move(0, 1)
        settle()
        for topic in topics:
            writer.send({"type": "Broadcast", "topic": topic, "payload": 1})
        node.workers[2].flush()
        assert node.move(0, 1) == 1
        settle()
        for topic in topics:
            writer.send({"type": "Broadcast", "topic": topic, "payload": 2})
        settle()
        seen = reader.messages()
        for topic in topics:
            assert [(each["offset"], each["payload"]) for each in seen if each["topic"] == topic] == [(1, 1), (2, 2)]
        assert all(each["type"] == "Message" for each in seen)


class TestPresence:
    """A user that moves neither leaves nor joins."""

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


def members(node: Node, peer: Peer, topic: str) -> list[Any]:
    """Who is present."""
    answer = node.ask(peer, {"type": "Presence", "id": 9, "topic": topic})
    assert answer["type"] == "PresenceState", answer
    found: list[Any] = answer["members"]
    return found


class TestTheSession:
    """What belongs to a session goes with it."""

    def test_rights_and_limits(self) -> None:
        node = make_node(2, rate_limiting_enabled=True, connection_rps=1, connection_burst=4)
        who = identity("u", READ | SUBSCRIBE, login="login-1", subscribe_patterns=["news.*"], presence_info=b'{"a":1}')
        peer = node.workers[0].connect(who)
        for _ in range(3):
            peer.request({"type": "Ping", "id": 1})
        assert moved(node) == 1
        answer = peer.request({"type": "Subscribe", "id": 2, "topic": "other"})
        assert answer["type"] == "Error"
        assert answer["code"] == "forbidden"
        answer = peer.request({"type": "Ping", "id": 3})
        assert answer["code"] == "rate_limited"
        assert node.workers[1].hub.disconnect(login="login-1") == 1

    @pytest.mark.parametrize(
        ("protocol", "extensions"),
        [("rtc.v1.msgpack", None), ("rtc.v1.json+zstd", None), (None, "permessage-deflate")],
    )
    def test_its_encoding(self, protocol: str | None, extensions: str | None) -> None:
        node = make_node(2, compression_threshold_bytes=64)
        topic = node.topic_at(1)
        peer = node.workers[0].connect("u", protocol=protocol, extensions=extensions)
        node.subscribe(peer, topic)
        assert moved(node) == 1
        node.publish(node.workers[1].connect("w"), topic, "x" * 500)
        assert texts(peer.messages()) == [(1, "x" * 500)]
        assert node.ask(peer, {"type": "Ping", "id": 1})["type"] == "Pong"

    def test_its_time(self) -> None:
        node = make_node(2)
        peer = node.workers[0].connect("u", expires_at=WALL_MS // 1000 + 80)
        for worker in node.workers.values():
            worker.advance(21_000)
        assert [each["type"] for each in peer.messages()] == ["TokenExpiring"]
        assert moved(node) == 1
        (described,) = node.workers[1].hub.connections()
        assert described["connected_ms"] == 21_000
        node.workers[1].advance(30_000)
        assert peer.messages() == []
        assert peer.request({"type": "Ping", "id": 1})["type"] == "Pong"
        node.workers[1].advance(29_500)
        assert [each["code"] for each in peer.messages()] == ["token_expired"]
        assert peer.close == (4401, "token expired")

    def test_its_subscriptions_end_with_it(self) -> None:
        node = make_node(2)
        topic = node.topic_at(0)
        peer = node.workers[0].connect("u")
        node.subscribe(peer, topic)
        assert moved(node) == 1
        peer.end()
        node.pump()
        assert [worker.hub.connection_count() for worker in node.workers.values()] == [0, 0]
        assert [worker.stats()["subscriptions"] for worker in node.workers.values()] == [0, 0]
        writer = node.workers[0].connect("w")
        answer = node.ask(writer, {"type": "DirectMessage", "id": 1, "to": "u", "payload": 1})
        assert answer["offline"] == ["u"]

    @pytest.mark.parametrize("wait", ["half a frame", "half a message", "unread data", "before authentication"])
    def test_one_that_is_busy_stays(self, wait: str) -> None:
        node = make_node(2)
        topic = node.topic_at(0)
        peer = node.workers[0].connect(None if wait == "before authentication" else "u")
        if wait == "half a frame":
            peer.send_raw(b"\x81")
        elif wait == "half a message":
            peer.send_frame(b"{", fin=False)
        elif wait == "unread data":
            node.subscribe(peer, topic)
            peer.stall()
            node.workers[0].connect("w").send({"type": "Broadcast", "topic": topic, "payload": 1})
        node.move(0, 1, 1)
        node.pump()
        for _ in range(3):
            node.move(0, 1)
            node.pump()
        held = node.workers[0].hub.connections()
        assert [each["user_id"] for each in held] == [None if wait == "before authentication" else "u"]

    @pytest.mark.parametrize(
        "whom", [{"user_id": "u"}, {"login": "l"}, {"session_id": ""}, {"user_id": "u", "login": "l"}]
    )
    def test_one_that_is_sent_away_on_its_way(self, whom: dict[str, str]) -> None:
        node = make_node(2)
        peer = node.workers[0].connect(identity("u", ALL, login="l"))
        stays = node.workers[0].connect(identity("other", ALL, login="other"))
        ids = {each["user_id"]: each["session_id"] for each in node.workers[0].hub.connections()}
        whom = {key: value or ids["u"] for key, value in whom.items()}
        node.move(0, 1)
        node.pump()
        hub = node.workers[0].hub
        assert hub.give_sessions(1, 10) == 2
        passed = node.workers[0].driver.take_passed()
        for worker in node.workers.values():
            assert worker.hub.disconnect(**whom, code=4403, reason="access revoked") == 0
        for _, _, frame, connection in passed:
            node.workers[1].driver.arrive(0, frame, connection)
        node.pump()
        peer.frames()
        assert peer.close == (4403, "access revoked")
        assert stays.frames() == []
        assert node.ask(stays, {"type": "Ping", "id": 1})["type"] == "Pong"


class TestAccounts:
    """Connections count once, also those that do not arrive."""

    def shared_node(self) -> tuple[Node, Shared]:
        node = make_node(2)
        shared = Shared(Shared.create(2))
        for slot, worker in node.workers.items():
            worker.hub.use_shared(shared, slot)
        return node, shared

    def test_no_moment_without_it(self) -> None:
        node, shared = self.shared_node()
        node.workers[0].connect("u")
        node.move(0, 1)
        node.pump()
        assert node.move(0, 1) == 1
        assert shared.connections() >= 1
        node.pump()
        assert [shared.connections_of(slot) for slot in (0, 1)] == [0, 1]

    def test_lost_on_the_way(self) -> None:
        node, shared = self.shared_node()
        node.workers[0].connect("u")
        node.move(0, 1)
        node.pump()
        assert node.move(0, 1, lose=True) == 1
        node.pump()
        assert shared.connections() == 0
        writer = node.workers[0].connect("w")
        assert node.ask(writer, {"type": "DirectMessage", "id": 1, "to": "u", "payload": 1})["offline"] == ["u"]

    def test_the_taker_dies(self) -> None:
        node, shared = self.shared_node()
        node.workers[0].connect("u")
        node.move(0, 1)
        node.pump()
        assert node.move(0, 1) == 1
        node.kill(1)
        assert shared.connections_of(0) == 0

    def test_a_third_dies_while_places_are_asked_for(self) -> None:
        node = make_node(3)
        topic = node.topic_at(2)
        reader = node.workers[0].connect("reader")
        node.subscribe(reader, topic)
        node.move(0, 1)
        node.pump()
        assert node.move(0, 1) == 1
        node.kill(2)
        for _ in range(5):
            node.pump()
            for worker in node.workers.values():
                worker.advance(200)
        node.pump()
        writer = node.workers[0].connect("w")
        reader.messages()
        node.publish(writer, topic, "on")
        assert [payload for _, payload in texts(reader.messages())] == ["on"]
        assert node.ask(reader, {"type": "Ping", "id": 1})["type"] == "Pong"

    def test_where_nothing_is_cached_nobody_moves(self) -> None:
        node = make_node(2, enable_caching=False)
        node.workers[0].connect("u")
        assert moved(node) == 0

    def test_frames_that_are_no_session(self) -> None:
        node = make_node(2)
        peer = node.workers[0].connect("u")
        node.move(0, 1)
        node.pump()
        hub = node.workers[0].hub
        assert hub.give_sessions(1, 10) == 1
        ((_, _, frame, connection),) = node.workers[0].driver.take_passed()
        for size in range(17, len(frame) - 4, 7):
            cut = (size - 4).to_bytes(4, "little") + frame[4:size]
            node.workers[1].driver.arrive(0, cut, connection)
        assert node.workers[1].hub.connection_count() == 0
        assert not peer.connection.open

    def test_no_other_worker(self) -> None:
        node = make_node(2)
        for slot in (0, -1, 64):
            with pytest.raises(ValueError, match="slot"):
                node.workers[0].hub.give_sessions(slot, 1)
        assert node.workers[0].hub.give_sessions(7, 1) == 0


def carry_some(node: Node, chosen: random.Random) -> None:
    """Carry what waits on one link."""
    giver, taker = chosen.sample(range(3), 2)
    data = node.left.pop((giver, taker), b"") + node.workers[giver].hub.take_for_peer(taker)
    used = node.workers[taker].hub.receive_from_peer(giver, data)
    assert used == len(data)
    node.workers[taker].flush()
