"""SHA-1 beside the one of Python."""

import hashlib

import pytest

from realtime_communication._core.wire import sha1


@pytest.mark.parametrize("size", [*range(130), 183, 184, 1000])
def test_it_is_that_of_hashlib(size: int) -> None:
    data = bytes((7 * at + size) % 256 for at in range(size))
    assert sha1.digest(data) == hashlib.sha1(data, usedforsecurity=False).digest()


def test_the_examples_of_the_standard() -> None:
    assert sha1.digest(b"abc").hex() == "a9993e364706816aba3e25717850c26c9cd0d89d"
    assert sha1.digest(b"").hex() == "da39a3ee5e6b4b0d3255bfef95601890afd80709"
