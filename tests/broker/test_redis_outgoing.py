"""The queue of publications: order, batches, bounds, and what is kept."""

import random

from realtime_communication.broker import redis_outgoing
from realtime_communication.broker.redis_frames import framed
from realtime_communication.broker.redis_outgoing import BATCH_MESSAGES, Queue


def put(queue, topic, *tokens):
    return [queue.put(topic, token, b"%d" % token, b"") for token in tokens]


def tokens(batch):
    return [item.token for item in batch.items]


def test_one_batch_of_a_topic_at_a_time():
    queue = Queue(b"run")
    put(queue, b"a", 1, 2)
    put(queue, b"b", 3)
    first, other = queue.gather()
    assert (first.topic, tokens(first), other.topic, tokens(other)) == (b"a", [1, 2], b"b", [3])
    assert first.items[0].body == framed(b"1")
    put(queue, b"a", 4, 5)
    assert queue.gather() == []
    queue.done(first)
    (second,) = queue.gather()
    assert tokens(second) == [4, 5]
    assert len({first.id, other.id, second.id}) == 3
    queue.done(second)
    queue.done(other)
    assert queue.is_empty
    assert (queue.messages, queue.bytes) == (0, 0)


def test_a_batch_that_comes_back_is_the_next_one_as_it_was():
    queue = Queue(b"run")
    put(queue, b"a", 1)
    (batch,) = queue.gather()
    put(queue, b"a", 2)
    queue.back(batch)
    assert queue.gather() == [batch]
    assert tokens(batch) == [1]


def test_batches_are_bounded(monkeypatch):
    queue = Queue(b"run")
    put(queue, b"a", *range(1, BATCH_MESSAGES + 2))
    (batch,) = queue.gather()
    assert len(batch.items) == BATCH_MESSAGES
    queue.done(batch)
    assert tokens(queue.gather()[0]) == [BATCH_MESSAGES + 1]
    monkeypatch.setattr(redis_outgoing, "BATCH_BYTES", 100)
    for size in (60, 60, 200, 1):
        queue.put(b"b", 1, bytes(size), b"")
    sizes = []
    while batches := queue.gather():
        sizes.append([len(item.body) - 4 for item in batches[0].items])
        queue.done(batches[0])
    assert sizes == [[60], [60], [200], [1]]


def test_what_is_above_the_bound_is_refused():
    queue = Queue(b"run", most_messages=3)
    assert put(queue, b"a", 1, 2, 3, 4) == [True, True, True, False]
    assert Queue(b"run", most_bytes=10).put(b"a", 1, bytes(7), b"") is False
    (batch,) = queue.gather()
    queue.done(batch)
    assert put(queue, b"a", 5) == [True]


def test_only_what_nobody_waits_for_is_kept():
    queue = Queue(b"run")
    put(queue, b"a", 1, 0, 2)
    put(queue, b"b", 3)
    put(queue, b"c", 0)
    sent, *_ = queue.gather()
    put(queue, b"a", 4, 0)
    items = sent.items
    assert queue.keep_only() == [1, 2, 4, 3]
    assert queue.messages == 5
    assert sent.items is not items  # whoever sent it sees that nobody waits any more
    queue.back(sent)
    # The batch on its way keeps its id: it may have been stored, and another one under that id would be lost.
    assert queue.gather() == [sent]
    assert [(item.token, item.body[4:]) for item in sent.items] == [(0, b"1"), (0, b"0"), (0, b"2")]
    queue.done(sent)
    assert [tokens(batch) for batch in queue.gather()] == [[0]]


def test_nothing_joins_a_batch_that_may_have_been_stored():
    queue = Queue(b"run")
    put(queue, b"a", 1)
    (batch,) = queue.gather()
    queue.back(batch)
    put(queue, b"a", 2)
    assert queue.gather() == [batch]
    assert tokens(batch) == [1]
    queue.done(batch)
    assert [tokens(each) for each in queue.gather()] == [[2]]


def test_what_was_refused_is_not_sent_again():
    queue = Queue(b"run")
    put(queue, b"a", 1)
    (batch,) = queue.gather()
    assert queue.keep_only() == [1]
    queue.back(batch)
    assert queue.is_empty
    assert queue.gather() == []


def test_a_batch_without_anything_left_is_done_with():
    queue = Queue(b"run")
    put(queue, b"a", 1)
    (batch,) = queue.gather()
    assert queue.keep_only() == [1]
    assert put(queue, b"a", 0) == [True]
    queue.done(batch)
    (kept,) = queue.gather()
    assert tokens(kept) == [0]
    queue.done(kept)
    assert queue.is_empty
    assert (queue.messages, queue.bytes) == (0, 0)


def test_while_keeping_the_oldest_give_way(monkeypatch):
    monkeypatch.setattr(redis_outgoing, "BATCH_MESSAGES", 2)
    queue = Queue(b"run", most_messages=6)
    queue.keep_only()
    for topic in (b"a", b"b", b"a", b"b"):
        put(queue, topic, 0, 0)
    assert (queue.messages, queue.dropped) == (6, 2)
    assert sorted(batch.topic for batch in queue.gather()) == [b"a", b"b"]
    assert not Queue(b"run", most_bytes=10).put(b"a", 0, bytes(100), b"")
    queue.keep_no_more()
    assert put(queue, b"a", 0) == [False]


def test_any_order():
    for seed in range(200):
        rng = random.Random(seed)
        queue = Queue(b"run", most_messages=50)
        on_way, got, put_, number, away = [], {}, {}, 0, False
        for _ in range(200):
            action = rng.random()
            if action < 0.5:
                number += 1
                topic = rng.choice((b"a", b"b", b"c"))
                if queue.put(topic, 0 if away else number, b"%d" % number, b""):
                    put_.setdefault(topic, []).append(number)
            elif action < 0.7:
                on_way += [(batch, batch.items) for batch in queue.gather()]
            elif on_way and action < 0.95:
                batch, items = on_way.pop(rng.randrange(len(on_way)))
                if rng.random() < 0.7:
                    queue.done(batch)
                    got.setdefault(batch.topic, []).extend(int(item.body[4:]) for item in items)
                else:
                    queue.back(batch)
            elif action > 0.98:
                away = not away
                _ = queue.keep_only() if away else queue.keep_no_more()
            assert queue.messages >= 0 and queue.bytes >= 0
        for batch, _ in on_way:
            queue.back(batch)
        queue.keep_no_more()
        while batches := queue.gather():
            for batch in batches:
                got.setdefault(batch.topic, []).extend(int(item.body[4:]) for item in batch.items)
                queue.done(batch)
        assert queue.is_empty and (queue.messages, queue.bytes) == (0, 0), seed
        for topic, numbers in got.items():
            assert numbers == sorted(set(numbers)), seed
            assert set(numbers) <= set(put_[topic]), seed
