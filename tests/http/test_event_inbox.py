"""What a stream tells of the reader's inbox."""

import json

import pytest

from realtime_communication.http import event_inbox
from realtime_communication.http.event_ids import Position
from realtime_communication.http.event_inbox import Inbox

EPOCH, OTHER = "0123456789abcdef", "fedcba9876543210"


def stored(*offsets):
    return [b'{"offset":%d,"ts":1,"from":"bob","payload":1}' % offset for offset in offsets]


def live(inbox, offset):
    return inbox.live(offset, b'{"type":"DirectMessage","offset":%d}' % offset)


def offsets(told):
    return [json.loads(each.data)["offset"] for each in told if each.name == "DirectMessage"]


def gaps(told):
    return [json.loads(each.data)["missed"] for each in told if each.name == "Lagged"]


class TestTheFirstTime:
    def test_nothing_is_told_of_what_was_before(self):
        inbox = Inbox("@me", None)
        assert inbox.page(EPOCH, 7, stored(7)) == ([], False)
        assert (inbox.answered, inbox.position) == (True, Position(EPOCH, 7))
        assert live(inbox, 8)[0].position == inbox.position == Position(EPOCH, 8)

    def test_what_comes_before_the_answer_waits_for_it(self):
        inbox = Inbox("@me", None)
        assert live(inbox, 7) == live(inbox, 8) == []
        told, _ = inbox.page(EPOCH, 8, stored(8))
        assert offsets(told) == [7, 8]
        assert inbox.position == Position(EPOCH, 8)

    def test_an_answer_that_overtook_messages(self):
        inbox = Inbox("@me", None)
        inbox.page(EPOCH, 8, stored(8))
        assert offsets(live(inbox, 7) + live(inbox, 8)) == [7, 8]


class TestComingBack:
    def test_to_an_inbox_where_nothing_came(self):
        inbox = Inbox("@me", Position(EPOCH, 7))
        assert inbox.page(EPOCH, 7, []) == ([], False)
        assert offsets(live(inbox, 8)) == [8]

    @pytest.mark.parametrize(("kept", "missed"), [((8, 9), []), ((9,), [1]), ((), [2])])
    def test_what_is_no_longer_kept_is_told(self, kept, missed):
        inbox = Inbox("@me", Position(EPOCH, 7))
        told, goes_on = inbox.page(EPOCH, 9, stored(*kept))
        assert (offsets(told), gaps(told), goes_on) == (list(kept), missed, False)
        assert inbox.position == Position(EPOCH, 9)

    def test_it_is_told_once(self):
        inbox = Inbox("@me", Position(EPOCH, 1))
        told, goes_on = inbox.page(EPOCH, 9, stored(4, 5))
        assert (gaps(told), goes_on) == ([2], True)
        assert json.loads(inbox.request())["after"] == {"epoch": EPOCH, "offset": 5}
        told, goes_on = inbox.page(EPOCH, 9, stored(8, 9))
        assert (offsets(told), gaps(told), goes_on) == ([8, 9], [], False)

    def test_another_epoch_is_read_from_its_beginning(self):
        inbox = Inbox("@me", Position(EPOCH, 7))
        told, goes_on = inbox.page(OTHER, 2, stored(1, 2))
        assert (offsets(told), gaps(told), goes_on) == ([], [0], True)
        assert json.loads(inbox.request())["after"] == {"epoch": OTHER, "offset": 0}
        assert offsets(inbox.page(OTHER, 2, stored(1, 2))[0]) == [1, 2]

    def test_live_messages_that_the_page_had_come_once(self):
        inbox = Inbox("@me", Position(EPOCH, 7))
        live(inbox, 8)
        told, _ = inbox.page(EPOCH, 9, stored(8, 9))
        assert offsets(told + live(inbox, 9) + live(inbox, 10)) == [8, 9, 10]

    def test_after_a_new_epoch_offsets_begin_anew(self):
        inbox = Inbox("@me", Position(EPOCH, 7))
        inbox.page(EPOCH, 9, stored(8, 9))
        inbox.lagged(OTHER, 0)
        assert live(inbox, 1)[0].position == Position(OTHER, 1)


class TestLagged:
    """What the data plane says it has skipped."""

    def test_what_the_history_had_is_no_news(self):
        inbox = Inbox("@me", Position(EPOCH, 7))
        told, _ = inbox.page(EPOCH, 9, stored(8, 9))
        assert (gaps(told), offsets(told)) == ([], [8, 9])
        assert not inbox.lagged(EPOCH, 9)
        assert inbox.lagged(EPOCH, 10)

    def test_before_the_history_is_read_it_waits_for_that(self):
        inbox = Inbox("@me", Position(EPOCH, 7))
        assert not inbox.lagged(EPOCH, 9)
        live(inbox, 10)
        told, _ = inbox.page(EPOCH, 9, stored(8, 9))
        assert (gaps(told), offsets(told)) == ([], [8, 9, 10])

    def test_what_the_history_has_not_either_is_told(self):
        inbox = Inbox("@me", Position(EPOCH, 7))
        assert not inbox.lagged(EPOCH, 11)
        live(inbox, 12)
        told, _ = inbox.page(EPOCH, 9, stored(8, 9))
        assert (gaps(told), offsets(told)) == ([2], [8, 9, 12])

    def test_another_epoch_is_news(self):
        inbox = Inbox("@me", Position(EPOCH, 7))
        inbox.page(EPOCH, 9, stored(8, 9))
        assert inbox.lagged(OTHER, 0)


def test_a_history_that_cannot_be_read():
    inbox = Inbox("@me", Position(EPOCH, 7))
    live(inbox, 9)
    told = inbox.failed()
    assert (gaps(told), offsets(told)) == ([0], [9])
    assert inbox.position is None and inbox.answered
    assert (inbox.failed(), inbox.page(EPOCH, 9, stored(9))) == ([], ([], False))
    assert live(inbox, 10)[0].position is None


def test_what_waits_is_bounded(monkeypatch):
    monkeypatch.setattr(event_inbox, "MOST_HELD", 2)
    inbox = Inbox("@me", Position(EPOCH, 7))
    assert live(inbox, 8) == live(inbox, 9) == []
    told = live(inbox, 10)
    assert (gaps(told), offsets(told)) == ([0], [8, 9, 10])
    assert inbox.position is None
