"""Runs scenarios with `failing_malloc.c` preloaded, and lets each allocation of the data plane fail in turn: alone, and
with all that follow it. Prints a line for each scenario; a fault ends it with what failed and where.

usage: python -m memory.operations [--most N] SCENARIO...      N: allocations tried of each scenario, spread evenly
"""

import argparse
import ctypes
import faulthandler
import gc
import sys
import traceback
from collections import Counter

from memory.scenarios import SCENARIOS, Scenario, World

FOREVER = 1 << 40


class Allocations:
    """What `failing_malloc.c` offers."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(None)
        self.library.allocations_fail.argtypes = [ctypes.c_long, ctypes.c_long]
        self.library.allocations_fail.restype = None
        self.library.allocations_seen.restype = ctypes.c_long
        self.library.allocations_live.restype = ctypes.c_long

    def watch(self) -> None:
        """Begin; modules that are loaded later are not seen."""
        assert self.library.allocations_watch() > 0, "no module of the data plane is loaded"

    def fail(self, first: int, count: int = 1) -> None:
        """From now on the allocation `first` and `count` - 1 behind it fail; 0: none."""
        self.library.allocations_fail(first, count)

    @property
    def seen(self) -> int:
        """Allocations since the last `fail`."""
        return int(self.library.allocations_seen())

    @property
    def live(self) -> int:
        """Blocks that are not freed."""
        return int(self.library.allocations_live())


def run(scenario: Scenario, allocations: Allocations, first: int, count: int, outcomes: Counter[str]) -> int:
    """Once through a scenario; how many allocations there were while it acted."""
    unraisable: list[BaseException | None] = []
    sys.unraisablehook = lambda given: unraisable.append(given.exc_value)
    before = allocations.live
    world: World | None = scenario.world()
    assert world is not None
    allocations.fail(first, count)
    try:
        scenario.act(world)
    except MemoryError:
        outcomes["MemoryError"] += 1
    finally:
        seen = allocations.seen
        allocations.fail(0)
    outcomes["closed"] += sum(not client.open for client in world.clients)
    world.settle()
    world.use()
    world.end()
    world = None
    gc.collect()
    assert all(isinstance(error, MemoryError) for error in unraisable), f"raised where nothing can be: {unraisable}"
    assert allocations.live == before, f"{allocations.live - before} blocks are left over"
    outcomes["unraisable"] += len(unraisable)
    return seen


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--most", type=int, default=1 << 30)
    parser.add_argument("--only", type=int, nargs=2, metavar=("FIRST", "COUNT"))
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS))
    given = parser.parse_args(arguments)
    faulthandler.enable()
    allocations = Allocations()
    allocations.watch()
    faults = 0
    for name in given.scenarios:
        scenario = SCENARIOS[name]
        outcomes: Counter[str] = Counter()
        run(scenario, allocations, 0, 0, Counter())  # what is made once and kept
        total = run(scenario, allocations, 0, 0, Counter())
        cases = [(first, count) for first in range(1, total + 1) for count in (1, FOREVER)]
        cases = cases[:: max(1, len(cases) // given.most | 1)]
        seen_faults: Counter[str] = Counter()
        for first, count in [tuple(given.only)] if given.only else cases:
            print(f"{name} {first} {count}", file=sys.stderr, flush=True)
            try:
                run(scenario, allocations, first, count, outcomes)
            except Exception as error:
                seen_faults[f"{type(error).__name__}: {error}"[:150]] += 1
                if seen_faults.total() == 1:
                    print(
                        f"{name}: allocation {first} of {total}, {count} in all\n{traceback.format_exc()}", flush=True
                    )
        faults += seen_faults.total()
        shown = dict(seen_faults.most_common(5))
        print(f"{name}: {len(cases)} failures among {total} allocations, {dict(outcomes)}, faults {shown}", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
