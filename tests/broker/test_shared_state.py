"""The shared state, the same tests for Redis and for the stand-in."""

import asyncio
import time

import pytest

from broker.links import running
from realtime_communication.broker import redis_state
from realtime_communication.broker.memory import MemoryState
from realtime_communication.broker.redis_state import RedisState
from realtime_communication.broker.shared_state import Rotation
from serving.proxy import scenario

KINDS = ("redis", "memory")


@pytest.fixture(params=KINDS)
def on_state(request, link_to):
    """Plays a scenario with a state: ``on_state(play)``."""

    def run(play):
        @scenario
        async def main():
            if request.param == "memory":
                await play(MemoryState())
                return
            server = request.getfixturevalue("redis_server")
            server.client.flushall()
            link = link_to(url=server.url)
            async with running(link):
                await link.joined()
                await play(RedisState(link))

        main()

    return run


def test_values_expire(on_state):
    async def play(state):
        assert await state.get("a") is None
        await state.put("a", b"\x001", 60)
        await state.put("b", b"2", 0.03)
        assert (await state.get("a"), await state.get("b")) == (b"\x001", b"2")
        while await state.get("b") is not None:
            await asyncio.sleep(0.01)
        await state.delete("a")
        await state.delete("a")
        assert await state.get("a") is None

    on_state(play)


def test_generations_are_rotated_once(on_state):
    async def play(state):
        async def rotate(generation, attempt):
            return await state.compare_and_rotate("family", generation, attempt, 60)

        assert await rotate(0, "a") is Rotation.ROTATED
        assert await rotate(0, "a") is Rotation.ROTATED  # its answer was lost
        assert await rotate(1, "b") is Rotation.ROTATED
        assert await rotate(0, "a") is Rotation.REUSED
        assert await rotate(2, "c") is Rotation.REVOKED
        assert await state.compare_and_rotate("other", 0, "a", 60) is Rotation.ROTATED

    on_state(play)


def test_of_many_at_once_one_is_rotated(on_state):
    async def play(state):
        answers = await asyncio.gather(
            *(state.compare_and_rotate("family", 0, f"attempt {number}", 60) for number in range(20))
        )
        assert answers.count(Rotation.ROTATED) == 1
        assert answers.count(Rotation.REUSED) == 1
        assert answers.count(Rotation.REVOKED) == 18

    on_state(play)


def test_a_state_that_was_lost_heals_and_a_family_can_be_revoked(on_state):
    async def play(state):
        assert await state.compare_and_rotate("family", 7, "a", 60) is Rotation.ROTATED
        assert await state.compare_and_rotate("family", 8, "b", 60) is Rotation.ROTATED
        await state.revoke_family("family", 0.05)
        assert await state.compare_and_rotate("family", 9, "c", 60) is Rotation.REVOKED
        while await state.compare_and_rotate("family", 9, "c", 60) is not Rotation.ROTATED:
            await asyncio.sleep(0.01)

    on_state(play)


def test_sets_whose_members_expire(on_state, monkeypatch):
    monkeypatch.setattr(redis_state, "MAX_BATCH", 4)

    async def play(state):
        now = time.time()
        assert await state.members("set") == []
        members = [(b"%d" % number, now + 100 + number) for number in range(10)]
        await state.add_members("set", [*members, (b"gone", now - 1)])
        await state.add_members("set", [(b"0", now + 50), (b"1", now + 500), (b"short", now + 0.05)])
        expected = dict(members) | {b"1": now + 500}
        found = dict(await state.members("set"))
        assert found.pop(b"short", now + 0.05) == pytest.approx(now + 0.05)
        assert found == pytest.approx(expected)
        while b"short" in dict(await state.members("set")):
            await asyncio.sleep(0.01)

    on_state(play)
