"""Topics of one type of payload, against running servers."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
from typing import Any

import msgspec
import pytest

from realtime_communication.client import (
    Client,
    Join,
    Message,
    PayloadMismatch,
    RequestError,
    TypedMessage,
    connect,
)
from serving.peer import unique, unique_user
from serving.processes import ServerProcess
from serving.proxy import scenario
from serving.tokens import token


class Move(msgspec.Struct, frozen=True):
    piece: str
    to: tuple[int, int]
    at: datetime.datetime
    blob: bytes = b""


@dataclasses.dataclass
class Note:
    text: str


MOVE = Move("rook", (3, 4), datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), b"\x00\xff")


def client(server: ServerProcess, **options: Any) -> Client:
    return connect(server.url, token=token(unique_user()), **options)


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@scenario
async def test_payloads_come_back_as_their_type(server: ServerProcess, encoding: Any) -> None:
    async with client(server, encoding=encoding) as alice:
        room = alice.topic(unique(), type=Move)
        async with await room.subscribe() as subscription:
            position = await room.publish(MOVE)
            async for message in subscription.messages():
                assert message == TypedMessage(room.name, 1, message.ts, message.sender, MOVE, position.epoch)
                assert isinstance(message, Message) and isinstance(message.payload, Move)
                break
            assert subscription.position == position
        page = await room.history()
        assert [message.payload for message in page.messages] == [MOVE] and page.position == position
        assert (await room.presence()).count == 0


@pytest.mark.parametrize(("kind", "payload"), [(Note, Note("x")), (list[int], [1, 2]), (dict[str, float], {"a": 1.5})])
@scenario
async def test_whatever_msgspec_understands(server: ServerProcess, kind: Any, payload: Any) -> None:
    async with client(server) as alice:
        room = alice.topic(unique(), type=kind)
        await room.publish(payload)
        assert [message.payload for message in (await room.history()).messages] == [payload]


@scenario
async def test_a_mismatch_is_raised_and_the_subscription_goes_on(server: ServerProcess) -> None:
    async with client(server) as alice:
        room = alice.topic(unique(), type=Note)
        subscription = await room.subscribe()
        await alice.publish(room.name, {"text": 7})
        await room.publish(Note("fits"))
        with pytest.raises(PayloadMismatch) as caught:
            async for _ in subscription:
                pass
        found = caught.value
        assert (found.topic, found.offset, found.payload) == (room.name, 1, {"text": 7})
        assert "$.text" in found.reason and "Expected `str`" in str(found)
        async for event in subscription:
            assert isinstance(event, TypedMessage) and event.payload == Note("fits")
            break
        with pytest.raises(PayloadMismatch):
            await room.history()


@scenario
async def test_a_mismatch_may_be_taken_and_left_out(server: ServerProcess) -> None:
    async with client(server) as alice, client(server) as bob:
        mismatches: list[PayloadMismatch] = []
        seen: asyncio.Queue[Any] = asyncio.Queue()
        room = alice.topic(unique(), type=Note, on_mismatch=mismatches.append)
        await room.subscribe(callback=seen.put_nowait, presence=True)
        await bob.subscribe(room.name)
        await bob.publish(room.name, 7)
        await bob.publish(room.name, {"text": "fits"})
        assert isinstance(await seen.get(), Join)
        assert (await seen.get()).payload == Note("fits")
        assert [mismatch.offset for mismatch in mismatches] == [1]
        assert [message.payload for message in (await room.history()).messages] == [Note("fits")]


@scenario
async def test_refusals_are_those_of_the_client(server: ServerProcess) -> None:
    async with client(server) as alice:
        with pytest.raises(RequestError) as caught:
            await alice.topic("@somebody", type=Note).subscribe()
        assert caught.value.code == "forbidden"
