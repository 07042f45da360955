"""Limits of rates."""

import os
from typing import Any

import pytest

from core.hub.sans_io import Envelope, Server, make_hub, settings
from realtime_communication._core.base.shared import Shared
from realtime_communication._core.hub.hub import RequestError

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

    def test_a_request_over_http_is_counted_with_those_of_the_users_connections(self) -> None:
        server = self.limited(user_rps=0.001, user_burst=2)
        server.hub.count_request("alice")
        assert server.connect("alice").request(PING)["type"] == "Pong"
        with pytest.raises(RequestError, match="more requests than the limit") as refused:
            server.hub.count_request("alice")
        assert (refused.value.code, refused.value.retry_after_ms > 0) == ("rate_limited", True)
        server.hub.count_request("bob")

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
