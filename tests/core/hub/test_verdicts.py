"""Answers that are remembered: for how long, and how many."""

from realtime_communication._core.hub.verdicts import Verdicts

SUBSCRIBE, PUBLISH = 0, 1


def test_what_is_noted_is_found_until_it_is_old() -> None:
    verdicts = Verdicts(10, 10)
    assert verdicts.found(PUBLISH, "alice", "t", 0) is None
    verdicts.note(PUBLISH, "alice", "t", True, 100)
    verdicts.note(SUBSCRIBE, "alice", "t", False, 100)
    assert (verdicts.found(PUBLISH, "alice", "t", 99), verdicts.found(SUBSCRIBE, "alice", "t", 99)) == (True, False)
    assert verdicts.found(PUBLISH, "alice", "t", 100) is None
    for other in (("alicet", ""), ("", "alicet"), ("alice", "tt"), ("bob", "t")):
        assert verdicts.found(PUBLISH, *other, 0) is None


def test_a_new_answer_takes_the_place_of_the_old_one() -> None:
    verdicts = Verdicts(10, 10)
    verdicts.note(PUBLISH, "alice", "t", True, 100)
    verdicts.note(PUBLISH, "alice", "t", False, 200)
    assert verdicts.found(PUBLISH, "alice", "t", 150) is False
    assert len(verdicts) == 1


def test_the_oldest_ones_go_first() -> None:
    verdicts = Verdicts(3, 10)
    for number in range(5):
        verdicts.note(PUBLISH, "alice", f"t{number}", True, 100)
    verdicts.note(PUBLISH, "alice", "t2", True, 100)  # new again
    verdicts.note(PUBLISH, "alice", "t5", True, 100)
    found = [number for number in range(6) if verdicts.found(PUBLISH, "alice", f"t{number}", 0)]
    assert (found, len(verdicts), verdicts.most) == ([2, 4, 5], 3, 3)


def test_the_longest_names() -> None:
    verdicts = Verdicts(3, 10)
    verdicts.note(PUBLISH, "u" * 254, "t" * 255, True, 100)
    assert verdicts.found(PUBLISH, "u" * 254, "t" * 255, 0) is True
