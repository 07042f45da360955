"""Limits of all workers: the table of users, many processes at once, and hubs that share. What one bucket gives is
tested with the others, in test_token_bucket.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from core.hub.sans_io import NOW_MS, Envelope, Server, identity, make_hub, settings
from core.hub.shared_worker import Crowd
from realtime_communication._core.base.shared import Shared
from realtime_communication._core.hub.shared_limits import SharedBucket

PING: Envelope = {"type": "Ping", "id": 1}
NOWHERE = -2
PLACES = 16  # that a user may have, and in the smallest table


@pytest.fixture
def fd() -> Iterator[int]:
    made = Shared.create(4, PLACES)
    yield made
    os.close(made)


def slow_bucket(shared: Shared, user: str, idle_ms: int = 600_000) -> SharedBucket:
    """3 at once, and one more each second."""
    return SharedBucket(shared, user.encode(), 1.0, 3, 1000, 0.1, idle_ms)


class TestPlaces:
    """Places of users in the table."""

    def test_each_user_has_one(self, fd: int) -> None:
        shared, other = Shared(fd), Shared(fd)
        for user in ("alice", "bob"):
            assert [slow_bucket(shared, user).take(0) for _ in range(2)] == [-1, -1]
            assert [slow_bucket(other, user).take(0) for _ in range(2)] == [-1, 1000]

    def test_a_full_table_has_none_for_others(self, fd: int) -> None:
        shared = Shared(fd)
        buckets = [slow_bucket(shared, f"user-{i}") for i in range(PLACES)]
        assert [bucket.take(0) for bucket in buckets] == [-1] * PLACES
        late = slow_bucket(shared, "late")
        assert [late.take(0), late.take(999)] == [NOWHERE] * 2
        assert late.remaining(0) == 3
        late.give_back()
        assert [bucket.remaining(0) for bucket in buckets] == [2] * PLACES

    def test_a_full_bucket_that_is_idle_gives_its_place_away(self, fd: int) -> None:
        shared = Shared(fd)
        buckets = [slow_bucket(shared, f"user-{i}") for i in range(PLACES)]
        for bucket in buckets:
            assert [bucket.take(0), bucket.take(0)] == [-1, -1]
        lucky = buckets[7]
        lucky.give_back()
        late = slow_bucket(shared, "late")
        assert late.take(999) == NOWHERE
        assert late.take(1000) == -1  # where lucky was, whose bucket is full again
        assert [late.take(1000), late.take(1000), late.take(1000)] == [-1, -1, 1000]
        assert [bucket.remaining(1000) for bucket in buckets] == [2] * 7 + [3] + [2] * 8
        assert lucky.take(1000) == NOWHERE
        lucky.give_back()
        assert late.remaining(1000) == 0

    def test_the_one_idle_longest_goes_first(self, fd: int) -> None:
        shared = Shared(fd)
        buckets = [slow_bucket(shared, f"user-{i}") for i in range(PLACES)]
        for i, bucket in enumerate(buckets):
            assert bucket.take(1000 * ((i * 7) % PLACES)) == -1
        for i in range(5):
            assert slow_bucket(shared, f"new-{i}").take(100_000) == -1
        # All have taken a token, which the time 0 does not bring back. A bucket that is gone is as good as new.
        gone = [(i * 7) % PLACES for i, bucket in enumerate(buckets) if bucket.remaining(0) == 3]
        assert sorted(gone) == [0, 1, 2, 3, 4]

    def test_one_idle_for_long_is_not_kept_however_empty(self, fd: int) -> None:
        shared = Shared(fd)
        bucket = SharedBucket(shared, b"alice", 0.001, 3, 1000, 0.1, 10_000)
        assert [bucket.take(0) for _ in range(4)] == [-1] * 3 + [1_000_000]
        later = SharedBucket(shared, b"alice", 0.001, 3, 1000, 0.1, 10_000)
        assert later.take(9_000) == 991_000
        # Its refills are counted up to 9000, so that is when it was used.
        again = SharedBucket(shared, b"alice", 0.001, 3, 1000, 0.1, 10_000)
        assert [again.take(19_000) for _ in range(4)] == [-1] * 3 + [1_000_000]
        assert bucket.take(19_000) == 1_000_000

    def test_many_users(self) -> None:
        fd = Shared.create(1, 4096)
        shared = Shared(fd)
        os.close(fd)
        buckets = [slow_bucket(shared, f"user-{i}") for i in range(1024)]
        granted = [sum(bucket.take(5) == -1 for _ in range(5)) for bucket in buckets]
        assert granted == [3] * 1024


class TestProcesses:
    """Many processes take at once: what they get together is what one would get, to the token."""

    @pytest.mark.parametrize("user", [None, "alice"])
    def test_at_the_same_pace(self, fd: int, user: str | None) -> None:
        with Crowd(fd, 4) as crowd:
            crowd.all("use", [user], [7.5, 100, 100, 0.1])
            assert sum(crowd.all("take", 0, 1, 3000)) == 100
            # 0.75 every 100 ms
            granted = [sum(crowd.all("take", now, now + 1, 20)) for now in range(100, 2100, 100)]
            assert granted == [0, 1, 1, 1] * 5

    @pytest.mark.parametrize("user", [None, "alice"])
    def test_each_at_its_own_pace(self, fd: int, user: str | None) -> None:
        """Their clocks are apart by as much as it happens; no token comes twice, and none gets lost."""
        with Crowd(fd, 4) as crowd:
            crowd.all("use", [user], [2000.0, 50, 1, 1.0])
            granted = sum(crowd.all("take", 0, 10_000, 10))
            assert granted == 50 + 2 * 9_999

    def test_users_that_come_and_go(self, fd: int) -> None:
        """Three times as many users as places: who has none is not counted here, who has one gets what is his."""
        users = [f"user-{i}" for i in range(3 * PLACES)]
        granted = [0] * len(users)
        with Crowd(fd, 4) as crowd:
            crowd.all("use", users, [1.0, 5, 1000, 1.0])
            for step in range(60):
                for taken in crowd.all("take_any", 2000 * step, 100, step):
                    granted = [sum(pair) for pair in zip(granted, taken, strict=True)]
                assert max(granted) <= 5 + 2 * step
        assert sum(granted) > 60 * PLACES

    def test_killed_in_the_middle(self, fd: int) -> None:
        """What the killed ones have taken is gone; nothing else is, and nobody waits for them."""
        rate = (1000.0, 10, 1, 1.0)
        with Crowd(fd, 4) as crowd:
            crowd.all("use", ["alice"], rate)
            for slot in range(3):
                crowd.begin(slot, "take", 0, 10**9, 1)
            witness = SharedBucket(Shared(fd), b"alice", *rate)
            while witness.remaining(10**5) == 10:
                pass  # until their clock is past that: they are at it
            for slot in range(3):
                crowd.kill(slot)
            now = 10**9
            assert sum(witness.take(now) == -1 for _ in range(20)) == 10
            assert crowd.one(3, "take", now, now + 101, 2) == 100


def joined(fd: int, slot: int, **changes: Any) -> Server:
    server = make_hub(rate_limiting_enabled=True, **changes)
    server.hub.use_shared(Shared(fd), slot)
    return server


def pings(peer: Any, count: int) -> list[str]:
    return [peer.request(PING).get("scope", "Pong") for _ in range(count)]


class TestHubs:
    """`rate_limiting.user` and `global` are limits of all workers; `connection` is one of its own."""

    def test_of_a_user(self, fd: int) -> None:
        first, second = (joined(fd, slot, user_rps=1, user_burst=4) for slot in range(2))
        assert pings(first.connect("alice"), 3) == ["Pong"] * 3
        assert pings(second.connect("alice"), 2) == ["Pong", "user"]
        assert pings(second.connect("bob"), 4) == ["Pong"] * 4
        second.advance(1000)
        assert pings(second.connect("alice"), 2) == ["Pong", "user"]

    def test_of_the_server(self, fd: int) -> None:
        first, second = (joined(fd, slot, global_rps=1, global_burst=4) for slot in range(2))
        assert pings(first.connect("alice"), 3) == ["Pong"] * 3
        assert pings(second.connect("bob"), 2) == ["Pong", "global"]
        refused = first.connect("carol").request(PING)
        assert (refused["scope"], refused["retry_after_ms"]) == ("global", 1000)

    def test_what_the_server_refuses_is_given_back_to_the_user(self, fd: int) -> None:
        first, second = (joined(fd, slot, user_rps=1, user_burst=10, global_rps=1, global_burst=2) for slot in range(2))
        assert pings(first.connect("alice"), 5) == ["Pong"] * 2 + ["global"] * 3
        assert second.hub.user_limit("alice") == (10, 8, 2000)

    def test_of_requests_over_http(self, fd: int) -> None:
        first, second = (joined(fd, slot, user_rps=1, user_burst=2) for slot in range(2))
        body = b'{"topic":"room","payload":1}'
        assert first.hub.publish_request(body, identity("alice"))["offset"] == 1
        assert second.hub.publish_request(body, identity("alice"))["offset"] == 1
        with pytest.raises(Exception, match="more requests than the limit allows"):
            first.hub.publish_request(body, identity("alice"))

    def test_what_a_user_has_left(self, fd: int) -> None:
        first, second = (joined(fd, slot, user_rps=1, user_burst=4) for slot in range(2))
        assert second.hub.user_limit("alice") == (4, 4, 0)
        pings(first.connect("alice"), 3)
        assert second.hub.user_limit("alice") == first.hub.user_limit("alice") == (4, 1, 3000)
        assert second.hub.user_limit("bob") == (4, 4, 0)

    def test_reconnecting_to_another_worker_refills_nothing(self, fd: int) -> None:
        first, second = (joined(fd, slot, user_rps=1, user_burst=3) for slot in range(2))
        alice = first.connect("alice")
        assert pings(alice, 4) == ["Pong"] * 3 + ["user"]
        alice.end()
        assert first.stats()["users"] == 0
        assert pings(second.connect("alice"), 1) == ["user"]
        assert pings(first.connect("alice"), 1) == ["user"]

    @pytest.mark.parametrize("scope", ["user", "global"])
    def test_new_limits_hold_at_once(self, fd: int, scope: str) -> None:
        servers = [joined(fd, slot, **{f"{scope}_rps": 1000, f"{scope}_burst": 1000}) for slot in range(2)]
        peers = [server.connect("alice") for server in servers]
        assert [pings(peer, 1) for peer in peers] == [["Pong"], ["Pong"]]
        for server in servers:
            server.hub.configure(settings(rate_limiting_enabled=True, **{f"{scope}_rps": 1, f"{scope}_burst": 3}))
        assert pings(peers[0], 2) == ["Pong", "Pong"]
        assert pings(peers[1], 2) == ["Pong", scope]
        servers[1].hub.configure(settings(rate_limiting_enabled=False))
        assert pings(peers[1], 1) == ["Pong"]
        assert pings(peers[0], 1) == [scope]

    def test_a_worker_that_takes_the_place_of_another_takes_its_limits_over(self, fd: int) -> None:
        assert pings(joined(fd, 0, user_rps=1, user_burst=3).connect("alice"), 4) == ["Pong"] * 3 + ["user"]
        Shared(fd).forget_slot(0)
        assert pings(joined(fd, 0, user_rps=1, user_burst=3).connect("alice"), 1) == ["user"]

    def test_users_without_a_place_are_limited_by_their_worker(self, fd: int) -> None:
        first, second = (joined(fd, slot, user_rps=1, user_burst=2) for slot in range(2))
        for i in range(PLACES):
            assert pings(first.connect(f"user-{i}"), 1) == ["Pong"]
        assert first.stats()["unshared"] == 0
        for server in (first, second):
            assert pings(server.connect("alice"), 4) == ["Pong"] * 2 + ["user"] * 2
            assert server.stats()["unshared"] == 4
            assert server.hub.user_limit("alice") == (2, 0, 2000)
        assert Shared(fd).totals()["unshared"] == 8
        first.advance(2000)
        assert pings(first.connect("alice"), 3) == ["Pong"] * 2 + ["user"]
        assert first.stats()["unshared"] == 4

    def test_one_worker_needs_no_memory(self) -> None:
        server = make_hub(rate_limiting_enabled=True, user_rps=1, user_burst=2)
        assert pings(server.connect("alice"), 3) == ["Pong"] * 2 + ["user"]
        assert server.stats()["unshared"] == 0

    def test_times_are_those_of_the_host(self, fd: int) -> None:
        """A worker whose clock is a little behind gets no token early, and none late."""
        first, second = (joined(fd, slot, user_rps=10, user_burst=1) for slot in range(2))
        first.advance(40)
        assert pings(first.connect("alice"), 1) == ["Pong"]
        refused = second.connect("alice").request(PING)
        assert refused["retry_after_ms"] == 140
        second.driver.set_time(NOW_MS + 139, 0)
        assert pings(second.connect("alice"), 1) == ["user"]
        second.driver.set_time(NOW_MS + 140, 0)
        assert pings(second.connect("alice"), 1) == ["Pong"]
