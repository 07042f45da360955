"""Answers that come later."""

import asyncio

import pytest

from realtime_communication._core.hub.hub import RequestError
from realtime_communication._core.hub.relay import Later
from realtime_communication.http.later import settled
from serving.proxy import scenario


@scenario
async def test_an_answer_that_is_there() -> None:
    assert await settled({"offset": 1}) == {"offset": 1}
    later = Later()
    later.settle({"offset": 2}, None)
    assert await settled(later) == {"offset": 2}


@scenario
async def test_one_that_comes() -> None:
    later = Later()
    waiting = asyncio.ensure_future(settled(later))
    await asyncio.sleep(0)
    assert not waiting.done()
    later.settle({"offset": 1}, None)
    later.settle({"offset": 2}, None)
    assert await waiting == {"offset": 1}


@scenario
async def test_one_that_fails() -> None:
    later = Later()
    waiting = asyncio.ensure_future(settled(later))
    await asyncio.sleep(0)
    later.settle(None, RequestError("unavailable", "try again", 200))
    with pytest.raises(RequestError, match="try again"):
        await waiting


@scenario
async def test_nobody_waits_any_more() -> None:
    later = Later()
    waiting = asyncio.ensure_future(settled(later))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    later.settle({"offset": 1}, None)
    assert later.settled
