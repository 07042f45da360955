"""The generations of refresh tokens on two nodes, over a shared state that comes and goes."""

import asyncio

import pytest

from realtime_communication.auth.refresh import Rotation
from realtime_communication.broker.memory import MemoryState
from realtime_communication.errors import AuthenticationUnavailable
from realtime_communication.server.credentials import SharedFamilies

DONE, REUSED = Rotation.DONE, Rotation.REUSED
UNTIL, NOW = 1000.0, 0.0


class Nodes:
    """Nodes 0 and 1. `away`: the shared state cannot be reached."""

    def __init__(self, *, strict=False):
        self.away = False
        self.state = MemoryState(lambda: NOW)
        self.nodes = [SharedFamilies(self.state, lambda: not self.away, strict=strict) for _ in range(2)]

    def use(self, node, generation):
        return asyncio.run(self.nodes[node].rotate("family", generation, UNTIL, NOW))


def test_what_one_node_rotated_the_other_knows():
    nodes = Nodes()
    assert nodes.use(0, 0) is DONE
    assert nodes.use(1, 1) is DONE
    assert nodes.use(0, 0) is REUSED
    assert nodes.use(1, 2) is REUSED  # all of the family is revoked


def test_what_was_used_while_the_state_was_away_stays_used():
    nodes = Nodes()
    nodes.away = True
    assert nodes.use(0, 0) is DONE
    assert nodes.use(0, 0) is REUSED
    nodes.away = False
    assert nodes.use(0, 0) is REUSED
    assert [nodes.use(node, 1) for node in (0, 1)] == [REUSED, REUSED], "the family is revoked for all"


def test_a_generation_of_another_node_is_no_reuse_while_the_state_is_away():
    nodes = Nodes()
    assert nodes.use(0, 0) is DONE
    assert [nodes.use(1, generation) for generation in (1, 2)] == [DONE, DONE]
    nodes.away = True
    assert nodes.use(0, 3) is DONE
    assert nodes.use(0, 2) is REUSED


def test_who_needs_the_state_refreshes_nobody_without_it():
    nodes = Nodes(strict=True)
    assert nodes.use(0, 0) is DONE
    nodes.away = True
    with pytest.raises(AuthenticationUnavailable):
        nodes.use(0, 1)
    nodes.away = False
    assert nodes.use(0, 1) is DONE
