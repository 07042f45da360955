"""Users: how long they live, with and without a limit to remember."""

import pytest

from core.hub.sans_io import NOW_MS, Server, make_hub, settings
from realtime_communication._core.hub.users import UserProbe


class TestStore:
    """Users by name."""

    def test_one_for_each_name(self) -> None:
        store = UserProbe()
        for name in (b"alice", b"bob", b"alice", "zoë".encode()):
            store.open(name)
        assert store.count == 3

    def test_released_when_nothing_needs_it(self) -> None:
        store = UserProbe()
        store.open(b"alice")
        assert store.release(b"alice")
        assert store.count == 0
        with pytest.raises(KeyError):
            store.release(b"alice")

    def test_many(self) -> None:
        store = UserProbe()
        for i in range(5000):
            store.open(b"user-%d" % i)
        assert store.count == 5000
        assert all(store.release(b"user-%d" % i) for i in range(0, 5000, 2))
        assert store.count == 2500


class TestLifetime:
    """A user lives while a session of it is open, a topic remembers it, or its bucket is not full."""

    def test_without_limits_a_user_goes_with_its_last_session(self) -> None:
        server = make_hub()
        first, second = server.connect("alice"), server.connect("alice")
        assert server.stats()["users"] == 1
        first.end()
        assert server.stats()["users"] == 1
        second.end()
        assert server.stats()["users"] == 0
        assert server.stats()["timers"] == 0

    def test_a_topic_remembers_a_user_for_the_grace_period(self) -> None:
        server = make_hub()
        alice, bob = server.connect("alice"), server.connect("bob")
        alice.subscribe("room")
        bob.subscribe("room")
        alice.end()
        assert (server.stats()["users"], server.stats()["members"]) == (2, 2)
        server.advance(3000)
        assert (server.stats()["users"], server.stats()["members"]) == (1, 1)

    def test_a_return_within_the_grace_period(self) -> None:
        server = make_hub()
        bob = server.connect("bob")
        bob.subscribe("room", presence=True)
        first = server.connect("alice")
        first.subscribe("room")
        assert [message["type"] for message in bob.messages()] == ["Join"]
        first.end()
        server.advance(1000)
        second = server.connect("alice")
        second.subscribe("room")
        server.advance(5000)
        assert bob.messages() == []
        second.end()
        server.advance(3000)
        assert [message["type"] for message in bob.messages()] == ["Leave"]

    def test_the_same_user_in_both_encodings_is_one(self) -> None:
        server = make_hub()
        server.connect("alice")
        server.connect("alice", protocol="rtc.v1.msgpack")
        assert server.stats()["users"] == 1


LIMITS = {
    "rate_limiting_enabled": True,
    "user_rps": 1,
    "user_burst": 10,
    "refill_interval_ms": 1000,
    "cleanup_interval_secs": 5,
    "cleanup_threshold_secs": 600,
}


def spend(server: Server, requests: int) -> None:
    """Alice comes, sends so many requests, and goes."""
    alice = server.connect("alice")
    for i in range(requests):
        alice.request({"type": "Ping", "id": i})
    alice.end()


class TestBucket:
    """The bucket of a user who has gone."""

    def test_a_full_one_is_dropped_at_once(self) -> None:
        server = make_hub(**LIMITS)
        spend(server, 0)
        assert (server.stats()["users"], server.stats()["timers"]) == (0, 0)

    def test_kept_until_it_is_full_and_the_next_sweep(self) -> None:
        server = make_hub(**LIMITS)
        assert NOW_MS % 5000 == 0
        server.advance(1)
        spend(server, 7)
        assert server.stats()["users"] == 1
        server.advance(6_999)  # 7000 ms: full, but the sweeps are at 5000 and 10000
        assert server.stats()["users"] == 1
        server.advance(2_900)
        assert server.stats()["users"] == 1
        server.advance(200)
        assert (server.stats()["users"], server.stats()["timers"]) == (0, 0)

    def test_an_idle_one_is_dropped_at_the_threshold(self) -> None:
        server = make_hub(**LIMITS | {"cleanup_threshold_secs": 4})
        spend(server, 10)
        server.advance(4_900)
        assert server.stats()["users"] == 1
        server.advance(200)
        assert server.stats()["users"] == 0

    def test_reconnecting_refills_nothing(self) -> None:
        server = make_hub(**LIMITS)
        spend(server, 10)
        alice = server.connect("alice")
        refused = alice.request({"type": "Ping", "id": 1})
        assert (refused["code"], refused["scope"]) == ("rate_limited", "user")
        server.advance(1000)
        assert alice.request({"type": "Ping", "id": 2})["type"] == "Pong"

    def test_a_user_who_is_back_is_not_forgotten(self) -> None:
        server = make_hub(**LIMITS)
        spend(server, 5)
        alice = server.connect("alice")
        server.advance(20_000)
        assert server.stats()["users"] == 1
        assert alice.request({"type": "Ping", "id": 1})["type"] == "Pong"
        alice.end()
        server.advance(20_000)
        assert (server.stats()["users"], server.stats()["timers"]) == (0, 0)

    def test_what_comes_over_http_is_remembered_as_well(self) -> None:
        server = make_hub(**LIMITS)
        server.connect("alice").end()
        alice = next(iter(server.identities.values()))
        for _ in range(10):
            server.hub.publish_request(b'{"topic":"room","payload":1}', alice)
        assert server.stats()["users"] == 1
        assert server.hub.user_limit("alice") == (10, 0, 10_000)
        server.advance(16_000)
        assert (server.stats()["users"], server.hub.user_limit("alice")) == (0, (10, 10, 0))

    def test_limits_turned_off_forget_in_the_sweep(self) -> None:
        server = make_hub(**LIMITS)
        spend(server, 10)
        server.hub.configure(settings())
        server.advance(20_000)
        assert server.stats()["users"] == 0
