"""Who hands connections to whom, and which: a decision without a clock, a socket or a process.

Theory of operation. Each worker decides for itself, once a second, from what all have told: the share of a core that
each has used of late, and how many connections it has. A busy worker that uses far more than the least busy one hands
over some of its busiest connections (*by load*). Else one that has far more connections than another hands over some of
its least busy ones (*by number*), so that the two do not work against each other.

What keeps it from going to and fro:

* Both need a wide gap, by load for several looks in a row, and end far before there is none.
* At most half of the gap moves, and no more than lies above the mean; all who give to the same worker share that. A
  pause follows, until what has moved shows in the measurements.
* By number nothing goes to a busier worker, unless both have hardly anything to do, and never so much that it is the
  busier one afterwards.
* What a worker does for topics that are at home with it does not go away with connections. So it keeps at least half as
  many of them as the workers have on average, however busy it is.
* Only connections that have stayed for a while move (`_core/hub/choice.pxd`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

BUSY: Final = 0.5  # of a core; below it nobody hands over by load
CALM: Final = 0.25  # of a core; below it load does not matter
LEAST_GAP: Final = 0.2  # of a core, between the worker that gives by load and the least busy one
LOOKS: Final = 3  # in a row with that gap
PAUSE: Final = 6  # looks after connections went by load
MOST_SHARE: Final = 0.125  # of the work of a worker's connections, in one look
MOST_BY_LOAD: Final = 64  # connections in one look
LEAST_DIFFERENCE: Final = 64  # connections
LEAST_SHARE: Final = 0.2  # of what the fuller worker has
MOST_BY_NUMBER: Final = 200  # connections in one look: a turn of the loop each side can spare


class Load(NamedTuple):
    """What a worker told: the share of a core it uses, and how many connections it has."""

    cpu: float
    connections: int


class Memory(NamedTuple):
    """What a worker remembers from look to look."""

    looks: int = 0  # in a row at which it was far busier than another
    pause: int = 0  # looks until it may give by load again


class Move(NamedTuple):
    """Up to `most` connections go to `taker`: the busiest that do `share` of the work, for 0 the least busy."""

    taker: int
    most: int
    share: float


def decide(seat: int, loads: Mapping[int, Load], memory: Memory) -> tuple[Move | None, Memory]:
    """What the worker in `seat` hands over now, and what it remembers. `loads`: of all workers, its own too."""
    others = sorted(loads.keys() - {seat})
    if not others:
        return None, Memory()
    paused = memory.pause > 0
    move, memory = _by_load(seat, others, loads, memory)
    if move is None:
        move = _by_number(seat, others, loads, paused)
        if move is not None and _matters(loads[seat], loads[move.taker]):
            memory = memory._replace(pause=PAUSE)
    return move, memory


def _by_load(seat: int, others: list[int], loads: Mapping[int, Load], memory: Memory) -> tuple[Move | None, Memory]:
    own = loads[seat]
    taker = min(others, key=lambda other: loads[other])
    least = loads[taker]
    if not _is_far_busier(own, least):
        return None, Memory(0, max(0, memory.pause - 1))
    looks = min(memory.looks + 1, LOOKS)
    if looks < LOOKS or memory.pause:
        return None, Memory(looks, max(0, memory.pause - 1))
    givers = sum(_is_far_busier(load, least) for load in loads.values())
    mean = sum(load.cpu for load in loads.values()) / len(loads)
    share = min((own.cpu - least.cpu) / 2, own.cpu - mean) / own.cpu / givers
    kept = _mean_connections(loads) // 2
    most = min(MOST_BY_LOAD, own.connections - kept)
    if most <= 0 or share <= 0:
        return None, Memory(looks)
    return Move(taker, most, min(share, MOST_SHARE)), Memory(0, PAUSE)


def _is_far_busier(load: Load, least: Load) -> bool:
    return load.cpu >= BUSY and load.cpu - least.cpu >= LEAST_GAP


def _by_number(seat: int, others: list[int], loads: Mapping[int, Load], paused: bool) -> Move | None:
    own = loads[seat]
    open_to_it = [other for other in others if loads[other].cpu < max(own.cpu, CALM)]
    if not open_to_it:
        return None
    taker = min(open_to_it, key=lambda other: loads[other].connections)
    least = loads[taker]
    if not _has_far_more(own, least):
        return None
    difference = own.connections - least.connections
    most = min(difference // 2, own.connections - _mean_connections(loads), MOST_BY_NUMBER)
    if _matters(own, least):
        if paused:
            return None
        # The least busy ones do no more than the average, so that the taker is not the busier one afterwards.
        givers = sum(_has_far_more(load, least) for load in loads.values())
        most = min(most, int((own.cpu - least.cpu) / 2 * own.connections / own.cpu / givers))
    return Move(taker, most, 0.0) if most > 0 else None


def _has_far_more(load: Load, least: Load) -> bool:
    return load.connections - least.connections > max(LEAST_DIFFERENCE, LEAST_SHARE * load.connections)


def _matters(one: Load, other: Load) -> bool:
    return max(one.cpu, other.cpu) >= CALM


def _mean_connections(loads: Mapping[int, Load]) -> int:
    return sum(load.connections for load in loads.values()) // len(loads)
