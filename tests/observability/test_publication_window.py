"""What was sampled of the publications of the last seconds."""

import asyncio

import pytest

from realtime_communication.observability.publication_window import (
    BOUNDS,
    LOOK_SECS,
    MAX_TOPICS,
    WINDOW_SECS,
    PublicationWindow,
    percentiles,
    summed,
)
from serving.hand_clock import HandClock


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def window(clock):
    return PublicationWindow(clock)


def samples(*durations, topic="t"):
    return [("Broadcast", topic, 0, int(seconds * 1e9)) for seconds in durations]


def test_somebody_looks_for_a_while(window, clock):
    assert not window.watched
    window.look()
    clock.now = LOOK_SECS - 0.1
    assert window.watched
    clock.now = LOOK_SECS
    assert not window.watched


def test_whoever_feeds_it_waits_for_that(window, clock):
    async def test():
        window.add(samples(1))
        waiting = asyncio.create_task(window.looked_at())
        await asyncio.sleep(0)
        assert not waiting.done()
        window.look()
        await waiting
        assert sum(window.read()["latency"]) == 0, "of what was before nothing is left"
        await window.looked_at()
        clock.now = LOOK_SECS
        again = asyncio.create_task(window.looked_at())
        await asyncio.sleep(0)
        assert not again.done()
        again.cancel()

    asyncio.run(test())


def test_the_last_seconds_count(window, clock):
    window.add(samples(0.001, 0.002))
    clock.now = WINDOW_SECS
    window.add(samples(0.003))
    assert sum(window.read()["latency"]) == 3
    clock.now = WINDOW_SECS + 0.1
    assert sum(window.read()["latency"]) == 1


def test_the_busiest_topics(window):
    for number in range(MAX_TOPICS + 10):
        window.add(samples(*([0.001] * (number + 1)), topic=f"t{number}"))
    found = window.read()["topics"]
    assert len(found) == MAX_TOPICS
    assert found[0] == f"t{MAX_TOPICS + 9}"


def test_percentiles_are_near_to_what_was_measured(window):
    window.add(samples(*(number / 1000 for number in range(1, 1001))))
    found = percentiles(window.read()["latency"])
    for name, seconds in {"p50": 0.5, "p90": 0.9, "p99": 0.99}.items():
        assert found[name] == pytest.approx(seconds, rel=0.13), name


def test_percentiles_of_nothing_and_of_what_is_above_all():
    assert set(percentiles(summed([])).values()) == {None}
    assert percentiles([0] * len(BOUNDS) + [5])["p50"] == BOUNDS[-1] == 10


def test_several_are_summed_bucket_by_bucket():
    assert summed([[1, 2], [3, 4]]) == [4, 6]
