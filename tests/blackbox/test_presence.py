"""Protocol sections 2 and 3: ``Presence``, ``Join`` and ``Leave``."""

import time
from typing import Any

from serving.peer import Connect, Peer

GRACE_SECS = 8.0
"""A lost connection's ``Leave`` may wait this long: "a short grace period"."""


def presence_events(peer: Peer) -> list[dict[str, Any]]:
    return [event for event in peer.settle() if event["type"] in ("Join", "Leave")]


class TestState:
    def test_members(self, join: Connect, topic: str) -> None:
        alice, bob = join(), join()
        before = int(time.time() * 1000)
        alice.ok("Subscribe", topic=topic)
        bob.ok("Subscribe", topic=topic)
        state = alice.ok("Presence", topic=topic)
        assert list(state) == ["type", "id", "topic", "count", "members"]
        assert (state["type"], state["topic"], state["count"]) == ("PresenceState", topic, 2)
        assert [list(member) for member in state["members"]] == [["user_id", "session_id", "joined_at"]] * 2
        assert {(member["user_id"], member["session_id"]) for member in state["members"]} == {
            (peer.user, peer.connected["session_id"]) for peer in (alice, bob)
        }
        assert all(before - 1000 <= member["joined_at"] <= before + 60_000 for member in state["members"])

    def test_nobody(self, join: Connect, topic: str) -> None:
        state = join().ok("Presence", topic=topic)
        assert (state["count"], state["members"]) == (0, [])

    def test_unsubscribing_and_leaving_take_effect(self, join: Connect, topic: str) -> None:
        alice, bob, carol = join(), join(), join()
        for peer in (alice, bob, carol):
            peer.ok("Subscribe", topic=topic)
        bob.ok("Unsubscribe", topic=topic)
        carol.close()
        deadline = time.monotonic() + GRACE_SECS
        while alice.ok("Presence", topic=topic)["count"] != 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [member["user_id"] for member in alice.ok("Presence", topic=topic)["members"]] == [alice.user]


class TestEvents:
    def test_join_and_leave(self, join: Connect, topic: str) -> None:
        watcher, bob = join(), join()
        watcher.ok("Subscribe", topic=topic, presence=True)
        bob.ok("Subscribe", topic=topic)
        joined = watcher.event()
        assert list(joined) == ["type", "topic", "user_id", "session_id"]
        assert list(joined.values()) == ["Join", topic, bob.user, bob.connected["session_id"]]
        bob.ok("Unsubscribe", topic=topic)
        left = watcher.event(GRACE_SECS)
        assert list(left.values()) == ["Leave", topic, bob.user, bob.connected["session_id"]]

    def test_only_for_those_who_asked(self, join: Connect, topic: str) -> None:
        quiet, bob = join(), join()
        quiet.ok("Subscribe", topic=topic)
        bob.ok("Subscribe", topic=topic)
        bob.ok("Unsubscribe", topic=topic)
        assert presence_events(quiet) == []

    def test_own_join_is_not_told(self, join: Connect, topic: str) -> None:
        alice = join()
        alice.ok("Subscribe", topic=topic, presence=True)
        assert [event for event in presence_events(alice) if event["user_id"] != alice.user] == []

    def test_first_session_joins_and_last_leaves(self, join: Connect, topic: str) -> None:
        watcher = join()
        watcher.ok("Subscribe", topic=topic, presence=True)
        one = join()
        other = join(one.user)
        one.ok("Subscribe", topic=topic)
        other.ok("Subscribe", topic=topic)
        assert watcher.event()["type"] == "Join"
        one.ok("Unsubscribe", topic=topic)
        assert presence_events(watcher) == []
        other.ok("Unsubscribe", topic=topic)
        assert watcher.event(GRACE_SECS)["type"] == "Leave"

    def test_lost_connection_leaves_after_the_grace_period(self, join: Connect, topic: str) -> None:
        watcher, bob = join(), join()
        watcher.ok("Subscribe", topic=topic, presence=True)
        bob.ok("Subscribe", topic=topic)
        assert watcher.event()["type"] == "Join"
        bob.close()
        left = watcher.event(GRACE_SECS)
        assert (left["type"], left["user_id"]) == ("Leave", bob.user)

    def test_reconnect_within_the_grace_period_does_not_flap(self, join: Connect, topic: str) -> None:
        watcher, bob = join(), join()
        watcher.ok("Subscribe", topic=topic, presence=True)
        bob.ok("Subscribe", topic=topic)
        bob.close()
        join(bob.user).ok("Subscribe", topic=topic)
        events = [event["type"] for event in presence_events(watcher)]
        assert events.count("Leave") == 0
