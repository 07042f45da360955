"""Presence, users and faults."""

from typing import Any

import pytest

from core.hub.sans_io import Peer, Server, identity, make_hub


def events(peer: Peer) -> list[tuple[str, str]]:
    return [(m["type"], m["user_id"]) for m in peer.messages()]


def watcher(server: Server, topic: str = "room") -> Peer:
    peer = server.connect("watcher")
    peer.subscribe(topic, presence=True)
    return peer


class TestPresence:
    def test_the_first_session_joins_and_the_last_one_leaves(self) -> None:
        server = make_hub()
        watching = watcher(server)
        one, two = server.connect("alice"), server.connect("alice", protocol="rtc.v1.msgpack")
        one.subscribe("room")
        (join,) = watching.messages()
        assert join == {"type": "Join", "topic": "room", "user_id": "alice", "session_id": "0" * 31 + "2"}
        two.subscribe("room")
        one.request({"type": "Unsubscribe", "id": 1, "topic": "room"})
        assert watching.messages() == []
        two.request({"type": "Unsubscribe", "id": 1, "topic": "room"})
        (leave,) = watching.messages()
        assert leave == {"type": "Leave", "topic": "room", "user_id": "alice", "session_id": "0" * 31 + "3"}

    @pytest.mark.parametrize("protocol", ["rtc.v1.json", "rtc.v1.msgpack"])
    def test_who_joins_is_described(self, protocol: str) -> None:
        server = make_hub()
        watching = server.connect("watcher", protocol=protocol)
        watching.subscribe("room", presence=True)
        alice = server.connect("alice", presence_info=b' {"name": "\\u0041lice", "n": [1.5, null]}')
        alice.subscribe("room")
        (join,) = watching.messages()
        assert list(join) == ["type", "topic", "user_id", "session_id", "info"]
        assert join["info"] == {"name": "Alice", "n": [1.5, None]}
        alice.request({"type": "Unsubscribe", "id": 1, "topic": "room"})
        (leave,) = watching.messages()
        assert list(leave) == ["type", "topic", "user_id", "session_id"]

    def test_a_new_token_describes_anew(self) -> None:
        server = make_hub()
        watching = watcher(server)
        alice = server.connect("alice", presence_info=b'{"v":1}')
        for info in (b'{"v":2}', None):
            server.identities["new"] = identity("alice", presence_info=info)
            assert alice.request({"type": "Refresh", "id": 1, "token": "new"})["type"] == "Refreshed"
            alice.subscribe("room")
            alice.request({"type": "Unsubscribe", "id": 1, "topic": "room"})
            assert watching.messages()[0].get("info") == (info and {"v": 2})

    @pytest.mark.parametrize(
        "info", [b'{"a":"' + b"x" * 4096 + b'"}', b"[]", b"1", b"", b"{", b'{"a":"\xff"}', b"{} {}", "text"]
    )
    def test_what_cannot_be_shown_is_refused(self, info: Any) -> None:
        server = make_hub()
        peer = server.connect(identity("alice", presence_info=info), welcome=False)
        peer.frames()
        assert peer.close == (1011, "internal error")
        bob = server.connect("bob", presence_info=b"{}")
        server.identities["new"] = identity("bob", presence_info=info)
        assert bob.request({"type": "Refresh", "id": 1, "token": "new"})["code"] == "unavailable"
        assert server.stats()["connections"] == 1

    def test_the_largest_info(self) -> None:
        info = b'{"a":"' + b"x" * 4088 + b'"}'
        assert len(info) == 4096
        server = make_hub()
        watching = watcher(server)
        server.connect("alice", presence_info=info).subscribe("room")
        assert watching.messages()[0]["info"] == {"a": "x" * 4088}

    def test_a_watcher_is_not_told_of_itself(self) -> None:
        server = make_hub()
        watching = watcher(server)
        assert watching.messages() == []
        other = server.connect("other")
        other.subscribe("room", presence=True)
        assert events(watching) == [("Join", "other")]
        assert other.messages() == []

    def test_a_lost_connection_is_given_some_time(self) -> None:
        server = make_hub()
        watching = watcher(server)
        alice = server.connect("alice")
        alice.subscribe("room")
        alice.end()
        server.advance(1900)
        assert events(watching) == [("Join", "alice")]
        server.advance(200)
        assert events(watching) == [("Leave", "alice")]
        assert server.stats()["members"] == 1

    def test_a_reconnect_within_it_is_not_seen(self) -> None:
        server = make_hub()
        watching = watcher(server)
        for _ in range(5):
            alice = server.connect("alice")
            alice.subscribe("room")
            alice.end()
            server.advance(1000)
        alice = server.connect("alice")
        alice.subscribe("room")
        server.advance(10_000)
        assert events(watching) == [("Join", "alice")]
        alice.send_frame(b"\x03\xe8", 8)
        server.advance(3000)
        assert events(watching) == [("Leave", "alice")]

    def test_only_those_who_asked_are_told(self) -> None:
        server = make_hub()
        watching, plain = watcher(server), server.connect("plain")
        plain.subscribe("room")
        watching.messages()
        alice = server.connect("alice")
        alice.subscribe("room")
        assert plain.messages() == []
        watching.messages()
        watching.subscribe("room")  # without presence: no longer
        alice.request({"type": "Unsubscribe", "id": 1, "topic": "room"})
        assert watching.messages() == []

    def test_each_topic_by_itself(self) -> None:
        server = make_hub()
        here, there = watcher(server, "here"), watcher(server, "there")
        alice = server.connect("alice")
        alice.subscribe("here")
        assert (events(here), there.messages()) == ([("Join", "alice")], [])

    def test_watchers_that_leave_at_the_same_time(self) -> None:
        server = make_hub()
        peers = [server.connect(f"user-{number}") for number in range(8)]
        for peer in peers:
            peer.subscribe("room", presence=True)
        for peer in peers:
            peer.end()
        server.advance(5000)
        stats = server.stats()
        assert {key: stats[key] for key in ("members", "topics", "users", "sessions", "timers")} == {
            "members": 0,
            "topics": 0,
            "users": 0,
            "sessions": 0,
            "timers": 0,
        }

    def test_inboxes_and_the_topic_of_all_have_no_presence(self) -> None:
        server = make_hub()
        server.connect("alice")
        server.hub.send_request(b'{"to":"alice","payload":1}', identity("x"))
        assert server.stats()["members"] == 0
        assert server.stats()["subscriptions"] == 0


@pytest.mark.parametrize("name", ["", "x" * 255])
def test_a_user_without_a_usable_name_is_not_let_in(name: str) -> None:
    server = make_hub()
    peer = server.connect(identity(name), welcome=False)
    peer.frames()
    assert peer.close == (1011, "internal error")
    assert server.stats()["connections"] == 0


class TestFaults:
    """What an operator is told of peers that were refused or closed."""

    def test_refused_and_closed(self) -> None:
        server = make_hub()
        told: list[tuple[str, int, str, int]] = []
        server.hub.report_faults(lambda *fault: told.append(fault))
        server.connect(None, path="/ws", headers=b"Sec-WebSocket-Version: 8\r\n")
        server.connect("alice").send_frame(b"x", opcode=3)
        server.connect("alice").send_frame(b"x", opcode=2)
        server.connect(None).send({"type": "Authenticate", "token": "wrong"})
        assert [(code, untold) for _peer, code, _reason, untold in told] == [(426, 0), (1002, 0), (1003, 0), (4401, 0)]
        assert all(reason for _peer, _code, reason, _untold in told)

    def test_what_is_nobodys_fault_is_not_told(self) -> None:
        server = make_hub()
        told: list[object] = []
        server.hub.report_faults(lambda *fault: told.append(fault))
        server.connect("alice").send_frame(b"\x03\xe8bye", opcode=8)
        server.connect("bob").end()
        server.connect("carol")
        server.hub.disconnect(user_id="carol", reason="by an administrator")
        server.connect("dave")
        server.hub.begin_drain(0)
        server.advance(5000)
        assert told == []

    def test_a_flood_is_counted(self) -> None:
        server = make_hub()
        told: list[int] = []
        server.hub.report_faults(lambda peer, code, reason, untold: told.append(untold))
        for _ in range(1000):
            server.connect("alice").send_frame(b"x", opcode=3)
        assert told == [0] * 10
        server.advance(1000)
        for _ in range(2):
            server.connect("alice").send_frame(b"x", opcode=3)
        assert told[10:] == [990, 0]

    def test_a_callback_that_fails_changes_nothing(self) -> None:
        server = make_hub()

        def broken(*fault: object) -> None:
            raise RuntimeError

        server.hub.report_faults(broken)
        peer = server.connect("alice")
        peer.send_frame(b"x", opcode=3)
        peer.frames()
        assert peer.close is not None
        assert peer.close[0] == 1002
