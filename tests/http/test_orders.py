"""What an administrator orders for the sessions of a user, on the other nodes."""

import pytest

from realtime_communication.broker.memory import MemoryEvents
from realtime_communication.http.orders import EVENT, Orders

DISCONNECT = {"user_id": "mallory", "session_id": None, "reason": "spam"}


class Cluster:
    """Workers on one bus, and what each was made to do."""

    def __init__(self):
        self.reachable = True
        self.bus = MemoryEvents()
        self.done = []

    def worker(self, node_id, slot=0):
        def doing(kind):
            return lambda params: self.done.append((node_id, slot, kind, params))

        answers = {kind: doing(kind) for kind in ("disconnect", "subscribe", "unsubscribe", "drain")}
        return Orders(self.bus.node(), node_id, answers, lambda: self.reachable)


@pytest.fixture
def cluster():
    return Cluster()


def test_every_worker_of_the_other_nodes_obeys_and_none_of_the_own(cluster):
    one, *_ = cluster.worker("a"), cluster.worker("a", 1), cluster.worker("b"), cluster.worker("b", 1)
    one.tell("disconnect", DISCONNECT)
    assert cluster.done == [("b", 0, "disconnect", DISCONNECT), ("b", 1, "disconnect", DISCONNECT)]


@pytest.mark.parametrize("kind", ["subscribe", "unsubscribe"])
def test_subscriptions(cluster, kind):
    one, _ = cluster.worker("a"), cluster.worker("b")
    params = {"user_id": "alice", "topic": "room", "order": (1 << 63) - 1}
    one.tell(kind, params)
    assert cluster.done == [("b", 0, kind, params)]


def test_nothing_is_said_while_nobody_is_reached(cluster):
    one, _ = cluster.worker("a"), cluster.worker("b")
    cluster.reachable = False
    one.tell("disconnect", DISCONNECT)
    assert cluster.done == []


@pytest.mark.parametrize(
    "payload", [{}, {"node": "x", "kind": "drain", "params": {}}, {"node": 1, "kind": "disconnect", "params": {}}]
)
def test_what_is_not_understood_is_passed_over(cluster, payload):
    cluster.worker("a")
    cluster.bus.node().publish(EVENT, payload)
    assert cluster.done == []
