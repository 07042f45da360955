"""A worker that is drained and goes on."""

import asyncio
import contextlib

from realtime_communication.auth.chain import AuthenticationChain
from realtime_communication.config.schema import Config
from realtime_communication.http.services import Services
from realtime_communication.server.draining import Draining


class Hub:
    def __init__(self, clients):
        self.clients = clients
        self.steps = []

    def connection_count(self):
        return self.clients

    def begin_drain(self, spread_ms, reason, code):
        self.steps.append(("drain", spread_ms, code))

    def close_all(self, code, reason):
        self.steps.append(("close", code))
        self.clients = 0


def drained(hub, drain_secs, *, leave=False, workers=1):
    services = Services(hub=hub, chain=AuthenticationChain([]), config=Config(), profile="test", node_id="n")

    async def main():
        draining = Draining(hub, services, lambda: drain_secs)
        task = asyncio.create_task(draining.run())
        await asyncio.sleep(0)
        assert hub.steps == []
        counts = [draining.begin(workers), draining.begin(workers)]
        if leave:
            hub.clients = 0
        while hub.clients:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        assert not task.done(), "the service goes on"
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return counts

    return asyncio.run(asyncio.wait_for(main(), 20)), services


def test_clients_are_told_once_and_closed_when_they_stay():
    hub = Hub(2000)
    counts, services = drained(hub, 0.05)
    assert counts == [2000, 0]
    assert services.draining
    assert hub.steps == [("drain", 1000, 1001), ("close", 1001)]


def test_nobody_is_closed_when_all_have_left():
    hub = Hub(5)
    drained(hub, 60, leave=True)
    assert [step[0] for step in hub.steps] == ["drain"]


def test_the_spread_is_that_of_all_workers_that_drain():
    hub = Hub(20_000)
    drained(hub, 0.05, workers=4)
    assert hub.steps[0] == ("drain", 8000, 1001)
