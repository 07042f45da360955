"""Who hands how many connections to whom."""

import asyncio

import pytest

from realtime_communication.server import rebalancing
from realtime_communication.server.balance import LOOKS, MOST_BY_NUMBER, MOST_SHARE
from realtime_communication.server.rebalancing import BATCH, STALE_SECS, TOLD_EACH_SECS, Rebalancing


class Counts:
    """Workers as numbers of connections; `stuck` of the giver's are never at rest, `secure` ones cannot move."""

    def __init__(self, *counts: int, stuck: int = 0, secure: int = 0) -> None:
        self.counts = list(counts)
        self.stuck = stuck + secure
        self.secure = secure
        self.calls: list[tuple[int, int, float | None]] = []
        self.told: list[float] = []
        self.cpu = 0.1
        self.now = 0.0

    def connection_count(self) -> int:
        return self.counts[0]

    def movable_count(self) -> int:
        return self.counts[0] - self.secure

    def work(self) -> int:
        return self.counts[0]

    def give_sessions(self, slot: int, most: int, share: float | None = None) -> int:
        self.calls.append((slot, most, share))
        given = max(0, min(most, self.counts[0] - self.stuck))
        self.counts[0] -= given
        self.counts[slot] += given
        return given


def made(counts: Counts, homes: list[int] | None = None, cpus: float = 0.1) -> Rebalancing:
    rebalancing = Rebalancing(
        counts, 0, lambda seat: counts.counts[seat], counts.told.append, lambda: counts.cpu, lambda: counts.now
    )
    rebalancing.follow({"version": 1, "homes": list(range(len(counts.counts))) if homes is None else homes})
    for seat in range(1, len(counts.counts)):
        rebalancing.take_load(seat, cpus)
    return rebalancing


def test_far_more_than_another() -> None:
    counts = Counts(1000, 700)
    assert asyncio.run(made(counts).look()) == 150
    assert counts.counts == [850, 850]
    assert counts.calls == [(1, BATCH, 0.0), (1, BATCH, 0.0), (1, 150 - 2 * BATCH, 0.0)]


def test_far_busier_than_another() -> None:
    async def looks() -> list[int]:
        return [await rebalancing.look() for _ in range(LOOKS + 1)]

    counts = Counts(100, 100)
    counts.cpu = 0.9
    rebalancing = made(counts)
    assert asyncio.run(looks()) == [0] * (LOOKS - 1) + [50, 0]
    assert counts.calls == [(1, 50, MOST_SHARE)]


def test_by_load_it_is_tried_again_when_all_are_busy() -> None:
    async def looks() -> list[int]:
        return [await rebalancing.look() for _ in range(LOOKS + 1)]

    counts = Counts(100, 100, stuck=100)
    counts.cpu = 0.9
    rebalancing = made(counts)
    assert sum(asyncio.run(looks())) == 0
    assert len(counts.calls) == 2


def test_a_bound_for_each_look() -> None:
    counts = Counts(10_000, 0)
    assert asyncio.run(made(counts).look()) == MOST_BY_NUMBER
    assert all(most <= BATCH for _, most, _ in counts.calls)


def test_busy_ones_stay() -> None:
    counts = Counts(100, 0, stuck=100)
    assert asyncio.run(made(counts).look()) == 0


def test_who_is_no_home_neither_gives_nor_gets() -> None:
    for homes in ([0], [1], []):
        counts = Counts(100, 0)
        assert asyncio.run(made(counts, homes).look()) == 0


def test_who_has_told_nothing_of_late_gets_none() -> None:
    counts = Counts(100, 0)
    rebalancing = made(counts)
    counts.now += STALE_SECS
    assert asyncio.run(rebalancing.look()) == 0
    rebalancing.take_load(1, 0.0)
    assert asyncio.run(rebalancing.look()) == 50


def test_a_change_is_told_and_else_a_sign_of_life() -> None:
    async def looks() -> None:
        for cpu, now in [(0.1, 0.0), (0.11, 1.0), (0.2, 2.0), (0.2, 3.0), (0.2, 2.0 + TOLD_EACH_SECS)]:
            counts.cpu, counts.now = cpu, now
            await rebalancing.look()

    counts = Counts(1, 1)
    rebalancing = made(counts)
    asyncio.run(looks())
    assert counts.told == [0.1, 0.2, 0.2]


def test_those_over_tls_are_not_waited_for() -> None:
    counts = Counts(10, 0, secure=10)
    assert asyncio.run(made(counts, [1]).hand_all_over()) == 0
    assert counts.calls == []


def test_one_that_ends_gives_all() -> None:
    counts = Counts(300, 0, 100)
    assert asyncio.run(made(counts, [1, 2]).hand_all_over()) == 300
    assert counts.counts[0] == 0
    assert abs(counts.counts[1] - counts.counts[2]) <= BATCH


def test_one_that_ends_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebalancing, "HAND_OVER_SECS", 0.05)
    counts = Counts(10, 0, stuck=3)
    assert asyncio.run(made(counts, [1]).hand_all_over()) == 7
    alone = Counts(10)
    assert asyncio.run(made(alone, [0]).hand_all_over()) == 0
