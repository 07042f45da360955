"""The memory that workers share: what it takes to open it, what is counted in it, what is left of a killed worker."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

from core.hub.sans_io import Server, make_hub, settings
from core.hub.shared_worker import Crowd
from realtime_communication._core.base.counters import counter_names
from realtime_communication._core.base.shared import Shared


@pytest.fixture
def fd() -> Iterator[int]:
    made = Shared.create(4)
    yield made
    os.close(made)


def joined(fd: int, slot: int, **changes: object) -> Server:
    server = make_hub(**changes)
    server.hub.use_shared(Shared(fd), slot)
    return server


class TestOpening:
    """Only memory that `create` has made is opened."""

    def test_new_memory_is_empty(self, fd: int) -> None:
        shared = Shared(fd)
        assert (shared.workers, shared.connections()) == (4, 0)
        assert shared.totals() == dict.fromkeys(counter_names(), 0)

    def test_it_is_not_inherited_by_chance(self, fd: int) -> None:
        assert not os.get_inheritable(fd)

    def test_the_descriptor_may_be_closed(self) -> None:
        made = Shared.create(1)
        shared = Shared(made)
        os.close(made)
        assert shared.connections() == 0

    @pytest.mark.parametrize("workers", [0, -1, 65, 2**32])
    def test_workers_out_of_range(self, workers: int) -> None:
        with pytest.raises(ValueError, match=r"^workers: -?\d+ is not between 1 and 64$"):
            Shared.create(workers)

    @pytest.mark.parametrize("users", [0, -5, 2**24 + 1, 2**64])
    def test_users_out_of_range(self, users: int) -> None:
        with pytest.raises(ValueError, match=r"^users: -?\d+ is not between 1 and 16777216$"):
            Shared.create(1, users)

    @pytest.mark.parametrize("users, places", [(1, 16), (16, 16), (17, 32), (1000, 1024), (65536, 65536)])
    def test_places_are_a_power_of_two(self, users: int, places: int) -> None:
        made = Shared.create(1, users)
        try:
            assert 32 * places <= os.fstat(made).st_size < 32 * places + 8192
        finally:
            os.close(made)

    def test_nobody_can_make_it_shorter(self, fd: int) -> None:
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 4096)

    def test_another_file(self) -> None:
        with tempfile.TemporaryFile() as file:
            file.truncate(1 << 20)
            with pytest.raises(ValueError, match="is not the memory of a server"):
                Shared(file.fileno())

    def test_no_file(self) -> None:
        with pytest.raises(OSError, match="Bad file descriptor"):
            Shared(-1)

    def test_memory_that_may_get_shorter(self) -> None:
        other = os.memfd_create("other", os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(other, 1 << 20)
            with pytest.raises(ValueError, match="is not the memory of a server"):
                Shared(other)
        finally:
            os.close(other)

    @pytest.mark.parametrize(
        "word, value, message",
        [
            (0, 1, "another version"),
            (1, 2, "another version"),
            (4, 7, "another version"),
            (2, 0, "0 workers"),
            (2, 65, "65 workers"),
            (2, 64, "bytes of memory"),
            (3, 65535, "65535 users"),
            (3, 2**25, "33554432 users"),
            (3, 131072, "bytes of memory"),
            (5, 4096, "bytes of memory"),
        ],
    )
    def test_a_head_that_does_not_fit(self, fd: int, word: int, value: int, message: str) -> None:
        os.pwrite(fd, value.to_bytes(8, "little"), 8 * word)
        with pytest.raises(ValueError, match=message):
            Shared(fd)


class TestSlots:
    """A hub has one slot, for good."""

    @pytest.mark.parametrize("slot", [-1, 4, 2**40])
    def test_that_are_not_there(self, fd: int, slot: int) -> None:
        shared = Shared(fd)
        with pytest.raises(ValueError, match="is not between 0 and 3"):
            make_hub().hub.use_shared(shared, slot)
        with pytest.raises(ValueError, match="is not between 0 and 3"):
            shared.forget_slot(slot)
        with pytest.raises(ValueError, match="is not between 0 and 3"):
            shared.connections_of(slot)

    def test_a_second_one(self, fd: int) -> None:
        server = joined(fd, 0)
        with pytest.raises(RuntimeError, match="shares its limits already"):
            server.hub.use_shared(Shared(fd), 1)

    def test_of_a_hub_that_has_connections(self, fd: int) -> None:
        server = make_hub()
        server.connect("alice")
        server.hub.use_shared(Shared(fd), 2)
        server.connect("bob")
        assert Shared(fd).connections_of(2) == 2

    def test_before_the_hub_is_configured(self, fd: int) -> None:
        shared = Shared(fd)
        server = joined(fd, 3)
        server.connect("alice")
        assert [shared.connections_of(slot) for slot in range(4)] == [0, 0, 0, 1]


class TestConnections:
    """`websocket.max_connections` bounds all workers together."""

    def test_bound_of_all_workers(self, fd: int) -> None:
        first, second = (joined(fd, slot, max_connections=3) for slot in range(2))
        alice = first.connect("alice")
        assert [second.connect("bob").status for _ in range(3)] == [101, 101, 503]
        assert first.connect("carol").status == 503
        alice.end()
        assert Shared(fd).connections() == 2
        assert [second.connect("bob").status for _ in range(2)] == [101, 503]

    def test_the_echo_endpoint_counts(self, fd: int) -> None:
        first, second = (joined(fd, slot, max_connections=1) for slot in range(2))
        echo = first.connect(None, path="/debug/echo")
        assert second.connect("alice").status == 503
        assert second.connect(None, path="/debug/echo").status == 503
        echo.end()
        assert second.connect("alice").status == 101

    def test_a_place_taken_while_the_credential_is_checked(self, fd: int) -> None:
        first, second = (joined(fd, slot, max_connections=1) for slot in range(2))
        check = first.authenticate_upgrade

        def overtaken(*arguments: object) -> object:
            assert second.connect("bob").status == 101
            return check(*arguments)  # type: ignore[arg-type]

        first.hub.set_callbacks(overtaken, None)
        alice = first.connect("alice")
        assert (alice.status, b"websocket.max_connections" in alice.body) == (503, True)
        assert b"Retry-After: 5\r\n" in alice.response
        assert Shared(fd).connections() == 1
        assert first.stats()["connections"] == 0

    def test_a_changed_bound_holds_at_once(self, fd: int) -> None:
        server = joined(fd, 0, max_connections=1)
        server.connect("alice")
        server.hub.configure(settings(max_connections=2))
        assert [server.connect("bob").status for _ in range(2)] == [101, 503]

    def test_closed_ones_are_given_back(self, fd: int) -> None:
        server = joined(fd, 0)
        peers = [server.connect("alice") for _ in range(5)]
        server.hub.disconnect(user_id="alice", code=4403)
        server.flush()
        assert Shared(fd).connections() == 0
        assert all(peer.frames() for peer in peers)


class TestProcesses:
    """The same with processes."""

    def test_never_more_are_let_in_than_may(self, fd: int) -> None:
        with Crowd(fd, 4) as crowd:
            crowd.all("open", 100)
            admitted = crowd.all("come", 60)
            assert sum(admitted) == 100
            assert Shared(fd).connections() == 100
            for slot, count in enumerate(admitted):
                crowd.one(slot, "go", count)
                assert Shared(fd).connections_of(slot) == 0

    def test_all_places_are_given_each_time(self, fd: int) -> None:
        with Crowd(fd, 3) as crowd:
            crowd.all("open", 4)
            for _ in range(50):
                admitted = crowd.all("come", 4)
                assert sum(admitted) == 4
                for slot, count in enumerate(admitted):
                    crowd.one(slot, "go", count)
            assert Shared(fd).connections() == 0

    def test_what_a_killed_worker_had_is_given_back(self, fd: int) -> None:
        shared = Shared(fd)
        with Crowd(fd, 2) as crowd:
            crowd.all("open", 30)
            assert crowd.one(0, "come", 20) == 20
            crowd.kill(0)
            assert crowd.one(1, "come", 20) == 10
            assert shared.connections() == 30
            shared.forget_slot(0)
            assert shared.connections() == 10
            assert crowd.one(1, "come", 25) == 20


class TestTotals:
    """Counters of all workers."""

    def test_sum_of_all_workers(self, fd: int) -> None:
        servers = [joined(fd, slot) for slot in range(3)]
        for number, server in enumerate(servers):
            for _ in range(number + 1):
                peer = server.connect("alice")
                peer.subscribe("room")
                peer.send({"type": "Broadcast", "topic": "room", "payload": 1})
        totals = Shared(fd).totals()
        assert (totals["connections"], totals["subscriptions"], totals["publications"]) == (6, 6, 6)
        for name in counter_names():
            assert totals[name] == sum(server.stats()[name] for server in servers), name

    def test_events_of_a_forgotten_worker_stay_and_its_gauges_go(self, fd: int) -> None:
        shared = Shared(fd)
        for round_number in range(1, 4):
            server = joined(fd, 1)
            server.connect("alice").subscribe("room")
            shared.forget_slot(1)
            totals = shared.totals()
            assert (totals["upgraded"], totals["requests"]) == (round_number, round_number)
            assert (totals["connections"], totals["subscriptions"]) == (0, 0)
