"""Lines opened, ended, and not opened again too soon."""

import asyncio

import pytest

from broker.links import running, until
from realtime_communication.broker.redis_line import Events
from realtime_communication.broker.redis_lines import Lines
from realtime_communication.broker.redis_link import RECONNECT_MAX_SECS, RECONNECT_MIN_SECS
from realtime_communication.broker.redis_probe import Prober
from serving.processes import free_port
from serving.proxy import scenario


class Kept:
    """Lines over a link, with the time in the test's hand."""

    def __init__(self, link):
        self.now, self.ended, self.connected, self.got = 100.0, [], 0, {}
        self.link = link
        self.prober = Prober(link, self.got, 0.02, 1.0)
        events = Events(
            lambda channel, data: self.got[channel](data),
            *(lambda line, *details: None for _ in range(4)),
        )
        ended = lambda line, failed: self.ended.append(failed and failed.reply)  # noqa: E731
        self.lines = Lines(link, self.prober, events, self.connect, ended, lambda: self.now, lambda low, high: high)

    def connect(self):
        self.connected += 1


@pytest.fixture
def kept_at(link_to):
    def make(**redis):
        return Kept(link_to(**redis))

    return make


@scenario
async def test_one_to_each_server(redis_server, kept_at):
    kept = kept_at(url=redis_server.url)
    async with running(kept.link):
        line = kept.lines.line_to("")
        assert kept.lines.line_to("") is line
        await until(lambda: line.joined and line.messages)
        assert (kept.lines.joined, kept.connected) == (1, 1)
        line.subscribe([b"a"])
        await until(lambda: line.is_confirmed(b"a"))
        kept.lines.cancel_idle("elsewhere")
        await asyncio.sleep(0)
        assert kept.ended == []
        line.unsubscribe([b"a"])
        kept.lines.cancel_idle("")
        kept.lines.cancel_idle("elsewhere")
        await until(lambda: kept.ended == [None])
        assert (kept.lines.by_server, kept.lines.lost) == ({}, 1)
        assert kept.lines.messages == line.messages
        assert kept.lines.line_to("") is not line  # at once: it was ended on purpose
        await kept.lines.end()
        assert kept.ended == [None, None]


@scenario
async def test_the_pause_after_failures_doubles(kept_at):
    kept, pauses = kept_at(url=f"redis://127.0.0.1:{free_port()}"), []
    for number in range(8):
        assert kept.lines.line_to("") is not None
        await until(lambda number=number: len(kept.ended) == number + 1)
        assert kept.lines.line_to("") is None
        (due,) = kept.lines.due(kept.now)
        pauses.append(round(due - kept.now, 6))
        kept.now = due
    expected = [min(RECONNECT_MAX_SECS, RECONNECT_MIN_SECS * 2**number) for number in range(1, 9)]
    assert pauses == expected
    assert set(kept.ended) == {"LOST"}
    kept.lines.cancel_idle(None)
    assert kept.lines.due(0.0) == []  # nothing is remembered of a server that may be asked again


@scenario
async def test_a_line_that_was_of_use_is_opened_again_soon(redis_server, kept_at):
    kept = kept_at(url=redis_server.url)
    async with running(kept.link):
        await until(lambda: kept.lines.line_to("") and kept.lines.joined)
        redis_server.client.client_kill_filter(_type="pubsub", skipme=True)
        await until(lambda: kept.ended == ["LOST"])
        assert kept.lines.due(kept.now) == [kept.now + RECONNECT_MIN_SECS]
        await kept.lines.end()


@scenario
async def test_ending_leaves_nothing_behind(redis_server, kept_at):
    kept = kept_at(url=redis_server.url)
    async with running(kept.link):
        line = kept.lines.line_to("")
        for steps in range(30):
            await until(lambda: kept.lines.line_to("").joined)
            for _ in range(steps):
                await asyncio.sleep(0)
            kept.lines.cancel(kept.lines.by_server.values())
            await asyncio.sleep(0)
            await kept.lines.end()
            assert len(kept.ended) == steps + 1
            others = [task for task in asyncio.all_tasks() if "Prober" in repr(task) or "Line" in repr(task)]
            assert others == []
        assert not line.connected
