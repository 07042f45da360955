"""The swarm against a server, with faults that it must survive and with servers that lie."""

import asyncio
from collections.abc import Iterator

import pytest

from serving.checker import Checker
from serving.peer import Peer, unique
from serving.processes import ServerProcess, free_port
from serving.proxy import Proxy, scenario
from serving.swarm import Swarm


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    process = ServerProcess("product", free_port(), None, None)
    process.start()
    yield process
    process.dispose()


async def acknowledged(swarm: Swarm, count: int) -> None:
    """Wait until so many publications are acknowledged."""
    assert await swarm.until(lambda: swarm.checker.totals.acknowledged >= count)


@scenario
async def test_everybody_sees_everything(server: ServerProcess) -> None:
    checker, topics = Checker(), [unique(), unique()]
    async with Swarm([server.url], checker) as swarm:
        await swarm.subscribe(20, topics)
        await swarm.publish(2, topics, 1000)
        await acknowledged(swarm, 100)
        await swarm.settle()
    assert checker.totals.acknowledged == checker.totals.published
    assert checker.totals.deliveries == 20 * checker.totals.acknowledged


@scenario
async def test_cut_clients_recover_and_go_to_the_next_address(server: ServerProcess) -> None:
    checker, topic = Checker(), unique()
    async with Proxy(server.port) as proxy, Swarm([server.url, proxy.url], checker) as swarm:
        await swarm.subscribe(8, [topic])
        await swarm.publish(2, [topic], 1000)
        for _ in range(3):
            await acknowledged(swarm, checker.totals.acknowledged + 20)
            for client in swarm.clients:
                client.cut()
            assert await swarm.ready()
        await swarm.settle()
        assert {client.closes[0] for client in swarm.clients} == {1006}
        assert all(client.opened >= 4 for client in swarm.clients)
        assert proxy.accepted > 0
    assert checker.totals.recoveries >= 3 * 8
    assert checker.totals.resets == 0
    assert checker.totals.deliveries == 8 * checker.totals.acknowledged


@scenario
async def test_clients_that_stay_away_come_back_to_what_they_missed(server: ServerProcess) -> None:
    checker, topic = Checker(), unique()
    async with Swarm([server.url], checker) as swarm:
        away, _ = await swarm.subscribe(2, [topic])
        away.stay_away()
        away.cut()
        await swarm.publish(1, [topic], 1000)
        await acknowledged(swarm, 50)
        assert not away.is_ready
        away.come_back()
        await swarm.settle()
    assert checker.totals.recovered_messages >= 50


@scenario
async def test_a_loss_is_found(server: ServerProcess) -> None:
    """One subscriber's track skips a message: the account of the whole swarm must not come out."""
    checker, topic = Checker(), unique()
    async with Swarm([server.url], checker) as swarm:
        victim, _ = await swarm.subscribe(2, [topic])
        await swarm.publish(1, [topic], 1000)
        await acknowledged(swarm, 20)
        victim.tracks[topic].offset -= 1
        assert await swarm.until(lambda: checker.violation_count > 0)
        with pytest.raises(AssertionError, match="gap"):
            await swarm.settle()


@scenario
async def test_a_client_that_cannot_come_back_is_told(server: ServerProcess) -> None:
    async with Swarm([server.url], Checker()) as swarm:
        (away,) = await swarm.subscribe(1, [unique()])
        away.stay_away()
        away.cut()
        with pytest.raises(AssertionError, match="not back"):
            await swarm.settle(0.2)


@scenario
async def test_what_is_no_envelope_is_told(server: ServerProcess) -> None:
    topic = unique()
    with pytest.raises(AssertionError, match="cannot read"):
        async with Swarm([server.url], Checker()) as swarm:
            await swarm.subscribe(1, [topic])
            with Peer(server.url, "stranger") as peer:
                peer.ok("Broadcast", topic=topic, payload="not a swarm's")
            await swarm.until(lambda: False, 5)


@scenario
async def test_nothing_is_left_of_a_swarm_that_fails(server: ServerProcess) -> None:
    with pytest.raises(RuntimeError, match="the test's own"):
        async with Swarm([server.url], Checker()) as swarm:
            await swarm.subscribe(3, [unique()])
            await swarm.publish(1, [unique()], 100)
            raise RuntimeError("the test's own")
    assert asyncio.all_tasks() == {asyncio.current_task()}
