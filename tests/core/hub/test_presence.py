"""Presence: who is there."""

import pytest

from core.hub.sans_io import WALL_MS, make_hub


def test_who_is_there() -> None:
    server = make_hub()
    alice, bob = server.connect("alice"), server.connect("bob", protocol="rtc.v1.msgpack")
    alice.subscribe("room")
    server.advance(5)
    bob.subscribe("room")
    answer = alice.request({"type": "Presence", "id": 1, "topic": "room"})
    assert (answer["topic"], answer["count"]) == ("room", 2)
    assert sorted(answer["members"], key=lambda member: str(member["user_id"])) == [
        {"user_id": "alice", "session_id": "0" * 31 + "1", "joined_at": WALL_MS},
        {"user_id": "bob", "session_id": "0" * 31 + "2", "joined_at": WALL_MS + 5},
    ]


def test_the_own_inbox_lists_the_own_sessions_before_anybody_writes_to_it() -> None:
    server = make_hub()
    alice, other = server.connect("alice"), server.connect("alice")
    server.connect("bob")
    answer = other.request({"type": "Presence", "id": 1, "topic": "@alice"})
    assert (answer["topic"], answer["count"]) == ("@alice", 2)
    assert sorted((each["user_id"], each["session_id"]) for each in answer["members"]) == [
        ("alice", "0" * 31 + "1"),
        ("alice", "0" * 31 + "2"),
    ]
    for peer in (alice, other):
        peer.end()
    assert server.stats()["topics"] == 0


@pytest.mark.parametrize("protocol", ["rtc.v1.json", "rtc.v1.msgpack"])
def test_who_they_are(protocol: str) -> None:
    server = make_hub()
    alice = server.connect("alice", presence_info=b'{"name": "A", "n": [1.5]}', protocol=protocol)
    for peer in (alice, server.connect("bob")):
        peer.subscribe("room")
    members = alice.request({"type": "Presence", "id": 1, "topic": "room"})["members"]
    assert [list(member) for member in members] == [
        ["user_id", "session_id", "joined_at", "info"],
        ["user_id", "session_id", "joined_at"],
    ]
    assert members[0]["info"] == {"name": "A", "n": [1.5]}


def test_a_reply_has_a_bound_and_still_names_everybody() -> None:
    server = make_hub(max_connections=3000)
    info = b'{"a":"' + b"x" * 4000 + b'"}'
    peers = [server.connect(f"user-{number}", presence_info=info) for number in range(2200)]
    for peer in peers:
        peer.subscribe("room")
    answer = peers[0].request({"type": "Presence", "id": 1, "topic": "room"})
    described = ["info" in member for member in answer["members"]]
    assert len(described) == answer["count"] == 2200
    assert described == [True] * (8388608 // len(info)) + [False] * (2200 - 8388608 // len(info))


def test_nobody() -> None:
    server = make_hub()
    answer = server.connect().request({"type": "Presence", "id": 1, "topic": "room"})
    assert (answer["count"], answer["members"]) == (0, [])
    assert server.stats()["topics"] == 0
