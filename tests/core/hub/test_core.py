"""Presence and limits."""

import os
from typing import Any

import pytest

from core.hub.sans_io import Envelope, Peer, Server, identity, make_hub, settings
from realtime_communication._core.base.shared import Shared


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


PING: Envelope = {"type": "Ping", "id": 1}


class TestLimits:
    def limited(self, **changes: Any) -> Server:
        return make_hub(rate_limiting_enabled=True, **changes)

    def test_of_a_connection(self) -> None:
        server = self.limited(connection_rps=10, connection_burst=5)
        alice = server.connect("alice")
        for _ in range(5):
            assert alice.request(PING)["type"] == "Pong"
        answer = alice.request(PING)
        assert (answer["code"], answer["scope"], answer["id"]) == ("rate_limited", "connection", 1)
        assert 0 < answer["retry_after_ms"] <= 200
        server.advance(answer["retry_after_ms"])
        assert alice.request(PING)["type"] == "Pong"
        assert server.stats()["rate_limited"] == 1
        assert server.connect("alice").request(PING)["type"] == "Pong"

    def test_of_a_user_over_all_connections(self) -> None:
        server = self.limited(user_rps=1, user_burst=4)
        peers = [server.connect("alice") for _ in range(3)]
        answers = [peer.request(PING) for peer in peers for _ in range(2)]
        assert [answer["type"] for answer in answers] == ["Pong"] * 4 + ["Error"] * 2
        assert answers[-1]["scope"] == "user"
        assert server.connect("bob").request(PING)["type"] == "Pong"

    def test_of_the_server(self) -> None:
        server = self.limited(global_rps=1, global_burst=4)
        answers = [server.connect(f"user-{number}").request(PING) for number in range(6)]
        assert [answer["type"] for answer in answers] == ["Pong"] * 4 + ["Error"] * 2
        assert answers[-1]["scope"] == "global"

    def test_of_a_kind_of_request(self) -> None:
        server = self.limited(custom_limits=[("talk", "*Message", 1, 2), ("subs", "Subscribe", 1, 1)])
        alice = server.connect("alice")
        message = {"type": "DirectMessage", "id": 1, "to": "bob", "payload": 1}
        answers = [alice.request(message) for _ in range(3)]
        assert [answer["type"] for answer in answers] == ["Ack", "Ack", "Error"]
        assert answers[-1]["scope"] == "talk"
        assert alice.request(PING)["type"] == "Pong"
        alice.subscribe("room")
        assert alice.request({"type": "Subscribe", "id": 1, "topic": "r"})["scope"] == "subs"

    def test_what_one_limit_refuses_is_not_taken_from_the_others(self) -> None:
        server = self.limited(user_rps=0.001, user_burst=1, connection_rps=0.001, connection_burst=3)
        alice, other = server.connect("alice"), server.connect("alice")
        assert other.request(PING)["type"] == "Pong"
        for _ in range(10):
            assert alice.request(PING)["scope"] == "user"

    def test_invalid_requests_count_too(self) -> None:
        server = self.limited(connection_rps=1, connection_burst=3)
        alice = server.connect("alice")
        answers = [alice.request({"type": "Nope", "id": 1}) for _ in range(4)]
        assert [answer["code"] for answer in answers] == ["bad_request"] * 3 + ["rate_limited"]

    def test_who_goes_on_breaking_them_is_closed_with_4429(self) -> None:
        server = self.limited(connection_rps=1, connection_burst=15)
        alice = server.connect("alice")
        alice.send(*[PING for _ in range(100)])
        while alice.close is None:
            assert alice.messages()
        assert alice.close == (4429, "rate limit abuse")
        assert server.stats()["abusive"] == 1
        assert server.stats()["rate_limited"] == 31
        assert server.stats()["connections"] == 0

    def test_refusals_over_a_long_time_are_no_abuse(self) -> None:
        server = self.limited(connection_rps=0.1, connection_burst=1, client_timeout_secs=1000)
        alice = server.connect("alice")
        for _ in range(20):
            for _ in range(10):
                alice.send(PING)
            server.advance(11_000)
        alice.messages()
        assert alice.close is None

    def test_the_limit_of_the_server_is_nobodys_fault(self) -> None:
        server = self.limited(global_rps=0.001, global_burst=1)
        alice = server.connect("alice")
        for _ in range(4):
            alice.send(*[PING for _ in range(40)])
        assert len(alice.messages()) == 160
        assert alice.close is None

    @pytest.mark.parametrize("scope", ["connection", "user", "global"])
    def test_new_limits_hold_at_once(self, scope: str) -> None:
        """Live connections are under them, and a full bucket has no more than the new depth."""
        server = self.limited(**{f"{scope}_rps": 1000, f"{scope}_burst": 1000})
        alice = server.connect("alice")
        assert alice.request(PING)["type"] == "Pong"
        server.hub.configure(settings(rate_limiting_enabled=True, **{f"{scope}_rps": 1, f"{scope}_burst": 2}))
        alice.send(PING, PING, PING)
        *pongs, refused = alice.messages()
        assert [pong["type"] for pong in pongs] == ["Pong", "Pong"]
        assert refused["scope"] == scope
        assert 0 < refused["retry_after_ms"] <= 1000
        server.hub.configure(settings(rate_limiting_enabled=False))
        assert alice.request(PING)["type"] == "Pong"

    def test_custom_limits_change_in_number_and_keep_what_is_left_in_them(self) -> None:
        def configure(*limits: tuple[str, str, float, int]) -> None:
            server.hub.configure(settings(rate_limiting_enabled=True, custom_limits=list(limits)))

        def pings(count: int) -> list[str]:
            return [alice.request(PING).get("scope", "Pong") for _ in range(count)]

        server = self.limited()
        alice = server.connect("alice")
        assert pings(3) == ["Pong"] * 3
        configure(("slow", "Ping", 0.001, 3))
        assert pings(2) == ["Pong"] * 2
        configure(("subs", "Subscribe", 0.001, 1), ("slow", "Ping", 0.001, 3))
        assert pings(2) == ["Pong", "slow"]
        alice.subscribe("room")
        assert alice.request({"type": "Subscribe", "id": 1, "topic": "r"})["scope"] == "subs"
        configure(("slow", "Ping", 0.001, 2), ("other", "Ping", 0.001, 5), ("subs", "Subscribe", 0.001, 1))
        assert pings(1) == ["slow"]
        assert alice.request({"type": "Subscribe", "id": 1, "topic": "r"})["scope"] == "subs"
        configure(("other", "Ping", 0.001, 1))
        assert pings(2) == ["Pong", "other"]
        configure()
        assert pings(3) == ["Pong"] * 3

    def test_a_smaller_custom_burst_cuts_what_was_saved(self) -> None:
        server = self.limited(custom_limits=[("slow", "Ping", 0.001, 100)])
        alice = server.connect("alice")
        assert alice.request(PING)["type"] == "Pong"
        server.hub.configure(settings(rate_limiting_enabled=True, custom_limits=[("slow", "Ping", 0.001, 2)]))
        assert [alice.request(PING)["type"] for _ in range(3)] == ["Pong", "Pong", "Error"]

    def test_the_state_of_a_user(self) -> None:
        server = self.limited(user_rps=1, user_burst=4)
        assert server.hub.user_limit("alice") == (4, 4, 0)
        alice = server.connect("alice")
        alice.request(PING)
        limit = server.hub.user_limit("alice")
        assert limit is not None
        assert limit[:2] == (4, 3)
        assert 0 < limit[2] <= 1000
        assert make_hub().hub.user_limit("alice") is None

    def test_a_user_is_forgotten_once_its_limit_is_as_new(self) -> None:
        server = self.limited(user_rps=1, user_burst=10, cleanup_interval_secs=1)
        alice = server.connect("alice")
        for _ in range(5):
            alice.request(PING)
        alice.end()
        assert server.stats()["users"] == 1
        again = server.connect("alice")
        for _ in range(5):
            assert again.request(PING)["type"] == "Pong"
        assert again.request(PING)["scope"] == "user"
        again.end()
        server.advance(12_000)
        assert server.stats()["users"] == 0
        assert server.stats()["timers"] == 0


class TestSharedLimits(TestLimits):
    """One worker of several is under the same limits in the same way."""

    def limited(self, **changes: Any) -> Server:
        server = super().limited(**changes)
        fd = Shared.create(1, 16)
        server.hub.use_shared(Shared(fd), 0)
        os.close(fd)
        return server

    def test_a_user_is_forgotten_once_its_limit_is_as_new(self) -> None:
        """At once, because the limit is remembered elsewhere."""
        server = self.limited(user_rps=1, user_burst=5)
        for pongs in (5, 0):
            alice = server.connect("alice")
            answers = [alice.request(PING).get("scope", "Pong") for _ in range(6)]
            assert answers == ["Pong"] * pongs + ["user"] * (6 - pongs)
            alice.end()
            assert (server.stats()["users"], server.stats()["timers"]) == (0, 0)


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
