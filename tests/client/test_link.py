"""When to come back and when to give up, without a network."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from realtime_communication.client.backoff import Backoff
from realtime_communication.client.credentials import Credentials
from realtime_communication.client.errors import (
    AuthenticationFailed,
    ClientError,
    ConnectionLost,
    HandshakeRejected,
)
from realtime_communication.client.events import Disconnected
from realtime_communication.client.link import Link
from realtime_communication.client.protocol import ClientProtocol
from realtime_communication.client.transport import Connection, TryAgain
from serving.proxy import scenario


async def fresh_token() -> str:
    return "fresh"


def link(outcomes: list[Any], *, renewable: bool = False, reconnect: bool = True) -> tuple[Link, list[Disconnected]]:
    """A link whose attempts end as ``outcomes`` say: an error to raise, or a close code after connecting."""
    lost: list[Disconnected] = []
    remaining = iter(outcomes)

    async def dial(factory: Callable[[], Connection], headers: dict[str, str]) -> Connection:
        outcome = next(remaining)
        if isinstance(outcome, ClientError):
            raise outcome
        connection = factory()
        connection.ended.set_result((outcome, "why"))
        return connection

    made = Link(
        ClientProtocol(),
        Credentials(None if renewable else "t", fresh_token if renewable else None, None, 1),
        dial,
        Backoff(0.001, 0.001),
        reconnect=reconnect,
        greeting_timeout=1,
        max_message_size=1000,
        on_change=lambda: None,
        on_lost=lost.append,
    )
    return made, lost


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1009, 1011, 1012, 1013, 4408, 4429, 4490])
@scenario
async def test_comes_back_after(code: int) -> None:
    made, lost = link([code, HandshakeRejected("stop here", status=404)])
    await made.run()
    assert [event.code for event in lost] == [code]


@pytest.mark.parametrize("code", [4401, 4403])
@scenario
async def test_fixed_token_is_the_end_after(code: int) -> None:
    made, lost = link([code])
    await made.run()
    assert isinstance(made.failure, AuthenticationFailed) and made.failure.code == str(code)
    assert lost == []


@scenario
async def test_new_token_is_tried() -> None:
    made, lost = link([4401, HandshakeRejected("stop here", status=404)], renewable=True)
    await made.run()
    assert [event.code for event in lost] == [4401]


@scenario
async def test_who_was_disconnected_by_an_administrator_does_not_come_back() -> None:
    made, lost = link([4403], renewable=True)
    await made.run()
    assert isinstance(made.failure, AuthenticationFailed) and made.failure.code == "4403"
    assert lost == []


@scenario
async def test_passing_refusals_wait_as_the_server_says() -> None:
    made, lost = link([TryAgain("full", 0.05), HandshakeRejected("stop here", status=404)])
    await made.run()
    assert lost[0].retry_in is not None and lost[0].retry_in >= 0.05


@scenario
async def test_announced_delay_is_kept() -> None:
    made, lost = link([1001, HandshakeRejected("stop here", status=404)])
    made.stay_away(80)
    await made.run()
    assert lost[0].retry_in is not None and lost[0].retry_in > 0.04


@scenario
async def test_no_reconnect() -> None:
    made, lost = link([1006], reconnect=False)
    await made.run()
    assert isinstance(made.failure, ConnectionLost)
    assert lost == []


@scenario
async def test_stop_ends_it() -> None:
    made, _ = link([ConnectionLost("away")] * 1000)
    running = asyncio.create_task(made.run())
    await asyncio.sleep(0.01)
    made.stop()
    await running
    assert made.failure is None
