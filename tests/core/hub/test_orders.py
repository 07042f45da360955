"""What an administrator wants of sessions that are on their way."""

from typing import Any

import pytest

from core.hub.moving import ALL
from core.hub.node import Node, make_node
from core.hub.sans_io import Peer, identity


class TestOrders:
    """What an administrator wants is done once, wherever the session is."""

    def in_flight(self) -> tuple[Node, Peer, list[Any], str]:
        node = make_node(2)
        topic = node.topic_at(1)
        peer = node.workers[0].connect("u")
        node.subscribe(peer, topic)
        node.move(0, 1)
        node.pump()
        assert node.workers[0].hub.give_sessions(1, 10) == 1
        return node, peer, node.workers[0].driver.take_passed(), topic

    def land(self, node: Node, passed: list[Any]) -> None:
        for _, _, frame, connection in passed:
            node.workers[1].driver.arrive(0, frame, connection)
        node.pump()

    def test_on_its_way(self) -> None:
        node, peer, passed, topic = self.in_flight()
        hubs = [worker.hub for worker in node.workers.values()]
        assert sum(hub.subscribe_user("u", "more", 7) for hub in hubs) == 1
        for hub in hubs:
            hub.unsubscribe_user("u", topic, 8)
        self.land(node, passed)
        told = {(each["type"], each["topic"]) for each in peer.messages()}
        assert told == {("Subscribed", "more"), ("Unsubscribed", topic)}
        (row,) = hubs[1].connections()
        assert row["subscriptions"] == 1

    def test_not_over_what_the_client_has_done_since(self) -> None:
        node = make_node(2)
        topic = node.topic_at(1)
        peer = node.workers[0].connect("u")
        node.subscribe(peer, topic)
        node.workers[0].hub.unsubscribe_user("u", topic, 9)
        node.pump()
        assert [each["type"] for each in peer.messages()] == ["Unsubscribed"]
        node.subscribe(peer, topic)
        node.move(0, 1)
        node.pump()
        assert node.workers[0].hub.give_sessions(1, 10) == 1
        passed = node.workers[0].driver.take_passed()
        node.workers[1].hub.unsubscribe_user("u", topic, 10)  # told of another one before it comes
        node.workers[1].hub.subscribe_user("u", topic, 11)
        self.land(node, passed)
        node.workers[1].hub.unsubscribe_user("u", topic, 9)  # and of the first one after
        node.pump()
        assert [each["type"] for each in peer.messages()] == ["Unsubscribed", "Subscribed"]
        (row,) = node.workers[1].hub.connections()
        assert row["subscriptions"] == 1

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
