"""A topic's feed alone: frames lost, doubled and late, reads that come in between."""

import random

import pytest

from realtime_communication.broker import redis_topics
from realtime_communication.broker.redis_frames import Publications, framed, mark_of, split_bodies
from realtime_communication.broker.redis_topics import FeedState, Page, TopicFeed

EPOCH = 77


class Receiver:
    def __init__(self):
        self.got = []
        self.resets = []

    def deliver_upstream(self, topic, epoch, first, bodies):
        for number, body in enumerate(split_bodies(bodies)):
            self.got.append((epoch, first + number, int(body)))

    def reset_topic(self, topic, epoch, offset):
        self.resets.append((epoch, offset))


def body(offset):
    return framed(b"%08d" % offset)


def frame(first, last, epoch=EPOCH):
    bodies = [body(offset) for offset in range(first, last + 1)]
    return Publications(epoch, first, len(bodies), b"".join(bodies), mark_of(bodies[-1]))


def page(first, offset, epoch=EPOCH):
    return Page(epoch, offset, first, tuple(body(each) for each in range(first, offset + 1)))


def read(feed, answer):
    feed.begin_read()
    feed.settle(answer)
    return feed.finish_read()


@pytest.fixture
def receiver():
    return Receiver()


@pytest.fixture
def feed(receiver):
    """A live one, at offset 10."""
    feed = TopicFeed(b"t", receiver)
    assert not read(feed, page(11, 10))
    return feed


def offsets(receiver):
    assert all(offset == number for _, offset, number in receiver.got)
    return [offset for _, offset, _ in receiver.got]


def test_what_comes_before_the_first_read_follows_it(receiver):
    feed = TopicFeed(b"t", receiver)
    assert not feed.receive(frame(9, 10))
    feed.begin_read()
    assert not feed.receive(frame(11, 12))
    feed.settle(page(11, 10))
    assert (feed.state, feed.epoch, feed.offset, receiver.got) == (FeedState.LIVE, EPOCH, 10, [])
    assert not feed.finish_read()
    assert offsets(receiver) == [11, 12]
    assert feed.strays == 0


def test_frames_that_continue_and_frames_that_repeat(feed, receiver):
    for each in (frame(11, 11), frame(11, 11), frame(10, 13), frame(5, 9), frame(14, 14)):
        assert not feed.receive(each)
    assert offsets(receiver) == [11, 12, 13, 14]


def test_a_gap_is_filled_before_anything_follows(feed, receiver):
    assert feed.receive(frame(13, 13))
    assert feed.state is FeedState.BEHIND
    assert not feed.receive(frame(14, 14))
    assert receiver.got == []
    assert not read(feed, page(11, 13))
    assert offsets(receiver) == [11, 12, 13, 14]
    assert (feed.gaps, receiver.resets) == (1, [])


def test_a_gap_that_cannot_be_filled(feed, receiver):
    assert feed.receive(frame(13, 14))
    assert not read(feed, page(14, 14))
    assert receiver.resets == [(EPOCH, 12)]
    assert offsets(receiver) == [13, 14]


def test_another_epoch(feed, receiver):
    assert feed.receive(frame(1, 2, EPOCH - 1))
    assert not read(feed, page(3, 2, EPOCH - 1))
    assert receiver.resets == [(EPOCH - 1, 0)]
    assert receiver.got == [(EPOCH - 1, 1, 1), (EPOCH - 1, 2, 2)]


def test_frames_that_the_stream_does_not_bear_out_are_dropped(feed, receiver):
    assert feed.receive(frame(1000, 1000))
    feed.receive(frame(1, 1, EPOCH + 1))
    assert not read(feed, page(11, 10))
    assert (feed.strays, feed.offset, receiver.got, receiver.resets) == (2, 10, [], [])
    assert not feed.receive(frame(11, 11))


def test_a_read_that_began_before_a_gap_does_not_settle_it(feed, receiver):
    feed.begin_read()
    assert feed.receive(frame(13, 13))
    feed.settle(page(11, 11))
    assert feed.finish_read()
    assert offsets(receiver) == [11]
    assert not read(feed, page(12, 13))
    assert offsets(receiver) == [11, 12, 13]


def test_a_read_that_began_before_a_loss_does_not_settle_it(feed, receiver):
    for _ in range(2):
        feed.begin_read()
        feed.suspect()  # 12 is lost, and nothing follows that would show it
        feed.settle(page(11, 11))
        assert feed.finish_read()
    assert not read(feed, page(11, 12))
    assert offsets(receiver) == [11, 12]


def test_a_loss_before_the_first_read_has_an_answer_is_looked_into(receiver):
    feed = TopicFeed(b"t", receiver)
    feed.begin_read()
    feed.suspect()
    feed.settle(page(11, 10))
    assert feed.finish_read()
    assert not read(feed, page(11, 11))
    assert offsets(receiver) == [11]


def test_a_page_is_extended_to_what_was_delivered_meanwhile(feed, receiver):
    feed.begin_read()
    feed.receive(frame(11, 12))
    feed.receive(frame(13, 13))
    answer = page(5, 11)
    feed.settle(answer)
    extended = feed.extended(answer)
    assert extended == page(5, 13)
    assert not feed.finish_read()
    assert offsets(receiver) == [11, 12, 13]


def test_a_page_ahead_of_a_feed_it_cannot_bring_up_is_cut(feed, receiver):
    feed.begin_read()
    answer = page(13, 13)
    feed.settle(answer)
    assert feed.offset == 10
    assert feed.extended(answer) == Page(EPOCH, 10, 11, ())
    assert not feed.finish_read()
    assert receiver.resets == []


def test_too_much_to_keep_is_read_again(feed, receiver, monkeypatch):
    monkeypatch.setattr(redis_topics, "KEPT_BYTES", 40)
    assert feed.receive(frame(12, 14))
    feed.begin_read()
    for offset in range(15, 20):
        feed.receive(frame(offset, offset))
    feed.settle(page(11, 14))
    assert feed.finish_read()
    assert not read(feed, page(15, 19))
    assert offsets(receiver) == list(range(11, 20))


def test_other_messages_under_the_same_offset_are_noticed(feed):
    feed.receive(frame(11, 12))
    assert not feed.is_other_history(page(11, 12))
    assert not feed.is_other_history(page(13, 12))
    assert feed.is_other_history(Page(EPOCH, 12, 11, (body(11), framed(b"another!"))))


def test_any_order_of_losses_and_reads(receiver):
    """Frames get lost or come twice, reads take their time: what is delivered is the stream, in its order."""
    for seed in range(300):
        rng = random.Random(seed)
        receiver = Receiver()
        feed = TopicFeed(b"t", receiver)
        end = rng.randrange(5)
        wants, pages = True, []
        sent = []
        for _ in range(80):
            action = rng.random()
            if action < 0.5:
                count = rng.randrange(1, 4)
                sent.append(frame(end + 1, end + count))
                end += count
                if rng.random() < 0.8:
                    wants = feed.receive(sent[-1]) or wants
            elif action < 0.6 and sent:
                wants = feed.receive(rng.choice(sent)) or wants
            elif action < 0.8 and wants and not pages:
                feed.begin_read()
                pages.append(page(1, end))
                wants = False
            elif pages:
                taken = pages.pop()
                feed.settle(taken)
                extended = feed.extended(taken)
                assert extended.offset == feed.offset, seed
                assert extended == page(1, feed.offset), seed
                wants = feed.finish_read() or wants
        if pages:
            feed.fail_read()
        feed.suspect()
        while read(feed, page(1, end)):
            pass
        got = offsets(receiver)
        assert got == list(range(end + 1 - len(got), end + 1)), seed
        assert receiver.resets == [], seed
