"""The checker accepts what the protocol allows, and finds each kind of fault in falsified records."""

from collections.abc import Callable

import pytest

from serving.checker import MOST_SHOWN, Checker, Track

TOPIC = "room"
OLD, NEW = "epoch-1", "epoch-2"


class Story:
    """A publisher of messages m1, m2, … at offsets 1, 2, … of the old epoch, and one subscriber from the start."""

    def __init__(self, published: int = 10) -> None:
        self.checker = Checker()
        for number in range(1, published + 1):
            self.checker.published("publisher", f"m{number}")
            self.checker.acknowledged(f"m{number}", TOPIC, OLD, number)
        self.track = self.join("reader")

    def join(self, name: str, offset: int = 0) -> Track:
        track = self.checker.track(name, TOPIC)
        track.subscribing(None)
        track.subscribed(OLD, offset, False)
        return track

    def see(self, *offsets: int) -> None:
        for offset in offsets:
            self.track.message(offset, f"m{offset}")

    def recover(self, offset: int, *messages: int, epoch: str = OLD, recovered: bool = True) -> None:
        """The connection is lost and comes back, with that answer."""
        self.track.disconnected()
        self.track.subscribing(self.track.position)
        self.track.subscribed(epoch, offset, recovered, [(number, f"m{number}") for number in messages])

    def kinds(self) -> set[str]:
        self.checker.finish()
        return {violation.kind for violation in self.checker.violations}


class TestSound:
    def check(self, story: Story) -> None:
        assert story.kinds() == set(), story.checker.report()
        story.checker.assert_sound()

    def test_everything_in_order(self) -> None:
        story = Story()
        story.see(*range(1, 11))
        self.check(story)
        assert (story.checker.totals.deliveries, story.track.seen) == (10, 10)
        assert story.track.is_caught_up

    def test_seen_before_it_is_acknowledged(self) -> None:
        story = Story(published=0)
        story.checker.published("publisher", "m1")
        story.see(1)
        story.checker.acknowledged("m1", TOPIC, OLD, 1)
        self.check(story)

    def test_seen_and_never_answered(self) -> None:
        story = Story(published=0)
        story.checker.published("publisher", "m1")
        story.see(1)
        self.check(story)

    def test_recovered_over_a_reconnect(self) -> None:
        story = Story()
        story.see(1, 2, 3)
        story.recover(6, 4, 5, 6)
        story.see(7, 8, 9, 10)
        self.check(story)
        assert (story.checker.totals.recoveries, story.checker.totals.recovered_messages) == (1, 3)

    def test_nothing_was_missed(self) -> None:
        story = Story()
        story.see(*range(1, 11))
        story.recover(10)
        self.check(story)

    def test_gap_told_by_subscribed(self) -> None:
        story = Story()
        story.see(1, 2)
        story.recover(7, recovered=False)
        story.see(8, 9, 10)
        self.check(story)
        assert story.checker.totals.resets == 1

    def test_history_after_a_gap(self) -> None:
        story = Story()
        story.see(1, 2)
        story.recover(7, 6, 7, recovered=False)
        story.see(8, 9, 10)
        self.check(story)

    def test_history_that_reaches_back_to_what_was_seen(self) -> None:
        story = Story()
        story.see(1, 2, 3, 4, 5, 6)
        story.recover(7, 5, 6, 7, recovered=False)
        story.see(8, 9, 10)
        self.check(story)

    def test_gap_told_by_lagged(self) -> None:
        story = Story()
        story.see(1, 2)
        story.track.lagged(3, OLD, 5, False)
        story.see(6, 7, 8, 9, 10)
        self.check(story)
        assert (story.checker.totals.gaps_told, story.checker.totals.missed_told) == (1, 3)

    def test_caught_up_from_the_cache(self) -> None:
        story = Story()
        story.see(1, 2)
        story.track.lagged(3, OLD, 5, True)
        story.see(3, 4, 5)
        story.track.lagged(5, OLD, 10, True)
        story.see(6, 7, 8, 9, 10)
        self.check(story)

    def test_new_epoch_on_a_live_connection(self) -> None:
        story = Story()
        story.see(1, 2)
        story.track.lagged(0, NEW, 0, False)
        story.checker.published("publisher", "n1")
        story.checker.acknowledged("n1", TOPIC, NEW, 1)
        story.track.message(1, "n1")
        self.check(story)
        assert story.checker.unseen() == 8

    def test_epoch_that_comes_back_further_on(self) -> None:
        story = Story()
        story.see(1, 2)
        story.track.lagged(0, NEW, 0, False)
        story.track.lagged(0, OLD, 9, False)
        story.see(10)
        self.check(story)

    def test_disconnected_at_the_end(self) -> None:
        story = Story()
        story.see(1)
        story.track.disconnected()
        self.check(story)

    def test_outcome_unknown_after_an_error(self) -> None:
        story = Story(published=0)
        story.checker.published("publisher", "m1")
        story.checker.refused("m1", "unavailable")
        story.see(1)
        self.check(story)

    def test_same_message_in_two_epochs(self) -> None:
        """Kept while the store was away and sent on later."""
        story = Story()
        story.see(*range(1, 11))
        story.track.lagged(0, NEW, 0, False)
        story.track.message(1, "m10")
        self.check(story)


def lost_one(story: Story) -> None:
    story.see(1, 2, 4)


def lost_the_tail(story: Story) -> None:
    story.see(1, 2, 3)


def twice(story: Story) -> None:
    story.see(1, 2, 2)


def out_of_order(story: Story) -> None:
    story.see(1, 3, 2)


def recovered_what_was_seen(story: Story) -> None:
    story.see(1, 2, 3)
    story.recover(5, 3, 4, 5)


def live_again_after_recovery(story: Story) -> None:
    story.see(1)
    story.recover(4, 2, 3, 4)
    story.see(4)


def recovered_with_a_hole_at_the_start(story: Story) -> None:
    story.see(1)
    story.recover(5, 4, 5)


def recovered_with_a_hole_inside(story: Story) -> None:
    story.see(1)
    story.recover(5, 2, 3, 5)


def recovered_with_a_hole_at_the_end(story: Story) -> None:
    story.see(1)
    story.recover(5, 2, 3)


def recovered_without_the_messages(story: Story) -> None:
    story.see(1)
    story.recover(5)


def recovered_in_another_epoch(story: Story) -> None:
    story.see(1)
    story.recover(5, epoch=NEW)


def recovered_by_a_server_that_is_behind(story: Story) -> None:
    story.see(1, 2, 3, 4, 5)
    story.recover(3)


def recovered_unasked(story: Story) -> None:
    story.track.disconnected()
    story.track.subscribing(None)
    story.track.subscribed(OLD, 0, True)


def behind_without_recovery(story: Story) -> None:
    story.see(1, 2, 3, 4, 5)
    story.recover(3, recovered=False)


def epoch_comes_back_too_early(story: Story) -> None:
    story.see(1, 2, 3)
    story.track.lagged(0, NEW, 0, False)
    story.track.lagged(0, OLD, 1, False)


def told_too_little(story: Story) -> None:
    story.see(1)
    story.track.lagged(1, OLD, 2, False)
    story.see(5)


def told_a_wrong_number(story: Story) -> None:
    story.see(1)
    story.track.lagged(7, OLD, 4, False)


def told_what_was_seen(story: Story) -> None:
    story.see(1, 2, 3, 4)
    story.track.lagged(2, OLD, 2, False)


def caught_up_without_the_messages(story: Story) -> None:
    story.see(1)
    story.track.lagged(3, OLD, 4, True)
    story.see(5)


def promised_and_never_came(story: Story) -> None:
    story.see(*range(1, 11))
    story.track.lagged(2, OLD, 12, True)


def not_told_of_a_new_epoch(story: Story) -> None:
    story.see(*range(1, 11))
    story.checker.published("publisher", "n1")
    story.checker.acknowledged("n1", TOPIC, NEW, 1)


def stays_in_the_old_epoch_while_others_go_on(story: Story) -> None:
    story.see(*range(1, 11))
    story.join("second", 10).lagged(0, NEW, 0, False)


def message_before_the_answer(story: Story) -> None:
    story.see(1)
    story.track.disconnected()
    story.track.subscribing(story.track.position)
    story.see(2)


def another_message_than_acknowledged(story: Story) -> None:
    story.checker.published("publisher", "other")
    story.track.message(1, "other")


def subscribers_differ(story: Story) -> None:
    for name in ("x", "y"):
        story.checker.published("publisher", name)
    story.join("second", 10).message(11, "x")
    story.join("third", 10).message(11, "y")


def one_offset_for_two(story: Story) -> None:
    story.checker.published("publisher", "m11")
    story.checker.acknowledged("m11", TOPIC, OLD, 10)


def one_message_twice_in_an_epoch(story: Story) -> None:
    story.see(*range(1, 11))
    story.track.message(11, "m10")


def acknowledged_twice(story: Story) -> None:
    story.checker.acknowledged("m10", TOPIC, OLD, 11)


def nobody_published_it(story: Story) -> None:
    story.see(*range(1, 12))


def acknowledged_what_nobody_published(story: Story) -> None:
    story.checker.acknowledged("stranger", TOPIC, OLD, 11)


def refused_and_seen(story: Story) -> None:
    story.checker.published("publisher", "m11")
    story.checker.refused("m11", "rate_limited")
    story.see(*range(1, 12))


def publisher_overtakes_itself(story: Story) -> None:
    for name in ("first", "second"):
        story.checker.published("publisher", name)
    story.checker.acknowledged("second", TOPIC, OLD, 11)
    story.checker.acknowledged("first", TOPIC, OLD, 12)


FAULTS: list[tuple[Callable[[Story], None], str]] = [
    (lost_one, "gap"),
    (lost_the_tail, "tail lost"),
    (twice, "duplicate"),
    (out_of_order, "duplicate"),
    (recovered_what_was_seen, "duplicate"),
    (live_again_after_recovery, "duplicate"),
    (recovered_with_a_hole_at_the_start, "false recovery"),
    (recovered_with_a_hole_inside, "gap"),
    (recovered_with_a_hole_at_the_end, "gap"),
    (recovered_without_the_messages, "false recovery"),
    (recovered_in_another_epoch, "false recovery"),
    (recovered_by_a_server_that_is_behind, "false recovery"),
    (recovered_unasked, "false recovery"),
    (behind_without_recovery, "went back"),
    (epoch_comes_back_too_early, "went back"),
    (told_too_little, "gap"),
    (told_a_wrong_number, "miscounted"),
    (told_what_was_seen, "went back"),
    (caught_up_without_the_messages, "gap"),
    (promised_and_never_came, "tail lost"),
    (not_told_of_a_new_epoch, "left behind"),
    (stays_in_the_old_epoch_while_others_go_on, "left behind"),
    (message_before_the_answer, "too early"),
    (another_message_than_acknowledged, "conflict"),
    (subscribers_differ, "conflict"),
    (one_offset_for_two, "shared offset"),
    (one_message_twice_in_an_epoch, "doubled"),
    (acknowledged_twice, "doubled"),
    (nobody_published_it, "unknown"),
    (acknowledged_what_nobody_published, "unknown"),
    (refused_and_seen, "refused but seen"),
    (publisher_overtakes_itself, "publisher's order"),
]


@pytest.mark.parametrize(("falsify", "kind"), FAULTS, ids=[falsify.__name__ for falsify, _ in FAULTS])
def test_finds(falsify: Callable[[Story], None], kind: str) -> None:
    story = Story()
    falsify(story)
    assert kind in story.kinds(), story.checker.report()
    with pytest.raises(AssertionError, match=kind):
        story.checker.assert_sound()


def test_a_publishers_order_may_be_left_out() -> None:
    story = Story(published=0)
    story.checker = Checker(ordered=False)
    publisher_overtakes_itself(story)
    assert story.kinds() == set()


def test_a_message_that_was_retried_comes_at_any_place() -> None:
    story = Story(published=0)
    for name in ("first", "second"):
        story.checker.published("publisher", name)
    story.checker.refused("first", "unavailable")
    story.checker.acknowledged("second", TOPIC, OLD, 1)
    story.checker.acknowledged("first", TOPIC, OLD, 2)
    story.track.message(1, "second")
    story.track.message(2, "first")
    assert story.kinds() == set()
    assert story.checker.refusals == {"unavailable": 1}


def test_report_has_the_first_violations_and_what_came_before() -> None:
    story = Story(published=200)
    story.see(*range(1, 5))
    for offset in range(6, 200, 2):
        story.see(offset)
    report = story.checker.report()
    assert report.startswith("97 violations")
    assert "reader on room, epoch epoch-1: offset 6 after 4, nobody told" in report
    assert "('Message', 4, 'm4')" in report
    assert len(story.checker.violations) == MOST_SHOWN
