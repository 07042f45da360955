"""Publications: what they hold, and when they are freed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication._core.hub.message import MessageProbe

thorough = settings(max_examples=200, deadline=None, derandomize=True)


@thorough
@given(st.binary(max_size=255), st.one_of(st.binary(max_size=400), st.binary(min_size=4000, max_size=5000)))
def test_keeps_copies_of_sender_and_payload(sender: bytes, payload: bytes) -> None:
    assert MessageProbe(sender, payload).parts == (sender, payload)


def test_small_ones_come_from_the_pool_large_ones_from_the_heap() -> None:
    assert MessageProbe(b"alice", b"x" * 100).live == 1
    assert MessageProbe(b"alice", b"x" * 1000).live == 0


@pytest.mark.parametrize("size", [10, 10_000])
def test_the_last_reference_frees(size: int) -> None:
    probe = MessageProbe(b"alice", bytes(size))
    probe.hold()
    probe.hold()
    assert probe.drop()
    assert probe.drop()
    assert probe.parts == (b"alice", bytes(size))
    assert not probe.drop()
    assert probe.live == 0


def test_a_sender_has_at_most_255_bytes() -> None:
    with pytest.raises(ValueError, match="too large"):
        MessageProbe(b"x" * 256, b"")
