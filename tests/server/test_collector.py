"""When the cyclic collector runs."""

import asyncio
import gc
import weakref

import pytest

from realtime_communication.server import collector as collector_module
from realtime_communication.server.collector import BYTES_PER_MB, MIN_PAUSE_SECS, Collector


def test_the_interval():
    collector = Collector(300, 1024, lambda: 0)
    assert not collector.is_due(299)
    assert collector.is_due(300)


def test_the_threshold_with_a_pause():
    resident = [10 * BYTES_PER_MB]
    collector = Collector(300, 10, lambda: resident[0])
    assert not collector.is_due(MIN_PAUSE_SECS)
    resident[0] += 1
    assert collector.is_due(MIN_PAUSE_SECS)
    assert not collector.is_due(MIN_PAUSE_SECS - 1)


@pytest.fixture
def frozen_again():
    """What a process froze after the collection of its tests (`tests/conftest.py`) is frozen in the end as before."""
    yield
    gc.collect()
    gc.freeze()


class Knot:
    def __init__(self):
        self.self = self


@pytest.mark.usefixtures("frozen_again")
def test_cycles_go_and_everything_is_restored(monkeypatch):
    monkeypatch.setattr(collector_module, "CHECK_SECS", 0.01)
    gone = []

    async def main():
        ended = asyncio.Event()
        task = asyncio.create_task(Collector(0.01, 1024, lambda: 0).run())
        await asyncio.sleep(0)
        assert not gc.isenabled()
        assert gc.get_freeze_count() > 0
        weakref.finalize(Knot(), lambda: (gone.append(True), ended.set()))
        await ended.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(main(), 30))
    assert gone == [True]
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
