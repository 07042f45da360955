"""Duplicates, holes, and our own messages between the others."""

from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication.client.cursor import Cursor
from realtime_communication.client.events import Position


def at(offset: int) -> Cursor:
    cursor = Cursor()
    cursor.reset("e", offset)
    return cursor


def test_position() -> None:
    assert Cursor().position is None
    assert at(5).position == Position("e", 5)


def test_first_message_fixes_the_offset() -> None:
    cursor = Cursor()
    assert cursor.accept(7) == (True, 0)
    assert cursor.accept(7) == (False, 0)
    assert cursor.accept(8) == (True, 0)


def test_old_is_dropped() -> None:
    assert [at(5).accept(offset) for offset in (1, 5)] == [(False, 0)] * 2


def test_hole_is_counted() -> None:
    assert at(5).accept(9) == (True, 3)


def test_announced_hole_is_none_but_only_once() -> None:
    cursor = at(5)
    cursor.announce_hole()
    assert cursor.accept(9) == (True, 0)
    assert cursor.accept(11) == (True, 1)


def test_own_message_leaves_no_hole() -> None:
    cursor = at(5)
    cursor.publishing_excluded()
    assert cursor.published_excluded(6) == 0
    assert cursor.position == Position("e", 6)
    assert cursor.accept(7) == (True, 0)


def test_acknowledgement_may_overtake_earlier_messages() -> None:
    cursor = at(5)
    cursor.publishing_excluded()
    cursor.published_excluded(8)
    assert [cursor.accept(offset) for offset in (6, 7, 9)] == [(True, 0)] * 3


def test_message_may_overtake_the_acknowledgement() -> None:
    cursor = at(5)
    cursor.publishing_excluded()
    assert cursor.accept(7) == (True, 0)
    assert cursor.published_excluded(6) == 0


def test_suspected_hole_that_was_none_of_ours_is_told_later() -> None:
    cursor = at(5)
    cursor.publishing_excluded()
    assert cursor.accept(7) == (True, 0)
    assert cursor.published_excluded(8) == 1


def test_own_message_that_recovery_hands_back_is_dropped() -> None:
    cursor = at(5)
    cursor.publishing_excluded()
    cursor.published_excluded(7)
    assert [cursor.accept(offset) for offset in (6, 7, 8)] == [(True, 0), (False, 0), (True, 0)]


def test_failed_publication_explains_nothing() -> None:
    cursor = at(5)
    cursor.publishing_excluded()
    assert cursor.published_excluded(None) == 0
    assert cursor.accept(7) == (True, 1)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 30), max_size=60))
def test_every_offset_at_most_once_and_in_order(arrivals: list[int]) -> None:
    cursor = at(0)
    delivered, missing = [], 0
    for offset in arrivals:
        is_new, holes = cursor.accept(offset)
        missing += holes
        if is_new:
            delivered.append(offset)
    assert delivered == sorted(set(delivered))
    assert missing + len(delivered) == max(arrivals, default=0)
