"""Sessions of other workers, as a container."""

import pytest

from realtime_communication._core.hub.attendees import AttendeeProbe


def test_those_of_a_topic_with_what_is_shown_of_them() -> None:
    probe = AttendeeProbe()
    probe.add(b"room", b"alice", 1, b'{"a":1}')
    probe.add(b"room", b"alice", 2)
    probe.add(b"other", b"bob", 1)
    assert probe.of(b"room") == [(b"alice", 2, b""), (b"alice", 1, b'{"a":1}')]
    assert probe.of(b"other") == [(b"bob", 1, b"")]
    assert probe.of(b"nowhere") == []
    assert probe.counts == (2, 2, 3)


def test_each_keeps_its_topic_and_user() -> None:
    probe = AttendeeProbe()
    for number in range(3):
        probe.add(b"room", b"alice", number, b"{}")
    for number, left in ((1, [2, 0]), (2, [0])):
        probe.remove(b"room", number)
        assert [each[1] for each in probe.of(b"room")] == left
        assert probe.counts[:2] == (1, 1)
    with pytest.raises(KeyError):
        probe.remove(b"room", 1)
    probe.remove(b"room", 0)
    assert probe.counts == (0, 0, 0)


def test_many() -> None:
    probe = AttendeeProbe()
    for number in range(2000):
        probe.add(b"topic-%d" % (number % 7), b"user-%d" % (number % 50), number)
    assert probe.counts == (7, 50, 2000)
    for number in range(2000):
        probe.remove(b"topic-%d" % (number % 7), number)
    assert probe.counts == (0, 0, 0)
