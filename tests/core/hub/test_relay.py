"""The asking side: what goes out for topics that are at home elsewhere, and what waits."""

import pytest

from core.hub.node import make_node
from realtime_communication._core.hub.peers import split_frames
from realtime_communication._core.hub.relay import Later

PUBLISH, SUBSCRIBE, HISTORY, INTEREST = 1, 5, 8, 11


def test_frames_in_the_order_of_the_requests() -> None:
    node = make_node(2)
    topic = node.topic_at(1)
    peer = node.workers[0].connect("alice")
    node.pump()
    peer.send(
        {"type": "Broadcast", "topic": topic, "payload": {"a": 1}, "idempotency_key": "k"},
        {"type": "Subscribe", "id": 1, "topic": topic, "history": 3},
        {"type": "History", "id": 2, "topic": topic},
    )
    data = node.workers[0].hub.take_for_peer(1)
    frames, used = split_frames(data)
    assert used == len(data)
    assert [(frame[0], frame[3]) for frame in frames] == [(PUBLISH, topic.encode()), (SUBSCRIBE, topic.encode())]
    key = b"alice\0" + topic.encode() + b"\0k"
    assert frames[0][4].startswith(len(key).to_bytes(2, "little") + key)
    assert frames[0][4].endswith(b'alice{"a": 1}')
    tokens = [frame[2] for frame in frames]
    assert len(set(tokens)) == 2
    assert 0 not in tokens


def test_the_home_of_an_inbox_hears_of_each_session_and_of_the_end_of_all() -> None:
    node = make_node(2)
    node.pump()
    user = node.user_at(1)
    first = node.workers[0].connect(user, welcome=False)
    second = node.workers[0].connect(user, welcome=False)
    frames, _ = split_frames(node.workers[0].hub.take_for_peer(1))
    assert [(frame[0], frame[3]) for frame in frames] == [(INTEREST, b"@" + user.encode())] * 2
    assert len({frame[2] for frame in frames} - {0}) == 2  # each wants to know when its inbox is fed
    first.end()
    assert node.workers[0].hub.take_for_peer(1) == b""
    second.end()
    frames, _ = split_frames(node.workers[0].hub.take_for_peer(1))
    assert [frame[3] for frame in frames] == [b"@" + user.encode()]


def test_a_worker_that_takes_nothing_is_given_no_more_than_a_bound() -> None:
    node = make_node(2, max_frame_size=1 << 20, max_message_size=1 << 20)
    topic = node.topic_at(1)
    peer = node.workers[0].connect("alice")
    node.pump()
    payload = "x" * 900_000
    refused = []
    for number in range(30):
        peer.send({"type": "Broadcast", "id": number, "topic": topic, "payload": payload})
        refused += [each["code"] for each in peer.messages() if each["type"] == "Error"]
    assert set(refused) == {"unavailable"}
    assert len(node.workers[0].hub.take_for_peer(1)) < 20 << 20


class TestLater:
    """An answer that another worker gives."""

    def test_told_when_it_is_there(self) -> None:
        later, told = Later(), []
        later.then(lambda value, error: told.append((value, error)))
        assert not later.settled
        later.settle({"a": 1}, None)
        later.settle({"a": 2}, None)
        assert (later.settled, told) == (True, [({"a": 1}, None)])

    def test_told_at_once_when_it_is_there_already(self) -> None:
        later, told = Later(), []
        error = ValueError("no")
        later.settle(None, error)
        later.then(lambda value, failed: told.append((value, failed)))
        assert told == [(None, error)]

    def test_a_callback_that_fails_hurts_nobody(self) -> None:
        later = Later()
        later.then(lambda value, error: 1 / 0)
        later.settle({}, None)
        assert later.settled

    def test_nobody(self) -> None:
        with pytest.raises(TypeError):
            Later().then(None)
