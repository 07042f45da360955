"""What comes over a channel, cut at every offset and out of nowhere."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime_communication.broker.redis_frames import (
    PresenceChange,
    Publications,
    Reset,
    Unreadable,
    framed,
    mark_of,
    parse_frame,
    split_bodies,
)

BODIES = [b"12345678one", b"12345678", b"12345678three"]


def publications(bodies=BODIES, epoch=7, first=41):
    joined = b"".join(map(framed, bodies))
    last = len(framed(bodies[-1]))
    return struct.pack("<BBHIQQII", 1, 1, 0, len(bodies), epoch, first, last, len(joined)) + joined


def presence(*parts):
    joined = b"".join(map(framed, parts))
    return struct.pack("<BBHI", 1, 2, 0, len(joined)) + joined


def test_publications():
    frame = parse_frame(publications())
    assert isinstance(frame, Publications)
    assert (frame.epoch, frame.first, frame.count, frame.last) == (7, 41, 3, 43)
    assert list(split_bodies(frame.bodies)) == BODIES
    assert frame.mark == mark_of(framed(BODIES[-1])) != mark_of(framed(BODIES[0]))


def test_what_comes_after_an_offset():
    frame = parse_frame(publications())
    assert frame.after(0) is frame.after(40) is frame
    rest = frame.after(42)
    assert (rest.epoch, rest.first, rest.count, rest.mark) == (7, 43, 1, frame.mark)
    assert list(split_bodies(rest.bodies)) == BODIES[2:]
    with pytest.raises(ValueError, match="cut off"):
        Publications(7, 41, 3, b"\xff\0\0\0x", 0).after(41)


def test_presence():
    assert parse_frame(presence(b"1", b"alice", b"s" * 32, b"{}", b"run-1")) == PresenceChange(
        True, b"alice", b"s" * 32, b"{}", b"run-1"
    )
    assert parse_frame(presence(b"0", b"alice", b"", b"", b"")) == PresenceChange(False, b"alice", b"", b"", b"")


def test_reset():
    assert parse_frame(b"\x01\x03\0\0") == Reset()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", Unreadable.GARBAGE),
        (b"hello world", Unreadable.GARBAGE),
        (b"\0\x01\0\0", Unreadable.GARBAGE),
        (b"\x02\x01\0\0", Unreadable.NEWER),
        (b"\x01\x04\0\0", Unreadable.NEWER),
        (b"\x01\x03\0\0more", Unreadable.GARBAGE),
        (publications() + b"x", Unreadable.GARBAGE),
        (publications(epoch=0), Unreadable.GARBAGE),
        (publications(first=0), Unreadable.GARBAGE),
        (presence(b"1", b"alice"), Unreadable.GARBAGE),
        (presence(b"1", b"alice", b"", b"", b"") + b"x", Unreadable.GARBAGE),
        (struct.pack("<BBHI", 1, 2, 0, 4) + b"\xff\xff\0\0", Unreadable.GARBAGE),
    ],
)
def test_what_cannot_be_read(data, why):
    assert parse_frame(data) is why


@pytest.mark.parametrize("whole", [publications(), presence(b"1", b"alice", b"s", b"i", b"n")])
def test_cut_anywhere(whole):
    for end in range(4, len(whole)):
        assert parse_frame(whole[:end]) is Unreadable.TRUNCATED


@given(st.binary(max_size=80), st.sampled_from([b"", b"\x01\x01\0\0", b"\x01\x02\0\0"]))
def test_whatever_comes(data, head):
    frame = parse_frame(head + data)
    assert isinstance(frame, (Publications, PresenceChange, Reset, Unreadable))
