"""What becomes of those who wait for the answer of another worker."""

from core.hub.node import make_node, texts, texts_of
from core.hub.sans_io import ADMIN, CLOSE, READ, SUBSCRIBE, WRITE, Peer, identity, make_hub

ALL = READ | WRITE | SUBSCRIBE


class TestSubscriptions:
    """A session is read on once its answer is here."""

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

    def test_what_came_while_nobody_was_here_is_missed_by_nobody(self) -> None:
        node = make_node(2)
        user = node.user_at(1)
        sender = node.workers[1].connect("sender")
        for slot in (0, 1, 0):  # he comes back to a worker that knows where his inbox stood
            peer = node.workers[slot].connect(user)
            node.ask(sender, {"type": "DirectMessage", "id": 1, "to": [user], "payload": slot})
            assert self.types(peer) == ["DirectMessage"]
            peer.end()
            node.pump()

    def test_nor_where_the_inbox_was_at_home(self) -> None:
        node = make_node(2)
        user = node.user_at(0)
        sender = node.workers[1].connect("sender")
        message = {"type": "DirectMessage", "id": 1, "to": [user], "payload": 1}
        first = node.workers[0].connect(user)
        node.ask(sender, message)
        first.end()
        node.pump()
        node.tell_members([1])
        node.pump()
        node.ask(sender, message)
        again = node.workers[0].connect(user)
        node.ask(sender, message)
        assert self.types(again) == ["DirectMessage"]

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
