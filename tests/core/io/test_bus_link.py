"""What travels on a link: frames in order through every cut, descriptors between them, and the bounds of both."""

import os
import random
import resource
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.io.bus_rig import Rig, descriptors, frame, hello, running

BUS_BYTES = 64 << 20
MAX_BUS_FRAME = 32 << 20


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running(tmp_path) as made:
        yield made


def frames_of(sizes: list[int]) -> bytes:
    """Frames of these sizes that all differ."""
    return b"".join(frame((b"%d:" % number).ljust(size, b"x")[: max(size, 1)]) for number, size in enumerate(sizes))


class TestReceiving:
    def test_cut_at_every_offset(self, rig: Rig) -> None:
        one = rig.worker(1)
        peer = rig.greeted(one, 0)
        sent = frames_of([1, 2, 30, 3])
        for cut in range(len(sent) + 1):
            before = len(one.user.received(0))
            for piece in (sent[:cut], sent[cut:]):
                peer.sendall(piece)
                one.reactor.turn()
            assert one.user.received(0)[before:] == sent

    def test_single_bytes(self, rig: Rig) -> None:
        one = rig.worker(1)
        peer = rig.greeted(one, 0)
        sent = frames_of([1, 5, 300, 1])
        for byte in sent:
            peer.sendall(bytes([byte]))
            one.reactor.turn()
        assert one.user.received(0) == sent
        assert one.bus.stats()["bus_bytes_received"] == len(sent)

    def test_frames_behind_the_hello(self, rig: Rig) -> None:
        zero = rig.worker(0)
        listener = rig.listen(1)
        zero.bus.set_members({1: 1})
        peer = rig.accept(listener)
        peer.sendall(hello(1, 1) + frames_of([3, 4]) + b"\x01")
        rig.until(lambda: zero.user.received(1) == frames_of([3, 4]))
        peer.sendall(b"\x00\x00\x00x")
        rig.until(lambda: zero.user.received(1).endswith(frame(b"x")))

    @pytest.mark.parametrize("seed", range(4))
    def test_any_sizes_in_any_pieces(self, rig: Rig, seed: int) -> None:
        chance = random.Random(seed)
        one = rig.worker(1)
        peer = rig.greeted(one, 0)
        sent = frames_of([int(2 ** chance.uniform(0, 20)) for _ in range(100)])
        at = 0
        while at < len(sent):
            size = int(2 ** chance.uniform(0, 17))
            rig.feed(peer, sent[at : at + size])
            at += size
        rig.until(lambda: len(one.user.received(0)) == len(sent))
        assert one.user.received(0) == sent

    def test_the_largest_frame(self, rig: Rig) -> None:
        zero, one = rig.linked(2)
        sent = frame(os.urandom(1 << 20) * 32) + frame(b"behind")
        zero.send(1, sent)
        rig.until(lambda: len(one.user.received(0)) == len(sent))
        assert one.user.received(0) == sent

    @pytest.mark.parametrize("size", [0, MAX_BUS_FRAME + 1, 0x7FFFFFFF, 0xFFFFFFFF])
    @pytest.mark.parametrize("before", [b"", frame(b"good")])
    def test_a_size_no_frame_has(self, rig: Rig, size: int, before: bytes) -> None:
        one = rig.worker(1)
        peer = rig.greeted(one, 0)
        peer.sendall(before + struct.pack("<I", size) + b"x")
        assert rig.rest_of(peer) == b""
        assert one.user.events == [("joined", 0, 1), ("left", 0)]
        assert one.user.received(0) == before
        assert one.bus.stats()["bus_faults"] == 1

    def test_a_user_that_makes_no_sense_of_it(self, rig: Rig) -> None:
        one = rig.worker(1)
        peer = rig.greeted(one, 0)
        one.user.refuse(True)
        peer.sendall(frame(b"what"))
        assert rig.rest_of(peer) == b""
        assert one.user.events[-1] == ("left", 0)
        assert one.bus.stats()["bus_faults"] == 1
        one.user.refuse(False)
        again = rig.greeted(one, 0, 2)
        again.sendall(frame(b"so"))
        rig.until(lambda: one.user.received(0) == frame(b"so"))

    def test_half_a_frame_is_forgotten_with_its_link(self, rig: Rig) -> None:
        one = rig.worker(1)
        for incarnation, piece in enumerate((b"\x05", frame(b"x" * 100_000)[:70_000]), 1):
            peer = rig.greeted(one, 0, incarnation)
            peer.sendall(piece)
            one.reactor.turn()
            peer.close()
            rig.until(lambda: one.links == {})
        rig.greeted(one, 0, 3).sendall(frame(b"whole"))
        rig.until(lambda: one.user.received(0) == frame(b"whole"))

    def test_a_peer_that_floods_starves_neither_clients_nor_other_peers(self, rig: Rig) -> None:
        two = rig.worker(2)
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        address = listener.getsockname()
        two.reactor.listen(listener)
        two.bus.set_members({0: 1, 1: 1})
        loud, quiet = (rig.dial(2) for _ in range(2))
        loud.sendall(hello(0, 1))
        quiet.sendall(hello(1, 1))
        rig.until(lambda: len(two.links) == 2)
        flood = frame(b"x" * 1000) * 100
        over = threading.Event()

        def write() -> None:
            while not over.is_set():
                loud.sendall(flood)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            rig.until(lambda: len(two.user.received(0)) > 3 * len(flood))
            with socket.create_connection(address, 20) as client:
                client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                quiet.sendall(frame(b"me too"))
                rig.until(lambda: two.handed_over and two.user.received(1))
        finally:
            over.set()
            rig.until(lambda: not thread.is_alive())
            thread.join()


class TestSending:
    @pytest.mark.parametrize("seed", range(3))
    def test_order_through_partial_writes(self, rig: Rig, seed: int) -> None:
        """A peer that reads little by little: everything, once, in order."""
        chance = random.Random(seed)
        one = rig.worker(1)
        peer = rig.greeted(one, 0)
        peer.setblocking(False)
        sent = bytearray()
        got = bytearray()
        for number in range(300):
            piece = frames_of([int(2 ** chance.uniform(0, 17)) for _ in range(chance.randrange(6))])
            sent += piece
            one.send(0, piece)
            if number % 3 == 0:
                got += receive_some(peer, int(2 ** chance.uniform(0, 16)))
        blocked = one.user.waiting(0)[0]
        assert blocked > 0
        while len(got) < len(sent):
            rig.turns(1)
            got += receive_some(peer, 100_000)
        assert got == sent
        assert one.user.waiting(0)[0] == 0
        assert one.bus.stats()["bus_bytes_sent"] == len(sent)

    def test_memory_of_a_burst_is_given_back(self, rig: Rig) -> None:
        zero, one = rig.linked(2)
        burst = frames_of([1 << 20] * 20)
        zero.send(1, burst)
        assert zero.user.waiting(1)[0] > 0
        rig.until(lambda: len(one.user.received(0)) == len(burst))
        assert zero.user.waiting(1) == (0, 0)

    def test_a_peer_that_reads_nothing_is_left_at_the_bound(self, rig: Rig) -> None:
        one = rig.worker(1)
        peer = rig.greeted(one, 0)
        piece = frame(b"x" * ((1 << 20) - 4))
        while one.links:
            assert one.user.waiting(0)[0] <= BUS_BYTES + 2 * len(piece)
            one.send(0, piece)
        stats = one.bus.stats()
        assert (stats["bus_overflows"], stats["links"]) == (1, 0)
        assert one.user.events == [("joined", 0, 1), ("left", 0)]
        assert one.user.waiting(0) == (0, 0)
        # What had left before is whole or cut; nothing of it comes again on the next link.
        taken = rig.rest_of(peer)
        assert len(taken) == stats["bus_bytes_sent"]
        assert (piece * (len(taken) // len(piece) + 1)).startswith(taken)
        again = rig.greeted(one, 0, 1)
        one.send(0, frame(b"fresh"))
        assert again.recv(100) == frame(b"fresh")

    def test_a_stopped_worker_grows_nobody_and_is_linked_again(self, rig: Rig) -> None:
        """Both of the bus: the one that dials finds its link cut by the other, and both start afresh."""
        zero, one = rig.linked(2)
        piece = frame(b"x" * (4 << 20))
        while one.links:
            one.user.queue(0, piece)
            one.reactor.turn()
        assert one.bus.stats()["bus_overflows"] == 1
        rig.until(lambda: zero.links and one.links and len(one.events("joined")) == 2)
        assert zero.events("joined", "left") == [("joined", 1, 1), ("left", 1), ("joined", 1, 1)]
        one.send(0, frame(b"again"))
        rig.until(lambda: zero.user.received(1).endswith(frame(b"again")))

    def test_a_user_that_cannot_queue_ends_the_link(self, rig: Rig) -> None:
        zero, one = rig.linked(2)
        zero.user.queue(1, frame(b"never"))
        zero.user.fail(True)
        zero.reactor.turn()
        assert zero.links == {}
        zero.user.fail(False)
        rig.until(lambda: zero.links and len(one.events("joined")) == 2)
        zero.send(1, frame(b"after"))
        rig.until(lambda: one.user.received(0))
        assert one.user.received(0) == frame(b"after")

    def test_a_peer_that_went_while_it_is_written_to(self, rig: Rig) -> None:
        one = rig.worker(1)
        rig.greeted(one, 0).close()
        one.send(0, frame(b"x"))
        assert one.links == {}
        assert one.user.events == [("joined", 0, 1), ("left", 0)]


class TestDescriptors:
    def test_one_goes_between_the_frames(self, rig: Rig) -> None:
        zero, one = rig.linked(2)
        here, there = socket.socketpair()
        zero.user.queue(1, frame(b"before"))
        assert zero.bus.send_descriptor(1, there.detach(), frame(b"take"))
        zero.send(1, frame(b"behind"))
        rig.until(lambda: len(one.user.received(0)) == 20)
        (told,) = one.events("descriptor")
        assert told[:2] == ("descriptor", 0)
        assert told[3:] == (frame(b"take"), len(frame(b"before")))
        assert one.user.received(0) == frame(b"before") + frame(b"behind")
        with socket.socket(fileno=told[2]) as passed, here:
            assert not passed.get_inheritable()
            passed.sendall(b"through")
            assert here.recv(100) == b"through"

    @pytest.mark.parametrize("seed", range(3))
    def test_many_among_frames_through_partial_writes(self, rig: Rig, seed: int) -> None:
        """Each comes with its own frame, in its own place, whatever the sockets take at a time."""
        chance = random.Random(seed)
        zero, one = rig.linked(2)
        sent, places = b"", []
        ends = []
        for number in range(200):
            piece = frames_of([int(2 ** chance.uniform(0, 18)) for _ in range(chance.randrange(3))])
            zero.user.queue(1, piece)
            sent += piece
            reading, writing = os.pipe()
            os.write(writing, b"%d" % number)
            os.close(writing)
            ends.append(reading)
            named = frame(b"take %d" % number + b"x" * chance.randrange(1, 3000))
            assert zero.bus.send_descriptor(1, reading, named)
            places.append((named, len(sent)))
            if chance.random() < 0.3:
                zero.reactor.turn()
        rig.until(lambda: len(one.user.received(0)) == len(sent) and len(one.events("descriptor")) == 200)
        assert one.user.received(0) == sent
        told = one.events("descriptor")
        assert [event[3:] for event in told] == places
        for number, event in enumerate(told):
            assert os.read(event[2], 100) == b"%d" % number
            os.close(event[2])

    def test_a_frame_in_pieces_before_it(self, rig: Rig) -> None:
        one = rig.worker(1)
        peer = rig.greeted(one, 0)
        large = frame(b"x" * 100_000)
        with open("/dev/null") as file:
            for at in range(0, len(large), 9_999):
                peer.sendall(large[at : at + 9_999])
                one.reactor.turn()
            rig.feed(peer, large + frame(b"take")[:-1])
            socket.send_fds(peer, [frame(b"take")[-1:]], [file.fileno()])
            peer.sendall(frame(b"behind"))
            rig.until(lambda: one.user.received(0).endswith(frame(b"behind")))
            (told,) = one.events("descriptor")
            assert told[3:] == (frame(b"take"), 2 * len(large))
            assert os.path.sameopenfile(told[2], file.fileno())
            os.close(told[2])

    @pytest.mark.parametrize("said", [frame(b"take")[:-2], b"\x04", frame(b"take") + b"\x01", b"\x00" * 8])
    def test_one_that_comes_within_a_frame_ends_the_link(self, rig: Rig, said: bytes) -> None:
        one = rig.worker(1)
        peer = rig.greeted(one, 0)
        before = rig.until(descriptors)
        with open("/dev/null") as file:
            socket.send_fds(peer, [said], [file.fileno()] * 3)
        assert rig.rest_of(peer) == b""
        assert one.user.events == [("joined", 0, 1), ("left", 0)]
        assert one.bus.stats()["bus_faults"] == 1
        rig.until(lambda: len(descriptors()) == len(before) - 1)

    def test_more_than_one_with_a_frame_are_closed(self, rig: Rig) -> None:
        one = rig.worker(1)
        peer = rig.greeted(one, 0)
        before = rig.until(descriptors)
        with open("/dev/null") as file:
            socket.send_fds(peer, [frame(b"take")], [file.fileno()] * 5)
        rig.until(lambda: one.events("descriptor"))
        rig.until(lambda: len(descriptors()) == len(before) + 1)
        os.close(one.events("descriptor")[0][2])

    def test_on_their_way_when_the_link_ends_they_are_closed(self, rig: Rig) -> None:
        one = rig.worker(1)
        peer = rig.greeted(one, 0)
        before = rig.until(descriptors)
        reading, writing = os.pipe()
        one.user.queue(0, frame(b"x" * 8_000_000))
        for _ in range(100):
            assert one.bus.send_descriptor(0, os.dup(writing), frame(b"take"))
        os.close(writing)
        one.reactor.turn()
        assert one.user.waiting(0)[0] > 0
        peer.close()
        rig.until(lambda: one.links == {})
        assert os.read(reading, 1) == b""  # nobody has the other end any more
        os.close(reading)
        rig.until(lambda: len(descriptors()) == len(before) - 2)

    def test_sent_but_never_received_they_are_closed(self, rig: Rig) -> None:
        one = rig.worker(1)
        peer = rig.greeted(one, 0)
        reading, writing = os.pipe()
        assert one.bus.send_descriptor(0, writing, frame(b"take"))
        one.reactor.turn()
        peer.close()
        assert os.read(reading, 1) == b""
        os.close(reading)

    def test_too_many_waiting_are_not_taken(self, rig: Rig) -> None:
        one = rig.worker(1)
        peer = rig.greeted(one, 0)
        one.send(0, frame(b"x" * 8_000_000))
        null = os.open("/dev/null", os.O_RDONLY)
        taken = 0
        while one.bus.send_descriptor(0, fd := os.dup(null), frame(b"take")):
            taken += 1
        os.close(fd)
        os.close(null)
        assert taken == 256
        one.user.queue(0, frame(b"last"))
        got = 0
        while one.user.waiting(0)[0]:
            rig.turns(1)
            got += len(receive_some(peer, 1 << 20))
        assert one.bus.stats()["bus_bytes_sent"] == 8_000_004 + 256 * 8 + 8

    def test_without_a_link_it_stays_the_callers(self, rig: Rig) -> None:
        zero = rig.worker(0)
        with open("/dev/null") as file:
            for slot in (-1, 0, 1, 64):
                assert not zero.bus.send_descriptor(slot, file.fileno(), frame(b"take"))
            file.read()

    def test_what_is_no_frame_or_no_descriptor(self, rig: Rig) -> None:
        zero, _ = rig.linked(2)
        for wrong in (b"", b"\x00\x00\x00\x00", b"\x02\x00\x00\x00x", frame(b"x") + b"y"):
            with pytest.raises(ValueError, match="a frame is"):
                zero.bus.send_descriptor(1, 0, wrong)
        with pytest.raises(OSError):
            zero.bus.send_descriptor(1, 1 << 20, frame(b"take"))
        zero.user.fail(True)
        assert not zero.bus.send_descriptor(1, 0, frame(b"take"))
        zero.user.fail(False)
        assert zero.links == {1: 1}

    def test_a_process_without_descriptors_left_still_gets_the_frame(self, rig: Rig) -> None:
        zero, one = rig.linked(2)
        null = os.open("/dev/null", os.O_RDONLY)
        assert zero.bus.send_descriptor(1, null, frame(b"take"))
        zero.send(1, frame(b"behind"))
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            one.reactor.turn()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert one.events("descriptor") == [("descriptor", 0, -1, frame(b"take"), 0)]
        assert one.user.received(0) == frame(b"behind")
        assert one.bus.stats()["bus_descriptors_lost"] == 1


def receive_some(peer: socket.socket, size: int) -> bytes:
    """What is there, up to that size."""
    peer.setblocking(False)
    try:
        return peer.recv(size)
    except BlockingIOError:
        return b""
