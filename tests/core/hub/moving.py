"""Sessions that move: steps that tests of it are made of."""

import random
from typing import Any

import pytest

from core.hub.node import Node
from core.hub.sans_io import READ, SUBSCRIBE, WRITE, Peer

ALL = READ | WRITE | SUBSCRIBE

by_home = pytest.mark.parametrize("topic_home", [0, 1, 2], ids=["of the giver", "of the taker", "of a third"])
"""The slot that the topic of a test is at home at; sessions go from slot 0 to 1."""


def moved(node: Node, giver: int = 0, taker: int = 1, most: int = 1000) -> int:
    """Move what can be moved: the first call finds out where the inboxes stand, the second moves."""
    count = node.move(giver, taker, most)
    node.pump()
    count += node.move(giver, taker, most)
    node.pump()
    return count


def carry_some(node: Node, chosen: random.Random) -> None:
    """Carry what waits on one link."""
    giver, taker = chosen.sample(range(3), 2)
    data = node.left.pop((giver, taker), b"") + node.workers[giver].hub.take_for_peer(taker)
    used = node.workers[taker].hub.receive_from_peer(giver, data)
    assert used == len(data)
    node.workers[taker].flush()


def members(node: Node, peer: Peer, topic: str) -> list[Any]:
    """Who is present."""
    answer = node.ask(peer, {"type": "Presence", "id": 9, "topic": topic})
    assert answer["type"] == "PresenceState", answer
    found: list[Any] = answer["members"]
    return found
