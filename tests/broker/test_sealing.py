"""Marks that only the holders of a secret can make."""

import pytest

from realtime_communication.broker.sealing import Seal

OLD, NEW = "the old secret of more than thirty-two bytes", "the new secret of more than thirty-two bytes"


def test_a_mark_is_good_for_its_body_its_purpose_and_its_secret():
    seal = Seal([NEW], "events")
    mark = seal.mark(b"body")
    assert len(mark) == 64
    assert seal.is_genuine(b"body", mark)
    assert not seal.is_genuine(b"other", mark)
    assert not Seal([NEW], "shared state").is_genuine(b"body", mark)
    assert not Seal([OLD], "events").is_genuine(b"body", mark)


@pytest.mark.parametrize("mark", ["", "0" * 64, "ü" * 64, "\ud800", "x" * 1000])
def test_nonsense_is_refused(mark):
    assert not Seal([NEW], "events").is_genuine(b"body", mark)


def test_while_the_secret_is_changed_both_are_good():
    changed, behind = Seal([NEW, OLD], "events"), Seal([OLD], "events")
    assert changed.is_genuine(b"body", behind.mark(b"body"))
    assert changed.mark(b"body") == Seal([NEW], "events").mark(b"body")


def test_the_secret_is_not_shown():
    assert NEW not in repr(Seal([NEW], "events"))
    with pytest.raises(ValueError, match="needs a secret"):
        Seal([], "events")
