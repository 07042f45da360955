"""Slots and their owners."""

import pytest
from redis.exceptions import InvalidResponse

from realtime_communication.broker.redis_slots import SLOTS, SlotMap

ROWS = [
    [0, 8191, [b"10.0.0.1", 7000, b"id"], [b"10.0.0.9", 7009, b"id"]],
    [8192, 16382, [b"::1", 7001, b"id", []]],
]


@pytest.fixture
def slots():
    return SlotMap()


def key_of(slots, owner):
    """Some key of this owner."""
    return next(b"%d" % number for number in range(100_000) if slots.owner_of(b"%d" % number) == owner)


def test_nothing_is_known_at_first(slots):
    assert slots.owner_of(b"a") is None


def test_learned(slots):
    assert slots.learn(ROWS, "asked")
    assert not slots.learn(ROWS, "asked")
    assert slots.owner_of(b"foo") == "::1:7001"  # 12182
    assert slots.owner_of(b"{bar}1") == "10.0.0.1:7000"  # 5061, by the hash tag
    assert slots.owner_of(key_of(slots, None)) is None  # the last slot is nobody's
    assert slots.learn(ROWS[:1], "asked")
    assert slots.owner_of(b"foo") is None


@pytest.mark.parametrize("host", ["", b"", b"?", None])
def test_a_node_that_says_no_host(slots, host):
    slots.learn([[0, SLOTS - 1, [host, 7000, b"id"]]], "asked")
    assert slots.owner_of(b"a") == "asked:7000"


@pytest.mark.parametrize(
    "rows",
    [None, b"OK", [1], [[0, 1]], [[0, 1, []]], [[0, 1, [b"h", b"x"]]], [[0, SLOTS, [b"h", 1]]], [[0, 1, [b"\xff", 1]]]],
)
def test_replies_that_make_no_sense(slots, rows):
    slots.learn(ROWS, "asked")
    with pytest.raises(InvalidResponse):
        slots.learn(rows, "asked")
    assert slots.owner_of(b"foo") == "::1:7001"


def test_moved(slots):
    slots.move(12182, "10.0.0.2:7002")
    assert slots.owner_of(b"foo") == "10.0.0.2:7002"
    for slot, server in [(SLOTS, "h:1"), (-1, "h:1"), (12182, ":1"), (12182, "h:"), (12182, "h:x"), (12182, "h:70000")]:
        slots.move(slot, server)
    assert slots.owner_of(b"foo") == "10.0.0.2:7002"
