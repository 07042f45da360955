"""Nodes that tell of themselves when somebody looks."""

import pytest

from realtime_communication._core.hub.hub import Hub
from realtime_communication.broker.memory import MemoryEvents
from realtime_communication.http.nodes import ASK, ASK_SECS, FORGET_SECS, TELL, TELL_SECS, Nodes, Told


class Cluster:
    """Workers on one bus, and a clock for all."""

    def __init__(self):
        self.now = 100.0
        self.reachable = True
        self.bus = MemoryEvents()
        self.counts = {}
        self.heard = []
        self.bus.subscribe(ASK, lambda payload: self.heard.append(ASK))
        self.bus.subscribe(TELL, lambda payload: self.heard.append(TELL))

    def worker(self, node_id, slot=0, connections=1):
        self.counts[node_id, slot] = (0, 0)

        def own():
            told = Told(
                node_id=node_id,
                worker=slot,
                version="1.0",
                draining=slot == 1,
                uptime_secs=5.0 + slot,
                connections=connections,
                rss_bytes=1000,
                publications=None,
                deliveries=None,
            )
            return (told, *self.counts[node_id, slot])

        return Nodes(self.bus.node(), own, lambda: self.reachable, lambda: self.now)


@pytest.fixture
def cluster():
    return Cluster()


def test_nobody_says_anything_until_somebody_looks(cluster):
    one, _ = cluster.worker("a"), cluster.worker("b")
    assert (one.others("a"), cluster.heard) == ([], [])
    one.look()
    assert cluster.heard == [ASK, TELL]
    assert [row["node_id"] for row in one.others("a")] == ["b"]


def test_the_workers_of_a_node_are_summed(cluster):
    one, *_ = cluster.worker("a"), cluster.worker("b", 0, 3), cluster.worker("b", 1, 4)
    one.look()
    (row,) = one.others("a")
    assert (row["workers"], row["connections"], row["draining"], row["uptime_secs"]) == (2, 7, False, 6.0)
    assert (row["here"], row["publications"]) == (False, None)


def test_rates_are_of_the_time_between_two_answers(cluster):
    one, _ = cluster.worker("a"), cluster.worker("b")
    one.look()
    cluster.now += ASK_SECS
    cluster.counts["b", 0] = (10, 400)
    one.look()
    (row,) = one.others("a")
    assert (row["publications"], row["deliveries"]) == (5.0, 200.0)


def test_how_often_is_asked_and_answered_has_a_bound(cluster):
    one, two, _ = cluster.worker("a"), cluster.worker("c"), cluster.worker("b")
    for _ in range(5):
        one.look()
        two.look()
    assert cluster.heard.count(ASK) == 2
    assert cluster.heard.count(TELL) == 3
    cluster.now += TELL_SECS
    one.look()
    assert cluster.heard.count(ASK) == 2


def test_a_node_that_is_gone_is_forgotten(cluster):
    one, _ = cluster.worker("a"), cluster.worker("b")
    one.look()
    cluster.now += FORGET_SECS + 0.1
    assert one.others("a") == []


def test_nothing_is_said_while_nobody_hears_it(cluster):
    one, _ = cluster.worker("a"), cluster.worker("b")
    cluster.reachable = False
    one.look()
    assert cluster.heard == []
    cluster.reachable = True
    one.look()
    assert cluster.heard == [ASK, TELL]


def test_what_another_version_tells_is_passed_over(cluster):
    one = cluster.worker("a")
    cluster.bus.publish(TELL, {"node_id": "b", "worker": "first"})
    assert one.others("a") == []


def test_the_counters_have_the_names_that_are_told():
    assert {"publications", "deliveries"} <= Hub("n").stats().keys()
