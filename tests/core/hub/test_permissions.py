"""What a token allows its bearer, and what only the server does."""

import pytest

from core.hub.sans_io import ADMIN, READ, SUBSCRIBE, make_hub


class TestPublish:
    @pytest.mark.parametrize("name", ["@alice", "$system"])
    def test_names_of_the_server(self, name: str) -> None:
        assert "topic" in make_hub().connect("bob").refused(
            "forbidden", {"type": "Broadcast", "topic": name, "payload": 1}
        )

    def test_needs_write(self) -> None:
        bob = make_hub().connect("bob", permissions=READ | SUBSCRIBE)
        assert "write" in bob.refused("forbidden", {"type": "Broadcast", "topic": "r", "payload": 1})

    def test_the_topics_of_the_token(self) -> None:
        server = make_hub()
        bob = server.connect("bob", publish_patterns=("room:*", "exact"))
        for topic, expected in {
            "room:1": "Ack",
            "room:": "Ack",
            "exact": "Ack",
            "room": "Error",
            "exact2": "Error",
            "exac": "Error",
        }.items():
            answer = bob.request({"type": "Broadcast", "id": 1, "topic": topic, "payload": 1})
            assert answer["type"] == expected, topic
        assert (
            server.connect("eve", publish_patterns=()).request(
                {"type": "Broadcast", "id": 1, "topic": "any", "payload": 1}
            )["code"]
            == "forbidden"
        )

    def test_admin_may_all(self) -> None:
        server = make_hub()
        root = server.connect("root", permissions=ADMIN, publish_patterns=("nothing",))
        assert root.request({"type": "Broadcast", "id": 1, "topic": "any", "payload": 1})["type"] == "Ack"

    def test_to_every_connection_is_for_admins(self) -> None:
        bob = make_hub().connect("bob")
        assert "admin" in bob.refused("forbidden", {"type": "Broadcast", "topic": "*", "payload": 1})


class TestSend:
    def test_needs_write(self) -> None:
        bob = make_hub().connect("bob", permissions=READ)
        bob.refused("forbidden", {"type": "DirectMessage", "to": "a", "payload": 1})

    def test_the_topics_of_the_token_name_inboxes(self) -> None:
        server = make_hub()
        bob = server.connect("bob", publish_patterns=("room:*", "@alice"))
        message = {"type": "DirectMessage", "id": 1, "payload": 1}
        assert bob.request({**message, "to": ["alice"]})["type"] == "Ack"
        bob.refused("forbidden", {**message, "to": ["alice", "zoe"], "id": 9})
        assert server.stats()["publications"] == 1


class TestSubscribeAndRead:
    def test_the_topics_of_the_token(self) -> None:
        server = make_hub()
        alice = server.connect("alice", subscribe_patterns=("room:*",))
        assert alice.request({"type": "Subscribe", "id": 1, "topic": "room:1"})["type"] == "Subscribed"
        for kind in ("Subscribe", "Presence", "History"):
            assert alice.request({"type": kind, "id": 1, "topic": "hall"})["code"] == "forbidden"

    @pytest.mark.parametrize("topic", ["@alice", "@bob", "$system"])
    def test_names_of_the_server(self, topic: str) -> None:
        alice = make_hub().connect("alice", permissions=ADMIN)
        assert alice.request({"type": "Subscribe", "id": 1, "topic": topic})["code"] == "forbidden"
        assert alice.request({"type": "Unsubscribe", "id": 1, "topic": topic})["code"] == "forbidden"

    def test_inboxes_of_others_are_private(self) -> None:
        alice = make_hub().connect("alice")
        assert alice.request({"type": "Presence", "id": 1, "topic": "@bob"})["code"] == "forbidden"
