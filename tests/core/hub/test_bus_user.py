"""What the bus asks of its user; the recorder is what the tests of the bus look through."""

import pytest

from realtime_communication._core.hub.bus_user import BusRecorder, BusUser


class TestBusRecorder:
    def test_starts_with_nothing(self) -> None:
        user = BusRecorder()
        assert isinstance(user, BusUser)
        assert user.events == []
        assert user.received(3) == b""
        assert user.waiting(3) == (0, 0)

    def test_queues_for_each_peer_apart(self) -> None:
        user = BusRecorder()
        user.queue(0, b"\x01\x00\x00\x00a")
        user.queue(63, b"\x01\x00\x00\x00b" * 2)
        assert [user.waiting(slot)[0] for slot in (0, 1, 63)] == [5, 0, 10]

    @pytest.mark.parametrize("slot", [-1, 64])
    def test_there_are_64_slots(self, slot: int) -> None:
        with pytest.raises(IndexError):
            BusRecorder().queue(slot, b"")
        with pytest.raises(IndexError):
            BusRecorder().waiting(slot)
