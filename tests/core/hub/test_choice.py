"""Which sessions go."""

import pytest

from core.hub.moving import moved
from core.hub.node import make_node


class TestChoice:
    """Who goes, when a worker has more to do than another."""

    @pytest.mark.parametrize(
        ("most", "share", "who"),
        [
            (2, 0.0, {"u0", "u1"}),
            (2, 1.0, {"u2", "u3"}),
            (4, 0.2, {"u1"}),  # the busiest ones do more than that
            (4, 0.01, set()),
            (3, None, {"u1", "u2", "u3"}),  # the newest
        ],
    )
    def test_by_what_they_cost(self, most: int, share: float | None, who: set[str]) -> None:
        node = make_node(2)
        peers = [node.workers[0].connect(f"u{number}") for number in range(4)]
        node.move(0, 1)
        node.pump()
        while node.workers[0].hub.work():
            pass
        for number, peer in enumerate(peers):
            for _ in range(10 * number):
                peer.request({"type": "Ping", "id": 1})
        assert node.move(0, 1, most, share=share) == len(who)
        node.pump()
        assert {each["user_id"] for each in node.workers[1].hub.connections()} == who

    def test_one_that_came_stays_for_a_while(self) -> None:
        node = make_node(2)
        node.workers[0].connect("u")
        assert moved(node) == 1
        for share in (0.0, 1.0):
            assert node.move(1, 0, share=share) == 0
            node.pump()
        assert [worker.hub.movable_count() for worker in node.workers.values()] == [0, 1]
        for _ in range(16):
            node.advance(2000)
        assert node.move(1, 0, share=0.0) == 1

    def test_no_share_that_is_none(self) -> None:
        node = make_node(2)
        for share in (-0.1, 1.1):
            with pytest.raises(ValueError, match="share"):
                node.workers[0].hub.give_sessions(1, 1, share)
