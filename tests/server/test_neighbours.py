"""A worker joins the others of its node: played supervisor, real bus."""

import asyncio

import pytest

from realtime_communication._core.hub.hub import Hub
from realtime_communication._core.io.reactor import Reactor
from realtime_communication.server import neighbours
from realtime_communication.server.neighbours import Neighbours
from realtime_communication.server.place import Place
from serving.proxy import scenario


class Channel:
    """Notes what a worker says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def notify(self, method: str) -> None:
        self.said.append(method)


class Made:
    """A worker as far as its neighbours go."""

    def __init__(self, seat: int, folder: str) -> None:
        self.hub = Hub("node")
        self.reactor = Reactor(self.hub, asyncio.get_running_loop(), None, None, None)
        self.channel = Channel()
        place = Place(seat=seat, incarnation=seat + 1, bus_dir=folder)
        self.neighbours = Neighbours(place, self.hub, self.reactor, self.channel)
        self.reactor.start()


@scenario
async def test_two_become_homes(tmp_path) -> None:
    first, second = (Made(seat, str(tmp_path)) for seat in (0, 1))
    joining = [asyncio.ensure_future(made.neighbours.join()) for made in (first, second)]
    await asyncio.sleep(0)
    links = {0: 1, 1: 2}
    for made in (first, second):
        assert made.channel.said == ["linking"]
        made.neighbours.follow({"version": 1, "links": links, "homes": []})
    async with asyncio.timeout(5):
        while not all(made.channel.said == ["linking", "linked"] for made in (first, second)):
            await asyncio.sleep(0.01)
    assert not any(task.done() for task in joining)
    for made in (first, second):
        made.neighbours.follow({"version": 2, "links": links, "homes": [0, 1]})
    await asyncio.gather(*joining)
    assert first.neighbours.statistics()["links"] == 1
    hurry = asyncio.Event()
    assert await first.neighbours.all_arrive(hurry)
    hurry.set()
    assert not await second.neighbours.all_arrive(hurry)  # the answer takes a turn of the loop
    for made in (first, second):
        made.reactor.stop()


@scenario
async def test_one_that_is_drained_becomes_no_home(tmp_path) -> None:
    made = Made(1, str(tmp_path))
    joining = asyncio.ensure_future(made.neighbours.join(home=False))
    await asyncio.sleep(0)
    made.neighbours.follow({"version": 1, "links": {1: 2}, "homes": []})
    await joining
    assert made.channel.said == ["linking", "linked"]
    made.reactor.stop()


@scenario
async def test_a_neighbour_that_is_stuck_is_not_waited_for(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "LINK_SECS", 0.05)
    monkeypatch.setattr(neighbours, "HOME_SECS", 0.05)
    made = Made(0, str(tmp_path))
    joining = asyncio.ensure_future(made.neighbours.join())
    await asyncio.sleep(0)
    made.neighbours.follow({"version": 1, "links": {0: 1, 5: 9}, "homes": [5]})
    await joining
    assert made.channel.said == ["linking", "linked"]
    made.reactor.stop()
