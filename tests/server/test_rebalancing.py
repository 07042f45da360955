"""Who hands how many connections to whom."""

import asyncio

import pytest

from realtime_communication.server import rebalancing
from realtime_communication.server.rebalancing import BATCH, MOST_AT_ONCE, Rebalancing


class Counts:
    """Workers as numbers of connections; `stuck` of the giver's are never at rest."""

    def __init__(self, *counts: int, stuck: int = 0) -> None:
        self.counts = list(counts)
        self.stuck = stuck
        self.calls: list[tuple[int, int]] = []

    def connection_count(self) -> int:
        return self.counts[0]

    def give_sessions(self, slot: int, most: int) -> int:
        self.calls.append((slot, most))
        given = max(0, min(most, self.counts[0] - self.stuck))
        self.counts[0] -= given
        self.counts[slot] += given
        return given


def made(counts: Counts, homes: list[int] | None = None) -> Rebalancing:
    rebalancing = Rebalancing(counts, 0, lambda seat: counts.counts[seat])
    rebalancing.follow({"version": 1, "homes": list(range(len(counts.counts))) if homes is None else homes})
    return rebalancing


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((100, 0), (50, 50)),
        ((64, 0), (64, 0)),  # too few to be worth it
        ((1000, 801), (1000, 801)),  # not a fifth
        ((1000, 700), (850, 850)),
        ((0, 500), (0, 500)),  # the other one's business
        ((400, 400, 0), (266, 400, 134)),  # no more than is above the mean
    ],
)
def test_far_more_than_another(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    counts = Counts(*before)
    asyncio.run(made(counts).look())
    assert tuple(counts.counts) == after


def test_a_bound_for_each_look() -> None:
    counts = Counts(10_000, 0)
    assert asyncio.run(made(counts).look()) == MOST_AT_ONCE
    assert all(most <= BATCH for _, most in counts.calls)


def test_busy_ones_stay() -> None:
    counts = Counts(100, 0, stuck=100)
    assert asyncio.run(made(counts).look()) == 0


def test_who_is_no_home_neither_gives_nor_gets() -> None:
    for homes in ([0], [1], []):
        counts = Counts(100, 0)
        assert asyncio.run(made(counts, homes).look()) == 0


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
