"""Clients whose connection is cut over and over.

The clients are the tests' swarm, in this process; its checker proves order, once, and completeness of every delivery.
Times include the swarm's own work, which shares one core among all clients.
"""

import array
import asyncio
import os
import sys
from collections.abc import Coroutine
from contextlib import ExitStack, suppress
from typing import TypeVar

import uvloop

from serving.checker import Checker
from serving.member import Client
from serving.swarm import Swarm
from serving.tokens import token

from .candidates import SECRET
from .deployments import product
from .driver import Row
from .servers import running

T = TypeVar("T")
SUBSCRIBERS_PER_TOPIC = 100
CUT_EVERY_SECS = 15.0
CUT_FOR_SECS = 2.0
CUT_PUBLICATIONS_PER_SEC = 50


def sign(user: str) -> str:
    """A token that the measured server takes."""
    return token(user, key=SECRET)


def on_core(core: int, work: Coroutine[object, object, T]) -> T:
    """Run `work` to its end, with this process on that core alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)
    finally:
        os.sched_setaffinity(0, before)


def cuts(server_core: int, load_core: int, rounds: int, clients: int, seconds: float) -> list[Row]:
    """Clients whose TCP connection is cut every 15 s for 2 s."""
    title = f"{clients:,} clients, TCP cut every {CUT_EVERY_SECS:.0f} s for {CUT_FOR_SECS:.0f} s"
    shares, violations, recovered, p99s = [], [], [], []
    for _ in range(rounds):
        checker, ages = on_core(load_core, cut(server_core, clients, seconds))
        topics = {track.topic for track in checker.tracks}
        expected = sum(checker.acknowledged_on(topic) for topic in topics) * len(checker.tracks) // len(topics)
        shares.append(checker.totals.deliveries / expected)
        violations.append(float(checker.violation_count))
        recovered.append(checker.totals.recovered_messages / expected)
        p99s.append(sorted(ages)[int(len(ages) * 0.99)] / 1e6)
    return [
        Row(f"{title}: delivered share", shares, 6),
        Row("… of it by recovery", recovered, 3),
        Row("… violations of order, once or completeness", violations, 0),
        Row("… p99 of what came live, ms", p99s),
    ]


async def cut(core: int, clients: int, seconds: float) -> tuple[Checker, "array.array[int]"]:
    """The checker's account, and the ages of all live deliveries in nanoseconds."""
    checker, ages = Checker(), array.array("Q")
    count = max(1, clients // SUBSCRIBERS_PER_TOPIC)
    topics = [f"cut:{number}" for number in range(count)]
    with ExitStack() as stack:
        server = await asyncio.to_thread(stack.enter_context, running(product(), core))
        url = f"ws://127.0.0.1:{server.port}/ws"
        async with Swarm([url], checker, reconnect_secs=(0.0, 0.1), on_delivery=ages.append, sign=sign) as swarm:
            for topic in topics:
                await swarm.subscribe(clients // count, [topic])
            await swarm.publish(2, topics, CUT_PUBLICATIONS_PER_SEC)
            turns = CUT_EVERY_SECS / len(swarm.subscribers)
            cutting = [
                asyncio.create_task(cut_again(client, number * turns))
                for number, client in enumerate(swarm.subscribers)
            ]
            await asyncio.sleep(seconds)
            for task in cutting:
                task.cancel()
            await asyncio.wait(cutting)
            for client in swarm.subscribers:
                client.come_back()
            with suppress(AssertionError):  # counted by the caller
                await swarm.settle()
    if checker.violation_count:
        print(checker.report(), file=sys.stderr)
    return checker, ages


async def cut_again(client: Client, first_secs: float) -> None:
    """Cut one client's connection, again and again; it stays away for `CUT_FOR_SECS` each time."""
    await asyncio.sleep(first_secs)
    while True:
        client.stay_away()
        client.cut()
        await asyncio.sleep(CUT_FOR_SECS)
        client.come_back()
        await asyncio.sleep(CUT_EVERY_SECS - CUT_FOR_SECS)
