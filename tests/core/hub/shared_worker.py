"""A process that shares memory with others, and what a test asks of it.

`Crowd(fd, count)` starts some; `crowd.all("act", …)` has each do the same at the same time. As a program it is one of
them: it reads acts as JSON, one a line, and answers each with a line.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from core.hub.sans_io import Peer, make_hub
from realtime_communication._core.base.shared import Shared
from realtime_communication._core.hub.shared_limits import SharedBucket

TESTS = Path(__file__).parents[2]
Rate = tuple[float, int, int, float]


class Acts:
    """What a worker does; each method is an act."""

    def __init__(self, shared: Shared, slot: int) -> None:
        self.shared = shared
        self.slot = slot
        self.buckets: list[SharedBucket] = []
        self.peers: list[Peer] = []

    def use(self, users: list[str | None], rate: Rate) -> None:
        """Take from these buckets from now on; None is the server's."""
        self.buckets = [SharedBucket(self.shared, user.encode() if user else None, *rate) for user in users]

    def take(self, start: int, end: int, times: int) -> int:
        """Tokens of the first bucket, asked for so many times in each millisecond."""
        take = self.buckets[0].take
        return sum(take(now) == -1 for now in range(start, end) for _ in range(times))

    def take_any(self, now: int, times: int, seed: int) -> list[int]:
        """Tokens of each bucket, asked for in random order."""
        order = random.Random(seed + self.slot)
        granted = [0] * len(self.buckets)
        for _ in range(times):
            at = order.randrange(len(self.buckets))
            granted[at] += self.buckets[at].take(now) == -1
        return granted

    def open(self, most: int) -> None:
        """Be a hub that lets so many connections in."""
        self.server = make_hub(max_connections=most)
        self.server.hub.use_shared(self.shared, self.slot)

    def come(self, times: int) -> int:
        """Connections that were let in, of so many."""
        arrived = [self.server.connect() for _ in range(times)]
        admitted = [peer for peer in arrived if peer.status == 101]
        self.peers += admitted
        return len(admitted)

    def go(self, times: int) -> None:
        """So many connections end."""
        for _ in range(times):
            self.peers.pop().end()


class Crowd:
    """Processes that share the memory behind `fd`; a context manager that ends them."""

    def __init__(self, fd: int, count: int) -> None:
        self.processes = [
            subprocess.Popen(
                [sys.executable, __file__, str(fd), str(slot)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=[fd],
                env=os.environ | {"PYTHONPATH": str(TESTS)},
            )
            for slot in range(count)
        ]

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.close()
            process.wait()
            process.stdout.close()

    def begin(self, slot: int, act: str, *arguments: Any) -> None:
        stdin = self.processes[slot].stdin
        assert stdin is not None
        stdin.write(json.dumps([act, *arguments]) + "\n")
        stdin.flush()

    def result(self, slot: int) -> Any:
        stdout = self.processes[slot].stdout
        assert stdout is not None
        return json.loads(stdout.readline())

    def one(self, slot: int, act: str, *arguments: Any) -> Any:
        """What one has answered."""
        self.begin(slot, act, *arguments)
        return self.result(slot)

    def all(self, act: str, *arguments: Any) -> list[Any]:
        """What each has answered; they act at the same time."""
        for slot in range(len(self.processes)):
            self.begin(slot, act, *arguments)
        return [self.result(slot) for slot in range(len(self.processes))]

    def kill(self, slot: int) -> None:
        """SIGKILL, wherever it is."""
        self.processes[slot].kill()
        self.processes[slot].wait()


def main() -> None:
    acts = Acts(Shared(int(sys.argv[1])), int(sys.argv[2]))
    for line in sys.stdin:
        act, *arguments = json.loads(line)
        print(json.dumps(getattr(acts, act)(*arguments)), flush=True)


if __name__ == "__main__":
    main()
