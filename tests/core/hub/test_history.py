"""History: pages of a topic's messages."""

from typing import Any

import pytest

from core.hub.sans_io import Envelope, Peer, Server, make_hub, offsets


class TestHistory:
    def page(self, peer: Peer, **fields: Any) -> Envelope:
        answer = peer.request({"type": "History", "id": 1, "topic": "room", **fields})
        assert answer["type"] == "HistoryPage", answer
        return answer

    def epoch(self, server: Server) -> str:
        return str(server.hub.topics()[0]["epoch"])

    def test_all_in_order(self) -> None:
        server = make_hub()
        server.fill("room", 5)
        answer = self.page(server.connect())
        assert (answer["topic"], answer["epoch"], answer["offset"]) == ("room", self.epoch(server), 5)
        assert offsets(answer) == [1, 2, 3, 4, 5]

    def test_100_unless_asked_otherwise_and_1000_at_most(self) -> None:
        server = make_hub()
        server.fill("room", 1500)
        alice = server.connect()
        assert len(offsets(self.page(alice))) == 100
        assert len(offsets(self.page(alice, limit=1000))) == 1000
        assert alice.request({"type": "History", "id": 1, "topic": "room", "limit": 1001})["code"] == "bad_request"

    @pytest.mark.parametrize("reverse", [False, True])
    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
    def test_pages_together_are_the_whole(self, limit: int, reverse: bool) -> None:
        server = make_hub(max_cache_entries=20)
        server.fill("room", 30)
        alice = server.connect()
        found: list[int] = []
        fields: dict[str, Any] = {"limit": limit, "reverse": reverse}
        while True:
            some = offsets(self.page(alice, **fields))
            if not some:
                break
            found += some
            fields["after"] = {"epoch": self.epoch(server), "offset": some[-1]}
        assert found == (list(range(30, 10, -1)) if reverse else list(range(11, 31)))

    @pytest.mark.parametrize(
        ("offset", "reverse", "expected"),
        [
            (0, False, [3, 4, 5]),
            (1, False, [3, 4, 5]),
            (2, False, [3, 4, 5]),
            (3, False, [4, 5]),
            (5, False, []),
            (9, False, []),
            (2**53 - 1, False, []),
            (0, True, []),
            (1, True, []),
            (3, True, []),
            (4, True, [3]),
            (5, True, [4, 3]),
            (6, True, [5, 4, 3]),
            (2**53 - 1, True, [5, 4, 3]),
        ],
    )
    def test_positions(self, offset: int, reverse: bool, expected: list[int]) -> None:
        server = make_hub(max_cache_entries=3)
        server.fill("room", 5)
        after = {"epoch": self.epoch(server), "offset": offset}
        assert offsets(self.page(server.connect(), after=after, reverse=reverse)) == expected

    def test_a_limit_of_nothing(self) -> None:
        server = make_hub()
        server.fill("room", 3)
        answer = server.connect().request({"type": "History", "id": 1, "topic": "room", "limit": 0})
        assert answer.get("code") == "bad_request" or answer["messages"] == []

    def test_a_position_of_another_epoch_counts_as_none(self) -> None:
        server = make_hub()
        server.fill("room", 3)
        assert offsets(self.page(server.connect(), after={"epoch": "0" * 15 + "9", "offset": 2})) == [1, 2, 3]

    def test_of_a_topic_that_is_not_there(self) -> None:
        server = make_hub()
        answer = self.page(server.connect())
        assert (answer["offset"], answer["messages"]) == (0, [])
        assert server.stats()["topics"] == 0

    def test_the_own_inbox(self) -> None:
        server = make_hub()
        alice = server.connect("alice")
        server.connect("bob").send({"type": "DirectMessage", "to": ["alice"], "payload": "hi"})
        alice.messages()
        answer = alice.request({"type": "History", "id": 1, "topic": "@alice"})
        assert [m["payload"] for m in answer["messages"]] == ["hi"]
        assert server.connect("bob").request({"type": "History", "id": 1, "topic": "@alice"})["code"] == "forbidden"
        assert server.connect("al").request({"type": "History", "id": 1, "topic": "@alice"})["code"] == "forbidden"
