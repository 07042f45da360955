"""DirectMessage: who gets it, who is away, and what refuses it for all."""

from typing import Any

from core.hub.sans_io import WALL_MS, Peer, make_hub


class TestDirectMessage:
    def test_who_has_it_and_who_is_away(self) -> None:
        server = make_hub()
        alice, bob = server.connect("alice"), server.connect("bob")
        answer = bob.request({"type": "DirectMessage", "id": 1, "to": ["alice", "zoe"], "payload": [1]})
        assert answer == {"type": "Ack", "id": 1, "delivered": ["alice"], "offline": ["zoe"]}
        assert alice.messages() == [
            {"type": "DirectMessage", "offset": 1, "ts": WALL_MS, "from": "bob", "payload": [1]}
        ]

    def answer(self, bob: Peer, to: Any) -> dict[str, Any]:
        bob.send({"type": "DirectMessage", "id": 1, "to": to, "payload": 1})
        (ack,) = [m for m in bob.messages() if m["type"] != "DirectMessage"]
        return ack

    def test_one_name_or_a_list(self) -> None:
        server = make_hub()
        server.connect("alice")
        bob = server.connect("bob")
        assert self.answer(bob, "alice") == {"type": "Ack", "id": 1, "delivered": ["alice"], "offline": []}
        assert self.answer(bob, ["zoe"]) == {"type": "Ack", "id": 1, "delivered": [], "offline": ["zoe"]}

    def test_repeated_names_count_once(self) -> None:
        server = make_hub()
        alice, bob = server.connect("alice"), server.connect("bob")
        assert self.answer(bob, ["alice", "zoe", "alice", "zoe"])["delivered"] == ["alice"]
        assert self.answer(bob, ["alice", "zoe", "alice", "zoe"])["offline"] == ["zoe"]
        assert [m["offset"] for m in alice.messages()] == [1, 2]

    def test_to_oneself(self) -> None:
        server = make_hub()
        bob = server.connect("bob")
        bob.send({"type": "DirectMessage", "id": 1, "to": "bob", "payload": 1})
        assert sorted(m["type"] for m in bob.messages()) == ["Ack", "DirectMessage"]

    def test_every_session_of_the_user(self) -> None:
        server = make_hub()
        sessions = [server.connect("alice", protocol=p) for p in [None, "rtc.v1.msgpack"] * 25]
        assert self.answer(server.connect("bob"), "alice")["delivered"] == ["alice"]
        assert all(len(peer.messages()) == 1 for peer in sessions)

    def test_a_session_that_comes_later_is_on_the_inbox_too(self) -> None:
        server = make_hub()
        bob = server.connect("bob")
        self.answer(bob, "alice")
        alice = server.connect("alice")
        self.answer(bob, "alice")
        assert [m["offset"] for m in alice.messages()] == [2]
        page = alice.request({"type": "History", "id": 2, "topic": "@alice"})
        assert [m["offset"] for m in page["messages"]] == [1, 2]

    def test_more_targets_than_allowed(self) -> None:
        server = make_hub(max_targets_per_message=2)
        assert self.answer(server.connect("x"), ["a", "b"])["type"] == "Ack"
        message = {"type": "DirectMessage", "to": ["a", "b", "c"], "payload": 1}
        server.connect("bob").refused("too_many_targets", message)

    def test_backpressure_refuses_and_sends_to_nobody(self) -> None:
        server = make_hub(mailbox_capacity=3)
        slow, other, bob = server.connect("slow"), server.connect("other"), server.connect("bob")
        slow.stall()
        for _ in range(3):
            assert self.answer(bob, ["slow", "other"])["type"] == "Ack"
        answer = self.answer(bob, ["other", "slow"])
        assert (answer["code"], answer["retry_after_ms"]) == ("backpressure", 1000)
        assert len(other.messages()) == 3
        assert server.stats()["backpressure"] == 1
        slow.resume()
        assert self.answer(bob, "slow")["type"] == "Ack"
        assert [m["offset"] for m in slow.messages()] == [1, 2, 3, 4]
