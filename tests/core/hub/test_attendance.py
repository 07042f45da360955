"""Sessions that come and go, on any worker, whatever happens around them."""

import pytest

from core.hub.node import make_node
from core.hub.presence import PATIENT, Cluster, Crowd, enter, events, exit_, present, watcher


class TestGrace:
    """A reconnect within it is not seen, on whichever worker it comes."""

    @pytest.mark.parametrize("home", [0, 1, 2])
    @pytest.mark.parametrize("again", [1, 2])
    def test_on_another_worker(self, home: int, again: int) -> None:
        node = make_node(3)
        topic = node.topic_at(home)
        watching = watcher(node, 0, topic)
        enter(node, 1, topic).end()
        node.pump()
        node.advance(1000)
        assert events(watching) == [("Join", "alice")]
        assert present(node, watching, topic) == ["watcher"]
        alice = enter(node, again, topic)
        node.advance(10_000)
        assert events(watching) == []
        alice.end()
        node.pump()
        node.advance(1900)
        assert events(watching) == []
        node.advance(200)
        assert events(watching) == [("Leave", "alice")]

    @pytest.mark.parametrize("home", [0, 1])
    def test_not_for_those_who_unsubscribe(self, home: int) -> None:
        node = make_node(2)
        topic = node.topic_at(home)
        watching = watcher(node, 0, topic)
        exit_(node, enter(node, 1, topic), topic)
        assert events(watching) == [("Join", "alice"), ("Leave", "alice")]


def test_frames_that_make_no_sense_are_passed_over() -> None:
    hub = make_node(2).workers[0].hub
    for type in range(16, 30):
        for rest in (b"", b"\x01", b"\xff" * 40):
            for kind, topic in ((0, b""), (0, b"t"), (1, b"@x")):
                size = 12 + len(topic) + len(rest)
                head = size.to_bytes(4, "little") + bytes([type, kind, len(topic), 0]) + b"\x01" + bytes(7)
                frame = head + topic + rest
                assert hub.receive_from_peer(1, frame) == len(frame)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_watchers_believe_what_is_true(seed: int) -> None:
    Crowd(seed).run(4)


@pytest.mark.parametrize("seed", range(8))
def test_so_they_do_below_an_upstream(seed: int) -> None:
    Crowd(seed, Cluster(2, 2, **PATIENT)).run(3)
