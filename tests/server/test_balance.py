"""The decision who hands connections to whom; what comes of it when all decide at once, on stale numbers."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication.server.balance import (
    BUSY,
    CALM,
    LEAST_GAP,
    LOOKS,
    MOST_BY_LOAD,
    MOST_BY_NUMBER,
    MOST_SHARE,
    PAUSE,
    Load,
    Memory,
    Move,
    decide,
)

REST_LOOKS = 30  # a connection that has moved stays for as many


def first_move(*loads: Load, looks: int = LOOKS) -> Move | None:
    """What worker 0 does within so many looks."""
    memory, moves = Memory(), []
    for _ in range(looks):
        move, memory = decide(0, dict(enumerate(loads)), memory)
        moves.append(move)
    return next((move for move in moves if move), None)


class TestByLoad:
    """A busy worker hands over the busiest connections that do part of the work."""

    def test_far_busier_than_another(self) -> None:
        assert first_move(Load(0.8, 100), Load(0.6, 100), Load(0.1, 100)) == Move(2, 50, MOST_SHARE)

    def test_no_more_than_half_of_the_gap(self) -> None:
        move = first_move(Load(0.8, 100), Load(0.6, 100))
        assert move is not None
        assert move.share == pytest.approx(0.1 / 0.8)

    def test_only_after_some_looks(self) -> None:
        assert first_move(Load(0.9, 100), Load(0.1, 100), looks=LOOKS - 1) is None

    def test_a_pause_follows(self) -> None:
        loads = {0: Load(0.9, 100), 1: Load(0.1, 100)}
        memory, moves = Memory(), []
        for _ in range(LOOKS + PAUSE + 1):
            move, memory = decide(0, loads, memory)
            moves.append(move is not None)
        assert moves == [False] * (LOOKS - 1) + [True] + [False] * PAUSE + [True]

    def test_those_who_give_to_the_same_worker_share_it(self) -> None:
        move = first_move(Load(0.7, 500), Load(0.7, 500), Load(0.7, 500), Load(0.2, 500))
        assert move is not None
        assert move.share == pytest.approx((0.7 - 0.575) / 0.7 / 3)

    @pytest.mark.parametrize(
        ("own", "other"), [((BUSY - 0.01, 9), (0.0, 9)), ((0.9, 9), (0.9 - LEAST_GAP + 0.01, 9)), ((0.9, 1), (0.1, 99))]
    )
    def test_not_for_little(self, own: tuple[float, int], other: tuple[float, int]) -> None:
        assert first_move(Load(*own), Load(*other)) is None

    def test_a_home_that_is_busy_with_its_topics_keeps_half_of_its_share_of_connections(self) -> None:
        own, other = 200, 0
        for _ in range(100):
            move = first_move(Load(1.0, own), Load(0.0, other))
            if move is None:
                break
            own, other = own - move.most, other + move.most
        assert (own, other) == (50, 150)


class TestByNumber:
    """Many more connections than another has."""

    @pytest.mark.parametrize(
        ("counts", "most"),
        [
            ((100, 0), 50),
            ((64, 0), None),  # too few to be worth it
            ((1000, 801), None),  # not a fifth
            ((1000, 700), 150),
            ((0, 500), None),  # the other one's business
            ((400, 400, 0), 134),  # no more than is above the mean
            ((10_000, 0), MOST_BY_NUMBER),
        ],
    )
    def test_when_all_are_calm(self, counts: tuple[int, ...], most: int | None) -> None:
        move = first_move(*(Load(0.1, count) for count in counts))
        assert move == (None if most is None else Move(len(counts) - 1, most, 0.0))

    def test_never_to_a_busier_one(self) -> None:
        assert first_move(Load(0.3, 1000), Load(0.4, 0)) is None
        assert first_move(Load(0.3, 1000), Load(0.4, 0), Load(0.1, 500)) == Move(2, 200, 0.0)

    def test_not_so_many_that_the_other_one_is_busier_afterwards(self) -> None:
        assert first_move(Load(0.4, 1000), Load(0.3, 0)) == Move(1, 125, 0.0)


def test_alone_nothing_happens() -> None:
    assert decide(0, {0: Load(1.0, 1000)}, Memory(2, 0)) == (None, Memory())


class Node:
    """Workers with constant work: what each does as a home, and what each of its connections costs, in cores."""

    def __init__(self, homes: list[float], sessions: list[list[float]], lag: int, seed: int) -> None:
        self.homes, self.lag, self.random = homes, lag, random.Random(seed)
        self.sessions = [[(cost, -REST_LOOKS) for cost in costs] for costs in sessions]
        self.memories = [Memory() for _ in homes]
        self.told: list[dict[int, Load]] = []
        self.look = 0
        self.moved: list[int] = []  # connections, of each look
        self.most = 0
        self.direct: list[tuple[int, int, int]] = []  # look, giver, taker

    def cpu(self, seat: int) -> float:
        return min(1.0, self.homes[seat] + sum(cost for cost, _ in self.sessions[seat]))

    def step(self) -> None:
        """All look, at what was so `lag` looks ago; their own numbers are as old."""
        now = {seat: Load(self.cpu(seat), len(self.sessions[seat])) for seat in range(len(self.homes))}
        self.told.append(now)
        seen = self.told[max(0, len(self.told) - 1 - self.lag)]
        loads = {seat: Load(seen[seat].cpu, now[seat].connections) for seat in now}
        moved = 0
        for seat in self.random.sample(sorted(now), len(now)):
            move, self.memories[seat] = decide(seat, loads, self.memories[seat])
            if move is not None:
                moved += self.carry_out(seat, move)
        self.moved.append(moved)
        self.look += 1

    def carry_out(self, seat: int, move: Move) -> int:
        rested = [each for each in self.sessions[seat] if each[1] + REST_LOOKS <= self.look]
        rested.sort(key=lambda each: each[0], reverse=move.share > 0)
        budget = move.share * sum(cost for cost, _ in rested)
        gone = []
        for each in rested:
            if len(gone) >= move.most:
                break
            if move.share and (each[0] == 0 or each[0] > budget):
                continue
            gone.append(each)
            budget -= each[0]
        for each in gone:
            self.sessions[seat].remove(each)
            self.sessions[move.taker].append((each[0], self.look))
        assert len(gone) <= (MOST_BY_LOAD if move.share else MOST_BY_NUMBER)
        if gone:
            self.direct.append((self.look, seat, move.taker))
        return len(gone)


@st.composite
def nodes(draw: st.DrawFn) -> Node:
    """Up to six workers, with up to 1.2 cores of work each, of which some is theirs as homes."""
    homes, sessions = [], []
    chosen = random.Random(draw(st.integers(0, 1 << 30)))
    for _ in range(draw(st.integers(2, 6))):
        work = draw(st.floats(0, 1.2))
        homes.append(work * draw(st.floats(0, 1)))
        weights = [
            chosen.paretovariate(1.2) if chosen.random() < 0.5 else 0.0 for _ in range(draw(st.integers(0, 400)))
        ]
        total = sum(weights) or 1.0
        sessions.append([(work - homes[-1]) * weight / total for weight in weights])
    return Node(homes, sessions, draw(st.integers(0, 3)), draw(st.integers(0, 1 << 30)))


@settings(max_examples=25, deadline=None)
@given(nodes())
def test_under_constant_work_nothing_goes_to_and_fro(node: Node) -> None:
    """It comes to rest, or goes on in small steps in one direction, and nobody who was calm is made busy."""
    before = sum(len(each) for each in node.sessions)
    peak = max(node.cpu(seat) for seat in range(len(node.homes)))
    for _ in range(400):
        node.step()
        assert max(node.cpu(seat) for seat in range(len(node.homes))) <= max(peak, BUSY + CALM)
    assert sum(len(each) for each in node.sessions) == before
    assert sum(node.moved) <= before
    late = [(giver, taker) for look, giver, taker in node.direct if look >= 250]
    assert not {giver for giver, _ in late} & {taker for _, taker in late}, node.direct
    assert sum(node.moved[-100:]) <= before // 10, node.moved


def test_load_spreads(seed: int = 1) -> None:
    node = Node([0.0, 0.0, 0.0], [[0.009] * 100, [0.0] * 100, [0.0] * 100], 2, seed)
    for _ in itertools.repeat(None, 400):
        node.step()
    cpus = [node.cpu(seat) for seat in range(3)]
    assert max(cpus) < max(BUSY, min(cpus) + LEAST_GAP) + 0.01, cpus
