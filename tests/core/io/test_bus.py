"""Who is linked with whom: members, hellos, peers that come, go, hang and come again."""

import os
import resource
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.io.bus_rig import Rig, Worker, descriptors, frame, hello, running
from realtime_communication._core.hub.bus_user import BusRecorder
from realtime_communication._core.io.bus import Bus


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running(tmp_path) as made:
        yield made


class TestLinks:
    def test_two_workers_talk(self, rig: Rig) -> None:
        zero, one = rig.linked(2)
        assert zero.user.events == [("joined", 1, 1)]
        assert one.user.events == [("joined", 0, 1)]
        zero.send(1, frame(b"to one"))
        one.send(0, frame(b"to") + frame(b"zero"))
        rig.until(lambda: one.user.received(0) and zero.user.received(1))
        assert one.user.received(0) == frame(b"to one")
        assert zero.user.received(1) == frame(b"to") + frame(b"zero")

    def test_everybody_talks_to_everybody(self, rig: Rig) -> None:
        workers = rig.linked(4)
        for worker in workers:
            for peer in worker.links:
                worker.user.queue(peer, frame(b"%d to %d" % (worker.bus.slot, peer)))
            worker.reactor.turn()
        rig.until(lambda: all(worker.user.received(peer) for worker in workers for peer in worker.links))
        for worker in workers:
            for peer in worker.links:
                assert worker.user.received(peer) == frame(b"%d to %d" % (peer, worker.bus.slot))

    def test_a_frame_within_a_turn_leaves_at_its_end_in_one_write(self, rig: Rig) -> None:
        zero, one = rig.linked(2)
        for number in range(100):
            zero.user.queue(1, frame(b"%d" % number))
        before = zero.bus.stats()["bus_writes"]
        zero.reactor.turn()
        assert zero.bus.stats()["bus_writes"] == before + 1
        zero.reactor.turn()
        assert zero.bus.stats()["bus_writes"] == before + 1
        rig.until(lambda: one.user.received(0))
        sent = b"".join(frame(b"%d" % number) for number in range(100))
        assert one.user.received(0) == sent
        assert one.bus.stats()["bus_reads"] == 1
        assert one.bus.stats()["bus_bytes_received"] == zero.bus.stats()["bus_bytes_sent"] == len(sent)

    def test_whoever_learns_of_a_member_first(self, rig: Rig) -> None:
        for first in (0, 1):
            workers = [rig.worker(slot, 7) for slot in (2 * first, 2 * first + 1)]
            members = {worker.bus.slot: 7 for worker in workers}
            early, late = workers[first], workers[1 - first]
            early.bus.set_members(members)
            rig.turns(20)
            assert early.links == late.links == {}
            late.bus.set_members(members)
            rig.until(lambda early=early, late=late: early.links and late.links)

    def test_a_member_without_a_worker_is_tried_until_it_comes(self, rig: Rig) -> None:
        zero = rig.worker(0)
        zero.bus.set_members({0: 1, 1: 1})
        zero.reactor.turn()
        assert zero.links == {}
        one = rig.worker(1)
        one.bus.set_members({0: 1, 1: 1})
        rig.until(lambda: zero.links and one.links)

    def test_who_is_no_member_any_more_is_left(self, rig: Rig) -> None:
        zero, one, two = rig.linked(3)
        zero.bus.set_members({0: 1, 2: 1})
        assert zero.links == {2: 1}
        assert zero.user.events[-1] == ("left", 1)
        rig.until(lambda: one.links == {2: 1})
        assert two.links == {0: 1, 1: 1}
        zero.bus.set_members({0: 1, 1: 1, 2: 1})
        rig.until(lambda: zero.links == {1: 1, 2: 1} and one.links == {0: 1, 2: 1})

    def test_64_slots(self, rig: Rig) -> None:
        zero, last = rig.worker(0), rig.worker(63)
        for worker in (zero, last):
            worker.bus.set_members({0: 1, 63: 1})
        rig.until(lambda: zero.links == {63: 1} and last.links == {0: 1})

    @pytest.mark.parametrize("members", [{64: 1}, {-1: 1}, {1: -1}, {1: 1 << 64}])
    def test_members_nobody_can_be(self, rig: Rig, members: dict[int, int]) -> None:
        zero, _ = rig.linked(2)
        with pytest.raises(ValueError, match="must be from 0 to"):
            zero.bus.set_members(members)
        assert zero.links == {1: 1}


class TestIncarnations:
    def test_a_successor_takes_the_place(self, rig: Rig) -> None:
        """A rolling restart: the successor listens before the old one has gone."""
        for slot in (0, 1):
            stays, old = rig.worker(1 - slot), rig.worker(slot, 5)
            for worker in (stays, old):
                worker.bus.set_members({1 - slot: 1, slot: 5})
            rig.until(lambda stays=stays, old=old: stays.links and old.links)
            new = rig.worker(slot, 6)
            for worker in (new, stays):
                worker.bus.set_members({1 - slot: 1, slot: 6})
            rig.until(lambda stays=stays, new=new, slot=slot: stays.links == {slot: 6} and new.links)
            rig.until(lambda old=old: old.links == {})
            assert stays.user.events == [("joined", slot, 5), ("left", slot), ("joined", slot, 6)]
            new.send(1 - slot, frame(b"new"))
            rig.until(lambda stays=stays, slot=slot: stays.user.received(slot))
            for worker in (stays, old, new):
                worker.reactor.stop()

    def test_a_newer_one_is_linked_before_the_members_are_told(self, rig: Rig) -> None:
        one = rig.worker(1)
        rig.greeted(one, 0, 5)
        newer = rig.dial(1)
        newer.sendall(hello(0, 6))
        rig.until(lambda: one.links == {0: 6})
        assert one.user.events == [("joined", 0, 5), ("left", 0), ("joined", 0, 6)]
        one.bus.set_members({0: 6, 1: 1})
        assert one.links == {0: 6}

    def test_an_older_one_is_refused(self, rig: Rig) -> None:
        one = rig.worker(1)
        rig.greeted(one, 0, 5)
        older = rig.dial(1)
        older.sendall(hello(0, 4))
        assert rig.rest_of(older) == b""
        assert one.links == {0: 5}
        assert one.bus.stats()["bus_refused"] == 1

    def test_a_new_connection_of_the_same_one_takes_the_place(self, rig: Rig) -> None:
        one = rig.worker(1)
        first = rig.greeted(one, 0, 5)
        second = rig.dial(1)
        second.sendall(hello(0, 5))
        assert rig.rest_of(first) == b""
        assert second.recv(100) == hello(1, 1)
        assert one.user.events == [("joined", 0, 5), ("left", 0), ("joined", 0, 5)]

    def test_an_older_one_that_listens_is_not_linked(self, rig: Rig) -> None:
        zero = rig.worker(0)
        listener = rig.listen(1)
        zero.bus.set_members({1: 5})
        peer = rig.accept(listener)
        peer.sendall(hello(1, 4))
        assert rig.rest_of(peer) == hello(0, 1)
        again = rig.accept(listener)
        again.sendall(hello(1, 5))
        rig.until(lambda: zero.links == {1: 5})


class TestHellos:
    @pytest.mark.parametrize(
        "said",
        [
            hello(0, 5, magic=b"RTCC"),
            hello(0, 5, version=2),
            hello(1, 5),
            hello(2, 5),
            hello(64, 5),
            hello(65535, 5),
            b"GET / HTTP/1.1\r\n\r\n",
        ],
    )
    def test_who_is_no_lower_slot_of_this_node(self, rig: Rig, said: bytes) -> None:
        one = rig.worker(1)
        one.bus.set_members({0: 5, 1: 1, 2: 5})
        peer = rig.dial(1)
        peer.sendall(said)
        assert rig.rest_of(peer) == b""
        assert one.links == {}
        assert one.bus.stats()["bus_refused"] == 1
        assert one.user.events == []

    def test_in_single_bytes(self, rig: Rig) -> None:
        one = rig.worker(1)
        one.bus.set_members({0: 5})
        peer = rig.dial(1)
        for byte in hello(0, 5):
            assert one.links == {}
            peer.sendall(bytes([byte]))
            one.reactor.turn()
        rig.until(lambda: one.links == {0: 5})

    @pytest.mark.parametrize("said", [b"", hello(0, 5)[:7], hello(0, 5)])
    def test_a_guest_that_goes(self, rig: Rig, said: bytes) -> None:
        one = rig.worker(1)
        one.bus.set_members({2: 1})
        before = rig.until(descriptors)
        peer = rig.dial(1)
        peer.sendall(said)
        rig.until(lambda: len(descriptors()) == len(before) + 2)
        one.reactor.turn()
        peer.close()
        rig.until(lambda: descriptors() == before)
        one.bus.set_members({0: 5})
        assert one.links == {}

    def test_a_guest_that_speaks_before_it_is_answered(self, rig: Rig) -> None:
        one = rig.worker(1)
        peer = rig.dial(1)
        peer.sendall(hello(0, 5) + frame(b"early"))
        assert rig.rest_of(peer) == b""
        one.bus.set_members({0: 5})
        assert one.links == {}

    def test_guests_are_bounded_and_the_oldest_makes_room(self, rig: Rig) -> None:
        one = rig.worker(1)
        guests = [rig.dial(1) for _ in range(40)]
        for guest in guests[:8]:
            assert rig.rest_of(guest) == b""
        guests[8].sendall(hello(0, 5))
        one.bus.set_members({0: 5})
        rig.until(lambda: one.links == {0: 5})

    def test_a_peer_that_never_answers_is_tried_anew(self, rig: Rig) -> None:
        zero = rig.worker(0)
        listener = rig.listen(1)
        zero.bus.set_members({1: 1})
        silent = rig.accept(listener)
        again = rig.accept(listener)
        again.sendall(hello(1, 1))
        rig.until(lambda: zero.links == {1: 1})
        assert rig.rest_of(silent) == hello(0, 1)

    def test_a_peer_that_never_answers_is_given_up_for_its_successor(self, rig: Rig) -> None:
        zero = rig.worker(0)
        listener = rig.listen(1)
        zero.bus.set_members({1: 1})
        silent = rig.accept(listener)
        one = rig.worker(1, 2)
        for worker in (zero, one):
            worker.bus.set_members({0: 1, 1: 2})
        rig.until(lambda: zero.links == {1: 2} and one.links == {0: 1})
        assert rig.rest_of(silent) == hello(0, 1)

    def test_a_peer_in_the_wrong_place(self, rig: Rig) -> None:
        zero = rig.worker(0)
        listener = rig.listen(1)
        zero.bus.set_members({1: 1})
        peer = rig.accept(listener)
        peer.sendall(hello(2, 1))
        rig.until(lambda: zero.bus.stats()["bus_refused"])
        assert zero.links == {}

    def test_descriptors_with_a_hello_are_dropped(self, rig: Rig) -> None:
        one = rig.worker(1)
        one.bus.set_members({0: 5})
        before = rig.until(descriptors)
        peer = rig.dial(1)
        with open("/dev/null") as file:
            socket.send_fds(peer, [hello(0, 5)], [file.fileno()])
        rig.until(lambda: one.links == {0: 5} and len(descriptors()) == len(before) + 2)


class TestPeersThatGo:
    @pytest.mark.parametrize("slot", [0, 1])
    def test_a_worker_that_ends_is_left_and_its_successor_joins(self, rig: Rig, slot: int) -> None:
        workers = rig.linked(2)
        stays, goes = workers[1 - slot], workers[slot]
        goes.reactor.stop()
        rig.until(lambda: stays.links == {})
        assert stays.user.events == [("joined", slot, 1), ("left", slot)]
        new = rig.worker(slot, 2)
        for worker in (stays, new):
            worker.bus.set_members({slot: 2, 1 - slot: 1})
        rig.until(lambda: stays.links and new.links)
        assert stays.user.events[2:] == [("joined", slot, 2)]

    def test_what_was_queued_before_the_end_still_arrives(self, rig: Rig) -> None:
        zero, one = rig.linked(2)
        one.user.queue(0, frame(b"unread"))
        one.reactor.turn()
        zero.user.queue(1, frame(b"last words"))
        zero.bus.close()
        rig.until(lambda: one.links == {})
        assert one.user.received(0) == frame(b"last words")

    def test_what_waited_for_a_lost_peer_is_gone(self, rig: Rig) -> None:
        one = rig.worker(1)
        peer = rig.greeted(one, 0)
        one.send(0, frame(b"x" * 8_000_000))
        assert one.user.waiting(0)[0] > 0
        peer.close()
        rig.until(lambda: one.links == {})
        assert one.user.waiting(0) == (0, 0)
        again = rig.greeted(one, 0, 2)
        one.send(0, frame(b"fresh"))
        assert again.recv(100) == frame(b"fresh")

    def test_a_process_that_is_killed(self, rig: Rig) -> None:
        one = rig.worker(1)
        one.bus.set_members({0: 5})
        child = rig.child(1, hello(0, 5))
        rig.until(lambda: one.links == {0: 5})
        child.kill()
        rig.until(lambda: one.links == {})
        assert one.user.events == [("joined", 0, 5), ("left", 0)]

    def test_many_come_and_go(self, rig: Rig) -> None:
        one = rig.worker(1)
        before = rig.until(descriptors)
        for incarnation in range(1, 200):
            peer = rig.greeted(one, 0, incarnation)
            peer.sendall(frame(b"x")[: incarnation % 6])
            if incarnation % 3:
                peer.close()
        peer.close()
        for peer in rig.sockets:
            peer.close()
        rig.until(lambda: one.links == {} and descriptors() == before)
        assert len(one.events("joined")) == len(one.events("left")) == 199

    def test_closing_twice(self, rig: Rig) -> None:
        zero, one = rig.linked(2)
        zero.bus.close()
        zero.bus.close()
        zero.bus.set_members({1: 1})
        assert not zero.bus.send_descriptor(1, 0, frame(b"x"))
        rig.until(lambda: one.links == {})


class TestWithoutDescriptors:
    """A process whose descriptors are all in use tries again and spins over nothing."""

    def starve(self, worker: Worker, turns: int = 3) -> None:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            for _ in range(turns):
                worker.reactor.turn()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def test_one_that_accepts(self, rig: Rig) -> None:
        one = rig.worker(1)
        one.bus.set_members({0: 5})
        peer = rig.dial(1)
        peer.sendall(hello(0, 5))
        self.starve(one)
        assert one.links == {}
        rig.until(lambda: one.links == {0: 5})

    def test_one_that_dials(self, rig: Rig) -> None:
        zero, one = rig.worker(0), rig.worker(1)
        one.bus.set_members({0: 1})
        zero.bus.set_members({1: 1})
        self.starve(zero)
        assert zero.links == {}
        rig.until(lambda: zero.links == {1: 1} and one.links == {0: 1})


class TestSockets:
    def test_only_the_own_user_may_connect(self, rig: Rig) -> None:
        zero = rig.worker(0)
        found = os.stat(zero.bus.path)
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o600
        assert os.listdir(rig.directory) == ["0.sock"]

    def test_a_socket_file_left_behind_is_replaced(self, rig: Rig) -> None:
        rig.listen(1).close()
        (rig.directory / "1.sock.3").touch()
        zero = rig.worker(0)
        zero.bus.set_members({1: 3})
        zero.reactor.turn()
        one = rig.worker(1, 3)
        one.bus.set_members({0: 1})
        rig.until(lambda: one.links == {0: 1} and zero.links == {1: 3})
        assert sorted(os.listdir(rig.directory)) == ["0.sock", "1.sock"]

    def test_a_place_that_cannot_be_taken(self, rig: Rig) -> None:
        (rig.directory / "0.sock").mkdir()
        with pytest.raises(OSError, match="directory"):
            rig.worker(0)
        with pytest.raises(OSError):
            Bus(BusRecorder(), 0, 1, str(rig.directory / "nowhere"))
        assert os.listdir(rig.directory) == ["0.sock"]

    @pytest.mark.parametrize("slot", [-1, 64])
    def test_a_slot_nobody_can_have(self, rig: Rig, slot: int) -> None:
        with pytest.raises(ValueError, match="slot must be from 0 to 63"):
            Bus(BusRecorder(), slot, 1, str(rig.directory))

    def test_another_user_is_refused(self, rig: Rig) -> None:
        """What the file's mode does not keep out, the peer's credentials do. Only root can be somebody else."""
        one = rig.worker(1)
        one.bus.set_members({0: 5})
        rig.directory.chmod(0o711)
        os.chmod(one.bus.path, 0o666)
        child = rig.child(1, hello(0, 5), 65534 if os.geteuid() == 0 else None)
        if os.geteuid() == 0:
            rig.until(lambda: one.bus.stats()["bus_refused"] == 1)
            assert child.communicate(timeout=20) == (b"", b"")
            assert one.links == {}
        else:
            rig.until(lambda: one.links == {0: 5})

    def test_one_bus_for_a_reactor(self, rig: Rig) -> None:
        zero = rig.worker(0)
        with pytest.raises(RuntimeError):
            zero.reactor.attach_bus(Bus(BusRecorder(), 1, 1, str(rig.directory)))
