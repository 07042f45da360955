"""Topics of several nodes that have their offsets from above, with a stand-in for what is above them."""

import pytest

from core.hub.node import Node, Upstream, make_node, texts, texts_of
from core.hub.sans_io import Peer


def carry(upstream: Upstream, *nodes: Node) -> None:
    """Until nobody has anything to say."""
    while True:
        for node in nodes:
            node.pump()
        if not upstream.step():
            return


class TestHandover:
    """Homes that change while all workers live: nobody notices."""

    def test_offsets_go_on_and_nothing_is_told(self) -> None:
        node = make_node(3)
        topics = [f"t{number}" for number in range(40)]
        peers = [node.workers[slot].connect(f"u{slot}") for slot in range(3)]
        seen: dict[str, list[list[tuple]]] = {topic: [[], [], []] for topic in topics}
        for topic in topics:
            for peer in peers:
                node.subscribe(peer, topic)
        steps = [[0, 1], [1], [0, 1, 2], [2], [0, 1, 2]]
        sent = 0
        for members in [*steps, None]:
            for topic in topics:
                for peer in peers:
                    sent += 1
                    peer.send({"type": "Broadcast", "topic": topic, "payload": sent})
            if members is not None:
                node.tell_members(members)
            for topic in topics[::3]:
                peers[1].send({"type": "Broadcast", "topic": topic, "payload": -sent})
            node.pump(piece=1000)
            for place, peer in enumerate(peers):
                for each in peer.messages():
                    assert each["type"] == "Message", each
                    seen[each["topic"]][place].append((each["offset"], each["payload"]))
        for number, topic in enumerate(topics):
            first, second, third = seen[topic]
            assert first == second == third
            assert [offset for offset, _ in first] == list(range(1, 6 * 3 + 1 + 6 * (number % 3 == 0)))

    def test_history_and_keys_come_along(self) -> None:
        node = make_node(2)
        topic = node.topic_at(0)
        writer = node.workers[1].connect("writer")
        place = node.publish(writer, topic, 1, idempotency_key="k")
        node.publish(writer, topic, 2)
        node.tell_members([1])
        node.pump()
        assert node.publish(writer, topic, 1, idempotency_key="k") == place
        reader = node.workers[0].connect("reader")
        answer = node.subscribe(reader, topic, recover={"epoch": place[0], "offset": 0})
        assert (answer["recovered"], texts_of(answer)) == (True, [(1, 1), (2, 2)])

    def test_requests_of_its_own_wait_for_what_arrives(self) -> None:
        node = make_node(2)
        topic = node.topic_at(0)
        place = node.publish(node.workers[0].connect("w"), topic, 1)
        node.tell_members([1])
        peer = node.workers[1].connect("alice", welcome=False)
        assert [each["type"] for each in peer.messages()] == ["Connected"]  # its inbox is at home here
        peer.send(
            {"type": "Subscribe", "id": 1, "topic": topic, "recover": {"epoch": place[0], "offset": 0}},
            {"type": "Broadcast", "id": 2, "topic": topic, "payload": 2},
            {"type": "History", "id": 3, "topic": topic},
        )
        assert peer.messages() == []
        node.pump()
        found = {each.get("id"): each for each in peer.messages()}
        assert (found[1]["recovered"], texts_of(found[1])) == (True, [(1, 1)])
        assert (found[2]["epoch"], found[2]["offset"]) == (place[0], 2)
        assert texts_of(found[3]) == [(1, 1), (2, 2)]

    def test_a_worker_that_hands_nothing_over_is_not_waited_for(self) -> None:
        node = make_node(2)
        topic = node.topic_at(0)
        place = node.publish(node.workers[0].connect("w"), topic, 1)
        node.workers[1].hub.set_members(1, [1], 99)
        peer = node.workers[1].connect("alice")
        peer.send({"type": "Subscribe", "id": 1, "topic": topic})
        node.workers[1].advance(1000)
        assert peer.messages() == []
        node.workers[1].advance(2500)
        (answer,) = peer.messages()
        assert (answer["offset"], answer["epoch"] == place[0]) == (0, False)

    def test_inboxes_move(self) -> None:
        node = make_node(3)
        users = [f"user{number}" for number in range(20)]
        peers = [node.workers[number % 3].connect(user) for number, user in enumerate(users)]
        sender = node.workers[0].connect("sender")
        node.pump()
        for number, members in enumerate([[0], [1, 2], [0, 1, 2]]):
            answer = node.ask(sender, {"type": "DirectMessage", "id": 1, "to": users, "payload": number})
            assert sorted(answer["delivered"]) == sorted(users)
            node.tell_members(members)
            node.pump()
        for peer in peers:
            assert [(each["type"], each["offset"]) for each in peer.messages()] == [
                ("DirectMessage", n) for n in (1, 2, 3)
            ]


class TestUpstream:
    """Topics of several nodes that have their offsets from above."""

    def nodes(self, count: int, workers: int) -> tuple[Upstream, list[Node]]:
        upstream = Upstream()
        nodes = [make_node(workers) for _ in range(count)]
        for node in nodes:
            node.go_below(upstream)
        carry(upstream, *nodes)
        return upstream, nodes

    @pytest.mark.parametrize("workers", [1, 2])
    def test_messages_cross_nodes(self, workers: int) -> None:
        upstream, nodes = self.nodes(2, workers)
        readers = [worker.connect("r") for node in nodes for worker in node.workers.values()]
        writer = nodes[0].workers[0].connect("w")
        for reader in readers:
            reader.send({"type": "Subscribe", "id": 1, "topic": "t"})
            carry(upstream, *nodes)
            assert [each["type"] for each in reader.messages()] == ["Subscribed"]
        for number in range(3):
            writer.send({"type": "Broadcast", "id": number, "topic": "t", "payload": number})
        carry(upstream, *nodes)
        assert [(each["type"], each["offset"]) for each in writer.messages()] == [("Ack", n) for n in (1, 2, 3)]
        for reader in readers:
            assert texts(reader.messages()) == [(1, 0), (2, 1), (3, 2)]
        assert len(upstream.feeds[b"t"]) == 2, "one feed for a node"
        late = nodes[1].workers[workers - 1].connect("late")
        late.send({"type": "Subscribe", "id": 1, "topic": "t", "history": 2})
        carry(upstream, *nodes)
        (answer,) = late.messages()
        assert texts_of(answer) == [(2, 1), (3, 2)]

    @pytest.mark.parametrize("workers", [1, 2])
    def test_direct_messages(self, workers: int) -> None:
        upstream, nodes = self.nodes(2, workers)
        bob = nodes[1].workers[workers - 1].connect("bob")
        carry(upstream, *nodes)
        alice = nodes[0].workers[0].connect("alice")
        alice.send({"type": "DirectMessage", "id": 1, "to": ["bob", "carol"], "payload": 1})
        carry(upstream, *nodes)
        (answer,) = alice.messages()
        assert (answer["delivered"], answer["offline"]) == (["bob"], ["carol"])
        assert [each["type"] for each in bob.messages()] == ["DirectMessage"]
        bob.end()
        carry(upstream, *nodes)
        assert not upstream.users[b"bob"]

    @pytest.mark.parametrize("workers", [1, 2])
    def test_what_came_while_a_user_was_at_another_node_is_missed_by_nobody(self, workers: int) -> None:
        upstream, nodes = self.nodes(2, workers)
        alice = nodes[0].workers[0].connect("alice")
        for at in (1, 0, 1):
            bob = nodes[at].workers[workers - 1].connect("bob")
            carry(upstream, *nodes)
            alice.send({"type": "DirectMessage", "id": 1, "to": ["bob"], "payload": at})
            carry(upstream, *nodes)
            assert [each["type"] for each in bob.messages()] == ["DirectMessage"]
            bob.end()
            carry(upstream, *nodes)

    @pytest.mark.parametrize("home", [0, 1])
    def test_connected_waits_for_the_feed_of_the_inbox(self, home: int) -> None:
        upstream, nodes = self.nodes(2, 2)
        user = nodes[0].user_at(home)
        sender = nodes[1].workers[0].connect("sender")
        peer = nodes[0].workers[0].authenticating(user, {"type": "Ping", "id": 1})
        nodes[0].pump()
        assert peer.messages() == []
        while not (messages := peer.messages()):
            assert upstream.step()
            nodes[0].pump()
        assert [each["type"] for each in messages] == ["Connected", "Pong"]
        assert nodes[0].workers[home].hub in upstream.feeds[f"@{user}".encode()]
        sender.send({"type": "DirectMessage", "to": [user], "payload": 1})
        carry(upstream, *nodes)
        assert [each["type"] for each in peer.messages()] == ["DirectMessage"]
        other = nodes[0].workers[0].authenticating(user)
        nodes[0].pump()
        assert [each["type"] for each in other.messages()] == ["Connected"], "it is fed already"

    @pytest.mark.parametrize("home", [0, 1])
    def test_connected_does_not_wait_for_an_upstream_that_is_away(self, home: int) -> None:
        _, nodes = self.nodes(1, 2)
        peer = nodes[0].workers[0].authenticating(nodes[0].user_at(home))
        nodes[0].pump()
        assert peer.messages() == []
        for worker in nodes[0].workers.values():
            worker.hub.upstream_lost()
        nodes[0].pump()
        assert [each["type"] for each in peer.messages()] == ["Connected"]
        later = nodes[0].workers[0].authenticating(nodes[0].user_at(home, "later"))
        nodes[0].pump()
        assert [each["type"] for each in later.messages()] == ["Connected"]

    def test_away_and_back(self) -> None:
        upstream, nodes = self.nodes(2, 1)
        hubs = [node.workers[0].hub for node in nodes]
        peers = [node.workers[0].connect("p") for node in nodes]
        for peer in peers:
            peer.send({"type": "Subscribe", "id": 1, "topic": "t"}, {"type": "Subscribe", "id": 2, "topic": "quiet"})
        carry(upstream, *nodes)
        peers[0].send(
            {"type": "Broadcast", "topic": "t", "payload": 1}, {"type": "Broadcast", "topic": "quiet", "payload": 1}
        )
        carry(upstream, *nodes)
        for peer in peers:
            peer.messages()
        hubs[0].upstream_lost()
        peers[0].send({"type": "Broadcast", "id": 3, "topic": "t", "payload": 2})
        kinds = peers[0].messages()
        assert sorted(each["type"] for each in kinds) == ["Ack", "Lagged", "Message"]
        kept = [item for item in hubs[0].take_upstream() if item[0] == "publish"]
        assert [(item[1], item[2]) for item in kept] == [(b"t", 0)]
        peers[1].send({"type": "Broadcast", "topic": "quiet", "payload": 2})
        upstream.step()
        for item in kept:
            upstream.do(hubs[0], *item)
        hubs[0].upstream_back()
        carry(upstream, *nodes)
        messages = peers[0].messages()
        assert [(m["offset"], m["payload"]) for m in messages if m.get("topic") == "quiet"] == [(2, 2)]
        (lagged,) = [m for m in messages if m["type"] == "Lagged"]
        assert (lagged["topic"], lagged["offset"], lagged["recovered"]) == ("t", 2, False)
        assert [(m["topic"], m["offset"], m["payload"]) for m in peers[1].messages()] == [("quiet", 2, 2), ("t", 2, 2)]

    @pytest.mark.parametrize("workers", [1, 2])
    def test_what_is_kept_has_its_key(self, workers: int) -> None:
        """What was refused as open when the upstream went, and is repeated meanwhile, is not there twice afterwards."""
        _, nodes = self.nodes(1, workers)
        hubs = [worker.hub for worker in nodes[0].workers.values()]
        peer = nodes[0].workers[workers - 1].connect("p")
        requests = [
            {"type": "Broadcast", "id": 1, "topic": "t", "payload": 1, "idempotency_key": "k"},
            {"type": "DirectMessage", "id": 2, "to": ["q"], "payload": 1, "idempotency_key": "k"},
        ]
        peer.send(*requests)
        nodes[0].pump()
        asked = {item[1]: item[4] for hub in hubs for item in hub.take_upstream() if item[0] == "publish"}
        assert asked.keys() == {b"t", b"@q"}
        for hub in hubs:
            hub.upstream_lost()
        nodes[0].pump()
        assert {each["code"] for each in peer.messages()} == {"unavailable"}
        peer.send(*requests, {"type": "Broadcast", "topic": "t", "payload": 2})
        nodes[0].pump()
        kept = [item for hub in hubs for item in hub.take_upstream() if item[0] == "publish"]
        assert sorted((item[1], item[4]) for item in kept) == sorted([*asked.items(), (b"t", b"")])

    def told_once(self) -> tuple[Upstream, list[Node], list[Peer]]:
        """Two workers with a subscriber of "t" each, who have got its first message."""
        upstream, nodes = self.nodes(1, 2)
        peers = [worker.connect("p") for worker in nodes[0].workers.values()]
        for peer in peers:
            peer.send({"type": "Subscribe", "id": 1, "topic": "t"})
        carry(upstream, *nodes)
        peers[0].send({"type": "Broadcast", "topic": "t", "payload": 1})
        carry(upstream, *nodes)
        for peer in peers:
            peer.messages()
        return upstream, nodes, peers

    def test_a_lost_history_is_told(self) -> None:
        upstream, nodes, peers = self.told_once()
        upstream.lose(b"t")
        peers[1].send({"type": "Broadcast", "topic": "t", "payload": 2})
        carry(upstream, *nodes)
        for peer in peers:
            lagged, message = peer.messages()
            assert (lagged["type"], lagged["offset"], message["offset"]) == ("Lagged", 0, 1)

    def test_what_is_lost_within_an_epoch_is_counted(self) -> None:
        upstream, nodes, peers = self.told_once()
        for hub in upstream.hubs:
            hub.reset_topic(b"t", upstream.stream(b"t")[0], 4)
        carry(upstream, *nodes)
        for peer in peers:
            (lagged,) = peer.messages()
            assert (lagged["missed"], lagged["offset"], lagged["recovered"]) == (3, 4, False)

    @pytest.mark.parametrize("strategy", ["backpressure", "drop_oldest", "drop_newest", "block"])
    def test_and_what_a_slow_consumer_missed_with_it(self, strategy: str) -> None:
        upstream, node = Upstream(), make_node(1, overflow_strategy=strategy, mailbox_capacity=3)
        node.go_below(upstream)
        (worker,) = node.workers.values()
        reader, writer = worker.connect("r"), worker.connect("w")
        reader.send({"type": "Subscribe", "id": 1, "topic": "t"})
        carry(upstream, node)
        reader.messages()
        reader.stall()
        for number in range(1, 7):
            writer.send({"type": "Broadcast", "topic": "t", "payload": number})
            carry(upstream, node)
        worker.hub.reset_topic(b"t", upstream.stream(b"t")[0], 20)
        reader.resume()
        carry(upstream, node)
        offset = 0
        for each in reader.messages():
            assert each["offset"] == offset + (each["missed"] if each["type"] == "Lagged" else 1), each
            offset = each["offset"]
        assert offset == 20
