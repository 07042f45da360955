"""Buffers, pools and arenas: what they hold, what they reuse, what they give back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication._core.base.memory import ArenaShelf, GrowingBytes, ItemPool

thorough = settings(max_examples=200, deadline=None, derandomize=True)
ARENA_SIZE = 32768


class TestBuffer:
    """Growable bytes."""

    @thorough
    @given(st.lists(st.one_of(st.binary(max_size=300), st.integers(0, 2**64 - 1)), max_size=40))
    def test_holds_what_was_appended(self, pieces: list[bytes | int]) -> None:
        buffer = GrowingBytes()
        expected = b""
        for piece in pieces:
            if isinstance(piece, bytes):
                buffer.append(piece)
                expected += piece
            else:
                buffer.append_decimal(piece)
                expected += b"%d" % piece
            assert bytes(buffer) == expected
            assert buffer.capacity >= len(expected)

    def test_nothing_is_allocated_for_nothing(self) -> None:
        buffer = GrowingBytes()
        assert (buffer.capacity, bytes(buffer)) == (0, b"")
        buffer.append(b"")
        assert buffer.capacity == 0

    def test_grows_in_steps(self) -> None:
        """A buffer filled byte by byte moves rarely, and never holds much more than half again of what it needs."""
        buffer = GrowingBytes()
        capacities: list[int] = []
        for size in range(1, 20_001):
            buffer.append(b"x")
            assert buffer.capacity <= max(64, size + size // 2)
            if capacities[-1:] != [buffer.capacity]:
                capacities.append(buffer.capacity)
        assert capacities[0] == 64
        assert len(capacities) < 20

    def test_one_large_piece_takes_no_more_than_it_needs(self) -> None:
        buffer = GrowingBytes()
        buffer.append(bytes(100_000))
        assert buffer.capacity == 100_000

    def test_gives_back_what_one_large_piece_left(self) -> None:
        buffer = GrowingBytes()
        buffer.append(b"x" * 10_000)
        buffer.shrink(10_000)
        assert (buffer.capacity, bytes(buffer)) == (10_000, b"x" * 10_000)
        buffer.append(b"y")
        assert bytes(buffer) == b"x" * 10_000 + b"y"
        for capacity in (0, 10_000, 1 << 30):
            with pytest.raises(ValueError, match="capacity"):
                buffer.shrink(capacity)

    @pytest.mark.parametrize("digits", range(1, 21))
    def test_decimals_at_each_width(self, digits: int) -> None:
        for value in (10 ** (digits - 1), min(10**digits - 1, 2**64 - 1)):
            buffer = GrowingBytes()
            buffer.append_decimal(value)
            assert bytes(buffer) == str(value).encode()

    def test_zero(self) -> None:
        buffer = GrowingBytes()
        buffer.append_decimal(0)
        assert bytes(buffer) == b"0"


class TestPool:
    """Items of one size."""

    @thorough
    @given(st.integers(1, 100), st.integers(0, 12), st.lists(st.booleans(), max_size=60))
    def test_live_items_are_apart_and_counted(self, item_size: int, count: int, takes: list[bool]) -> None:
        pool = ItemPool(item_size, count)
        held: list[int] = []
        rounded = -(-item_size // 16) * 16
        for take in takes:
            if take:
                address = pool.take()
                assert address % 16 == 0
                assert all(abs(address - other) >= rounded for other in held)
                held.append(address)
            elif held:
                held.pop()
                pool.give()
            assert pool.live == len(held)

    def test_the_region_comes_first_and_is_reused(self) -> None:
        pool = ItemPool(40, 3)
        region = [pool.take() for _ in range(3)]
        assert [address - region[0] for address in region] == [0, 48, 96]
        beyond = pool.take()
        assert not region[0] <= beyond < region[0] + 144
        pool.give()
        pool.give()
        assert pool.take() == region[2]
        assert pool.live == 3

    @pytest.mark.parametrize("count", [0, 2**60])
    def test_without_a_region_the_heap_serves(self, count: int) -> None:
        pool = ItemPool(64, count)
        assert len({pool.take() for _ in range(50)}) == 50
        for _ in range(50):
            pool.give()
        assert pool.live == 0

    def test_a_large_region_costs_nothing_untouched(self) -> None:
        """Reserved address space: a terabyte of it is no memory."""
        pool = ItemPool(1024, 1 << 30)
        pool.take()
        pool.give()
        assert pool.live == 0


class TestArenas:
    """Bytes that several mailboxes send from."""

    def test_standard_arenas_fill_their_size_exactly(self) -> None:
        shelf = ArenaShelf(4)
        room = shelf.take(1)
        assert ARENA_SIZE - 64 <= room < ARENA_SIZE
        assert shelf.take(room) == room
        assert shelf.take(room + 1) == room + 1

    def test_kept_up_to_the_ceiling(self) -> None:
        shelf = ArenaShelf(2)
        for _ in range(5):
            shelf.take(100)
        assert (shelf.live, shelf.kept) == (5, 0)
        for _ in range(5):
            shelf.drop()
        assert (shelf.live, shelf.kept) == (0, 2)
        shelf.take(100)
        assert (shelf.live, shelf.kept) == (1, 1)

    def test_large_ones_are_not_kept(self) -> None:
        shelf = ArenaShelf(2)
        shelf.take(100_000)
        shelf.drop()
        assert (shelf.live, shelf.kept) == (0, 0)

    def test_the_last_reference_frees(self) -> None:
        shelf = ArenaShelf(2)
        shelf.take(100)
        shelf.hold()
        shelf.hold()
        shelf.drop()
        shelf.drop()
        assert (shelf.live, shelf.kept) == (1, 0)
        shelf.drop()
        assert (shelf.live, shelf.kept) == (0, 1)

    @pytest.mark.parametrize(("keep", "left"), [(0, 0), (2, 2), (10, 3)])
    def test_trim(self, keep: int, left: int) -> None:
        shelf = ArenaShelf(3)
        for _ in range(3):
            shelf.take(1)
        for _ in range(3):
            shelf.drop()
        shelf.trim(keep)
        assert shelf.kept == left

    def test_beyond_two_gigabytes_there_is_none(self) -> None:
        shelf = ArenaShelf(1)
        with pytest.raises(MemoryError):
            shelf.take(2**31 + 1)
        assert shelf.live == 0
