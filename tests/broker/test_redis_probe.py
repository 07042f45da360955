"""Probes that come back, and that do not."""

import asyncio

import pytest

from broker.links import running
from realtime_communication.broker.redis_errors import RedisFailed
from realtime_communication.broker.redis_probe import Prober
from serving.proxy import scenario


class Asked:
    """In place of a line: keeps what was asked for."""

    def __init__(self, server=""):
        self.server, self.asked = server, []

    def subscribe(self, channels):
        self.asked.append(channels)


@pytest.fixture
def prober_of(link_to):
    def make(*, back_secs=0.1, **redis):
        link, receivers = link_to(**redis), {}
        return Prober(link, receivers, 0.001, back_secs), link, receivers

    return make


@scenario
async def test_a_probe_that_does_not_come_back(redis_server, prober_of):
    prober, link, _ = prober_of(url=redis_server.url)
    async with running(link):
        await link.joined()
        prober.choose(line := Asked())
        with pytest.raises(RedisFailed) as caught:
            await prober.keep(line)
        assert (caught.value.reply, prober.lost) == ("TIMEOUT", 1)
        await link.joined(1)  # it was made anew


@scenario
async def test_probes_that_come_back(redis_server, prober_of):
    prober, link, receivers = prober_of(url=redis_server.url, back_secs=20.0)
    with redis_server.client.pubsub() as other:
        other.subscribe(prober.name)
        async with running(link):
            await link.joined()
            prober.choose(line := Asked())
            keeping = asyncio.create_task(prober.keep(line))
            seen = []
            while len(seen) < 5:
                message = other.get_message(ignore_subscribe_messages=True)
                if message is not None:
                    receivers[prober.name](b"of yesterday")
                    receivers[prober.name](message["data"])
                    receivers[prober.name](message["data"])
                    seen.append(message["data"])
                await asyncio.sleep(0)
            assert len(set(seen)) == 5
            keeping.cancel()
            await asyncio.wait([keeping])
        assert keeping.cancelled()


@scenario
async def test_a_probe_that_cannot_be_published(prober_of):
    prober, _, _ = prober_of(url="redis://127.0.0.1:1")
    prober.choose(line := Asked())
    with pytest.raises(RedisFailed):
        await prober.keep(line)


def test_the_channel_belongs_to_the_server_of_the_line(prober_of):
    prober, link, receivers = prober_of()
    link.topology.server_of = lambda channel: f"h:{sum(channel) % 3}"
    for server in ("h:0", "h:1", "h:2"):
        line = Asked(server)
        prober.choose(line)
        (name,) = line.asked[0]
        assert name.startswith(prober.name)
        assert link.topology.server_of(name) == server
        assert list(receivers) == [name]
        prober.forget(line)
        assert receivers == {}
    prober.choose(line := Asked("nowhere:1"))
    assert (line.asked, receivers) == ([[]], {})
