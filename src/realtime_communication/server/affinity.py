"""Workers on cores of their own: `performance.actors.pin_actors_to_cores`."""

from __future__ import annotations

import os

from realtime_communication.errors import EnvironmentFault


def pin_to_core(worker: int) -> int:
    """Bind the calling thread, and every thread it starts from now on, to one core; which one.

    Worker 0 gets the first core this process may use, worker 1 the second, and so on, round and round. Raises
    EnvironmentFault when the system refuses.
    """
    allowed = sorted(os.sched_getaffinity(0))
    core = allowed[worker % len(allowed)]
    try:
        os.sched_setaffinity(0, {core})
    except OSError as error:
        raise EnvironmentFault(
            f"cannot bind worker {worker} to core {core} (performance.actors.pin_actors_to_cores): {error.strerror}"
        ) from None
    return core
