"""Positions in several topics as one id."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime_communication.http.event_ids import MAX_ID_BYTES, Position, Positions, positions_in

EPOCH = "0123456789abcdef"


def id_of(positions):
    made = Positions()
    for topic, position in positions.items():
        made.set(topic, position)
    return made.id


@given(st.dictionaries(st.text(min_size=1), st.integers(0, (1 << 53) - 1), min_size=1, max_size=64))
def test_there_and_back(offsets):
    positions = {topic: Position(EPOCH, offset) for topic, offset in offsets.items()}
    text = id_of(positions)
    assert text.isascii() and len(text) <= MAX_ID_BYTES
    assert positions_in(text, offsets) == positions


def test_one_topic_is_short():
    assert len(id_of({"room:42": Position(EPOCH, 100_000)})) <= 24


def test_other_topics_go_on_where_they_can():
    text = id_of({"a": Position(EPOCH, 1), "b": Position(EPOCH, 2)})
    assert positions_in(text, ["c", "b"]) == {"b": Position(EPOCH, 2)}


def test_the_newest_counts():
    positions = Positions()
    positions.set("a", Position(EPOCH, 1))
    positions.set("a", Position(EPOCH, 200))
    assert positions.get("a") == Position(EPOCH, 200)
    assert positions.get("b") is None
    assert positions_in(positions.id, ["a"]) == {"a": Position(EPOCH, 200)}


def test_nothing_known():
    assert Positions().id == ""


@pytest.mark.parametrize("epoch", ["", "0123", "0123456789abcdef00", "no hexadecimal!"])
def test_an_epoch_that_is_none(epoch):
    with pytest.raises(ValueError):
        Positions().set("a", Position(epoch, 1))


@given(
    st.one_of(st.text(), st.binary().map(lambda data: base64.urlsafe_b64encode(b"\x01" + data).decode().rstrip("=")))
)
def test_what_is_no_id_is_never_an_error(text):
    found = positions_in(text, ["a"])
    assert found is None or isinstance(found, dict)


@pytest.mark.parametrize("text", ["17", "Ä", "AA", "A" * (MAX_ID_BYTES + 1), "\r\n", "AQ?", "AQAA"])
def test_what_is_no_id(text):
    assert positions_in(text, ["a"]) is None
