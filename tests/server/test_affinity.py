"""Workers on cores of their own."""

import errno
import os
import subprocess
import sys

import pytest

from realtime_communication.errors import EXIT_OS, EnvironmentFault
from realtime_communication.server.affinity import pin_to_core

SCRIPT = """
import os
from realtime_communication.server.affinity import pin_to_core
core = pin_to_core({worker})
assert os.sched_getaffinity(0) == {{core}}
print(core)
"""


@pytest.mark.parametrize("worker", [0, 1, 2, 100])
def test_workers_take_the_allowed_cores_in_turn(worker):
    allowed = sorted(os.sched_getaffinity(0))
    script = SCRIPT.format(worker=worker)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == allowed[worker % len(allowed)]


def test_a_refusal_is_told(monkeypatch):
    def refuse(process, cores):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    with pytest.raises(EnvironmentFault, match=r"pin_actors_to_cores.*not permitted") as caught:
        pin_to_core(0)
    assert caught.value.exit_status == EXIT_OS
