"""Several workers that serve topics together, without a socket between them."""

import collections

import pytest

from core.hub.node import Node, make_node, texts, texts_of
from core.hub.sans_io import ADMIN, CLOSE, READ, SUBSCRIBE, WRITE, Peer, identity, make_hub

ALL = READ | WRITE | SUBSCRIBE


@pytest.fixture(params=[0, 1], ids=["at home", "elsewhere"])
def where(request: pytest.FixtureRequest) -> int:
    """The slot that the topic of a test is at home at; its clients are at slot 0."""
    return request.param


class TestPublications:
    """One order for all, wherever somebody is connected."""

    def test_each_worker_gets_each_message_once_and_in_order(self) -> None:
        node = make_node(3)
        topics = [node.topic_at(slot) for slot in range(3)]
        readers = [node.workers[slot].connect(f"reader{slot}") for slot in range(3)]
        writers = [node.workers[slot].connect(f"writer{slot}") for slot in range(3)]
        for reader in readers:
            for topic in topics:
                assert node.subscribe(reader, topic)["offset"] == 0
        for number in range(5):
            for slot, writer in enumerate(writers):
                for topic in topics:
                    writer.send({"type": "Broadcast", "topic": topic, "payload": [slot, number]})
        node.pump(piece=7)
        seen = []
        for reader in readers:
            messages = reader.messages()
            by_topic = collections.defaultdict(list)
            for each in messages:
                by_topic[each["topic"]].append((each["offset"], each["from"], each["payload"]))
            assert all([offset for offset, *_ in by_topic[topic]] == list(range(1, 16)) for topic in topics)
            seen.append(by_topic)
        assert seen[0] == seen[1] == seen[2]
        for topic in topics:
            assert sorted(payload for _, _, payload in seen[0][topic]) == sorted(
                [s, n] for s in range(3) for n in range(5)
            )

    def test_an_ack_names_the_place(self, where: int) -> None:
        node = make_node(2)
        topic = node.topic_at(where)
        writer = node.workers[0].connect("writer")
        reader = node.workers[1].connect("reader")
        epoch = node.subscribe(reader, topic)["epoch"]
        assert [node.publish(writer, topic, number) for number in range(3)] == [(epoch, n) for n in (1, 2, 3)]
        assert texts(reader.messages()) == [(1, 0), (2, 1), (3, 2)]

    def test_who_is_excluded_is_left_out_there_only(self, where: int) -> None:
        node = make_node(2)
        topic = node.topic_at(where)
        writer, other, far = (node.workers[slot].connect(f"u{slot}") for slot in (0, 0, 1))
        for peer in (writer, other, far):
            node.subscribe(peer, topic)
        answer = node.ask(writer, {"type": "Broadcast", "id": 1, "topic": topic, "payload": 1, "exclude_self": True})
        assert answer["type"] == "Ack"
        assert texts(other.messages()) == texts(far.messages()) == [(1, 1)]

    def test_a_repeated_key_publishes_once_whichever_worker_it_comes_to(self) -> None:
        node = make_node(3)
        topic = node.topic_at(1)
        reader = node.workers[2].connect("reader")
        node.subscribe(reader, topic)
        places = {
            node.publish(node.workers[slot].connect("writer"), topic, slot, idempotency_key="k") for slot in range(3)
        }
        assert len(places) == 1
        assert texts(reader.messages()) == [(1, 0)]

    def test_encodings_and_compression_of_each_subscriber(self, where: int) -> None:
        node = make_node(2, compression_threshold_bytes=64)
        topic = node.topic_at(where)
        forms = ["rtc.v1.json", "rtc.v1.msgpack", "rtc.v1.msgpack+zstd", "rtc.v1.json+gzip"]
        readers = [node.workers[slot].connect("r", protocol=form) for slot in (0, 1) for form in forms]
        for reader in readers:
            node.subscribe(reader, topic)
        node.publish(node.workers[0].connect("w"), topic, {"text": "x" * 500})
        node.publish(node.workers[1].connect("w", protocol="rtc.v1.msgpack"), topic, [1, None, "é"])
        for reader in readers:
            assert texts(reader.messages()) == [(1, {"text": "x" * 500}), (2, [1, None, "é"])]

    def test_to_everybody(self, where: int) -> None:
        node = make_node(3)
        early = [node.workers[slot].connect(f"u{slot}") for slot in range(3)]
        for slot in range(3):
            admin = node.workers[slot].connect("root", permissions=ALL | ADMIN)
            admin.send({"type": "Broadcast", "topic": "*", "payload": slot})
            node.pump()
            admin.end()
        late = node.workers[2].connect("late")
        for peer in early:
            assert [payload for _, payload in texts(peer.messages())] == [0, 1, 2]
        assert late.messages() == []

    def test_over_http(self, where: int) -> None:
        node = make_node(2)
        topic = node.topic_at(where)
        reader = node.workers[1].connect("reader")
        epoch = node.subscribe(reader, topic)["epoch"]
        server = node.workers[0]
        found = []
        body = b'{"topic":"%b","payload":{"a":1}}' % topic.encode()
        answer = server.hub.publish_request(body, identity("backend"))
        if where == 0:
            found.append(answer)
        else:
            answer.then(lambda value, error: found.append(value))
            node.pump()
            assert answer.settled
        assert found == [{"epoch": epoch, "offset": 1}]
        node.pump()
        assert texts(reader.messages()) == [(1, {"a": 1})]


class TestSubscriptions:
    """History and recovery come from the home."""

    def test_recovery_is_complete_or_not_at_all(self, where: int) -> None:
        node = make_node(2, max_cache_entries=5)
        topic = node.topic_at(where)
        writer = node.workers[1].connect("writer")
        for number in range(1, 9):
            epoch, _ = node.publish(writer, topic, number)
        reader = node.workers[0].connect("reader")
        answer = node.subscribe(reader, topic, recover={"epoch": epoch, "offset": 5})
        assert (answer["recovered"], texts_of(answer)) == (True, [(6, 6), (7, 7), (8, 8)])
        other = node.workers[0].connect("other")
        answer = node.subscribe(other, topic, recover={"epoch": epoch, "offset": 2})
        assert (answer["recovered"], answer["offset"], answer["messages"]) == (False, 8, [])
        third = node.workers[0].connect("third")
        answer = node.subscribe(third, topic, recover={"epoch": "0" * 16, "offset": 8})
        assert (answer["recovered"], answer["offset"]) == (False, 8)
        fourth = node.workers[0].connect("fourth")
        assert texts_of(node.subscribe(fourth, topic, history=2)) == [(7, 7), (8, 8)]
        node.publish(writer, topic, 9)
        for peer in (reader, other, third, fourth):
            assert texts(peer.messages()) == [(9, 9)]

    def test_what_was_acknowledged_before_is_in_the_answer(self) -> None:
        node = make_node(2)
        topic = node.topic_at(1)
        first, second, third = (node.workers[0].connect(name) for name in ("first", "second", "third"))
        epoch = node.subscribe(first, topic)["epoch"]
        node.publish(node.workers[0].connect("writer"), topic, "a")
        ack = node.workers[1].connect("other").request({"type": "Broadcast", "id": 1, "topic": topic, "payload": "b"})
        assert ack["offset"] == 2  # and nothing has been carried to the mirror since
        answer = node.subscribe(second, topic, recover={"epoch": epoch, "offset": 0})
        assert (answer["recovered"], texts_of(answer)) == (True, [(1, "a"), (2, "b")])
        node.workers[1].connect("other").send({"type": "Broadcast", "topic": topic, "payload": "c"})
        assert texts_of(node.ask(third, {"type": "History", "id": 1, "topic": topic})) == [(1, "a"), (2, "b"), (3, "c")]
        assert node.subscribe(third, topic)["offset"] == 3
        node.pump()
        assert texts(third.messages()) == []

    def test_the_mirror_forgets_while_it_asks(self) -> None:
        node = make_node(2, max_cache_entries=3)
        topic = node.topic_at(1)
        first, second = (node.workers[0].connect(name) for name in ("first", "second"))
        epoch = node.subscribe(first, topic)["epoch"]
        writer = node.workers[1].connect("writer")
        node.publish(writer, topic, 0)
        for number in range(1, 3):
            writer.send({"type": "Broadcast", "topic": topic, "payload": number})
        second.send({"type": "Subscribe", "id": 1, "topic": topic, "recover": {"epoch": epoch, "offset": 0}})
        writer.send({"type": "Broadcast", "topic": topic, "payload": 3})
        node.pump()
        answer = second.messages()[0]
        assert (answer["type"], answer["recovered"], answer["offset"], answer["messages"]) == (
            "Subscribed",
            False,
            4,
            [],
        )

    def test_what_follows_a_subscribe_waits_for_it(self) -> None:
        node = make_node(2)
        topic = node.topic_at(1)
        peer = node.workers[0].connect("alice")
        peer.send(
            {"type": "Subscribe", "id": 1, "topic": topic},
            {"type": "Broadcast", "id": 2, "topic": topic, "payload": 1},
            {"type": "Unsubscribe", "id": 3, "topic": topic},
            {"type": "Ping", "id": 4},
        )
        assert peer.messages() == []
        node.pump()
        kinds = [(each["type"], each.get("id")) for each in peer.messages()]
        assert kinds[0] == ("Subscribed", 1)
        assert sorted(kinds[1:], key=str) == sorted([("Unsubscribed", 3), ("Pong", 4), ("Ack", 2)], key=str)

    def test_a_feed_ends_with_its_last_subscriber(self) -> None:
        node = make_node(2)
        topic = node.topic_at(1)
        writer = node.workers[1].connect("writer")
        peers = [node.workers[0].connect(f"p{n}") for n in range(2)]
        for peer in peers:
            node.subscribe(peer, topic)
        node.ask(peers[0], {"type": "Unsubscribe", "id": 1, "topic": topic})
        epoch, _ = node.publish(writer, topic, 1)
        assert texts(peers[1].messages()) == [(1, 1)]
        peers[1].end()
        node.pump()
        node.publish(writer, topic, 2)
        assert node.workers[0].hub.take_for_peer(1) == b""
        again = node.workers[0].connect("again")
        answer = node.subscribe(again, topic, recover={"epoch": epoch, "offset": 1})
        assert (answer["recovered"], texts_of(answer)) == (True, [(2, 2)])

    def test_a_session_that_goes_while_it_waits(self) -> None:
        node = make_node(2)
        topic = node.topic_at(1)
        peer = node.workers[0].connect("alice")
        peer.send({"type": "Subscribe", "id": 1, "topic": topic}, {"type": "Broadcast", "topic": topic, "payload": 1})
        peer.end()
        node.pump()
        for worker in node.workers.values():
            worker.advance(400_000)
        node.pump()
        assert [worker.stats()["topics"] for worker in node.workers.values()] == [0, 0]

    def test_history_page(self, where: int) -> None:
        node = make_node(2)
        topic = node.topic_at(where)
        writer, reader = (node.workers[slot].connect(f"u{slot}") for slot in (1, 0))
        for number in range(1, 6):
            epoch, _ = node.publish(writer, topic, number)
        page = node.ask(reader, {"type": "History", "id": 1, "topic": topic, "limit": 2})
        assert (page["type"], page["epoch"], page["offset"], texts_of(page)) == (
            "HistoryPage",
            epoch,
            5,
            [(1, 1), (2, 2)],
        )
        after = {"epoch": epoch, "offset": 3}
        page = node.ask(reader, {"type": "History", "id": "x", "topic": topic, "after": after})
        assert texts_of(page) == [(4, 4), (5, 5)]
        page = node.ask(reader, {"type": "History", "id": 1, "topic": topic, "limit": 2, "reverse": True})
        assert texts_of(page) == [(5, 5), (4, 4)]


class TestWelcome:
    """`Connected` comes once the home of the session's inbox counts it in: what is sent from then on comes live."""

    @staticmethod
    def types(peer: Peer) -> list[str]:
        return [each["type"] for each in peer.messages()]

    def test_it_waits_for_the_home_and_requests_keep_their_order(self) -> None:
        node = make_node(2)
        user = node.user_at(1)
        requests = [{"type": "Ping", "id": 1}, {"type": "Subscribe", "id": 2, "topic": node.topic_at(0)}]
        peer = node.workers[0].authenticating(user, *requests)
        assert self.types(peer) == []
        sender = node.workers[1].connect("sender", welcome=False)
        node.pump()
        sender.send({"type": "DirectMessage", "to": [user], "payload": 1})
        node.pump()
        assert self.types(peer) == ["Connected", "Pong", "Subscribed", "DirectMessage"]

    def test_at_home_it_comes_at_once(self) -> None:
        node = make_node(2)
        assert self.types(node.workers[0].authenticating(node.user_at(0))) == ["Connected"]
        assert self.types(make_hub().authenticating("alice")) == ["Connected"]

    def test_it_comes_before_whatever_is_said_meanwhile(self) -> None:
        node = make_node(2)
        user = node.user_at(1)
        first = node.workers[0].connect(user)
        admin = node.workers[0].connect(identity("admin", permissions=ALL | ADMIN))
        second = node.workers[0].authenticating(user)
        node.ask(admin, {"type": "DirectMessage", "id": 1, "to": [user], "payload": 1})
        assert self.types(first) == ["DirectMessage"]
        assert self.types(second) == ["Connected", "DirectMessage"]

    def test_a_home_that_does_not_answer_is_waited_for_for_a_second(self) -> None:
        node = make_node(2)
        peer = node.workers[0].authenticating(node.user_at(1))
        node.workers[0].advance(900)
        assert self.types(peer) == []
        node.workers[0].advance(150)
        assert self.types(peer) == ["Connected"]
        node.pump()
        assert self.types(peer) == []

    def test_a_home_that_is_lost_is_not_waited_for(self) -> None:
        node = make_node(2)
        user = node.user_at(1)
        peer = node.workers[0].authenticating(user)
        node.kill(1, tell=False)
        assert self.types(peer) == ["Connected"]
        assert self.types(node.workers[0].authenticating(user)) == ["Connected"]

    def test_an_inbox_that_gets_another_home_is_asked_for_there(self) -> None:
        node = make_node(3)
        users = [f"user{number}" for number in range(100)]
        user = next(each for each in users if (node.home(f"@{each}"), node.home(f"@{each}", [0, 2])) == (1, 2))
        node.workers[1].hub.set_members(1, [0, 2], node.version + 1)
        peer = node.workers[0].authenticating(user)
        node.pump()
        assert self.types(peer) == []
        node.tell_members([0, 2])
        node.pump()
        node.advance(200)
        assert self.types(peer) == ["Connected"]
        sender = node.workers[2].connect("sender")
        node.ask(sender, {"type": "DirectMessage", "id": 1, "to": [user], "payload": 1})
        assert self.types(peer) == ["DirectMessage"]

    def test_who_closes_meanwhile_is_answered(self) -> None:
        node = make_node(2)
        peer = node.workers[0].authenticating(node.user_at(1))
        peer.send_frame((1000).to_bytes(2, "big"), CLOSE)
        assert self.types(peer) == ["Connected"]
        assert peer.close == (1000, "")
        node.pump()
        assert node.workers[1].hub.stats()["users"] == 0


class TestLostWorkers:
    """A home that is gone takes its history with it, and everybody is told."""

    def killed(self) -> tuple[Node, str]:
        node = make_node(3)
        return node, node.topic_at(2)

    def test_subscribers_are_told_of_the_new_epoch(self) -> None:
        node, topic = self.killed()
        readers = [node.workers[slot].connect(f"r{slot}") for slot in (0, 1)]
        for reader in readers:
            epoch = node.subscribe(reader, topic)["epoch"]
        node.publish(node.workers[0].connect("w"), topic, 1)
        for reader in readers:
            reader.messages()
        node.kill(2)
        node.pump()
        told = [reader.messages() for reader in readers]
        for (lagged,) in told:
            assert (lagged["type"], lagged["missed"], lagged["recovered"]) == ("Lagged", 0, False)
            assert (lagged["offset"], lagged["topic"]) == (0, topic)
            assert lagged["epoch"] != epoch
        assert told[0][0]["epoch"] == told[1][0]["epoch"]
        writer = node.workers[1].connect("w")
        assert node.publish(writer, topic, 2) == (told[0][0]["epoch"], 1)
        assert [texts(reader.messages()) for reader in readers] == [[(1, 2)]] * 2
        late = node.workers[0].connect("late")
        assert not node.subscribe(late, topic, recover={"epoch": epoch, "offset": 1})["recovered"]

    def test_what_waits_for_it_is_refused(self) -> None:
        node, topic = self.killed()
        peer = node.workers[0].connect("alice")
        peer.send({"type": "Broadcast", "id": 1, "topic": topic, "payload": 1})
        peer.send({"type": "Subscribe", "id": 2, "topic": topic})
        node.workers[0].flush()
        node.kill(2)
        answers = peer.messages()
        assert [(each["type"], each["id"], each["code"]) for each in answers] == [
            ("Error", 1, "unavailable"),
            ("Error", 2, "unavailable"),
        ]
        assert all(each["retry_after_ms"] > 0 for each in answers)
        assert node.subscribe(peer, topic)["offset"] == 0

    def test_a_worker_that_comes_back_is_handed_its_topics(self) -> None:
        node, topic = self.killed()
        readers = [node.workers[slot].connect(f"r{slot}") for slot in (0, 1)]
        for reader in readers:
            node.subscribe(reader, topic)
        node.kill(2)
        node.pump()
        place = node.publish(node.workers[0].connect("w"), topic, 1)
        for reader in readers:
            reader.messages()
        node.start(2)
        node.pump()
        assert node.publish(node.workers[2].connect("w"), topic, 2) == (place[0], 2)
        assert [texts(reader.messages()) for reader in readers] == [[(2, 2)]] * 2
        late = node.workers[1].connect("late")
        assert texts_of(node.subscribe(late, topic, recover={"epoch": place[0], "offset": 0})) == [(1, 1), (2, 2)]

    def test_who_hears_late_of_the_members_is_handed_its_topics_too(self) -> None:
        node = make_node(1)
        topic, empty = (next(f"{x}-{n}" for n in range(99) if node.home(f"{x}-{n}", [0, 1]) == 1) for x in "te")
        peer = node.workers[0].connect("alice")
        epoch = node.subscribe(peer, topic)["epoch"]
        node.publish(node.workers[0].connect("bob"), topic, 1)
        peer.messages()
        fresh = node.subscribe(peer, empty)["epoch"]
        node.workers[1] = type(node.workers[0])(deterministic_ids=False)
        node.tell_members([0])
        node.link(1)
        node.pump()
        node.workers[0].hub.set_members(0, [0, 1], node.version + 1)
        peer.send({"type": "Broadcast", "topic": topic, "payload": 2})
        node.pump()
        node.workers[1].hub.set_members(1, [0, 1], node.version + 1)
        node.pump()
        for worker in node.workers.values():
            worker.advance(1000)
        node.pump()
        assert [each["type"] for each in peer.messages()] == ["Message"], "no Lagged"
        assert node.publish(node.workers[1].connect("bob"), topic, 3) == (epoch, 3)
        assert node.publish(node.workers[1].connect("bob"), empty, 1) == (fresh, 1)

    def test_a_link_that_was_cut_loses_nothing_that_is_cached(self) -> None:
        node = make_node(2)
        topic = node.topic_at(1)
        reader, writer = node.workers[0].connect("r"), node.workers[1].connect("w")
        node.subscribe(reader, topic)
        node.publish(writer, topic, 1)
        node.workers[0].hub.link(1, False)
        node.workers[1].hub.link(0, False)
        node.publish(writer, topic, 2)
        assert texts(reader.messages()) == [(1, 1)]
        node.link(0)
        node.pump()
        node.publish(writer, topic, 3)
        assert texts(reader.messages()) == [(2, 2), (3, 3)]

    def test_direct_messages_go_on(self) -> None:
        node, _ = self.killed()
        user = node.user_at(2)
        peer = node.workers[0].connect(user)
        node.pump()
        node.kill(2)
        node.pump()
        answer = node.ask(node.workers[1].connect("s"), {"type": "DirectMessage", "id": 1, "to": user, "payload": 1})
        assert answer["delivered"] == [user]
        assert len(peer.messages()) == 1

    def test_nobody_answers(self) -> None:
        node = make_node(2)
        topic = node.topic_at(1)
        peer = node.workers[0].connect("alice")
        peer.send({"type": "Subscribe", "id": 1, "topic": topic})
        node.workers[0].advance(11_000)
        (answer,) = peer.messages()
        assert (answer["type"], answer["code"]) == ("Error", "unavailable")
        assert peer.request({"type": "Ping", "id": 2})["type"] == "Pong"

    def test_garbage_hurts_nobody(self) -> None:
        node = make_node(2)
        hub = node.workers[0].hub
        for kind in range(256):
            frame = bytes([kind, 0, 1, 0]) + bytes(8) + b"t"
            for tail in (b"", b"\xff" * 30):
                whole = len(frame + tail).to_bytes(4, "little") + frame + tail
                assert hub.receive_from_peer(1, whole) == len(whole)
        assert hub.receive_from_peer(1, b"\xff\xff\xff\xff") == -1
        assert hub.receive_from_peer(1, b"\x05\x00\x00\x00\x01") == -1


def test_one_worker_alone_asks_nobody() -> None:
    server = make_hub()
    peer = server.connect("alice")
    peer.subscribe("t")
    assert peer.request({"type": "DirectMessage", "id": 1, "to": "bob", "payload": 1})["offline"] == ["bob"]
    assert server.hub.take_upstream() == []


class TestMembersThatChange:
    """Workers hear of new members each in its own time."""

    def joined(self) -> Node:
        """A third worker is linked, and is no home yet."""
        node = make_node(2)
        node.workers[2] = make_hub(deterministic_ids=False)
        node.tell_members([0, 1])
        node.link(2)
        node.pump()
        return node

    def topic_that_moves(self, node: Node, home: int) -> str:
        """A topic that is at home there and moves to the third worker."""
        names = (f"topic-{number}" for number in range(5000))
        return next(name for name in names if node.home(name, [0, 1]) == home and node.home(name) == 2)

    @pytest.mark.parametrize("late", [[2], [0], [1], [2, 0]])
    def test_a_topic_keeps_its_epoch_whoever_hears_late(self, late: list[int]) -> None:
        node = self.joined()
        for home in (0, 1):
            topic = next(
                name for n in range(5000) if node.home(name := f"t{n}", [0, 1]) == home and node.home(name) == 2
            )
            reader, writer = node.workers[0].connect("reader"), node.workers[1].connect("writer")
            node.subscribe(reader, topic)
            assert node.publish(writer, topic, "a")[1] == 1
            node.version += 1
            for slot in sorted(node.workers, key=lambda slot: slot in late):
                node.pump()
                node.workers[slot].hub.set_members(slot, [0, 1, 2], node.version)
            node.pump()
            assert node.publish(writer, topic, "b")[1] == 2
            node.advance(200)  # who asked too early asks again
            assert texts(reader.messages()) == [(1, "a"), (2, "b")]
            node.tell_members([0, 1])
            node.pump()
            assert node.publish(writer, topic, "c")[1] == 3
            assert texts(reader.messages()) == [(3, "c")]

    def test_changes_one_right_after_the_other(self) -> None:
        node = self.joined()
        topic = self.topic_that_moves(node, 0)
        reader, writer = node.workers[0].connect("reader"), node.workers[1].connect("writer")
        node.subscribe(reader, topic)
        node.publish(writer, topic, "a")
        node.tell_members([0, 1, 2])
        node.tell_members([1, 2])
        node.tell_members([1])
        node.pump()
        assert node.publish(writer, topic, "b")[1] == 2
        assert texts(reader.messages()) == [(1, "a"), (2, "b")]

    def test_what_is_held_meanwhile_is_bounded_in_bytes(self) -> None:
        node = make_node(2, max_frame_size=2 << 20, max_message_size=2 << 20)
        peer = node.workers[0].connect("alice")
        version = node.version + 1
        node.workers[1].hub.set_members(1, [0, 1], version)  # it waits for the other one from now on
        payload, outcomes = "x" * (1 << 20), []
        for number in range(70):
            peer.send({"type": "Broadcast", "id": number, "topic": node.topic_at(1), "payload": payload})
            node.pump()
            outcomes += peer.messages()
        assert [each["id"] for each in outcomes] == list(range(63, 70)), "those above 64 MiB are refused at once"
        assert {each["code"] for each in outcomes} == {"unavailable"}
        node.workers[0].hub.set_members(0, [0, 1], version)
        node.pump()
        acknowledged = peer.messages()
        assert [(each["type"], each["offset"]) for each in acknowledged] == [("Ack", n + 1) for n in range(63)]
