"""Samples of publications, from the data plane to traces and metrics."""

import asyncio
import contextlib

import pytest

from realtime_communication.observability.publication_window import PublicationWindow
from realtime_communication.observability.spans import Tracer
from realtime_communication.server import samples
from realtime_communication.server.samples import LOOK_SAMPLES, MAX_KEPT, MAX_SPANS, SampleFeed


class StandInHub:
    """Gives what is put into ``ring``, once; ``rates`` are those it was asked to observe with."""

    def __init__(self, *rings):
        self.rings = list(rings)
        self.rates = []

    def observe(self, rate):
        self.rates.append(rate)

    def take_samples(self):
        if not self.rings:
            raise asyncio.CancelledError
        return self.rings.pop(0)


class NotingTracer(Tracer):
    def __init__(self, sample_rate):
        self.sample_rate = sample_rate
        self.noted = []
        self.calls = []

    def record_samples(self, samples, rate):
        self.noted += samples
        self.calls.append((len(samples), rate))


def made(count, start=0):
    return [("Broadcast", f"room:{number}", number, 1) for number in range(start, start + count)]


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(samples, "INTERVAL_SECS", 0)


def run(feed):
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(feed.run())


def test_nobody_wants_any():
    assert not SampleFeed(StandInHub(), NotingTracer(0.0)).wanted


@pytest.mark.parametrize(
    ("traces", "metrics", "rate"), [(0.1, 0.0, 0.1), (0.0, 0.5, 0.5), (0.1, 0.5, 0.5), (1, 0.5, 1)]
)
def test_the_hub_times_what_the_greedier_one_wants_and_nothing_in_the_end(traces, metrics, rate):
    hub = StandInHub()
    feed = SampleFeed(hub, NotingTracer(traces), metrics_rate=metrics)
    assert feed.wanted
    run(feed)
    assert hub.rates == [rate, 0.0]


def test_both_get_all():
    tracer = NotingTracer(1.0)
    feed = SampleFeed(StandInHub(made(100), made(3, start=100)), tracer, metrics_rate=0.5)
    run(feed)
    assert tracer.noted == feed.take() == made(103)
    assert feed.take() == []
    assert {rate for _, rate in tracer.calls} == {1.0}
    assert max(count for count, _ in tracer.calls) == samples.SPANS_AT_ONCE


def test_only_who_wants_them_gets_them():
    tracer = NotingTracer(0.0)
    feed = SampleFeed(StandInHub(made(5)), tracer, metrics_rate=1.0)
    run(feed)
    assert (tracer.noted, feed.take()) == ([], made(5))
    tracer = NotingTracer(1.0)
    feed = SampleFeed(StandInHub(made(5)), tracer)
    run(feed)
    assert (tracer.noted, feed.take()) == (made(5), [])


def test_bounds():
    tracer = NotingTracer(1.0)
    feed = SampleFeed(StandInHub(made(4096), made(4096, start=4096)), tracer, metrics_rate=1.0)
    run(feed)
    assert len(tracer.noted) == 2 * MAX_SPANS
    assert len(set(tracer.noted)) == 2 * MAX_SPANS
    assert feed.take() == made(MAX_KEPT, start=4096)


def test_a_tracer_that_wants_a_tenth_may_be_given_ten_times_as_many():
    tracer = NotingTracer(0.1)
    run(SampleFeed(StandInHub(made(4096), made(20_000)), tracer, metrics_rate=1.0))
    assert len(tracer.noted) == 4096 + 10 * MAX_SPANS


class TestSomebodyLooks:
    def test_nothing_is_timed_until_then_and_nothing_afterwards(self):
        now = [0.0]
        window = PublicationWindow(lambda: now[0])
        hub = StandInHub(made(3), [])
        feed = SampleFeed(hub, NotingTracer(0.0), window=window)
        assert feed.wanted

        async def test():
            task = asyncio.create_task(feed.run())
            await asyncio.sleep(0)
            assert hub.rates == []
            window.look()
            while len(hub.rings) == 2:
                await asyncio.sleep(0)
            assert (hub.rates, sum(window.read()["latency"])) == ([1.0], 3)
            now[0] = 100.0
            while hub.rates == [1.0]:
                await asyncio.sleep(0)
            assert hub.rates == [1.0, 0.0]
            task.cancel()

        asyncio.run(test())

    def test_of_many_only_some_are_timed(self):
        hub = StandInHub(made(4 * LOOK_SAMPLES), made(LOOK_SAMPLES), made(1))
        window = PublicationWindow()
        window.look()
        run(SampleFeed(hub, NotingTracer(0.0), window=window))
        assert hub.rates == [1.0, 0.25, 1.0, 0.0]

    def test_the_others_get_theirs(self):
        window = PublicationWindow()
        window.look()
        tracer = NotingTracer(0.5)
        feed = SampleFeed(StandInHub(made(5)), tracer, metrics_rate=0.1, window=window)
        run(feed)
        assert tracer.noted == feed.take() == made(5)
        assert sum(window.read()["latency"]) == 5
